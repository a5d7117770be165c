from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from manager.founding import NetworkChoice
from manager.planning.endpoints import endpoints_of
from manager.store import keys, records
from tests.manager.dispatcher.serving import scale, serving, traffic_of
from tests.manager.world import ScriptedAgent, a_deployment, a_service, a_world

pytestmark = pytest.mark.virtual_time


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
