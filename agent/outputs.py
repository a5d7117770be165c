"""Reading an engine's output to some point, and giving its connection back at that point.

A generator that is only dropped holds its connection until the garbage collector comes by.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from agent.runtime.port import Output


@asynccontextmanager
async def closed_after(outputs: AsyncIterator[Output]) -> AsyncIterator[AsyncIterator[Output]]:
    """Close `outputs` when the block is left, however it is left."""
    try:
        yield outputs
    finally:
        if isinstance(outputs, AsyncGenerator):
            await outputs.aclose()
