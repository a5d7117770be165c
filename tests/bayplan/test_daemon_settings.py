from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import agent.main
import manager.main
from agent.options import agent_settings, read_options
from agent.settings import AgentSettings
from bayplan.settings import Settings
from manager.access.settings import AccessSettings
from tests.bayplan.settings_program import ALLOWED, NOWHERE, Ended


class TestManager:
    NEEDED = ("--id=m1", "--advertise=10.0.0.1:7400")
    LOCAL = ("--id=m1", "--advertise=127.0.0.1:7400", "--listen=127.0.0.1:7400", "--insecure-loopback")

    def test_defaults(self) -> None:
        found = manager.main._arguments(self.NEEDED, {}, NOWHERE)

        assert (found.manager.id, found.manager.listen_host, found.manager.listen_port) == (
            "m1",
            "0.0.0.0",
            7400,
        )
        assert (found.etcd, found.etcd_tls) == (["127.0.0.1:2379"], None)
        assert found.access == AccessSettings(
            data_dir=Path("/var/lib/bayplan-manager"),
            join="",
            join_token="",
            join_token_file=None,
            cluster_key_command="",
            certificate_life_s=86400.0,
            insecure_loopback=False,
        )

    def test_a_file_can_say_everything(self, file: Path) -> None:
        file.write_text(
            """\
id = "m2"
etcd = "10.0.0.1:2379,10.0.0.2:2379"
etcd-ca = "/ca.pem"
advertise = "10.0.0.2:7400"
data-dir = "/data"
join = "10.0.0.1:7400"
join-token = "bay1.a.b.c"
join-token-file = "/run/token"
cluster-key-command = "vault read key"
certificate-life = "2m"
"""
        )

        found = manager.main._arguments([], {}, file)

        assert found.etcd == ["10.0.0.1:2379", "10.0.0.2:2379"]
        assert found.etcd_tls is not None
        assert found.access == AccessSettings(
            data_dir=Path("/data"),
            join="10.0.0.1:7400",
            join_token="bay1.a.b.c",
            join_token_file=Path("/run/token"),
            cluster_key_command="vault read key",
            certificate_life_s=120.0,
            insecure_loopback=False,
        )
        assert "bay1" not in repr(found)

    @pytest.mark.parametrize(
        ("text", "life_s"), [("60s", 60), ("2m", 120), ("24h", 86400), ("30d", 2592000), ("720h", 2592000)]
    )
    def test_the_life_of_certificates(self, text: str, life_s: float) -> None:
        found = manager.main._arguments([*self.NEEDED, f"--certificate-life={text}"], {}, NOWHERE)

        assert found.access.certificate_life_s == life_s

    def test_alone_on_this_host_it_may_be_insecure(self) -> None:
        assert manager.main._arguments(self.LOCAL, {}, NOWHERE).access.insecure_loopback

    @pytest.mark.parametrize(
        ("argv", "environ", "says"),
        [
            ([], {"BAYPLAN_LISTEN": "7400"}, "--listen '7400' is not host:port (from BAYPLAN_LISTEN)"),
            (["--advertise=h:99999"], {}, "--advertise 'h:99999' is not host:port"),
            (["--join=10.0.0.1"], {}, "--join '10.0.0.1' is not host:port"),
            (["--data-dir="], {}, "--data-dir is empty"),
            (["--etcd-cert=c"], {}, "--etcd-cert and --etcd-key belong together"),
            (["--etcd-cert=c", "--etcd-key=k"], {}, "--etcd-cert needs --etcd-ca"),
            (["--certificate-life=59s"], {}, "--certificate-life '59s' is too short: at least 60s"),
            (["--certificate-life=31d"], {}, "--certificate-life '31d' is too long: at most 30d"),
            (
                ["--certificate-life=1 day"],
                {},
                "--certificate-life '1 day' is no length of time; write 90s, 5m, 24h or 7d",
            ),
            (
                ["--insecure-loopback", "--advertise=127.0.0.1:1"],
                {},
                f"--insecure-loopback does not go with --listen 0.0.0.0:7400: {ALLOWED}",
            ),
            (
                [*LOCAL, "--advertise=10.0.0.1:7400"],
                {},
                f"--insecure-loopback does not go with --advertise 10.0.0.1:7400: {ALLOWED}",
            ),
            (
                LOCAL,
                {"BAYPLAN_JOIN": "m1.example:7400"},
                f"--insecure-loopback does not go with --join m1.example:7400 (from BAYPLAN_JOIN): {ALLOWED}",
            ),
        ],
    )
    def test_what_is_wrong_ends_it_with_2(
        self, ended: Ended, argv: list[str], environ: dict[str, str], says: str
    ) -> None:
        with pytest.raises(SystemExit) as end:
            manager.main._arguments([*self.NEEDED, *argv], environ, NOWHERE)

        assert (ended.saw(end.value).code, ended.error) == (2, says)


