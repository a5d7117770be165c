from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from agent.network import operations as ops
from agent.network.links import ALIAS, Wanted, mac_of, plan_links, plan_ports, wanted_links
from agent.network.observed import (
    Device,
    DeviceAddress,
    Forward,
    Neighbour,
    Observed,
    Route,
    WireguardDevice,
    WireguardPeer,
)
from agent.network.operations import Operation
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.network.words import SETTINGS, settings, table

OWN = IPv4Address("192.0.2.1")
LAN = Observed(
    devices=(Device(index=1, name="lo", mtu=65536), Device(index=2, name="eth0")),
    addresses=(DeviceAddress(device="eth0", interface=IPv4Interface("192.0.2.1/24")),),
    routes=(Route(destination=IPv4Network("192.0.2.0/24"), device="eth0", is_kernels=True),),
)
WIREGUARD = settings(mode=pb.NETWORK_MODE_WIREGUARD)


def wanted(*peers: int, settings: pb.NetworkSettings = SETTINGS, seen: Observed = LAN) -> Wanted:
    return wanted_links(
        table(1, *peers, settings=settings), seen, own=OWN, public_key="PUB", private_key="PRIV"
    )


def done(seen: Observed, plan: list[Operation]) -> Observed:
    """What a kernel would show after the plan."""
    for operation in plan:
        seen = _done(seen, operation)
    return seen


def _done(seen: Observed, operation: Operation) -> Observed:  # noqa: C901, PLR0911, PLR0912 - one case per operation
    match operation:
        case ops.AddBridge(name=name, mac=mac, mtu=mtu):
            return _with(seen, Device(index=7, name=name, kind="bridge", mac=mac, mtu=mtu, alias=ALIAS))
        case ops.AddVxlan():
            made = Device(
                index=8,
                name=operation.name,
                kind="vxlan",
                mac=operation.mac,
                mtu=operation.mtu,
                alias=ALIAS,
                vni=operation.vni,
                port=operation.port,
                local=operation.local,
            )
            return _with(seen, made)
        case ops.AddWireguard(name=name, mtu=mtu):
            return _with(seen, Device(index=8, name=name, kind="wireguard", mtu=mtu, alias=ALIAS))
        case ops.RemoveDevice(name=name):
            keep: Any = lambda each: each.device != name  # noqa: E731
            return replace(
                seen,
                devices=tuple(each for each in seen.devices if each.name != name),
                addresses=tuple(filter(keep, seen.addresses)),
                routes=tuple(filter(keep, seen.routes)),
                neighbours=tuple(filter(keep, seen.neighbours)),
                forwards=tuple(filter(keep, seen.forwards)),
            )
        case ops.SetDevice(name=name, mtu=mtu, mac=mac):
            device = seen.device(name)
            assert device is not None
            return _with(seen, replace(device, mtu=mtu, mac=mac or device.mac, alias=ALIAS, is_up=True))
        case ops.AddAddress(device=name, interface=interface):
            return replace(seen, addresses=(*seen.addresses, DeviceAddress(device=name, interface=interface)))
        case ops.RemoveAddress(device=name, interface=interface):
            gone = DeviceAddress(device=name, interface=interface)
            return replace(seen, addresses=tuple(each for each in seen.addresses if each != gone))
        case ops.PutRoute(route=route):
            others = tuple(
                each
                for each in seen.routes
                if (each.destination, each.device) != (route.destination, route.device)
            )
            return replace(seen, routes=(*others, route))
        case ops.RemoveRoute(destination=destination, device=name):
            return replace(
                seen,
                routes=tuple(
                    each for each in seen.routes if (each.destination, each.device) != (destination, name)
                ),
            )
        case ops.PutNeighbour(neighbour=entry):
            neighbours = tuple(each for each in seen.neighbours if each.address != entry.address)
            return replace(seen, neighbours=(*neighbours, entry))
        case ops.RemoveNeighbour(neighbour=entry):
            return replace(seen, neighbours=tuple(each for each in seen.neighbours if each != entry))
        case ops.PutForward(forward=forward):
            return replace(seen, forwards=(*seen.forwards, forward))
        case ops.RemoveForward(forward=forward):
            return replace(seen, forwards=tuple(each for each in seen.forwards if each != forward))
        case ops.SetWireguardKey(port=port):
            return replace(seen, wireguard=replace(seen.wireguard, public_key="PUB", port=port))
        case ops.PutWireguardPeer(peer=peer):
            known = tuple(each for each in seen.wireguard.peers if each.key != peer.key)
            return replace(seen, wireguard=replace(seen.wireguard, peers=(*known, peer)))
        case ops.RemoveWireguardPeer(key=key):
            left = tuple(each for each in seen.wireguard.peers if each.key != key)
            return replace(seen, wireguard=replace(seen.wireguard, peers=left))
    raise AssertionError(operation)


