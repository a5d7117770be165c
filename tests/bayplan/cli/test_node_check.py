from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.housekeeping import PRESSURE_ABOVE, PRUNE_ABOVE
from agent.settings import PROXY_PORT
from bayplan.cli import node_check
from bayplan.cli.node_check import Check, Verdict, check_node
from bayplan.cli.node_check_facts import (
    MODULES,
    Disk,
    EngineFacts,
    Holder,
    HostFacts,
    ManagerFacts,
    Route,
)
from bayplan.identity.certificates import CLOCK_SKEW_S
from bayplan.model.network import ClusterNetwork

GIB = 1 << 30
NOW_S = 1_800_000_000.0

ENGINE = EngineFacts(version="24.0.7", driver="overlay2", root_dir="/var/lib/docker")
MANAGER = ManagerFacts(address="10.0.0.1:7400", valid_from_s=NOW_S - 4000, valid_until_s=NOW_S + 80_000)
GOOD = HostFacts(
    is_root=True,
    kernel="6.1.0-18-amd64",
    engine=ENGINE,
    engine_socket="/var/run/docker.sock",
    engine_problem="",
    listening={22: ""},
    routes=[Route(network="10.0.0.0/24", device="eth0"), Route(network="172.17.0.0/16", device="docker0")],
    is_clock_synchronised=True,
    now_s=NOW_S,
    disks=[
        Disk(path="/var/lib/docker", total_bytes=100 * GIB, free_bytes=60 * GIB),
        Disk(path="/var/lib/bayplan", total_bytes=100 * GIB, free_bytes=60 * GIB),
    ],
    programs={"haproxy": "2.6.12", "nft": "1.0.6", "iptables": "1.8.9"},
    is_forwarding=True,
    can_forward=True,
    modules=dict.fromkeys(MODULES, True),
    cgroup_version=2,
    cgroup_controllers=frozenset({"cpu", "memory", "io", "pids"}),
    memory_bytes=8 * GIB,
    managers=[MANAGER],
)


def problems(**changes: Any) -> list[str]:
    """The lines, apart from those that are ok, of a host that is good but for `changes`."""
    checks = check_node(replace(GOOD, **changes))
    return [check.line() for check in checks if check.verdict is not Verdict.OK]


class TestAGoodHost:
    def test_lacks_nothing_and_says_what_was_looked_at(self) -> None:
        assert [check.line() for check in check_node(GOOD)] == [
            "ok     kernel      Linux 6.1.0-18-amd64",
            "ok     modules     overlay, bridge, br_netfilter, veth, vxlan, nf_tables, nf_conntrack",
            "ok     cgroups     version 2 with cpu and memory",
            "ok     engine      Docker Engine 24.0.7 at /var/run/docker.sock",
            "ok     storage     overlay2 in /var/lib/docker",
            "ok     memory      8.0 GiB",
            "ok     disk        /var/lib/docker: 60.0 GiB of 100.0 GiB free",
            "ok     disk        /var/lib/bayplan: 60.0 GiB of 100.0 GiB free",
            "ok     programs    haproxy 2.6.12",
            "ok     programs    nft 1.0.6",
            "ok     programs    iptables 1.8.9",
            "ok     port 7443   free",
            "ok     port 7472   free (udp)",
            "ok     port 53     nobody is in the way of it or of 7460-7463 on the bridge",
            "ok     forwarding  on",
            "ok     network     10.42.0.0/15 for pods is not in use here",
            "ok     network     10.96.0.0/16 for services is not in use here",
            "ok     clock       synchronised",
            "ok     manager     10.0.0.1:7400 can be reached",
            "ok     manager     10.0.0.1:7401 can be reached",
            "ok     clock       within the certificate of 10.0.0.1:7400",
        ]

    def test_what_is_not_ok_has_a_cure(self) -> None:
        for facts in (
            replace(GOOD, engine=None, engine_problem="No such file or directory", is_root=False),
            replace(GOOD, modules={"vxlan": False, "veth": None}, cgroup_version=0, memory_bytes=1),
        ):
            bad: list[Check] = [each for each in check_node(facts) if each.verdict is not Verdict.OK]
            assert bad
            assert all(check.cure for check in bad)


