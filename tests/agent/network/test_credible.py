from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from agent.network.check import try_peers
from agent.network.credible import credible, unreachable_peers
from agent.network.links import plan_links, wanted_links
from agent.network.observed import Observed
from agent.network.operations import PutRoute
from agent.network.table import NetworkTable
from agent.traffic import ports
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.network.words import settings, told

WIREGUARD = settings(mode=pb.NETWORK_MODE_WIREGUARD)
KEY = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="


def believed(*peers: pb.NetworkPeer, settings: pb.NetworkSettings = WIREGUARD) -> NetworkTable:
    """Of node n1 with the subnet 10.42.1.0/24."""
    message = told(1, settings=settings)
    message.peers.extend(peers)
    return credible(NetworkTable().fold(message))


def a_peer(number: int, **fields: Any) -> pb.NetworkPeer:
    peer = pb.NetworkPeer(
        node=f"n{number}",
        address=f"192.0.2.{number}",
        subnet=f"10.42.{number}.0/24",
        wireguard_key=f"{'AB'[number % 2]}{KEY[1:]}",
    )
    peer.MergeFrom(pb.NetworkPeer(**fields))
    return peer


def routes(network: NetworkTable) -> set[str]:
    """That lead to other nodes."""
    wanted = wanted_links(network, Observed(), own=IPv4Address("192.0.2.1"))
    return {
        str(each.route.destination)
        for each in plan_links(wanted, Observed())
        if isinstance(each, PutRoute) and not each.route.is_local
    }


class TestOwnNetwork:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"pod_range": "0.0.0.0/0"}, "the pod range '0.0.0.0/0' is not a /8 to a /30"),
            ({"pod_range": "8.0.0.0/7"}, "is not a /8 to a /30"),
            ({"pod_range": "10.42.0.0/255.254.0.0"}, "is not a /8 to a /30"),
            ({"pod_range": "10.42.1.0/15"}, "has host bits set"),
            ({"pod_range": "127.0.0.0/8"}, "holds addresses that no host can have"),
            ({"pod_range": "224.0.0.0/8"}, "holds addresses that no host can have"),
            (
                {"pod_range": "10.44.0.0/16"},
                "the subnet 10.42.1.0/24 is no part of the pod range 10.44.0.0/16",
            ),
            ({"pod_range": "10.42.1.0/24"}, "is no part of the pod range"),
            ({"pod_range": "::/0"}, "Expected 4 octets"),
            ({"service_range": "10.0.0.0/8"}, "the service range '10.0.0.0/8' is not a /12 to a /30"),
            ({"service_range": "169.254.0.0/16"}, "holds addresses that no host can have"),
            ({"service_range": "10.43.0.0/16"}, "overlap"),
            ({"domain": "cluster.local\nnameserver 8.8.8.8"}, "is no domain"),
            ({"domain": "a" * 58}, "is no domain"),
            ({"mode": 9}, "knows no way 9"),
            ({"id": 2**24}, "is no number of a network"),
            ({"port": 65_536}, "is no port"),
        ],
    )
    def test_that_cannot_be_is_refused_whole(self, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words.replace("/", r"\/")):
            believed(settings=settings(**changes))

    @pytest.mark.parametrize("field", ["pod_range", "service_range", "domain", "mode", "id", "port"])
    def test_that_lacks_something_is_refused(self, field: str) -> None:
        lacking = settings()
        lacking.ClearField(field)

        with pytest.raises(ValueError, match=r"."):
            believed(settings=lacking)

    @pytest.mark.parametrize("subnet", ["0.0.0.0/0", "10.42.0.0/15", "10.42.1.0/32", "10.42.1.0/31", ""])
    def test_a_subnet_that_leaves_the_range_or_no_address_is_refused(self, subnet: str) -> None:
        message = told(1)
        message.subnet = subnet

        with pytest.raises(ValueError, match=r"."):
            credible(NetworkTable().fold(message))


class TestAnotherNode:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"subnet": "0.0.0.0/0"}, "its subnet 0.0.0.0/0 is no /24 of the pod range 10.42.0.0/15"),
            ({"subnet": "8.8.8.0/24"}, "is no /24 of the pod range"),
            ({"subnet": "10.42.0.0/16"}, "is no /24 of the pod range"),
            ({"subnet": "10.42.9.9/32"}, "is no /24 of the pod range"),
            ({"subnet": "10.42.9.9/24"}, "its subnet '10.42.9.9/24' is none"),
            ({"subnet": "10.42.1.0/24"}, "its subnet 10.42.1.0/24 is that of this node"),
            ({"subnet": "10.42.2.0/24"}, "its subnet 10.42.2.0/24 is that of n2"),
            ({"node": "n3; drop"}, "'n3; drop' is no name of a node"),
            ({"address": "0.0.0.0"}, "its address 0.0.0.0 is not that of a host"),
            ({"address": "127.0.0.1"}, "is not that of a host"),
            ({"address": "224.0.0.1"}, "is not that of a host"),
            ({"address": "255.255.255.255"}, "is not that of a host"),
            ({"address": "2001:db8::3"}, "its address '2001:db8::3' is none of IPv4"),
            ({"address": "10.42.2.9"}, "inside the cluster's own range 10.42.0.0/15"),
            ({"address": "10.96.0.1"}, "inside the cluster's own range 10.96.0.0/16"),
            ({"wireguard_key": "short"}, "it has no WireGuard key"),
            ({"wireguard_key": KEY[:-2] + "x="}, "it has no WireGuard key"),
            ({"wireguard_key": f"A{KEY[1:]}"}, "its WireGuard key is that of n2"),
        ],
    )
    async def test_that_cannot_be_is_left_out_and_named(self, fields: dict[str, Any], words: str) -> None:
        """The others are joined; who checks the network is told."""
        network = believed(a_peer(2), a_peer(3, **fields), a_peer(4, wireguard_key=f"C{KEY[1:]}"))

        assert routes(network) == {"10.42.2.0/24", "10.42.4.0/24"}
        ((_, why),) = unreachable_peers(network).items()
        assert words in why
        paths = await try_peers("n1", network, echo_port=1 + ports.ECHO)
        assert why in {path.detail for path in paths if not path.ok}

    def test_whom_a_subnet_belonged_to_first_keeps_it(self) -> None:
        thief = a_peer(3, subnet="10.42.4.0/24", wireguard_key=f"C{KEY[1:]}")

        network = credible(believed(a_peer(4)).fold(pb.Network(peers=[thief])))
        assert set(network.peers) == {"n4"}

        network = credible(network.fold(pb.Network(gone=["n4"])))
        assert set(network.peers) == {"n3"}, "and when it is gone the other may have it"

    def test_without_a_tunnel_addresses_do_not_matter(self) -> None:
        """The hosts' own network carries the packets, wherever the hosts are."""
        routed = settings(mode=pb.NETWORK_MODE_OFF)

        assert unreachable_peers(believed(a_peer(2, address="n2.example"), settings=routed)) == {}

    @limits(deadline=None)
    @given(st.text(), st.text(), st.text(), st.text())
    def test_no_word_of_it_breaks_this_node(self, node: str, address: str, subnet: str, key: str) -> None:
        strange = pb.NetworkPeer(node=node, address=address, subnet=subnet, wireguard_key=key)

        assert "10.42.2.0/24" in routes(believed(a_peer(2), strange))
