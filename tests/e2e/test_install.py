"""docs/install.md, "On hosts of your own": its commands, as they stand there, on bare Debian hosts."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bayplan import __version__
from deploy import engine, wheels
from deploy.shell import ROOT, StepError, run
from tests.e2e.bare_hosts import NAMES, UNITS, BareHosts, read_blocks
from tests.e2e.cluster import eventually

# The first test installs a whole cluster, and where it was never done its image is built before.
pytestmark = pytest.mark.timeout(1500)

BLOCKS = read_blocks((ROOT / "docs/install.md").read_text())
CLUSTER = ("1. ", "2. ", "3. ", "4. ", "5. ", "6. ")
LATER, UPGRADE, REMOVE = "Another node, later", "Upgrade", "Remove"
NODE_TIMEOUT_S = 60
MANY = 6  # Pods, so that every node has one, whichever were the first to be ready.
NODE_UNITS = ("bayplan-agent", "bayplan-proxy", "bayplan-dns")
# linux/capability.h
CAPABILITIES = {
    "CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_NET_BIND_SERVICE": 10, "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13, "CAP_SYS_PTRACE": 19,
}  # fmt: skip
ALLOWED = {
    "bayplan-agent": (
        "CAP_NET_ADMIN",
        "CAP_NET_RAW",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_PTRACE",
        "CAP_KILL",
        "CAP_CHOWN",
    ),
    "bayplan-proxy": ("CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"),
    "bayplan-dns": ("CAP_NET_BIND_SERVICE",),
}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareHosts]:
    """The document was followed up to "Try it"."""
    if shutil.which("docker") is None:
        pytest.fail("no docker on this machine: run `make setup`")
    engine.up()
    hosts = BareHosts(wheels.build(tmp_path_factory.mktemp("wheels"))[0])
    try:
        hosts.up()
        try:
            hosts.follow([block for block in BLOCKS if block.section.startswith(CLUSTER)])
        except StepError as error:
            pytest.fail(f"{error}\n{hosts.report()}")
        yield hosts
    finally:
        hosts.down()


def rows(text: str) -> dict[str, list[str]]:
    """Of a table: the first word of each line → its words."""
    return {words[0]: words for words in map(str.split, text.splitlines()[1:]) if words}


def wait_for_nodes(hosts: BareHosts, *names: str) -> None:
    def are_ready() -> bool:
        found = rows(hosts.bash("first", "bay nodes"))
        return all(found.get(name, ["", ""])[1] == "Ready" for name in names)

    eventually(are_ready, within_s=NODE_TIMEOUT_S, otherwise=hosts.report)


def newer_wheel(directory: Path) -> tuple[Path, str]:
    """This checkout as the next patch version."""
    source = directory / "source"
    for name in ("bayplan", "manager", "agent"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    major, minor, patch = __version__.split(".")
    version = f"{major}.{minor}.{int(patch) + 1}"
    file = source / "bayplan/__init__.py"
    file.write_text(file.read_text().replace(f'"{__version__}"', f'"{version}"'))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run([*command, "--wheel-dir", str(directory), str(source)], timeout_s=120)
    (wheel,) = directory.glob("bayplan-*.whl")
    return wheel, version


def status_of(hosts: BareHosts, host: str, unit: str) -> dict[str, str]:
    """/proc/<pid>/status of the unit's main process."""
    text = hosts.bash(host, f"cat /proc/$(systemctl show --property=MainPID --value {unit})/status")
    return dict(re.findall(r"^(\w+):\s*(.*)$", text, re.MULTILINE))


def main_pids(hosts: BareHosts, host: str, *units: str) -> dict[str, str]:
    """Unit → its main process; "0" while there is none."""
    return {
        unit: hosts.bash(host, f"systemctl show --property=MainPID --value {unit}").strip() for unit in units
    }


