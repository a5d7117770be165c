from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from agent.options import SETTINGS as AGENT_SETTINGS
from agent.settings import WITNESS_PORT
from bayplan.cli import node_check
from bayplan.cli.failures import CommandError
from bayplan.cli.host_commands import install_agent, install_manager
from bayplan.cli.install import (
    ETCD_CERTIFICATES,
    Environment,
    Plan,
    Wanted,
    plan_agent,
    plan_etcd,
    plan_manager,
)
from bayplan.cli.install_steps import TextFile
from manager.main import SETTINGS as MANAGER_SETTINGS
from tests.bayplan.cli.install_machine import FIRST, OPT, TOKEN, Machine


class TestManager:
    def test_gets_a_user_settings_and_a_unit(self, machine: Machine) -> None:
        machine.manager()

        assert "bayplan" in machine.accounts.names
        assert machine.settings("manager") == {"id": "m1", "advertise": "10.0.0.1:7400"}
        assert "ExecStart=/opt/bayplan/bin/bayplan-manager\n" in machine.read(
            "/etc/systemd/system/bayplan-manager.service"
        )

    def test_its_settings_can_be_read_by_it_and_changed_by_root_alone(self, machine: Machine) -> None:
        machine.manager(Wanted(settings={**FIRST.settings, "join": "10.0.0.2:7400"}, token=TOKEN))

        for file in ("manager.toml", "manager-join-token"):
            assert machine.mode(f"/etc/bayplan/{file}") == "640"
            assert machine.group(f"/etc/bayplan/{file}") == "bayplan"

    def test_done_again_changes_nothing(self, machine: Machine) -> None:
        machine.certificates()
        wanted = Wanted(settings={**FIRST.settings, "join": "10.0.0.2:7400"}, token=TOKEN)
        machine.manager(wanted)

        assert {line.split()[0] for line in machine.manager(wanted)} == {"unchanged"}
        assert {line.split()[0] for line in machine.manager(Wanted())} == {"unchanged"}

    def test_keeps_what_an_operator_wrote_and_says_what_changes(self, machine: Machine) -> None:
        machine.manager()
        path = "/etc/bayplan/manager.toml"
        machine.write(
            path, '# ours\nid = "m1"\nadvertise = "10.0.0.1:7400"  # VLAN\ncertificate-life = "1h"\n'
        )

        said = machine.manager(Wanted(settings={"advertise": "10.9.0.1:7400", "listen": "10.9.0.1:7400"}))

        assert machine.read(path) == (
            '# ours\nid = "m1"\nadvertise = "10.9.0.1:7400"\ncertificate-life = "1h"\nlisten = "10.9.0.1:7400"\n'
        )
        assert '             advertise: "10.0.0.1:7400" -> "10.9.0.1:7400"' in said
        assert '             listen = "10.9.0.1:7400"' in said
        assert not any("certificate-life" in line for line in said)

    def test_shows_what_it_would_do(self, machine: Machine) -> None:
        wanted = Wanted(settings={**FIRST.settings, "join": "10.0.0.2:7400"}, token=TOKEN)

        said = "\n".join(machine.manager(wanted, dry_run=True))

        assert "user bayplan" in said
        assert "RestartSec=1" in said
        assert 'id = "m1"' in said
        assert TOKEN not in said
        assert not machine.host.path("/etc").exists()
        assert machine.accounts.names == {"root"}

    def test_must_be_told_its_name_and_address(self, machine: Machine) -> None:
        with pytest.raises(CommandError, match="missing: --id, --advertise") as ended:
            plan_manager(Wanted(), OPT, machine.host)
        assert ended.value.exit_code == 2

    def test_its_token_lies_in_a_file_of_its_own(self, machine: Machine) -> None:
        machine.manager(Wanted(settings={**FIRST.settings, "join": "10.0.0.2:7400"}, token=TOKEN))

        assert machine.read("/etc/bayplan/manager-join-token") == f"{TOKEN}\n"
        assert TOKEN not in machine.read("/etc/bayplan/manager.toml")
        assert machine.settings("manager")["join-token-file"] == "/etc/bayplan/manager-join-token"

    def test_without_a_token_it_is_said_where_it_is_waited_for(self, machine: Machine) -> None:
        plan = plan_manager(Wanted(settings={**FIRST.settings, "join": "10.0.0.2:7400"}), OPT, machine.host)

        assert "waits for a join token in /etc/bayplan/manager-join-token" in plan.notes[0]

    def test_takes_the_certificates_for_etcd_that_lie_there(self, machine: Machine) -> None:
        machine.certificates()

        machine.manager()

        assert machine.settings("manager")["etcd-key"] == f"{ETCD_CERTIFICATES}/client.key"
        assert machine.group(f"{ETCD_CERTIFICATES}/client.key") == "bayplan"
        assert machine.mode(f"{ETCD_CERTIFICATES}/client.key") == "640"

    def test_takes_others_where_they_are_named(self, machine: Machine) -> None:
        machine.certificates()

        machine.manager(Wanted(settings={**FIRST.settings, "etcd-ca": "/srv/ca.pem"}))

        assert machine.settings("manager")["etcd-ca"] == "/srv/ca.pem"
        assert "etcd-key" not in machine.settings("manager")

    def test_a_data_directory_elsewhere_is_made_and_opened_to_it(self, machine: Machine) -> None:
        machine.manager(Wanted(settings={**FIRST.settings, "data-dir": "/srv/m1"}))

        assert machine.mode("/srv/m1") == "700"
        assert machine.group("/srv/m1") == "bayplan"
        assert "ReadWritePaths=/srv/m1\n" in machine.read("/etc/systemd/system/bayplan-manager.service")

    @pytest.mark.parametrize("place", ["/home/ann/bayplan", "/root/.venv"])
    def test_an_environment_that_services_cannot_see_is_refused(self, machine: Machine, place: str) -> None:
        machine.write(f"{place}/bin/bayplan-manager", "")

        with pytest.raises(CommandError, match="/opt/bayplan"):
            plan_manager(FIRST, Environment(programs=f"{place}/bin", python="/usr"), machine.host)
        with pytest.raises(CommandError, match="/opt/bayplan"):
            plan_manager(FIRST, Environment(programs="/opt/bayplan/bin", python=place), machine.host)

    @pytest.mark.parametrize("setting", ["data-dir", "join-token-file", "etcd-ca", "etcd-cert", "etcd-key"])
    @pytest.mark.parametrize("path", ["/home/ann/x", "/root/x", "/run/user/1000/x", "x"])
    def test_a_path_that_services_cannot_see_is_refused(
        self, machine: Machine, setting: str, path: str
    ) -> None:
        with pytest.raises(CommandError, match=f"^--{setting} {path} is ") as ended:
            machine.manager(Wanted(settings={**FIRST.settings, setting: path}))

        assert ended.value.exit_code == 2
        assert not machine.host.path("/etc/bayplan").exists()

    def test_the_client_alone_is_not_enough(self, machine: Machine) -> None:
        with pytest.raises(CommandError, match="not bayplan-client"):
            plan_manager(FIRST, Environment(programs="/usr/bin", python="/usr"), machine.host)

    def test_settings_that_are_no_toml_are_not_touched(self, machine: Machine) -> None:
        machine.write("/etc/bayplan/manager.toml", "id = m1\n")

        with pytest.raises(CommandError, match=r"/etc/bayplan/manager.toml is not TOML"):
            plan_manager(FIRST, OPT, machine.host)


