from __future__ import annotations

import asyncio

import pytest

from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from manager.dispatcher.admission import version_skew
from manager.store import keys
from tests.manager.world import ScriptedAgent, World, a_deployment, a_world

pytestmark = pytest.mark.virtual_time


def refusal_of(agent: ScriptedAgent) -> wire.Refusal | None:
    return next((message.refusal for message in agent.heard if message.HasField("refusal")), None)


async def refused(world: World, agent: ScriptedAgent) -> wire.Refusal:
    world.agents.append(agent)
    agent.start()
    await world.until(lambda: agent.is_over)
    found = refusal_of(agent)
    assert found is not None
    return found


class TestComingIn:
    async def test_registers_a_new_node_and_welcomes_it(self) -> None:
        async with a_world(2) as world:
            agent = await world.agent("n1")

            assert agent.kinds()[:1] == ["welcome"]
            assert sorted(agent.heard[0].welcome.managers) == ["m1:7400", "m2:7400"]
            assert world.etcd.get(keys.node("n1")) is not None

    async def test_writes_nothing_when_a_known_node_comes_back(self) -> None:
        async with a_world() as world:
            first = await world.agent("n1")
            await first.stop()
            before = world.etcd.get(keys.node("n1"))
            await world.agent("n1")

            assert world.etcd.get(keys.node("n1")) == before

    async def test_refuses_a_second_agent_of_the_same_name(self) -> None:
        async with a_world() as world:
            first = await world.agent("n1")
            refusal = await refused(world, ScriptedAgent(world, "n1", world.leader))

            assert "another agent is connected as node n1" in refusal.reason
            assert not refusal.final
            assert not first.is_over

    @pytest.mark.parametrize("name", ["../n1", "N1", "", "n" * 64, "n1\n"])
    async def test_refuses_what_is_no_name(self, name: str) -> None:
        async with a_world() as world:
            agent = ScriptedAgent(world, "host", world.leader)
            agent.hello.node = name
            refusal = await refused(world, agent)

            assert refusal.final
            assert "is no node name" in refusal.reason
            assert not world.etcd.items(keys.NODES)

    @pytest.mark.parametrize("version", ["0.9.0", "1.0.0", "", "x"])
    async def test_refuses_another_version_in_words(self, version: str) -> None:
        async with a_world() as world:
            agent = ScriptedAgent(world, "n1", world.leader)
            agent.hello.version = version
            refusal = await refused(world, agent)

            assert refusal.final
            assert refusal.reason

    def test_takes_one_minor_version_apart(self) -> None:
        assert not version_skew("0.2.9", "0.1.0")
        assert version_skew("0.3.0", "0.1.0")

    async def test_refuses_an_agent_of_another_cluster(self) -> None:
        async with a_world() as world:
            await world.agent("n1")
            stranger = ScriptedAgent(world, "n2", world.leader)
            stranger.hello.cluster = "elsewhere"

            assert "belongs to cluster elsewhere" in (await refused(world, stranger)).reason

    async def test_first_wants_to_hear_hello(self) -> None:
        async with a_world() as world:
            agent = ScriptedAgent(world, "n1", world.leader)
            agent.say(heartbeat=wire.Heartbeat(sequence=1))

            assert "must be Hello" in (await refused(world, agent)).reason

    async def test_sends_an_agent_on_to_the_leader_or_relays_it(self) -> None:
        async with a_world(2) as world:
            lost = ScriptedAgent(world, "n1", world.follower)
            world.agents.append(lost)
            lost.start()
            await world.until(lambda: lost.is_over)
            relayed = ScriptedAgent(world, "n2", world.follower)
            relayed.hello.relay = True
            world.agents.append(relayed)
            relayed.start()
            await world.until(lambda: "assignments" in relayed.kinds())
            nodes = await world.control().ListNodes(api.ListNodesRequest())

            assert lost.heard[0].redirect.leader_address == f"{world.leader}:7400"
            assert [(node.name, node.via) for node in nodes.nodes] == [("n2", world.follower)]


