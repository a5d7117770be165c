from __future__ import annotations

import json
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from agent.network.firewall import Fronts, changed_paths, fronts, render_table
from agent.network.links import wanted_links
from agent.network.nft import without_counters
from agent.network.observed import Observed
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.network.words import VIP, endpoint, service, settings, table, traffic_table

HERE = IPv4Address("192.0.2.1")
VIP_AT = IPv4Address(VIP)
UDP = pb.ServicePort(port=53, udp=True)


def offered(*services: tuple[pb.Service, list[pb.Endpoint]]) -> Fronts:
    return fronts(traffic_table(*services), node="n1", publish_addresses=[HERE])


def pods_at(found: Fronts, address: IPv4Address, port: int) -> list[str]:
    return sorted(str(pod) for pod, _ in found.udp_paths().get((address, port), ()))


def rendered(found: Fronts = Fronts(), mode: pb.NetworkMode = pb.NETWORK_MODE_VXLAN) -> str:  # noqa: B008 - frozen
    wanted = wanted_links(table(1, 2, settings=settings(mode=mode)), Observed(), own=None)
    return render_table(wanted, found, proxy_port=7460)


class TestFronts:
    def test_tcp_and_http_are_told_apart(self) -> None:
        found = offered((service(pb.ServicePort(port=80, http=True), pb.ServicePort(port=5432)), []))

        assert (found.http, found.tcp) == (((VIP_AT, 80),), ((VIP_AT, 5432),))

    def test_a_headless_service_offers_nothing_here(self) -> None:
        found = offered((service(pb.ServicePort(port=80), UDP, vip=""), [endpoint("10.42.1.2", 80, 53)]))

        assert found == Fronts()

    def test_udp_is_for_ready_pods_that_have_the_port(self) -> None:
        pods = [
            endpoint("10.42.1.2", 53),
            endpoint("10.42.1.3", 53, ready=False),
            endpoint("10.42.1.4", 0),
            endpoint("10.42.1.5"),
        ]

        assert pods_at(offered((service(UDP), pods)), VIP_AT, 53) == ["10.42.1.2"]

    def test_udp_is_published_under_its_numbers(self) -> None:
        port = pb.ServicePort(port=53, udp=True, node_port=30053, load_balancer=True)

        found = offered((service(port), [endpoint("10.42.1.2", 53)]))

        assert set(found.udp_paths()) == {(VIP_AT, 53), (HERE, 53), (HERE, 30053)}

    def test_a_number_that_is_no_port_is_published_nowhere(self) -> None:
        """The whole table would not load."""
        port = pb.ServicePort(port=53, udp=True, node_port=65_536)

        assert set(offered((service(port), [endpoint("10.42.1.2", 53)])).udp_paths()) == {(VIP_AT, 53)}

    @pytest.mark.parametrize(
        ("policy", "inside", "outside"),
        [
            ({}, ["10.42.1.2", "10.42.2.2"], ["10.42.1.2", "10.42.2.2"]),
            ({"internal_local": True}, ["10.42.1.2"], ["10.42.1.2", "10.42.2.2"]),
            ({"external_local": True}, ["10.42.1.2", "10.42.2.2"], ["10.42.1.2"]),
        ],
    )
    def test_local_means_this_nodes_pods(
        self, policy: dict[str, Any], inside: list[str], outside: list[str]
    ) -> None:
        port = pb.ServicePort(port=53, udp=True, node_port=30053)
        pods = [endpoint("10.42.1.2", 53, node="n1"), endpoint("10.42.2.2", 53, node="n2")]

        found = offered((service(port, **policy), pods))

        assert pods_at(found, VIP_AT, 53) == inside
        assert pods_at(found, HERE, 30053) == outside


class TestChangedPaths:
    B, C = (IPv4Address("10.42.1.3"), 53), (IPv4Address("10.42.2.2"), 53)

    def test_only_what_has_changed_is_looked_at(self) -> None:
        kept, moved, gone, new = ((VIP_AT, number) for number in (1, 2, 3, 4))
        before = {kept: frozenset((self.B,)), moved: frozenset((self.B,)), gone: frozenset((self.B,))}
        after = {kept: frozenset((self.B,)), moved: frozenset((self.C,)), new: frozenset((self.C,))}

        assert changed_paths(before, after) == {
            moved: frozenset((self.C,)),
            gone: frozenset(),
            new: frozenset((self.C,)),
        }


class TestTable:
    def test_only_a_tunnel_of_vxlan_is_guarded(self) -> None:
        """WireGuard knows its peers by their keys."""
        assert "udp dport 7472 fib daddr type local ip saddr != @nodes drop" in rendered()
        assert "7472" not in rendered(mode=pb.NETWORK_MODE_WIREGUARD)
        assert "7472" not in rendered(mode=pb.NETWORK_MODE_OFF)

    def test_it_is_replaced_in_one_go(self) -> None:
        assert rendered().startswith("add table inet bay1\ndelete table inet bay1\ntable inet bay1 {\n")

    @limits(deadline=None)
    @given(st.text())
    def test_nothing_that_a_user_names_stands_in_it(self, name: str) -> None:
        def text(name: str) -> str:
            port = pb.ServicePort(name=name, port=53, udp=True)
            evil = pb.Service(namespace="shop", name=name, vip=VIP, ports=[port])
            pod = pb.Endpoint(id=name, node=name, address="10.42.1.2", ports=[53], name=name, ready=True)
            return rendered(offered((evil, [pod])))

        assert text(name) == text("web")

    @pytest.mark.parametrize("address", ["10.42.1.2 }; flush ruleset", "0.0.0.0/0", "::1", "web", ""])
    def test_what_is_no_address_is_left_out(self, address: str) -> None:
        """The leader lets none through; it would not help."""
        with_it = [endpoint("10.42.1.2", 53), endpoint(address, 53)]

        assert rendered(offered((service(UDP), with_it))) == rendered(offered((service(UDP), with_it[:1])))
        assert offered((service(UDP, vip=address), with_it)).udp_paths() == {}


class TestReadingBack:
    def test_counters_and_numbers_of_rules_do_not_count(self) -> None:
        def listing(packets: int, handle: int, port: int = 80) -> str:
            rule = {"handle": handle, "expr": [{"counter": {"packets": packets, "bytes": 9}}, {"port": port}]}
            return json.dumps({"nftables": [{"rule": rule}]})

        assert without_counters(listing(1, 2)) == without_counters(listing(8, 9))
        assert without_counters(listing(1, 2)) != without_counters(listing(1, 2, port=81))