def _with(seen: Observed, device: Device) -> Observed:
    others = tuple(each for each in seen.devices if each.name != device.name)
    return replace(seen, devices=(*others, device))


class TestPlan:
    def test_a_new_host_gets_all_of_it_in_order(self) -> None:
        plan = plan_links(wanted(2), LAN)

        assert [type(each) for each in plan] == [
            ops.AddBridge,
            ops.AddAddress,
            ops.AddVxlan,
            ops.PutNeighbour,
            ops.PutForward,
            ops.PutRoute,
            ops.PutRoute,
        ]
        assert all(each.reason for each in plan)

    def test_a_peer_is_reached_by_three_entries(self) -> None:
        seen = done(LAN, plan_links(wanted(2), LAN))

        mac = "ba:79:0a:2a:02:01"
        gateway = IPv4Address("10.42.2.1")
        assert seen.neighbours == (Neighbour(device="bay1-vx", address=gateway, mac=mac),)
        assert seen.forwards == (Forward(device="bay1-vx", mac=mac, to=IPv4Address("192.0.2.2")),)
        assert (
            Route(
                destination=IPv4Network("10.42.2.0/24"),
                device="bay1-vx",
                gateway=gateway,
                source=IPv4Address("10.42.1.1"),
            )
            in seen.routes
        )

    def test_a_node_that_leaves_takes_its_entries(self) -> None:
        seen = done(LAN, plan_links(wanted(2, 3), LAN))

        plan = plan_links(wanted(2), seen)

        assert [type(each) for each in plan] == [ops.RemoveNeighbour, ops.RemoveForward, ops.RemoveRoute]
        assert all("3" in str(each) for each in plan)

    def test_a_node_that_moves_is_looked_for_where_it_is(self) -> None:
        """Its host came back with another address: the old entry goes before the new one comes."""
        seen = done(LAN, plan_links(wanted(2), LAN))
        moved = table(1, 2)
        moved.peers["n2"].address = "192.0.2.77"

        plan = plan_links(wanted_links(moved, seen, own=OWN), seen)

        assert [type(each) for each in plan] == [ops.RemoveForward, ops.PutForward]

    def test_another_subnet_of_this_node_replaces_the_old(self) -> None:
        seen = done(LAN, plan_links(wanted(2), LAN))

        moved = wanted_links(table(9, 2), seen, own=OWN)
        after = done(seen, plan_links(moved, seen))

        assert [each.interface for each in after.addresses if each.device == "bay1"] == [moved.gateway]
        assert {each.source for each in after.routes if each.source} == {IPv4Address("10.42.9.1")}

    def test_what_cannot_be_changed_is_made_anew(self) -> None:
        seen = done(LAN, plan_links(wanted(2), LAN))

        plan = plan_links(wanted(2, settings=settings(port=7999)), seen)

        assert [type(each) for each in plan][:2] == [ops.RemoveDevice, ops.AddVxlan]
        assert plan[0].reason == "it is vxlan 1 from 192.0.2.1:7472, not vxlan 1 from 192.0.2.1:7999"

    def test_off_has_no_tunnel_and_no_routes(self) -> None:
        seen = done(LAN, plan_links(wanted(2), LAN))

        after = done(seen, plan_links(wanted(2, settings=settings(mode=pb.NETWORK_MODE_OFF)), seen))

        assert after.device("bay1-vx") is None
        assert {each.device for each in after.routes} == {"eth0", "lo"}

    def test_an_address_that_is_anothers_is_not_left_from(self) -> None:
        """A cloud's public address is translated on the way: the host itself does not have it."""
        assert wanted_links(table(1, 2), LAN, own=IPv4Address("198.51.100.9")).local is None


def _key(number: int) -> str:
    return f"KEY{number}".ljust(43, "A") + "="


class TestWireguard:
    def a_peer(self, number: int) -> WireguardPeer:
        return WireguardPeer(
            key=_key(number),
            endpoint=(f"192.0.2.{number}", 7472),
            allowed=frozenset((IPv4Network(f"10.42.{number}.0/24"),)),
        )

    def wants(self, *keyed: int) -> Wanted:
        network = table(1, *keyed, settings=WIREGUARD)
        for number in keyed:
            network.peers[f"n{number}"].wireguard_key = _key(number)
        return wanted_links(network, LAN, own=OWN, public_key="PUB", private_key="PRIV")

    def test_the_tunnel_has_a_key_and_knows_its_peers(self) -> None:
        seen = done(LAN, plan_links(self.wants(2), LAN))

        assert seen.wireguard == WireguardDevice(public_key="PUB", port=7472, peers=(self.a_peer(2),))
        assert seen.device("bay1-wg") is not None
        assert any(each.device == "bay1-wg" and each.gateway is None for each in seen.routes)

    def test_a_peer_that_leaves_is_forgotten(self) -> None:
        seen = done(LAN, plan_links(self.wants(2, 3), LAN))

        assert done(seen, plan_links(self.wants(3), seen)).wireguard.peers == (self.a_peer(3),)

    def test_where_a_peer_was_last_heard_is_the_kernels(self) -> None:
        seen = done(LAN, plan_links(self.wants(2), LAN))
        roamed = replace(self.a_peer(2), endpoint=("198.51.100.7", 40000))
        seen = replace(seen, wireguard=replace(seen.wireguard, peers=(roamed,)))

        assert plan_links(self.wants(2), seen) == []

    def test_a_key_stays_out_of_logs(self) -> None:
        assert "PRIV" not in f"{self.wants(2)} {plan_links(self.wants(2), LAN)}"