def given_of(argv: Sequence[str], environ: Mapping[str, str] | None = None, file: Path = NOWHERE) -> Settings:
    return read_options("bayplan-agent", "", argv=argv, environ=environ or {}, file=file)


class TestAgent:
    NEEDED = ("--node=n1", "--managers=127.0.0.1,127.0.0.2:7500", "--advertise=10.0.0.11")

    def test_defaults(self) -> None:
        found = agent_settings(given_of(self.NEEDED))

        assert found == AgentSettings(
            node="n1",
            data_dir=Path("/var/lib/bayplan"),
            managers=("127.0.0.1:7400", "127.0.0.2:7500"),
            address="10.0.0.11",
        )

    def test_a_file_can_say_everything(self, file: Path) -> None:
        file.write_text(
            """\
node = "n2"
managers = "10.0.0.1"
advertise = "10.0.0.12"
witness-port = 7444
cpu = "3500m"
memory = "8Gi"
reserved-cpu = "1"
reserved-memory = "1Gi"
labels = ["disk=ssd", "zone=a"]
join-token = "bay1.a.b.c"
join-token-file = "/run/token"
run-dir = "/run/bayplan-2"
metrics = ""
"""
        )

        found = agent_settings(given_of(["--label=zone=b"], file=file))

        assert found == AgentSettings(
            node="n2",
            data_dir=Path("/var/lib/bayplan"),
            managers=("10.0.0.1:7400",),
            address="10.0.0.12",
            witness_port=7444,
            labels={"disk": "ssd", "zone": "b"},
            cpu_millis=3500,
            memory_bytes=8 * 2**30,
            reserved_cpu_millis=1000,
            reserved_memory_bytes=2**30,
            join_token="bay1.a.b.c",
            join_token_file=Path("/run/token"),
            run_dir=Path("/run/bayplan-2"),
            metrics="",
        )
        assert "bay1" not in repr(found)

    def test_with_managers_on_this_host_it_may_be_insecure(self) -> None:
        given_ = given_of(self.NEEDED, {"BAYPLAN_INSECURE_LOOPBACK": "1"})

        assert agent_settings(given_).insecure_loopback

    @pytest.mark.parametrize(
        ("argv", "says"),
        [
            (["--node=N1"], "--node 'N1' is no node name"),
            (["--managers="], "--managers is missing: give at least one host:port"),
            (["--label=x"], "--label 'x' is not KEY=VALUE"),
            (["--witness-port=65536"], "--witness-port is larger than 65535"),
            (["--data-dir="], "--data-dir is empty"),
            (["--run-dir="], "--run-dir is empty"),
            (["--metrics=7491"], "--metrics '7491' is not host:port"),
            (["--metrics=127.0.0.1:65536"], "--metrics '127.0.0.1:65536' is not host:port"),
            (["--memory=8gb"], '--memory "8gb" is not a quantity. Did you mean 8Gi'),
            (
                ["--insecure-loopback", "--managers=127.0.0.1,10.0.0.1"],
                f"--insecure-loopback does not go with --managers 10.0.0.1:7400: {ALLOWED}",
            ),
        ],
    )
    def test_what_is_wrong_ends_it_with_2(self, ended: Ended, argv: list[str], says: str) -> None:
        with pytest.raises(SystemExit) as end:
            agent.main.main([*self.NEEDED, *argv])

        assert ended.saw(end.value).code == 2
        assert ended.error.startswith(says)
