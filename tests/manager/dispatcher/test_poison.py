"""What one agent or one document may do to others: nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from manager.store import keys, records
from manager.traffic_views import template_view
from tests.manager.world import ScriptedAgent, World, a_deployment, a_service, a_world

pytestmark = pytest.mark.virtual_time


class TestAnAgentThatTalksNonsense:
    @pytest.mark.parametrize("state", [0, 99])
    async def test_of_a_state_that_there_is_not_ends_no_leadership(self, state: int) -> None:
        """Its pods are to stop: the leader looks at their states to see whether they may."""
        async with a_world() as world:
            agent, other = [await world.agent(name) for name in ("n1", "n2")]
            await world.apply(a_service(), a_deployment(replicas=2))
            await world.until(lambda: len(other.endpoints()) == 2)
            led = world.leadership
            agent.statuses.clear()
            agent.report(full=True)
            for assigned in agent.assignments:
                agent.saw(assigned, state)
            await world.control().Scale(api.ScaleRequest(name="web", replicas=0))
            await world.until(lambda: not other.endpoints(), within_s=10)

            assert world.leadership is led
            assert not led.is_over

    async def test_of_a_pod_that_another_node_has_is_no_witness(self) -> None:
        """Room that its words set free would be given to others."""
        async with a_world() as world:
            agent, other = [await world.agent(name) for name in ("n1", "n2")]
            await world.apply(a_deployment(replicas=2))
            await world.until(lambda: len(agent.statuses) == len(other.statuses) == 1)
            before = dict(world.leadership.state.reserved)
            (uid,) = other.statuses
            agent.saw(uid, wire.POD_STATE_FAILED)
            await asyncio.sleep(1)

            assert world.leadership.state.reserved == before
            assert not world.leadership.state.failures.get(uid.partition(".")[0])

    async def test_in_words_without_end_is_cut_and_leaves_others_events_in_the_log(self) -> None:
        async with a_world() as world:
            agent = await world.agent("n1")
            await world.apply(a_service())
            await world.until(lambda: bool(agent.traffic.services))
            condition = wire.NodeCondition(engine_ok=True, network_problem="\x1b[2J" + "!" * 100_000)
            agent.say(status=wire.StatusReport(condition=condition))
            agent.apply_traffic(
                *[
                    wire.PortProblem(
                        service="default/web", address="n1", port=number, message="taken\r" + "?" * 10_000
                    )
                    for number in range(1, 900)
                ]
            )
            await asyncio.sleep(0.5)
            events = (await world.control().ListEvents(api.ListEventsRequest())).events
            told = [event.message for event in events if event.reason in ("PortTaken", "ProxyProblem")]

            assert len(told) == 21
            assert told[0].startswith("port 1 of n1 (n1) is taken\\r?")
            assert told[-1].startswith("879 more ports could not be had")
            assert max(map(len, told)) < 600
            refuses = world.leadership.state.nodes["n1"].refuses
            assert refuses.startswith("\\x1b[2J!")
            assert len(refuses) < 600


class TestAPodThatCannotBeFollowed:
    async def test_harms_no_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def or_raise(template: Any) -> Any:
            if template["metadata"]["labels"]["app"] == "bad":
                raise ZeroDivisionError("division by zero")
            return template_view(template)

        monkeypatch.setattr("manager.dispatcher.service_pods.template_view", or_raise)
        async with a_world() as world:
            agent = await world.agent("n1")
            await world.apply(a_service(), a_deployment("bad"), a_deployment())
            await world.until(lambda: len(agent.endpoints()) == 2, within_s=5)
            await world.control().Scale(api.ScaleRequest(name="bad", replicas=0))
            await world.until(lambda: len(agent.statuses) == 2, within_s=5)
            events = await world.control().ListEvents(api.ListEventsRequest())

            assert "Quarantined" in {event.reason for event in events.events}


class TestADocumentThatANewLeaderCannotRead:
    """A newer manager took it, and then an older one leads."""

    async def test_is_served_as_it_was_without_pods_that_stop(self) -> None:
        async with a_world(2) as world:
            agent = await world.agent("n1")
            await world.apply(a_service(), a_service("api"), a_deployment(), a_deployment("api"))
            await world.until(lambda: len(agent.endpoints()) == len(agent.endpoints("default/api")) == 2)
            again = await self._new_leader(world, agent, kind="Service", name="web")
            assert set(again.traffic.services) == {"default/web", "default/api"}
            assert len(again.endpoints()) == 2
            await world.control().Scale(api.ScaleRequest(name="web", replicas=1))
            await world.until(lambda: len(again.statuses) == 3, within_s=10)

            assert again.endpoints() < set(again.statuses)
            assert len(again.endpoints()) == 1
            events = await world.control().ListEvents(api.ListEventsRequest(object="Service/web"))
            assert events.events[-1].reason == "Quarantined"
            await world.control().Delete(api.DeleteRequest(kind="Service", name="web"))
            await world.until(lambda: set(again.traffic.services) == {"default/api"}, within_s=5)

    async def test_keeps_addresses_that_were_written_by_hand(self) -> None:
        written = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "web"},
            "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 80}]}],
        }
        async with a_world(2) as world:
            agent = await world.agent("n1")
            await world.apply(a_service(selector={}), json.dumps(written))
            await world.until(lambda: bool(agent.endpoints()))
            again = await self._new_leader(world, agent, kind="Endpoints", name="web")

            assert again.endpoints() == {"192.0.2.7"}

    @pytest.mark.parametrize("kind", ["Ingress", "Service"])
    async def test_keeps_the_rules_that_proxies_have(self, kind: str) -> None:
        backend = {"service": {"name": "web", "port": {"number": 80}}}
        ingress = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": "web"},
            "spec": {"defaultBackend": backend},
        }
        async with a_world(2) as world:
            agent = await world.agent("n1")
            await world.apply(a_service(), json.dumps(ingress))
            await world.until(lambda: any(rule.port for rule in agent.traffic.ingress.rules))
            again = await self._new_leader(world, agent, kind=kind, name="web")

            assert [rule.port for rule in again.traffic.ingress.rules] == [80]

    @staticmethod
    async def _new_leader(world: World, agent: ScriptedAgent, *, kind: str, name: str) -> ScriptedAgent:
        """It cannot read the document; the agent of before comes to it with what it has."""
        await agent.stop()
        (item,) = [item for item in world.etcd.items(keys.resources_of(kind)) if item.key.endswith(name)]
        stored = records.decode_document(item.value)
        future = {**stored.document, "fromTheFuture": 1}
        world.etcd.put(item.key, records.encode_document(replace(stored, document=future)))
        await world.kill(world.leader)
        await world.until(lambda: any(m.leadership is not None for m in world.managers.values()))
        again = ScriptedAgent(world, agent.name, world.leader)
        again.statuses, again.traffic = agent.statuses, agent.traffic
        world.agents.append(again)
        again.start()
        await world.until(lambda: "traffic" in again.kinds())
        await asyncio.sleep(1)
        return again
