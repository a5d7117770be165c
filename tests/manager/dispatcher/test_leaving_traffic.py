from __future__ import annotations

import asyncio

import pytest

from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from tests.manager.dispatcher.serving import scale, serving, told_to_stop
from tests.manager.world import ScriptedAgent, a_deployment, a_service, a_world

pytestmark = pytest.mark.virtual_time


class TestStopping:
    async def test_leaves_every_proxy_before_it_is_told(self) -> None:
        async with serving("n1", "n2") as world:
            n1, n2 = world.agents
            n2.is_proxy_idle = True
            await scale(world, 1)
            await asyncio.sleep(0.3)
            (stopping,) = [pod for pod in await world.pods() if pod.want == wire.WANT_STOP]
            agent = n1 if stopping.node == "n1" else n2
            assert stopping.uid not in n1.endpoints() | n2.endpoints()
            assert agent.assignments[stopping.uid].want == wire.WANT_RUN
            assert (stopping.status, stopping.why) == ("Stopping", "leaving the proxies: n2 to follow")
            n2.is_proxy_idle = False
            n2.apply_traffic()
            await asyncio.sleep(0.2)

            assert await world.pods() == [pod for pod in await world.pods() if pod.uid != stopping.uid]
            assert agent.statuses.get(stopping.uid) is None

    async def test_waits_for_its_last_requests(self) -> None:
        async with serving("n1", "n2", replicas=1) as world:
            n1, n2 = world.agents
            (uid,) = n1.endpoints()
            n2.draining = {uid}
            await scale(world, 0)
            await asyncio.sleep(20)
            reply = await world.control().Why(api.WhyRequest(pod="web-0"))
            assert "is Stopping on" in reply.summary
            assert "draining: requests left on n2" in reply.summary
            n2.draining = set()
            n2.apply_traffic()
            await asyncio.sleep(0.2)

            assert await world.pods() == []

    async def test_cuts_them_when_the_time_to_drain_is_over_and_says_so(self) -> None:
        async with serving("n1", replicas=1) as world:
            (n1,) = world.agents
            n1.draining = n1.endpoints()
            await scale(world, 0)
            await asyncio.sleep(29)
            assert len(await world.pods()) == 1
            await asyncio.sleep(2)
            assert await world.pods() == []
            events = (await world.control().ListEvents(api.ListEventsRequest())).events

            assert [e.message for e in events if e.reason == "PodDrainCut"] == [
                "its time to drain is over: requests are left on n1"
            ]

    async def test_does_not_wait_longer_than_five_seconds_for_a_proxy_that_does_not_follow(self) -> None:
        async with serving("n1", "n2", replicas=1) as world:
            for agent in world.agents:
                agent.is_proxy_idle = True
            await scale(world, 0)
            await asyncio.sleep(4.8)
            assert len(await world.pods()) == 1
            await asyncio.sleep(0.5)

            assert await world.pods() == []

    async def test_does_not_believe_a_proxy_that_is_ahead_of_what_it_was_told(self) -> None:
        """It speaks of a leader before us."""
        async with serving("n1", "n2", replicas=1) as world:
            for agent in world.agents:
                agent.is_proxy_idle = True
            await scale(world, 0)
            for agent in world.agents:
                agent.say(traffic_applied=wire.TrafficApplied(version=10_000))
            await asyncio.sleep(4)

            assert len(await world.pods()) == 1

    async def test_does_not_wait_for_a_suspect(self) -> None:
        async with serving("n1", "n2", "n3", replicas=1) as world:
            silent = next(agent for agent in world.agents if not agent.statuses)
            silent.is_proxy_idle = True
            await silent.stop()
            await asyncio.sleep(0.1)
            await scale(world, 0)
            await asyncio.sleep(0.5)

            assert await world.pods() == []

    async def test_waits_though_the_service_went_first(self) -> None:
        """`bay delete -f app.yaml`: what is under way ends well."""
        async with serving("n1", "n2", replicas=1) as world:
            n1, n2 = world.agents
            (uid,) = n1.endpoints()
            n2.draining = {uid}
            await world.control().Delete(api.DeleteRequest(kind="Service", name="web"))
            await asyncio.sleep(0.2)
            await world.control().Delete(api.DeleteRequest(kind="Deployment", name="web"))
            await asyncio.sleep(10)
            assert len(await world.pods()) == 1
            n2.draining = set()
            n2.apply_traffic()
            await asyncio.sleep(0.2)

            assert await world.pods() == []

    async def test_waits_for_the_proxies_that_do_not_know_yet_that_the_service_is_gone(self) -> None:
        async with serving("n1", "n2", replicas=1) as world:
            _, n2 = world.agents
            n2.is_proxy_idle = True
            await world.control().Delete(api.DeleteRequest(kind="Service", name="web"))
            await world.control().Delete(api.DeleteRequest(kind="Deployment", name="web"))
            await asyncio.sleep(4.5)
            assert len(await world.pods()) == 1
            await asyncio.sleep(1)

            assert await world.pods() == []

    async def test_waits_for_the_proxies_though_the_pod_became_unready_just_now(self) -> None:
        async with serving("n1", "n2", replicas=1) as world:
            owner = next(agent for agent in world.agents if agent.statuses)
            other = next(agent for agent in world.agents if not agent.statuses)
            other.is_proxy_idle = True
            (uid,) = owner.statuses
            owner.saw(uid, wire.POD_STATE_RUNNING, ready=False)
            await scale(world, 0)
            await asyncio.sleep(1)
            assert len(await world.pods()) == 1
            other.is_proxy_idle = False
            other.apply_traffic()
            await asyncio.sleep(0.2)

            assert await world.pods() == []

    async def test_is_told_at_once_to_a_pod_that_no_service_finds(self) -> None:
        async with a_world() as world:
            agent = await world.agent("n1")
            agent.is_proxy_idle = True
            await world.apply(a_service(selector={"app": "other"}), a_deployment(replicas=1))
            await world.until(lambda: len(agent.statuses) == 1)
            await scale(world, 0)
            await asyncio.sleep(0.1)

            assert await world.pods() == []

    async def test_is_told_at_once_to_a_pod_that_serves_nobody(self) -> None:
        async with a_world() as world:
            agent = await world.agent("n1")
            agent.ready, agent.is_proxy_idle = False, True
            await world.apply(a_service(), a_deployment(replicas=1))
            await world.until(lambda: len(agent.statuses) == 1)
            await scale(world, 0)
            await asyncio.sleep(0.1)

            assert await world.pods() == []

    async def test_is_told_when_the_pod_ends_while_it_waits(self) -> None:
        async with serving("n1", "n2", replicas=1) as world:
            agent = next(each for each in world.agents if each.statuses)
            for each in world.agents:
                each.is_proxy_idle = True
            (uid,) = agent.statuses
            await scale(world, 0)
            await asyncio.sleep(1)
            agent.saw(uid, wire.POD_STATE_FAILED)
            await asyncio.sleep(0.2)

            assert await world.pods() == []

    async def test_of_a_handed_over_pod_goes_the_same_way(self) -> None:
        async with serving("n1", "n2", replicas=1) as world:
            old = next(agent for agent in world.agents if agent.statuses)
            new = next(agent for agent in world.agents if not agent.statuses)
            (uid,) = old.statuses
            old.draining = {uid}
            await world.control().UpdateNode(api.UpdateNodeRequest(name=old.name, drain=True))
            await world.until(lambda: len(new.statuses) == 1)
            await asyncio.sleep(2)
            assert old.endpoints() == set(new.statuses)
            assert old.assignments[uid].want == wire.WANT_HANDOVER
            old.draining = set()
            old.apply_traffic()
            await asyncio.sleep(0.2)

            assert uid not in old.assignments

    async def test_is_never_taken_back_by_a_new_leader(self) -> None:
        """The old one told the pod to stop: it says so, and is not told to run again."""
        async with serving("n1", replicas=1, managers=2) as world:
            (n1,) = world.agents
            n1.is_idle = True
            (uid,) = n1.statuses
            await scale(world, 0)
            await world.until(lambda: told_to_stop(n1) == {uid})
            n1.statuses[uid].ready, n1.statuses[uid].reason = False, "Terminating"
            await n1.stop()
            await world.kill(world.leader)
            await world.until(lambda: any(m.leadership is not None for m in world.managers.values()))
            again = ScriptedAgent(world, "n1", world.leader)
            again.statuses, again.is_idle, again.draining = n1.statuses, True, {uid}
            world.agents.append(again)
            again.start()
            await world.until(lambda: uid in again.assignments)
            wants = {
                pod.want for message in again.heard for pod in message.assignments.pods if pod.uid == uid
            }

            assert wants == {wire.WANT_STOP}

    async def test_begins_anew_with_a_new_leader(self) -> None:
        """The old one died before it told the pod: the new one waits for every proxy that may still send to it."""
        async with serving("n1", "n2", replicas=1, managers=2) as world:
            agents = {agent.name: agent for agent in world.agents}
            for agent in agents.values():
                agent.is_proxy_idle = True
            name = next(name for name, agent in agents.items() if agent.statuses)
            (uid,) = agents[name].statuses
            await scale(world, 0)
            await asyncio.sleep(0.5)
            for agent in agents.values():
                await agent.stop()
            await world.kill(world.leader)
            await world.until(lambda: any(m.leadership is not None for m in world.managers.values()))
            again = ScriptedAgent(world, name, world.leader)
            again.statuses, again.is_idle = agents[name].statuses, True
            world.agents.append(again)
            again.start()
            await world.until(lambda: uid in again.assignments)
            await asyncio.sleep(2)
            assert again.assignments[uid].want == wire.WANT_RUN
            assert uid not in again.endpoints()
            await world.until(lambda: again.assignments[uid].want == wire.WANT_STOP, within_s=4)
