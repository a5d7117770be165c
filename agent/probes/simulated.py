"""Probes of simulated containers: they have no sockets, so the engine's script says what they would answer.

Commands are run as on real engines, through the runtime.
"""

from __future__ import annotations

import asyncio

from agent.probes.command import Commands
from agent.probes.model import Check, Exec, Hook, HttpGet, Sleep
from agent.probes.port import NO_ADDRESS, SUCCESS, Outcome
from agent.runtime.port import Container, ContainerGoneError, ContainerState, Runtime
from agent.runtime.simulated_engine import HANGS, SimulatedEngine


class SimulatedProber:
    """Obeys `Prober`. `engine` is the one that `runtime` speaks to."""

    def __init__(self, engine: SimulatedEngine, runtime: Runtime) -> None:
        self._engine = engine
        self._commands = Commands(runtime)

    async def probe(self, container: Container, check: Check, *, timeout_s: float) -> Outcome:
        if isinstance(check, Exec):
            return await self._commands.run(container.id, check.command, timeout_s=timeout_s)
        if not container.address:
            return Outcome.unknown(NO_ADDRESS)
        return await self._ask(container.id, check.place, timeout_s)

    async def run_hook(self, container: Container, hook: Hook, *, timeout_s: float) -> Outcome:
        match hook:
            case Exec():
                return await self._commands.run(container.id, hook.command, timeout_s=timeout_s)
            case Sleep():
                await asyncio.sleep(min(hook.duration_s, timeout_s))
                return SUCCESS
            case HttpGet():
                return await self._ask(container.id, hook.place, timeout_s)

    async def aclose(self) -> None:
        """Nothing to close."""

    async def _ask(self, container_id: str, place: str, timeout_s: float) -> Outcome:
        try:
            found = self._engine.get(container_id)
        except ContainerGoneError:
            return Outcome.failure("no route to host")
        fault = self._engine.fault_of(found, place)
        if found.shown.state is ContainerState.PAUSED or fault == HANGS:
            await asyncio.sleep(timeout_s)
            return Outcome.failure(f"no answer within {timeout_s:g} s at {place}")
        return Outcome.failure(f"{fault} at {place}") if fault else SUCCESS
