"""Logs and exec: byte streams that an agent opens because a user asked for them.

The leader asks over the agent's one stream (OpenStream); the agent dials Attach and names the
stream. So nothing needs to reach a node from outside. Both directions are bounded: a slow
reader slows the program whose output it reads, and nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from bayplan.v1 import agent_link_pb2 as wire

# Frames buffered each way; a frame is at most 64 KiB by the agent's choice.
_FRAMES_MAX = 64
# How long an agent may take to dial back.
OPEN_TIMEOUT_S = 10.0
_CUT_SHORT = "the node closed the stream before it was complete"


class StreamFailedError(Exception):
    """The stream could not be opened, or ended with the agent's error text."""


class Attached:
    """One stream between a user's call and an agent."""

    def __init__(self, stream_id: str, ask: Callable[[wire.OpenStream], None]) -> None:
        self.id = stream_id
        self.node = ""
        self._ask = ask
        self._to_agent: asyncio.Queue[wire.StreamFrame | None] = asyncio.Queue(_FRAMES_MAX)
        self._from_agent: asyncio.Queue[wire.StreamFrame | None] = asyncio.Queue(_FRAMES_MAX)
        self._attached = asyncio.Event()
        self._error = ""

    async def open(self, request: wire.OpenStream) -> None:
        """Ask the agent and wait until it has dialled back. Raises StreamFailedError."""
        self._ask(request)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._attached.wait()
        except TimeoutError:
            raise StreamFailedError(
                f"node {self.node} did not open the stream within {OPEN_TIMEOUT_S:.0f} s"
            ) from None
        if self._error:
            raise StreamFailedError(self._error)

    def fail(self, message: str) -> None:
        """The agent cannot open it, or its session is gone."""
        self._error = self._error or message
        self._attached.set()
        self._end_output_now()

    async def send(self, frame: wire.StreamFrame) -> None:
        """One frame to the agent; waits while the agent is behind."""
        await self._to_agent.put(frame)

    async def frames(self) -> AsyncIterator[wire.StreamFrame]:
        """The agent's frames until it ends the stream. Raises StreamFailedError with its error text."""
        while (frame := await self._from_agent.get()) is not None:
            if frame.WhichOneof("kind") == "error":
                raise StreamFailedError(frame.error)
            yield frame
        if self._error:
            raise StreamFailedError(self._error)

    def close(self) -> None:
        """The user is gone: end the agent's side too."""
        if self._to_agent.full():
            self._to_agent.get_nowait()
        self._to_agent.put_nowait(None)

    async def serve(
        self, incoming: AsyncIterator[wire.StreamFrame]
    ) -> AsyncGenerator[wire.StreamFrame, None]:
        """The agent's Attach call: yields what goes to it, takes in what it sends."""
        self._attached.set()
        reader = asyncio.create_task(self._read(incoming), name=f"attach-{self.id}")
        try:
            while (frame := await self._to_agent.get()) is not None:
                yield frame
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, incoming: AsyncIterator[wire.StreamFrame]) -> None:
        has_ended = False
        try:
            async for frame in incoming:
                has_ended = frame.WhichOneof("kind") in ("exit_code", "end", "error")
                await self._from_agent.put(frame)
                if has_ended:
                    break
            if not has_ended:
                self._error = self._error or _CUT_SHORT
            await self._from_agent.put(None)
        except BaseException:
            self._error = self._error or _CUT_SHORT
            self._end_output_now()
            raise
        finally:
            self.close()

    def _end_output_now(self) -> None:
        # Output is lost already; the reader must learn of it even if it is behind.
        if self._from_agent.full():
            self._from_agent.get_nowait()
        self._from_agent.put_nowait(None)