class TestMtu:
    @pytest.mark.parametrize(
        ("mode", "below", "pods"),
        [
            (pb.NETWORK_MODE_VXLAN, 1500, 1450),
            (pb.NETWORK_MODE_VXLAN, 9001, 8951),
            (pb.NETWORK_MODE_WIREGUARD, 1500, 1420),
            (pb.NETWORK_MODE_OFF, 1500, 1500),
            (pb.NETWORK_MODE_VXLAN, 700, 1280),
        ],
    )
    def test_leaves_room_for_the_tunnels_headers(self, mode: pb.NetworkMode, below: int, pods: int) -> None:
        seen = _with(LAN, Device(index=2, name="eth0", mtu=below))

        assert wanted(2, settings=settings(mode=mode), seen=seen).mtu == pods

    def test_the_narrowest_way_to_a_peer_counts(self) -> None:
        """n3 is behind a VPN; the longest prefix leads."""
        seen = _with(LAN, Device(index=3, name="tun0", mtu=1400))
        vpn = Route(destination=IPv4Network("192.0.2.3/32"), device="tun0")
        seen = replace(seen, routes=(*seen.routes, vpn))

        assert (wanted(2, seen=seen).mtu, wanted(2, 3, seen=seen).mtu) == (1450, 1350)


class TestPorts:
    BRIDGE = Device(index=7, name="bay1", kind="bridge")

    def plan(self, *devices: Device, filtered: bool = False) -> list[str]:
        plan = plan_ports(wanted(2), (self.BRIDGE, *devices), [5], is_bridge_filtered=filtered)
        return [f"{type(each).__name__} {each.device}" for each in plan]

    def test_a_loose_cable_of_a_pod_is_plugged_in(self) -> None:
        assert self.plan(Device(index=9, name="veth1", kind="veth", far_namespace=5)) == ["SetMaster veth1"]

    @pytest.mark.parametrize(
        "device",
        [
            Device(index=9, name="veth1", kind="veth", far_namespace=6),
            Device(index=9, name="veth1", kind="veth", far_namespace=None),
            Device(index=9, name="veth1", kind="veth", far_namespace=5, master=99),
            Device(index=9, name="tap0", kind="tun", far_namespace=5),
        ],
    )
    def test_others_are_let_be(self, device: Device) -> None:
        assert self.plan(device, filtered=True) == []

    def test_a_pod_may_be_its_own_service_where_bridges_are_filtered(self) -> None:
        device = Device(index=9, name="veth1", kind="veth", far_namespace=5, master=7)

        assert self.plan(device, filtered=True) == ["SetHairpin veth1"]
        assert self.plan(device, filtered=False) == []
        assert self.plan(replace(device, is_hairpin=True), filtered=True) == []


PEERS = st.sets(st.integers(2, 20), max_size=6)
MODES = st.sampled_from([pb.NETWORK_MODE_VXLAN, pb.NETWORK_MODE_OFF])


class TestAlways:
    @limits(deadline=None)
    @given(PEERS, PEERS, MODES, MODES)
    def test_a_plan_that_was_carried_out_leaves_nothing_to_do(
        self, before: set[int], after: set[int], first: pb.NetworkMode, second: pb.NetworkMode
    ) -> None:
        """Whatever was there before. And what is foreign is as it was."""
        seen = done(LAN, plan_links(wanted(*before, settings=settings(mode=first)), LAN))
        goal = wanted(*after, settings=settings(mode=second))

        seen = done(seen, plan_links(goal, seen))

        assert plan_links(goal, seen) == []
        assert set(LAN.devices) <= set(seen.devices)
        assert set(LAN.routes) <= set(seen.routes)
        assert set(LAN.addresses) <= set(seen.addresses)

    @given(st.integers(0, 2**32 - 1))
    def test_a_mac_is_one_hosts_own(self, number: int) -> None:
        """Locally administered, and no group's."""
        first = int(mac_of(IPv4Address(number)).partition(":")[0], 16)

        assert first & 0b11 == 0b10
