from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from manager.founding import NetworkChoice
from manager.store import keys, records
from tests.manager.world import ScriptedAgent, World, a_deployment, a_world

pytestmark = pytest.mark.virtual_time

# Two nodes of thirteen pods.
SMALL = NetworkChoice(pod_range="10.42.0.0/27", node_prefix=28)
KEY = "a" * 43 + "="


def networks(agent: ScriptedAgent) -> list[wire.Network]:
    return [message.network for message in agent.heard if message.HasField("network")]


def known(agent: ScriptedAgent) -> dict[str, str]:
    """Other nodes' subnets, from all it was told."""
    peers: dict[str, str] = {}
    for network in networks(agent):
        if network.full:
            peers = {}
        peers |= {peer.node: peer.subnet for peer in network.peers}
        for name in network.gone:
            peers.pop(name, None)
    return peers


def subnet_of(world: World, node: str) -> str:
    found = world.etcd.get(keys.node(node))
    assert found is not None
    return records.decode_node(found.value).subnet


async def come(world: World, name: str, **hello: Any) -> ScriptedAgent:
    """An agent that says these fields too; connected, or refused."""
    agent = ScriptedAgent(world, name, world.leader)
    agent.hello.MergeFrom(wire.Hello(**hello))
    world.agents.append(agent)
    agent.start()
    await world.until(lambda: agent.is_over or "assignments" in agent.kinds())
    return agent


async def remove(world: World, name: str) -> None:
    edit = api.UpdateNodeRequest(name=name, lost=True)
    await world.control().UpdateNode(edit)
    await world.control().UpdateNode(api.UpdateNodeRequest(name=name, remove=True))


def refusal(agent: ScriptedAgent) -> wire.Refusal:
    (message,) = [message for message in agent.heard if message.HasField("refusal")]
    return message.refusal


class TestSubnets:
    async def test_are_given_when_nodes_register_and_kept(self) -> None:
        async with a_world() as world:
            first, second = await world.agent("n1"), await world.agent("n2")
            await first.stop()
            again = await world.agent("n1", boot_id="another")

            assert networks(first)[0].subnet == networks(again)[0].subnet == "10.42.0.0/24"
            assert networks(second)[0].subnet == "10.42.1.0/24"
            assert (subnet_of(world, "n1"), subnet_of(world, "n2")) == ("10.42.0.0/24", "10.42.1.0/24")

    async def test_are_given_to_nodes_from_before_there_were_any(self) -> None:
        async with a_world() as world:
            agent = await world.agent("n1")
            await agent.stop()
            found = world.etcd.get(keys.node("n1"))
            assert found is not None
            await world.kill("m1")
            facts = replace(records.decode_node(found.value), subnet="")
            world.etcd.put(keys.node("n1"), records.encode_node(facts))
            await world.start("m2")
            await world.until(lambda: world.managers["m2"].leadership is not None)
            await world.agent("n1", manager="m2")

            assert subnet_of(world, "n1") == "10.42.0.0/24"

    async def test_limit_the_pods_of_a_node(self) -> None:
        async with a_world(network=SMALL) as world:
            await world.agent("n1")

            assert world.leadership.state.nodes["n1"].facts.capacity.pods == 13

    async def test_that_are_all_given_leave_a_node_outside_until_one_is_removed(self) -> None:
        async with a_world(network=SMALL) as world:
            gone, _ = await world.agent("n1"), await world.agent("n2")
            refused = await come(world, "n3")

            assert refusal(refused).reason == (
                "node n3 gets no addresses for pods: 10.42.0.0/27 is for 2 nodes, and all of it is given."
                " Remove nodes that are gone: bay node remove NODE; a larger --pod-range needs a new cluster"
            )
            assert not refusal(refused).final
            assert world.etcd.get(keys.node("n3")) is None

            await gone.stop()
            await asyncio.sleep(10)
            await remove(world, "n1")
            agent = await come(world, "n3")
            assert networks(agent)[0].subnet == "10.42.0.0/28"

    async def test_of_an_agent_that_hung_up_meanwhile_are_not_given_to_another(self) -> None:
        """It was written down, though nobody waited for that any more."""
        async with a_world() as world:
            hasty = ScriptedAgent(world, "n1", world.leader)
            world.etcd.latency_s = 0.4
            hasty.start()
            await asyncio.sleep(0.3)
            await hasty.stop()
            world.etcd.latency_s = 0.001
            await world.agent("n2")
            await asyncio.sleep(1)

            assert subnet_of(world, "n1") != subnet_of(world, "n2")

    async def test_of_a_new_leader_are_those_of_the_last(self) -> None:
        async with a_world(2) as world:
            await world.agent("n1")
            await world.agent("n2")
            await world.kill(world.leader)
            await world.until(lambda: any(m.leadership is not None for m in world.managers.values()))
            third, first = await world.agent("n3"), await world.agent("n1")

            assert networks(third)[0].subnet == "10.42.2.0/24"
            assert networks(first)[0].subnet == "10.42.0.0/24"