class TestEngine:
    def test_missing(self) -> None:
        (line,) = problems(engine=None, engine_problem="No such file or directory")
        assert line.startswith(
            "lacks  engine      no Docker Engine at /var/run/docker.sock (No such file or directory): install it"
        )

    def test_of_others(self) -> None:
        (line,) = problems(engine=None, engine_problem="Permission denied")
        assert line.endswith("(Permission denied): run this with sudo")

    @pytest.mark.parametrize("version", ["19.03.15", "18.09", "20.9.1"])
    def test_too_old(self, version: str) -> None:
        (line,) = problems(engine=replace(ENGINE, version=version))
        assert line == f"lacks  engine      Docker Engine {version} is older than 20.10: upgrade it"

    @pytest.mark.parametrize("version", ["20.10.24+dfsg1", "28.2.2", "29.0"])
    def test_new_enough(self, version: str) -> None:
        assert problems(engine=replace(ENGINE, version=version)) == []

    def test_rootless(self) -> None:
        (line,) = problems(engine=replace(ENGINE, is_rootless=True))
        assert line.startswith("lacks  engine      Docker Engine runs rootless")

    @pytest.mark.parametrize(
        ("driver", "verdict"),
        [("vfs", "lacks"), ("devicemapper", "lacks"), ("btrfs", "warn"), ("zfs", "warn")],
    )
    def test_another_storage_driver(self, driver: str, verdict: str) -> None:
        (line,) = problems(engine=replace(ENGINE, driver=driver))
        assert line.startswith(f"{verdict:5}  storage     {driver} ")
        assert '"storage-driver": "overlay2"' in line

    def test_the_storage_of_containerd_is_as_good(self) -> None:
        assert problems(engine=replace(ENGINE, driver="overlayfs")) == []


class TestKernel:
    def test_too_old(self) -> None:
        (line,) = problems(kernel="3.10.0-1160.el7")
        assert line.startswith("lacks  kernel      Linux 3.10.0-1160.el7 is older than 4.18")

    def test_without_a_module(self) -> None:
        (line,) = problems(modules={**GOOD.modules, "vxlan": False, "br_netfilter": False})
        assert line.startswith("lacks  modules     the kernel has no br_netfilter, vxlan: ")

    def test_that_cannot_be_asked(self) -> None:
        (line,) = problems(modules={**GOOD.modules, "vxlan": None})
        assert line.startswith("warn   modules     it cannot be told whether the kernel has vxlan")

    def test_without_cgroups(self) -> None:
        (line,) = problems(cgroup_version=0, cgroup_controllers=frozenset())
        assert line.startswith("lacks  cgroups     none are mounted")

    def test_without_the_controller_for_memory(self) -> None:
        """Debian on a Raspberry Pi."""
        (line,) = problems(cgroup_controllers=frozenset({"cpu", "io"}))
        assert line.startswith("lacks  cgroups     version 2 has no memory: boot with cgroup_enable=memory")


