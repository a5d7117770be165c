"""How long a check may take, and whose fault it is when it takes longer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from agent.probes.port import Outcome

# A loop that wakes this much later than it wished was itself stopped, starved, or on a host that slept.
HELD_UP_S = 1.0


async def within(timeout_s: float, attempt: Coroutine[Any, Any, Outcome], *, place: str = "") -> Outcome:
    """Make the attempt; one that does not end in time is a failure, if it was not we who were late."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + timeout_s
    try:
        async with asyncio.timeout_at(until_s):
            return await attempt
    except TimeoutError:
        if loop.time() - until_s > HELD_UP_S:
            return Outcome.unknown("the agent was held up")
        return Outcome.failure(f"no answer within {timeout_s:g} s" + (f" at {place}" if place else ""))