class TestHello:
    async def test_says_where_ports_are_published_and_the_wireguard_key(self) -> None:
        async with a_world() as world:
            await come(
                world, "n1", publish_addresses=["192.0.2.1", "192.0.2.2", "192.0.2.1"], wireguard_key=KEY
            )
            facts = world.leadership.state.nodes["n1"].facts

            assert facts.publish_addresses == ("192.0.2.1", "192.0.2.2")
            assert facts.wireguard_key == KEY

    @pytest.mark.parametrize(
        ("hello", "words"),
        [
            (
                {"address": "0.0.0.0"},
                "advertises '0.0.0.0', which is neither an IPv4 address nor the name of a host",
            ),
            ({"address": "224.0.0.1"}, "neither an IPv4 address nor the name of a host"),
            ({"address": "255.255.255.255"}, "neither an IPv4 address nor the name of a host"),
            ({"address": "10.0.0.256"}, "neither an IPv4 address nor the name of a host"),
            ({"address": "10.0.0.5/8"}, "neither an IPv4 address nor the name of a host"),
            ({"address": "host\nhost"}, "neither an IPv4 address nor the name of a host"),
            (
                {"publish_addresses": ["host.example"]},
                "publishes at 'host.example', which is no IPv4 address",
            ),
            ({"publish_addresses": ["192.0.2.1\n"]}, "which is no IPv4 address"),
            ({"publish_addresses": ["2001:db8::1"]}, "which is no IPv4 address"),
            ({"publish_addresses": ["0.0.0.0"]}, "which is no IPv4 address of a host"),
            (
                {"publish_addresses": [f"192.0.2.{n}" for n in range(9)]},
                "publishes at 9 addresses: at most 8",
            ),
            ({"address": "n1\x1b[2J"}, "advertises 'n1\\x1b[2J', which is neither"),
            ({"address": "n" * 1_000_000}, "neither an IPv4 address nor the name of a host"),
            ({"wireguard_key": "a" * 44}, "has a WireGuard key that is none"),
            ({"wireguard_key": KEY + "\n"}, "has a WireGuard key that is none"),
        ],
    )
    async def test_with_what_cannot_be_is_refused(self, hello: dict[str, Any], words: str) -> None:
        async with a_world() as world:
            agent = await come(world, "n1", **hello)

            assert refusal(agent).final
            assert words in refusal(agent).reason


class TestTelling:
    async def test_comes_behind_the_welcome_and_before_any_pod(self) -> None:
        async with a_world() as world:
            await world.apply(a_deployment())
            agent = await world.agent("n1")

            assert agent.kinds()[:2] == ["welcome", "network"]
            network = networks(agent)[0]
            assert network.full
            assert network.settings == wire.NetworkSettings(
                pod_range="10.42.0.0/15",
                service_range="10.96.0.0/16",
                domain="cluster.local",
                mode=wire.NETWORK_MODE_VXLAN,
                id=1,
                port=7472,
            )

    async def test_names_every_other_node_and_soon_who_joins(self) -> None:
        async with a_world() as world:
            first = await world.agent("n1")
            second = await come(world, "n2", wireguard_key=KEY)
            await asyncio.sleep(2)

            assert known(first) == {"n2": "10.42.1.0/24"}
            assert known(second) == {"n1": "10.42.0.0/24"}
            (peer,) = networks(first)[1].peers
            assert (peer.address, peer.wireguard_key) == ("n2", KEY)
            assert len(networks(second)) == 1

    async def test_keeps_silent_nodes(self) -> None:
        async with a_world() as world:
            first, second = await world.agent("n1"), await world.agent("n2")
            await second.stop()
            await asyncio.sleep(30)
            third = await world.agent("n3")
            await asyncio.sleep(2)

            assert known(first) == {"n2": "10.42.1.0/24", "n3": "10.42.2.0/24"}
            assert known(third) == {"n1": "10.42.0.0/24", "n2": "10.42.1.0/24"}

    async def test_drops_a_node_that_was_removed(self) -> None:
        async with a_world() as world:
            first, second = await world.agent("n1"), await world.agent("n2")
            await asyncio.sleep(2)
            await second.stop()
            await asyncio.sleep(10)
            await remove(world, "n2")
            await asyncio.sleep(2)

            assert networks(first)[-1].gone == ["n2"]
            assert known(first) == {}

    async def test_follows_a_node_that_changes(self) -> None:
        async with a_world() as world:
            first, second = await world.agent("n1"), await come(world, "n2", wireguard_key=KEY)
            await second.stop()
            await come(world, "n2", wireguard_key="b" * 43 + "=")
            await asyncio.sleep(2)

            assert networks(first)[-1].peers[0].wireguard_key == "b" * 43 + "="

    async def test_of_many_nodes_that_join_at_once_is_a_message_or_two(self) -> None:
        async with a_world() as world:
            first = await world.agent("n1")
            agents = [ScriptedAgent(world, f"n{number}", world.leader) for number in range(2, 42)]
            world.agents.extend(agents)
            for agent in agents:
                agent.start()
            await asyncio.sleep(5)

            assert len(known(first)) == 40
            assert len(networks(first)) <= 6
            assert all(len(known(agent)) == 40 for agent in agents)
