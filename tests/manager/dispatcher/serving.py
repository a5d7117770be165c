"""A service with ready pods, as tests of traffic need it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from tests.manager.world import ScriptedAgent, World, a_deployment, a_service, a_world


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
