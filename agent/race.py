"""Several coroutines that live and end together.

A TaskGroup says the same for parts that run as long as the agent. For what ends and begins again
it will not do before Python 3.13: a group that fails while it waits leaves its task marked as
being cancelled, and a cancellation that comes with a failure is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def until_first_ends(*parts: Coroutine[Any, Any, None]) -> None:
    """Run all until one returns or raises; cancel the others; raise what the first one raised."""
    tasks = [asyncio.get_running_loop().create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()