class TestAgent:
    def test_runs_as_root_with_settings_of_roots_alone(self, machine: Machine) -> None:
        machine.agent(node="n1", managers="10.0.0.1:7400", token=TOKEN)

        assert machine.settings("agent") == {
            "node": "n1",
            "managers": "10.0.0.1:7400",
            "join-token-file": "/etc/bayplan/agent-join-token",
        }
        assert machine.mode("/etc/bayplan/agent.toml") == "600"
        assert machine.mode("/etc/bayplan/agent-join-token") == "600"
        unit = machine.read("/etc/systemd/system/bayplan-agent.service")
        assert "User=" not in unit
        assert "StateDirectory=bayplan\n" in unit

    def test_must_be_told_its_managers_once(self, machine: Machine) -> None:
        with pytest.raises(CommandError, match="missing: --managers"):
            machine.agent(node="n1")

        machine.agent(managers="10.0.0.1:7400")
        machine.agent(node="n1")

        assert machine.settings("agent")["managers"] == "10.0.0.1:7400"

    @pytest.mark.parametrize("setting", ["data-dir", "join-token-file"])
    def test_a_path_in_a_home_is_refused(self, machine: Machine, setting: str) -> None:
        with pytest.raises(CommandError, match=f"^--{setting} /home/ann/x is below a home directory"):
            machine.agent(**{"managers": "10.0.0.1:7400", setting: "/home/ann/x"})

    def test_the_packages_own_haproxy_is_named_where_it_is_enabled(self, machine: Machine) -> None:
        assert plan_agent(Wanted(settings={"managers": "m1"}, token=TOKEN), OPT, machine.host).notes == ()
        machine.write("/etc/systemd/system/multi-user.target.wants/haproxy.service", "")

        (note,) = plan_agent(Wanted(settings={"managers": "m1"}, token=TOKEN), OPT, machine.host).notes

        assert note.endswith("systemctl disable --now haproxy")

    def test_its_stop_leaves_containers_alone(self, machine: Machine) -> None:
        machine.agent(managers="10.0.0.1:7400")

        assert "KillMode=process\n" in machine.read("/etc/systemd/system/bayplan-agent.service")


