"""What real kernels show of these is in test_repair.py; here are the borders."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

import pytest

from agent.network.conflicts import find_conflicts
from agent.network.links import ALIAS, wanted_links
from agent.network.observed import Device, DeviceAddress, Observed, Route
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.network.words import SETTINGS, settings, table

HOST = Observed(devices=(Device(index=2, name="eth0"),))
OFF = settings(mode=pb.NETWORK_MODE_OFF)


def conflicts(seen: Observed, said: pb.NetworkSettings = SETTINGS) -> list[str]:
    return find_conflicts(wanted_links(table(1, 2, settings=said), seen, own=None), seen)


def routed(destination: str, device: str = "eth0", *, local: bool = False, kernels: bool = False) -> Observed:
    route = Route(destination=IPv4Network(destination), device=device, is_local=local, is_kernels=kernels)
    return replace(HOST, routes=(route,))


def addressed(interface: str, device: str) -> Observed:
    return replace(HOST, addresses=(DeviceAddress(device=device, interface=IPv4Interface(interface)),))


class TestRanges:
    @pytest.mark.parametrize("destination", ["0.0.0.0/0", "0.0.0.0/1", "192.168.0.0/16", "10.44.0.0/16"])
    def test_a_default_route_or_another_range_is_no_conflict(self, destination: str) -> None:
        assert conflicts(routed(destination)) == []

    @pytest.mark.parametrize("destination", ["10.32.0.0/12", "10.43.7.0/24", "10.42.1.0/24"])
    def test_wider_or_narrower_is_one(self, destination: str) -> None:
        assert conflicts(routed(destination)) == [
            f"the pod range 10.42.0.0/15 overlaps {destination}, which is reached through eth0"
        ]

    def test_an_address_without_a_route_is_one_too(self) -> None:
        assert conflicts(addressed("10.96.0.1/32", "dummy0")) == [
            "the service range 10.96.0.0/16 overlaps 10.96.0.1/32, which is reached through dummy0"
        ]

    def test_what_is_ours_is_none(self) -> None:
        ours = replace(
            HOST,
            devices=(Device(index=7, name="bay1", kind="bridge", alias=ALIAS),),
            routes=(
                *routed("10.42.2.0/24", "bay1-vx").routes,
                *routed("10.42.1.0/24", "bay1", kernels=True).routes,
                *routed("10.96.0.0/16", "lo", local=True).routes,
            ),
            addresses=addressed("10.42.1.1/24", "bay1").addresses,
        )

        assert conflicts(ours) == []

    def test_another_clusters_is_called_so(self) -> None:
        assert conflicts(routed("10.42.9.0/24", "bay2"))[0].endswith(
            "through bay2 (another Bayplan cluster's)"
        )

    def test_where_the_hosts_network_routes_its_routes_are_wanted(self) -> None:
        """But nobody else may have this node's own subnet."""
        assert conflicts(routed("10.42.2.0/24"), OFF) == []
        assert conflicts(routed("10.42.0.0/15"), OFF) == []
        assert conflicts(addressed("10.42.1.9/32", "eth0"), OFF) == [
            "the subnet of this node 10.42.1.0/24 overlaps 10.42.1.9/32, which is reached through eth0"
        ]


class TestNames:
    def test_a_bridge_that_docker_made_again_at_its_start_is_ours(self) -> None:
        """Without our mark, but with our gateway's address, which nobody else would have."""
        bridge = Device(index=7, name="bay1", kind="bridge", mac="02:42:00:00:00:01")
        seen = replace(addressed("10.42.1.1/24", "bay1"), devices=(bridge,))

        assert conflicts(seen) == []
        assert conflicts(replace(seen, addresses=())) == [
            "a device bay1 (bridge) is there that is not Bayplan's: remove or rename it"
        ]


class TestPort:
    def test_the_same_number_on_another_port_is_no_conflict(self) -> None:
        """flannel.1 has the number 1 too; the kernel tells them apart."""
        flannel = Device(index=9, name="flannel.1", kind="vxlan", vni=1, port=8472)

        assert conflicts(replace(HOST, devices=(flannel,))) == []
        assert conflicts(replace(HOST, devices=(replace(flannel, port=7472),))) == [
            "UDP port 7472 is used by the device flannel.1 (VXLAN 1)"
        ]

    def test_without_a_tunnel_the_port_does_not_matter(self) -> None:
        seen = replace(HOST, port_taker="nginx (pid 812)")

        assert conflicts(seen) == ["UDP port 7472 is used by nginx (pid 812)"]
        assert conflicts(seen, OFF) == []
