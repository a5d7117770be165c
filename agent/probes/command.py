"""A command inside a container, run to its end or its deadline.

The engine lets a command run on when nobody watches it any more. A probe whose command hangs would leave one more of them
with each period: so what is late is killed. And an engine that does not answer says nothing about a container: that is
"unknown", not a failure, or a restart of the engine would restart what it carries.
"""

from __future__ import annotations

import asyncio

import structlog

from agent.outputs import closed_after
from agent.probes.deadline import within
from agent.probes.port import SUCCESS, Outcome
from agent.runtime.port import EngineError, ExecSession, Runtime

log = structlog.get_logger(__name__)

OUTPUT_MAX_BYTES = 10 * 1024
WORDS_MAX = 200
# To begin a command costs the engine tens of milliseconds of processor time.
BEGINNINGS_MAX = 4
LEAVE_S = 3.0


class Commands:
    """Runs them. One per agent."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._beginnings = asyncio.Semaphore(BEGINNINGS_MAX)

    async def run(self, container_id: str, command: tuple[str, ...], *, timeout_s: float) -> Outcome:
        """`timeout_s` counts from when the engine has begun the command."""
        try:
            async with self._beginnings:
                session = await self._runtime.exec(
                    container_id, command, tty=False, stdin=False, rows=0, columns=0
                )
            return await _run(session, container_id, timeout_s)
        except EngineError as error:
            return Outcome.unknown(str(error))


async def _run(session: ExecSession, container_id: str, timeout_s: float) -> Outcome:
    has_ended = False

    async def to_its_end() -> Outcome:
        nonlocal has_ended
        outcome = await _result(session)
        has_ended = True
        return outcome

    try:
        return await within(timeout_s, to_its_end())
    finally:
        await _leave(session, container_id, has_ended=has_ended)


async def _leave(session: ExecSession, container_id: str, *, has_ended: bool) -> None:
    try:
        async with asyncio.timeout(LEAVE_S):
            if not has_ended:
                await session.kill()
            await session.aclose()
    except (EngineError, TimeoutError) as error:
        log.warning("command.left_running", container=container_id[:12], error=str(error) or "no answer")


async def _result(session: ExecSession) -> Outcome:
    tail = b""
    outputs = session.output()
    async with closed_after(outputs):
        async for output in outputs:
            tail = (tail + output.data)[-OUTPUT_MAX_BYTES:]
    code = await session.exit_code()
    if code == 0:
        return SUCCESS
    last = tail.strip().rpartition(b"\n")[2].decode(errors="replace").strip()
    return Outcome.failure(f'exit {code}: "{last[:WORDS_MAX]}"' if last else f"exit {code}")