class TestEtcd:
    def plan(
        self,
        machine: Machine,
        *members: str,
        address: str = "10.0.0.1",
        is_existing: bool = False,
        program: str = "/usr/bin/etcd",
    ) -> Plan:
        return plan_etcd("e1", address, members, is_existing=is_existing, program=program, host=machine.host)

    def environment(self, machine: Machine) -> dict[str, str]:
        lines = machine.read("/etc/bayplan/etcd.env").splitlines()
        return dict(line.split("=", 1) for line in lines if not line.startswith("#"))

    def test_speaks_tls_with_clients_and_peers(self, machine: Machine) -> None:
        machine.certificates()

        machine.do(self.plan(machine, "e2=10.0.0.2", "e3=10.0.0.3"))

        found = self.environment(machine)
        assert found["ETCD_INITIAL_CLUSTER"] == (
            "e1=https://10.0.0.1:2380,e2=https://10.0.0.2:2380,e3=https://10.0.0.3:2380"
        )
        assert found["ETCD_CLIENT_CERT_AUTH"] == found["ETCD_PEER_CLIENT_CERT_AUTH"] == "true"
        assert not any("http://" in value for value in found.values())
        assert machine.group(f"{ETCD_CERTIFICATES}/server.key") == "etcd"

    def test_a_later_member_joins_those_that_run(self, machine: Machine) -> None:
        machine.certificates()

        machine.do(self.plan(machine, is_existing=True))

        assert self.environment(machine)["ETCD_INITIAL_CLUSTER_STATE"] == "existing"

    def test_addresses_of_ipv6_are_bracketed(self, machine: Machine) -> None:
        machine.certificates()

        machine.do(self.plan(machine, address="fd00::1"))

        assert self.environment(machine)["ETCD_ADVERTISE_CLIENT_URLS"] == "https://[fd00::1]:2379"

    def test_without_certificates_it_is_said_how_they_are_made(self, machine: Machine) -> None:
        with pytest.raises(CommandError, match=r"bay admin etcd-certs /etc/bayplan/etcd --host 10\.0\.0\.1"):
            self.plan(machine)

    @pytest.mark.parametrize(
        ("program", "says"),
        [
            ("bin/etcd", "--program bin/etcd is not an absolute path"),
            ("/root/etcd", "--program /root/etcd is below a home directory"),
            ("/opt/etcd", "there is no program /opt/etcd"),
        ],
    )
    def test_a_program_that_its_unit_cannot_run_is_refused(
        self, machine: Machine, program: str, says: str
    ) -> None:
        machine.certificates()
        machine.write("/root/etcd", "")

        with pytest.raises(CommandError, match=f"^{says}") as ended:
            self.plan(machine, program=program)
        assert ended.value.exit_code == 2

    @pytest.mark.parametrize("member", ["e2", "e2=host2", "=10.0.0.2", "e1=10.0.0.9"])
    def test_a_member_that_is_mistyped_is_refused(self, machine: Machine, member: str) -> None:
        machine.certificates()

        with pytest.raises(CommandError) as ended:
            self.plan(machine, member)
        assert ended.value.exit_code == 2


