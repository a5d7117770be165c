from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from bayplan.identity.certificates import key_to_pem, new_root, to_pem
from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from manager.founding import NetworkChoice
from manager.planning.endpoints import endpoints_of
from manager.store import keys, records
from tests.manager.world import WALL_S, ScriptedAgent, World, a_deployment, a_service, a_world

pytestmark = pytest.mark.virtual_time


@contextlib.asynccontextmanager
async def serving(*nodes: str, replicas: int = 2, managers: int = 1, **service: Any) -> AsyncIterator[World]:
    """A service web with ready pods on these nodes, of which every proxy knows."""
    async with a_world(managers) as world:
        agents = [await world.agent(name) for name in nodes]
        await world.apply(a_service(**service), a_deployment(replicas=replicas))
        await world.until(lambda: all(len(agent.endpoints()) == replicas for agent in agents))
        yield world


def told_to_stop(agent: ScriptedAgent) -> set[str]:
    return {uid for uid, assignment in agent.assignments.items() if assignment.want == wire.WANT_STOP}


async def scale(world: World, replicas: int) -> None:
    await world.control().Scale(api.ScaleRequest(name="web", replicas=replicas))


def traffic_of(agent: ScriptedAgent) -> list[wire.Traffic]:
    return [message.traffic for message in agent.heard if message.HasField("traffic")]


