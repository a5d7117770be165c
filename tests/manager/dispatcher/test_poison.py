"""What one agent or one document may do to others: nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from manager.traffic_views import template_view
from tests.manager.world import a_deployment, a_service, a_world

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