class TestRoom:
    def disks(self, *, engine_free: float, data_free: float = 50) -> list[Disk]:
        return [
            Disk(path="/var/lib/docker", total_bytes=100 * GIB, free_bytes=int(engine_free * GIB)),
            Disk(path="/var/lib/bayplan", total_bytes=100 * GIB, free_bytes=int(data_free * GIB)),
        ]

    def test_above_ninety_percent_no_pod_would_come(self) -> None:
        (line,) = problems(disks=self.disks(engine_free=9))
        assert line.startswith("lacks  disk        /var/lib/docker: 9.0 GiB of 100.0 GiB free (91% full)")

    def test_above_eighty_percent_images_would_go(self) -> None:
        (line,) = problems(disks=self.disks(engine_free=15))
        assert line.startswith("warn   disk        /var/lib/docker: 15.0 GiB of 100.0 GiB free (85% full)")

    def test_a_small_disk(self) -> None:
        (line,) = problems(disks=[Disk(path="/var/lib/docker", total_bytes=8 * GIB, free_bytes=6 * GIB)])
        assert line.startswith("warn   disk        /var/lib/docker: 6.0 GiB of 8.0 GiB free: ")

    def test_no_room_for_the_agents_own(self) -> None:
        (line,) = problems(disks=self.disks(engine_free=50, data_free=0.5))
        assert line.startswith("lacks  disk        /var/lib/bayplan: 0.5 GiB of 100.0 GiB free: ")

    def test_little_memory(self) -> None:
        (line,) = problems(memory_bytes=GIB // 2)
        assert line.startswith("warn   memory      0.5 GiB leave little for pods")

    def test_the_limits_are_the_agents(self) -> None:
        assert (node_check.DISK_WARN, node_check.DISK_FULL) == (PRUNE_ABOVE, PRESSURE_ABOVE)


class TestNetwork:
    def test_a_taken_port(self) -> None:
        (line,) = problems(listening={7443: "nginx"})
        assert line.startswith(
            "lacks  port 7443   used by nginx: stop that, or give the agent another --witness-port"
        )

    def test_a_port_that_an_agent_here_has_already(self) -> None:
        assert problems(listening={7443: "bayplan-agent"}) == []

    def test_a_port_of_somebody_who_cannot_be_seen(self) -> None:
        (line,) = problems(listening={7443: ""})
        assert line.startswith("lacks  port 7443   used by another program")

    def test_whose_a_port_is_only_root_can_see(self) -> None:
        """It may be the agent's, which runs here."""
        (_, line) = problems(listening={7443: ""}, is_root=False)
        assert line == "warn   port 7443   in use; by whom, only root can see: run this with sudo"
        (_, line) = problems(listening={7443: "nginx"}, is_root=False)
        assert line.startswith("lacks  port 7443   used by nginx")

    def test_another_port_for_the_agent(self) -> None:
        checks = check_node(replace(GOOD, listening={7443: "nginx"}), witness_port=7500)
        assert "ok     port 7500   free" in [check.line() for check in checks]

    @pytest.mark.parametrize("network", ["10.42.0.0/15", "10.42.0.0/16", "10.43.7.0/24", "10.42.3.4/32"])
    def test_pods_addresses_in_use(self, network: str) -> None:
        (line,) = problems(routes=[Route(network=network, device="wg0")])
        assert line == (
            f"lacks  network     10.42.0.0/15 for pods is in use: {network} on wg0: move that network elsewhere"
        )

    def test_addresses_that_are_part_of_a_larger_network(self) -> None:
        """A company's 10.0.0.0/8: it works, but for the hosts with these very addresses."""
        lines = problems(routes=[Route(network="10.0.0.0/8", device="eth0")])
        assert [line.partition(":")[0] for line in lines] == [
            "warn   network     10.42.0.0/15 for pods is a part of 10.0.0.0/8 on eth0",
            "warn   network     10.96.0.0/16 for services is a part of 10.0.0.0/8 on eth0",
        ]

    def test_addresses_that_are_our_own_already(self) -> None:
        ours = [
            Route(network="10.42.3.0/24", device="bay1"),
            Route(network="10.43.0.0/24", device="bay1-vx"),
            Route(network="10.96.0.0/16", device="lo"),
        ]
        assert problems(routes=ours) == []

    @pytest.mark.parametrize("device", ["bay1.2", "bayplan0", "xbay1", "lo"])
    def test_addresses_of_a_device_that_is_not_ours(self, device: str) -> None:
        (line,) = problems(routes=[Route(network="10.42.3.0/24", device=device)])
        assert line.startswith("lacks  network     10.42.0.0/15 for pods is in use: 10.42.3.0/24")

    def test_the_ranges_and_ports_are_the_clusters(self) -> None:
        founded = ClusterNetwork()
        assert (
            founded.pod_range,
            founded.service_range,
        ) == (node_check.POD_NETWORK, node_check.SERVICE_NETWORK)
        assert founded.port == node_check.TUNNEL_PORT
        assert tuple(PROXY_PORT + offset for offset in range(4)) == node_check.PROXY_PORTS


class TestTraffic:
    def test_a_program_that_is_missing(self) -> None:
        (line,) = problems(programs={**GOOD.programs, "nft": None})
        assert line == "lacks  programs    no nft: install it (Debian, Ubuntu: apt-get install nftables)"

    @pytest.mark.parametrize(
        ("version", "is_old"), [("2.4.22", True), ("2.6.0", False), ("3.0.1", False), ("", False)]
    )
    def test_an_old_haproxy(self, version: str, *, is_old: bool) -> None:
        """One that does not say its version is given the benefit of the doubt."""
        lines = problems(programs={**GOOD.programs, "haproxy": version})
        assert lines == (
            [f"lacks  programs    haproxy {version} is older than 2.6: upgrade it"] if is_old else []
        )

    def test_the_tunnels_port_taken(self) -> None:
        (line,) = problems(holders=[Holder(port=7472, protocol="udp", is_everywhere=True, program="dnsmasq")])
        assert line.startswith("lacks  port 7472   used by dnsmasq (udp): ")
        (line,) = problems(holders=[Holder(port=7472, protocol="udp", is_everywhere=True)])
        assert line.startswith("lacks  port 7472   used by another tunnel or program (udp): ")

    def test_the_tunnels_port_taken_by_the_agent_that_runs_here(self) -> None:
        holders = [Holder(port=7472, protocol="udp", is_everywhere=True)]
        assert problems(holders=holders, devices=frozenset({"lo", "bay1", "bay1-vx"})) == []

    @pytest.mark.parametrize("protocol", ["tcp", "udp"])
    def test_a_name_server_in_the_way(self, protocol: str) -> None:
        (line,) = problems(
            holders=[Holder(port=53, protocol=protocol, is_everywhere=True, program="dnsmasq")]
        )
        assert line == (
            "lacks  port 53     dnsmasq listens at every address, and so at the pods' gateway: "
            "have it listen at the addresses it serves (dnsmasq: bind-interfaces)"
        )

    def test_a_name_server_at_an_address_of_its_own(self) -> None:
        """systemd-resolved's, at 127.0.0.53."""
        stub = Holder(port=53, protocol="udp", is_everywhere=False, program="systemd-resolved")
        assert problems(holders=[stub]) == []

    def test_somebody_at_the_proxys_port(self) -> None:
        (line,) = problems(holders=[Holder(port=7461, protocol="tcp", is_everywhere=True)])
        assert line.startswith("lacks  port 7461   a program listens at every address")

    def test_forwarding(self) -> None:
        assert problems(is_forwarding=False) == []
        assert problems(is_forwarding=False, can_forward=None) == []
        (line,) = problems(is_forwarding=False, can_forward=False)
        assert line.startswith("lacks  forwarding  net.ipv4.ip_forward is 0 and cannot be written here: ")


class TestManagers:
    def test_that_cannot_be_reached(self) -> None:
        lines = problems(
            managers=[
                ManagerFacts(
                    address="10.0.0.1:7400", main_problem="no answer", join_problem="Connection refused"
                )
            ]
        )
        assert [line.rpartition(":")[0] for line in lines] == [
            "lacks  manager     10.0.0.1:7400: no answer",
            "lacks  manager     10.0.0.1:7401: Connection refused",
        ]

    def test_of_which_others_answer(self) -> None:
        """One is enough: to join at, and to run with."""
        away = ManagerFacts(address="10.0.0.2:7400", main_problem="no answer", join_problem="no answer")
        assert [line.rpartition(":")[0] for line in problems(managers=[MANAGER, away])] == [
            "warn   manager     10.0.0.2:7400: no answer",
            "warn   manager     10.0.0.2:7401: no answer",
        ]

    def test_none_of_which_can_be_joined_at(self) -> None:
        """A firewall that knows only of the main port."""
        closed = replace(MANAGER, join_problem="no answer")
        lines = problems(managers=[closed, replace(closed, address="10.0.0.2:7400")])
        assert [line.rpartition(":")[0] for line in lines] == [
            "lacks  manager     10.0.0.1:7401: no answer",
            "lacks  manager     10.0.0.2:7401: no answer",
        ]

    def test_whose_clock_is_ahead(self) -> None:
        """Made 90 s from now, by our clock."""
        (line,) = problems(managers=[replace(MANAGER, valid_from_s=NOW_S + 90 - CLOCK_SKEW_S)])
        assert line == "lacks  clock       this clock is at least 90 s behind 10.0.0.1:7400: set it"

    def test_whose_clock_is_behind(self) -> None:
        (line,) = problems(managers=[replace(MANAGER, valid_until_s=NOW_S - 3600)])
        assert line == "lacks  clock       this clock is at least 3600 s ahead of 10.0.0.1:7400: set it"

    def test_that_has_a_certificate_of_this_minute(self) -> None:
        assert problems(managers=[replace(MANAGER, valid_from_s=NOW_S + 30 - CLOCK_SKEW_S)]) == []

    def test_a_clock_that_nobody_keeps(self) -> None:
        (line,) = problems(is_clock_synchronised=False)
        assert line.startswith("warn   clock       nothing synchronises it")
        (line,) = problems(is_clock_synchronised=None)
        assert line.startswith("warn   clock       it cannot be told")


class TestCommand:
    def test_looks_at_the_port_that_the_agent_is_given(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            done = subprocess.run(
                [
                    sys.executable, "-m", "bayplan.cli", "node", "check", "--witness-port", port,
                    "--docker-host", f"unix://{tmp_path}/none.sock", "--data-dir", str(tmp_path),
                ],
                check=False,
                capture_output=True,
                text=True,
            )  # fmt: skip

        assert f"lacks  port {port}" in done.stdout

    def test_ends_with_1_if_anything_is_lacking(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [
                sys.executable, "-m", "bayplan.cli", "node", "check",
                "--docker-host", f"unix://{tmp_path}/none.sock", "--data-dir", str(tmp_path),
            ],
            check=False,
            capture_output=True,
            text=True,
        )  # fmt: skip

        assert done.returncode == 1
        assert f"lacks  engine      no Docker Engine at {tmp_path}/none.sock" in done.stdout
        assert "this host cannot be a node yet" in done.stderr