class TestOptions:
    @pytest.mark.parametrize(
        ("command", "settings", "apart"),
        [
            # What is dangerous, or done once, is not laid down by a command; operators write it themselves.
            (
                install_manager,
                MANAGER_SETTINGS,
                {"insecure-loopback", "cluster-key-command", "new-admin-token", "metrics"},
            ),
            (
                install_agent,
                AGENT_SETTINGS,
                {"insecure-loopback", "boot-id", "managers", "run-dir", "metrics", "proxy-port"},
            ),
        ],
    )
    def test_every_setting_of_a_daemon_is_one(
        self, command: Callable[..., None], settings: Sequence[object], apart: set[str]
    ) -> None:
        options = {name.replace("_", "-").replace("identifier", "id") for name in command.__annotations__}
        names = {str(getattr(setting, "name")) for setting in settings}  # noqa: B009

        assert names - apart <= options

    def test_the_witness_port_is_the_agents(self) -> None:
        assert node_check.WITNESS_PORT == WITNESS_PORT


class TestCommand:
    def bay(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bayplan.cli", *words], check=False, capture_output=True, text=True
        )

    def test_a_token_that_is_none_is_refused_and_not_repeated(self) -> None:
        done = self.bay("install", "manager", "--id", "m1", "--join-token", "hunter2", "--dry-run")

        assert done.returncode == 2
        assert "no join token" in done.stderr
        assert "hunter2" not in done.stderr

    @pytest.mark.parametrize("role", ["manager", "agent"])
    def test_a_token_and_a_file_for_it_are_refused_together(self, role: str) -> None:
        done = self.bay("install", role, "--join-token", TOKEN, "--join-token-file", "/srv/t", "--dry-run")

        assert done.returncode == 2
        assert "give one of --join-token TOKEN and --join-token-file FILE" in done.stderr


class TestSteps:
    def test_a_file_keeps_its_text_when_the_new_one_cannot_be_written(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The disk is full: the old settings stand, and nothing is left beside them."""
        machine.manager()
        before = machine.read("/etc/bayplan/manager.toml")

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("bayplan.cli.install_steps.os.fsync", full)
        with pytest.raises(CommandError, match=r"/etc/bayplan/manager.toml: No space left"):
            machine.manager(Wanted(settings={"id": "m9"}))

        assert machine.read("/etc/bayplan/manager.toml") == before
        assert [path.name for path in machine.host.path("/etc/bayplan").iterdir()] == ["manager.toml"]

    def test_a_file_that_others_may_read_is_closed_again(self, machine: Machine) -> None:
        machine.manager()
        machine.host.path("/etc/bayplan/manager.toml").chmod(0o644)

        said = machine.manager()

        assert machine.mode("/etc/bayplan/manager.toml") == "640"
        assert "changed    /etc/bayplan/manager.toml (root:bayplan, 640)" in said

    def test_a_secret_is_not_in_what_is_logged_of_it(self) -> None:
        step = TextFile(path="/x", content=TOKEN, mode=0o600, is_secret=True)

        assert TOKEN not in repr(step)
        assert TOKEN not in repr(Wanted(token=TOKEN))