class TestTelling:
    async def test_tells_nothing_before_the_node_has_reported_in_full(self) -> None:
        async with a_world() as world:
            agent = ScriptedAgent(world, "n1", world.leader)
            world.agents.append(agent)
            agent.start(report=False)
            await world.apply(a_deployment())
            await asyncio.sleep(5)
            assert "assignments" not in agent.kinds()
            agent.report(full=True)
            await world.until(lambda: len(agent.assignments) == 2)

    async def test_does_not_take_silence_of_a_broken_engine_for_absence(self) -> None:
        """The report is empty because the engine cannot be asked: no record goes, and nothing is told."""
        async with a_world() as world:
            first = await world.agent("n1")
            await world.apply(a_deployment())
            await world.until(lambda: len(first.statuses) == 2)
            first.is_idle = True
            await first.stop()
            await world.control().Scale(api.ScaleRequest(name="web", replicas=0))
            again = ScriptedAgent(world, "n1", world.leader)
            world.agents.append(again)
            again.engine_ok = False
            again.start()
            await asyncio.sleep(20)
            assert len(world.leadership.state.by_node["n1"]) == 2
            assert "assignments" not in again.kinds()
            again.engine_ok = True
            again.report(full=True)
            await world.until(lambda: not world.leadership.state.by_node["n1"])

    async def test_keeps_a_record_until_the_agent_has_seen_its_pod_end(self) -> None:
        async with a_world() as world:
            agent = await world.agent("n1")
            await world.apply(a_deployment(replicas=1))
            await world.until(lambda: len(agent.statuses) == 1)
            agent.is_idle = True
            await world.control().Scale(api.ScaleRequest(name="web", replicas=0))
            await asyncio.sleep(300)
            (uid,) = agent.statuses
            assert agent.assignments[uid].want == wire.WANT_STOP
            assert (await world.pods())[0].status == "Stopping"
            agent.saw(uid, wire.POD_STATE_STOPPED)
            await world.until(lambda: not agent.assignments)

            assert await world.pods() == []

    async def test_keeps_the_record_of_a_pod_that_was_sent_just_before_it_is_not_wanted(self) -> None:
        """Scaled up and down at once, while the agent has said nothing of the new pod yet."""
        async with a_world() as world:
            agent = await world.agent("n1")
            agent.is_idle = True
            await world.apply(a_deployment(replicas=1))
            await world.until(lambda: len(agent.assignments) == 1)
            await world.control().Scale(api.ScaleRequest(name="web", replicas=0))
            await asyncio.sleep(120)

            assert len(world.leadership.state.by_node["n1"]) == 1

    async def test_nonsense_of_one_agent_ends_its_own_stream_only(self) -> None:
        async with a_world() as world:
            good = await world.agent("n1")
            bad = await world.agent("n2")
            bad.saw("not-a-pod", wire.POD_STATE_RUNNING)
            bad.saw("u.1.2", 77)
            await world.until(lambda: bad.is_over)
            await world.apply(a_deployment())
            await world.until(lambda: len(good.assignments) >= 1)

            assert not good.is_over

    async def test_tells_two_hundred_nodes_their_peers_without_a_storm(self) -> None:
        async with a_world() as world:
            for number in range(200):
                agent = ScriptedAgent(world, f"n{number}", world.leader)
                world.agents.append(agent)
                agent.start()
            await world.until(lambda: len(world.leadership.dispatcher.sessions) == 200, within_s=60)
            await asyncio.sleep(2)
            counts = [agent.kinds().count("peers") for agent in world.agents]

            assert all(count >= 1 for count in counts)
            assert max(counts) < 20
            assert all(
                len(next(m.peers.peers for m in reversed(agent.heard) if m.HasField("peers"))) == 5
                for agent in world.agents
            )


class TestAtTheEndOfATerm:
    async def test_sends_agents_away_with_a_goodbye(self) -> None:
        async with a_world(2) as world:
            agent = await world.agent("n1")
            await world.managers[world.leader]._election.resign()
            await world.until(lambda: agent.is_over)

            assert "goodbye" in agent.kinds()