class TestTheDocument:
    """In this order: each test goes on where the one before ended."""

    def test_makes_a_cluster_of_three_hosts(self, hosts: BareHosts) -> None:
        wait_for_nodes(hosts, *NAMES[:3])

        managers = rows(hosts.bash("first", "bay managers"))
        assert sorted(managers) == ["m1", "m2", "m3"]
        assert sorted(row[2] for row in managers.values()) == ["Leading", "Standby", "Standby"]

    def test_runs_its_example_on_them(self, hosts: BareHosts) -> None:
        assert sum(len(hosts.pods(name)) for name in NAMES[:3]) == 3

    def test_lets_nobody_near_etcd_without_a_certificate(self, hosts: BareHosts) -> None:
        own = "--cert=/etc/bayplan/etcd/client.pem --key=/etc/bayplan/etcd/client.key"
        get = (
            f"etcdctl --endpoints=https://{hosts.addresses['first']}:2379 --cacert=/etc/bayplan/etcd/ca.pem"
            " --command-timeout=5s get --prefix /bayplan --keys-only"
        )

        without = hosts.attempt("first", get)

        assert (without.returncode != 0, without.stdout) == (True, "")
        assert "/bayplan/v1/" in hosts.bash("first", f"{get} {own}")

    def test_runs_managers_as_a_user_of_their_own_and_nobody_with_more_capabilities_than_it_needs(
        self, hosts: BareHosts
    ) -> None:
        uids = {}
        for unit in UNITS:
            status = status_of(hosts, "second", unit)
            bits = sum(1 << CAPABILITIES[name] for name in ALLOWED.get(unit, ()))
            assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == bits, unit
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), unit
            uids[unit] = status["Uid"].split()[0]

        assert {uids[unit] for unit in NODE_UNITS} == {"0"}
        assert len(set(uids.values())) == 3

    def test_leaves_proxy_and_name_server_alone_when_the_agent_restarts(self, hosts: BareHosts) -> None:
        before = main_pids(hosts, "third", *NODE_UNITS)

        hosts.bash("third", "systemctl restart bayplan-agent")

        after = main_pids(hosts, "third", *NODE_UNITS)
        assert after.pop("bayplan-agent") != before.pop("bayplan-agent")
        assert after == before
        wait_for_nodes(hosts, *NAMES[:3])

    def test_starts_proxy_and_name_server_again_when_they_die(self, hosts: BareHosts) -> None:
        for unit in ("bayplan-proxy", "bayplan-dns"):
            before = main_pids(hosts, "third", unit)[unit]

            hosts.bash("third", f"kill -9 {before}")

            def runs_again(unit: str = unit, before: str = before) -> bool:
                return main_pids(hosts, "third", unit)[unit] not in ("0", before)

            eventually(runs_again, within_s=5, otherwise=hosts.report)

    def test_can_be_followed_again_without_harm(self, hosts: BareHosts) -> None:
        said = hosts.bash("second", "bay install manager; bay install agent")

        assert {line.split()[0] for line in said.splitlines()} == {"unchanged"}

    def test_lets_a_host_join_later(self, hosts: BareHosts) -> None:
        everywhere = [block for block in BLOCKS if block.host == "all" and block.section.startswith("1. ")]
        for block in everywhere:
            hosts.bash("fourth", block.script, timeout_s=300)

        hosts.follow([block for block in BLOCKS if block.section == LATER])

        wait_for_nodes(hosts, *NAMES)

    def test_upgrades_a_host_in_place_and_its_pods_run_on(self, hosts: BareHosts, tmp_path: Path) -> None:
        hosts.bash("first", f"bay scale deployment/web --replicas={MANY}")
        before = hosts.pods("second")
        served_by = main_pids(hosts, "second", "bayplan-proxy", "bayplan-dns")
        assert before
        wheel, version = newer_wheel(tmp_path)
        hosts.give_wheel("second", wheel)

        hosts.follow([block for block in BLOCKS if block.section == UPGRADE])

        def is_new() -> bool:
            manager = rows(hosts.bash("first", "bay managers")).get("m2", [])
            node = rows(hosts.bash("first", "bay nodes -o wide")).get("second", [])
            return version in manager and version in node and node[1] == "Ready"

        eventually(is_new, within_s=NODE_TIMEOUT_S, otherwise=hosts.report)
        assert hosts.pods("second") == before
        assert main_pids(hosts, "second", "bayplan-proxy", "bayplan-dns") == served_by

    def test_makes_a_host_that_comes_back_by_itself_after_a_reboot(self, hosts: BareHosts) -> None:
        """Member of etcd, manager and node; the others hold the majority meanwhile."""
        hosts.reboot("third")

        wait_for_nodes(hosts, *NAMES)
        eventually(
            lambda: len(rows(hosts.bash("first", "bay managers"))) == 3,
            within_s=NODE_TIMEOUT_S,
            otherwise=hosts.report,
        )
        eventually(
            lambda: sum(len(hosts.pods(name)) for name in NAMES) == MANY,
            within_s=NODE_TIMEOUT_S,
            otherwise=hosts.report,
        )
        for unit in UNITS:
            assert hosts.bash("third", f"systemctl is-active {unit}").strip() == "active"

    def test_removes_a_node_and_its_access(self, hosts: BareHosts) -> None:
        hosts.follow([block for block in BLOCKS if block.section == REMOVE])

        assert sorted(rows(hosts.bash("first", "bay nodes"))) == sorted(NAMES[:3])
        assert hosts.pods("fourth") == set()
        hosts.bash("fourth", "systemctl start bayplan-agent")
        refused = "the certificate of node fourth was revoked"
        eventually(
            lambda: refused in hosts.bash("fourth", "journalctl --no-pager --unit=bayplan-agent"),
            within_s=NODE_TIMEOUT_S,
            otherwise=hosts.report,
        )
        assert sorted(rows(hosts.bash("first", "bay nodes"))) == sorted(NAMES[:3])