class TestEndpoints:
    async def test_reach_every_proxy_within_half_a_second_of_the_pods_being_ready(self) -> None:
        async with a_world() as world:
            agents = [await world.agent(name) for name in ("n1", "n2")]
            for agent in agents:
                agent.ready = False
            await world.apply(a_service(), a_deployment())
            await world.until(lambda: sum(len(agent.statuses) for agent in agents) == 2)
            assert not any(agent.endpoints() for agent in agents)
            for agent in agents:
                for uid in agent.statuses:
                    agent.saw(uid, wire.POD_STATE_RUNNING, ready=True)
            await asyncio.sleep(0.2)
            (service,) = agents[0].traffic.services.values()

            assert service.vip.startswith("10.96.")
            assert all(len(agent.endpoints()) == 2 for agent in agents)
            assert {e.ports[0] for e in agents[0].traffic.endpoints["default/web"].values()} == {80}

    async def test_lose_a_pod_that_is_not_ready_any_more(self) -> None:
        async with serving("n1") as world:
            (agent,) = world.agents
            gone, stays = sorted(agent.statuses)
            agent.saw(gone, wire.POD_STATE_RUNNING, ready=False)
            await asyncio.sleep(0.2)

            assert agent.endpoints() == {stays}

    async def test_keep_the_pods_of_a_silent_node_until_it_is_judged_down(self) -> None:
        async with serving("n1", "n2", "n3", replicas=3) as world:
            n1, n2, _ = world.agents
            lost = set(n2.statuses)
            assert len(lost) == 1
            await n2.stop()
            await asyncio.sleep(0.5)
            assert lost <= n1.endpoints()
            await world.until(lambda: world.leadership.dispatcher.node_state("n2")[0] == "Down")
            await asyncio.sleep(0.2)

            assert not lost & n1.endpoints()

    async def test_keep_the_pods_of_dead_nodes_while_the_brake_holds(self) -> None:
        """Then they go all at once, however slowly they are replaced."""
        async with serving("n1", "n2", "n3", "n4", replicas=40) as world:
            n1, *others = world.agents
            dead = {uid for agent in others for uid in agent.statuses}
            assert len(dead) == 30
            for agent in others:
                await agent.stop()
            await world.until(lambda: world.leadership.dispatcher.node_state("n2")[0] == "Down")
            await asyncio.sleep(1)
            assert world.leadership.dispatcher.node_state("n2")[2]
            assert dead <= n1.endpoints()
            await world.until(lambda: not world.leadership.dispatcher.node_state("n2")[2], within_s=90)
            await asyncio.sleep(0.6)

            assert not dead & n1.endpoints()
            assert sum(pod.want == wire.WANT_RUN for pod in await world.pods() if pod.uid in dead) > 10

    async def test_go_with_their_service(self) -> None:
        async with serving("n1") as world:
            (agent,) = world.agents
            await world.control().Delete(api.DeleteRequest(kind="Service", name="web"))
            await asyncio.sleep(0.2)

            assert agent.traffic.services == {}

    async def test_follow_a_changed_selector(self) -> None:
        async with serving("n1") as world:
            (agent,) = world.agents
            await world.apply(a_service(selector={"app": "other"}))
            await asyncio.sleep(0.2)
            assert agent.endpoints() == set()
            await world.apply(a_deployment("other", replicas=1))
            await world.until(lambda: len(agent.endpoints()) == 1, within_s=5)

    async def test_of_a_service_without_selector_are_written_by_hand(self) -> None:
        async with a_world() as world:
            agent = await world.agent("n1")
            written = {
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": {"name": "db"},
                "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 5432}]}],
            }
            await world.apply(a_service("db", selector={}), json.dumps(written))
            await world.until(lambda: agent.endpoints("default/db") == {"192.0.2.7"}, within_s=5)

    async def test_never_lead_from_a_service_back_to_a_service(self) -> None:
        """A proxy would connect to itself, for each connection once more, until it has none left."""
        async with a_world() as world:
            agent = await world.agent("n1")
            addresses = [{"ip": "10.96.0.2"}, {"ip": "192.0.2.7"}]
            written = {
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": {"name": "db"},
                "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}],
            }
            await world.apply(a_service("db", selector={}), json.dumps(written))
            await world.until(lambda: bool(agent.endpoints("default/db")), within_s=5)

            assert agent.endpoints("default/db") == {"192.0.2.7"}

    async def test_one_service_that_cannot_be_derived_stays_as_it_was_and_harms_no_other(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def or_raise(view: Any, pods: Any) -> Any:
            if view.name == "web":
                raise ZeroDivisionError("division by zero")
            return endpoints_of(view, pods)

        async with serving("n1") as world:
            (agent,) = world.agents
            before = agent.endpoints()
            monkeypatch.setattr("manager.dispatcher.service_pods.endpoints_of", or_raise)
            await world.apply(a_service("api"), a_deployment("api"), a_deployment(replicas=3))
            await world.until(lambda: len(agent.endpoints("default/api")) == 2, within_s=5)

            assert agent.endpoints() == before
            events = await world.control().ListEvents(api.ListEventsRequest(object="Service/web"))
            assert events.events[-1].reason == "Quarantined"


class TestWithoutAnAddress:
    async def test_published_ports_lead_to_a_service_all_the_same(self) -> None:
        async with a_world(network=NetworkChoice(service_range="10.96.0.0/30")) as world:
            agent = await world.agent("n1")
            await world.apply(a_service("first"))
            await world.until(lambda: "default/first" in agent.traffic.services, within_s=5)
            await world.apply(a_service(type="NodePort"), a_service("plain"), a_deployment())
            await world.until(lambda: len(agent.endpoints()) == 2, within_s=5)
            web = agent.traffic.services["default/web"]

            assert (web.vip, web.lacks_vip, web.ports[0].node_port) == ("", True, 30000)
            assert not agent.traffic.services["default/first"].lacks_vip
            assert "default/plain" not in agent.traffic.services

    async def test_a_headless_service_lacks_none(self) -> None:
        async with serving("n1", clusterIP="None") as world:
            assert not world.agents[0].traffic.services["default/web"].lacks_vip


class TestTelling:
    async def test_tells_a_service_before_the_pods_that_may_ask_for_it(self) -> None:
        async with a_world() as world:
            agent = await world.agent("n1")
            await world.apply(a_service())
            await world.apply(a_deployment())
            await world.until(lambda: len(agent.assignments) == 2)
            kinds = [
                kind
                for message in agent.heard
                if (kind := message.WhichOneof("kind")) in ("traffic", "assignments")
                and (message.traffic.services or message.assignments.pods)
            ]

            assert kinds[:2] == ["traffic", "assignments"]

    async def test_tells_a_burst_as_one(self) -> None:
        async with serving("n1", "n2", replicas=40) as world:
            agent = world.agents[0]
            heard = len(traffic_of(agent))
            for each in world.agents:
                for uid in each.statuses:
                    each.saw(uid, wire.POD_STATE_RUNNING, ready=False)
            await asyncio.sleep(0.5)

            assert agent.endpoints() == set()
            assert len(traffic_of(agent)) - heard <= 3

    async def test_tells_an_agent_that_comes_back_everything(self) -> None:
        async with serving("n1", "n2") as world:
            before = world.agents[1].endpoints()
            await world.agents[1].stop()
            again = await world.agent("n2")
            await asyncio.sleep(0.2)

            assert traffic_of(again)[0].full
            assert before <= again.endpoints() | set(world.agents[1].statuses)

    async def test_sends_nothing_while_nothing_changes(self) -> None:
        async with serving("n1") as world:
            (agent,) = world.agents
            heard = len(traffic_of(agent))
            await asyncio.sleep(200)

            assert len(traffic_of(agent)) == heard

    async def test_knows_pods_of_a_workload_whose_document_is_of_another_version(self) -> None:
        """One document that a manager understands less of makes no other service unknown."""
        async with serving("n1", managers=2) as world:
            (n1,) = world.agents
            await n1.stop()
            (item,) = world.etcd.items(keys.resources_of("Deployment"))
            stored = records.decode_document(item.value)
            future = {**stored.document, "spec": {**stored.document["spec"], "fromTheFuture": 1}}
            world.etcd.put(item.key, records.encode_document(replace(stored, document=future)))
            await world.kill(world.leader)
            await world.until(lambda: any(m.leadership is not None for m in world.managers.values()))
            again = ScriptedAgent(world, "n1", world.leader)
            again.statuses = n1.statuses
            world.agents.append(again)
            again.start()
            await asyncio.sleep(1)
            reply = await world.control().ListEndpoints(api.ListEndpointsRequest())

            assert world.leadership.state.unreadable
            assert again.endpoints() == set(n1.statuses)
            assert reply.services[0].why == ""


class TestABusyLeader:
    async def test_goes_on_while_it_looks_at_everything(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An agent that comes meanwhile is told the whole, and nothing before it is known."""
        monkeypatch.setattr("manager.dispatcher.traffic.STRETCH", 1)
        async with serving("n1", replicas=30, managers=2) as world:
            (n1,) = world.agents
            await n1.stop()
            await world.kill(world.leader)
            await world.until(lambda: any(m.leadership is not None for m in world.managers.values()))
            again = ScriptedAgent(world, "n1", world.leader)
            again.traffic, again.statuses = n1.traffic, n1.statuses
            world.agents.append(again)
            again.start()
            await world.until(lambda: bool(traffic_of(again)))

            assert traffic_of(again)[0].full
            assert set(again.traffic.services) == {"default/web"}
            assert again.endpoints() == set(n1.statuses)

    async def test_tells_assignments_after_what_they_depend_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("manager.dispatcher.traffic.STRETCH", 1)
        async with serving("n1", replicas=20) as world:
            (agent,) = world.agents
            await scale(world, 30)
            await world.until(lambda: len(agent.endpoints()) == 30)
            await scale(world, 10)
            await world.until(lambda: len(agent.statuses) == 10)

            assert agent.endpoints() == set(agent.statuses)

    async def test_says_nothing_while_it_does_not_know_whether_it_leads(self) -> None:
        async with serving("n1", "n2", replicas=2) as world:
            n1, _ = world.agents
            before = n1.endpoints()
            world.leadership.term.suspend()
            for agent in world.agents:
                for uid in agent.statuses:
                    agent.saw(uid, wire.POD_STATE_RUNNING, ready=False)
            await asyncio.sleep(0.3)
            assert n1.endpoints() == before
            world.leadership.term.resume()
            await asyncio.sleep(0.2)

            assert n1.endpoints() == set()


class TestANewLeader:
    async def test_tells_no_set_that_it_does_not_know_whole(self) -> None:
        """n2 does not come back for a while: its pods stay with every proxy until it is judged."""
        async with serving("n1", "n2", managers=2) as world:
            n1, n2 = world.agents
            whole = n1.endpoints()
            table = n1.traffic
            lost = set(n2.statuses)
            for agent in (n1, n2):
                await agent.stop()
            await world.kill(world.leader)
            await world.until(lambda: any(m.leadership is not None for m in world.managers.values()))
            again = ScriptedAgent(world, "n1", world.leader)
            again.traffic, again.statuses = table, n1.statuses
            world.agents.append(again)
            again.start()
            await asyncio.sleep(5)
            assert traffic_of(again)[0].full
            assert again.endpoints() == whole
            reply = await world.control().ListEndpoints(api.ListEndpointsRequest(service="web"))
            assert reply.services[0].why == "not all of them are known: n2 did not report to this leader yet"
            await world.until(lambda: world.leadership.dispatcher.node_state("n2")[0] == "Down")
            await asyncio.sleep(0.2)

            assert not lost & again.endpoints()
            assert set(n1.statuses) <= again.endpoints()

    async def test_takes_out_at_once_what_must_not_be_in_however_little_it_knows(self) -> None:
        async with serving("n1", "n2", replicas=4, managers=2) as world:
            n1, n2 = world.agents
            table = n1.traffic
            for agent in (n1, n2):
                await agent.stop()
            await world.kill(world.leader)
            await world.until(lambda: any(m.leadership is not None for m in world.managers.values()))
            unready = min(n1.statuses)
            again = ScriptedAgent(world, "n1", world.leader)
            again.traffic, again.statuses = table, n1.statuses
            again.is_idle = True
            again.saw(unready, wire.POD_STATE_RUNNING, ready=False, tell=False)
            world.agents.append(again)
            again.start()
            await asyncio.sleep(1)

            assert unready not in again.endpoints()
            assert set(n2.statuses) <= again.endpoints()

    async def test_keeps_pods_of_a_workload_whose_document_cannot_be_read(self) -> None:
        """They run on, so they serve on."""
        async with serving("n1", managers=2) as world:
            (n1,) = world.agents
            table, statuses = n1.traffic, n1.statuses
            await n1.stop()
            (stored,) = world.etcd.items(keys.resources_of("Deployment"))
            world.etcd.put(stored.key, b"{}")
            await world.kill(world.leader)
            await world.until(lambda: any(m.leadership is not None for m in world.managers.values()))
            again = ScriptedAgent(world, "n1", world.leader)
            again.traffic, again.statuses = table, statuses
            world.agents.append(again)
            again.start()
            await asyncio.sleep(30)
            assert again.endpoints() == set(statuses)
            world.etcd.put(stored.key, stored.value)
            await asyncio.sleep(1)
            reply = await world.control().ListEndpoints(api.ListEndpointsRequest())

            assert {endpoint.id for endpoint in reply.services[0].endpoints} == set(statuses)
            assert reply.services[0].why == ""


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


class TestPortProblems:
    async def test_are_told_once_and_shown_until_they_are_over(self) -> None:
        async with serving("n1", "n2", type="LoadBalancer") as world:
            n1 = world.agents[0]
            problem = wire.PortProblem(
                service="default/web", address="n1", port=80, message="taken by nginx (pid 12)"
            )

            async def addresses() -> list[str]:
                reply = await world.control().Get(api.GetRequest(kind="Service", name="web"))
                ingress = json.loads(reply.document.status_json)["loadBalancer"]["ingress"]
                return [each["hostname"] for each in ingress]

            assert await addresses() == ["n1", "n2"]
            for _ in range(3):
                n1.apply_traffic(problem)
            await asyncio.sleep(0.1)
            assert await addresses() == ["n2"]
            problems = world.leadership.dispatcher.traffic.port_problems
            assert problems.problem_of("default/web", "n1") == "port 80 is taken by nginx (pid 12)"
            assert problems.problem_of("default/web", "n2") == ""
            n1.apply_traffic()
            await asyncio.sleep(0.1)
            assert await addresses() == ["n1", "n2"]
            events = (await world.control().ListEvents(api.ListEventsRequest(object="Service/web"))).events

            assert [
                (event.reason, event.message, event.count) for event in events if "Port" in event.reason
            ] == [
                ("PortTaken", "port 80 of n1 (n1) is taken by nginx (pid 12)", 1),
                ("PortFree", "port 80 of n1 (n1) could be had after all, or is not asked for any more", 1),
            ]

    async def test_are_told_of_what_they_are_about(self) -> None:
        async with serving("n1") as world:
            (n1,) = world.agents
            n1.apply_traffic(
                wire.PortProblem(service="ingress", address="192.0.2.1", port=80, message="taken by nginx"),
                wire.PortProblem(service="default/web", address="host", port=80, message="this is a name"),
                wire.PortProblem(service="default/cert", port=443, message="the certificate is old"),
                wire.PortProblem(service="default/db", message="not served: it has no name"),
            )
            await asyncio.sleep(0.1)
            events = (await world.control().ListEvents(api.ListEventsRequest())).events
            told = {(e.namespace, e.object): (e.reason, e.message) for e in events}

            assert told["", "Cluster/ingress"] == ("PortTaken", "port 80 of n1 (192.0.2.1) is taken by nginx")
            assert told["default", "Secret/cert"] == ("ProxyProblem", "n1: the certificate is old")
            assert told["default", "Service/db"] == ("ProxyProblem", "n1: not served: it has no name")
            assert ("default", "Service/web") in told
            assert any(e.message == "port 80 of n1 (host) is not published: this is a name" for e in events)

    async def test_of_the_ingress_are_in_its_status(self) -> None:
        async with serving("n1", "n2") as world:
            await world.apply(an_ingress("cert"))
            await world.until(lambda: bool(world.agents[0].traffic.ingress.rules), within_s=5)
            n1 = world.agents[0]
            n1.apply_traffic(wire.PortProblem(service="ingress", address="n1", port=80, message="taken by x"))
            await asyncio.sleep(0.1)
            reply = await world.control().Get(api.GetRequest(kind="Ingress", name="front"))

            assert json.loads(reply.document.status_json)["loadBalancer"] == {"ingress": [{"hostname": "n2"}]}


class TestIngress:
    async def test_asks_for_no_port_that_is_a_services(self) -> None:
        async with serving("n1", type="LoadBalancer") as world:
            (agent,) = world.agents
            await world.apply(an_ingress("cert"), a_tls_secret("cert"))
            await world.until(lambda: bool(agent.traffic.ingress.rules), within_s=5)
            await asyncio.sleep(0.2)

            assert list(agent.traffic.ingress.ports) == [443]

    async def test_without_any_port_is_not_told(self) -> None:
        ports = [{"name": "http", "port": 80}, {"name": "https", "port": 443}]
        async with serving("n1", type="LoadBalancer", ports=ports) as world:
            (agent,) = world.agents
            await world.apply(an_ingress("cert"), a_tls_secret("cert"))
            await asyncio.sleep(1)
            assert agent.traffic.ingress == wire.Ingress()
            await world.apply(a_service())
            await world.until(lambda: list(agent.traffic.ingress.ports) == [80, 443], within_s=5)

            assert len(agent.traffic.ingress.rules) == 1

    async def test_is_told_with_its_certificates_and_follows_them(self) -> None:
        async with serving("n1") as world:
            (agent,) = world.agents
            await world.apply(an_ingress("cert"))
            await world.until(lambda: len(agent.traffic.ingress.rules) == 1, within_s=5)
            assert not agent.traffic.ingress.certificates
            events = (await world.control().ListEvents(api.ListEventsRequest(object="Ingress/front"))).events
            assert [e.message for e in events if e.reason == "IngressProblem"] == [
                "the secret cert does not exist: no TLS with it"
            ]
            await world.apply(a_tls_secret("cert"))
            await world.until(lambda: len(agent.traffic.ingress.certificates) == 1, within_s=5)
            (certificate,) = agent.traffic.ingress.certificates
            (rule,) = agent.traffic.ingress.rules

            assert (certificate.name, list(certificate.hosts)) == ("default/cert", ["shop.example.org"])
            assert b"PRIVATE KEY" in certificate.key_pem
            assert (rule.host, rule.path, rule.service, rule.port) == (
                "shop.example.org", "/", "default/web", 80
            )  # fmt: skip


def an_ingress(secret: str) -> str:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return json.dumps(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": "front"},
            "spec": {
                "tls": [{"secretName": secret, "hosts": ["shop.example.org"]}],
                "rules": [{"host": "shop.example.org", "http": {"paths": [path]}}],
            },
        }
    )


def a_tls_secret(name: str) -> str:
    root = new_root("test", now_s=WALL_S)
    chain, key = to_pem(root.certificate), key_to_pem(root.key)
    data = {"tls.crt": base64.b64encode(chain).decode(), "tls.key": base64.b64encode(key).decode()}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "type": "kubernetes.io/tls",
            "data": data,
        }
    )
