"""Messages on their way to one peer.

gRPC bears one write at a time on a stream (twenty at once killed it), and a slow peer must cost
neither memory nor other peers' time. So whoever has something to say puts it into an `Outbox` and
goes on; one writer empties it. A peer that lets it overflow is not waited for: the outbox breaks,
and the stream with it. The peer comes back and is told everything anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Generic, Protocol, TypeVar

import grpc.aio

MESSAGES_MAX = 4096
BYTES_MAX = 32 << 20  # Twice the largest message (bayplan/transport/grpc.py).


class Sized(Protocol):
    """Any protobuf message."""

    def ByteSize(self) -> int: ...  # noqa: N802 - protobuf's name


Message = TypeVar("Message", bound=Sized)


class SlowPeerError(Exception):
    """The peer took less than it was sent: cut its stream."""


class Outbox(Generic[Message]):
    """A bounded queue with one reader: iterate it (in a servicer), or `write_to` a call (in a client)."""

    def __init__(self, *, messages_max: int = MESSAGES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._queue: deque[tuple[Message, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._overflowed = asyncio.Event()
        self._changed = asyncio.Event()

    def put(self, message: Message) -> bool:
        """Queue `message`. False if nobody will ever read it: closed, or the peer is too slow."""
        if self._closed or self._overflowed.is_set():
            return False
        size = message.ByteSize()
        if len(self._queue) >= self._messages_max or self._bytes + size > self._bytes_max:
            self._queue.clear()
            self._bytes = 0
            self._overflowed.set()
        else:
            self._queue.append((message, size))
            self._bytes += size
        self._changed.set()
        return not self._overflowed.is_set()

    def close(self) -> None:
        """Take no more. What is queued is still read, then the iteration ends."""
        self._closed = True
        self._changed.set()

    async def overflowed(self) -> None:
        """Wait until the peer has proved too slow: a writer stuck on that peer cannot say so itself."""
        await self._overflowed.wait()

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Messages in order, until `close`. Raises SlowPeerError after an overflow."""
        while True:
            while self._queue:
                message, size = self._queue.popleft()
                self._bytes -= size
                yield message
            if self._overflowed.is_set():
                raise SlowPeerError
            if self._closed:
                return
            self._changed.clear()
            await self._changed.wait()

    async def write_to(self, call: grpc.aio.StreamStreamCall[Message, Any]) -> None:
        """Write all to `call`, then say that no more will come.

        Raises: SlowPeerError; grpc.aio.AioRpcError or asyncio.InvalidStateError if the call has ended.
        """
        async for message in self:
            await call.write(message)
        await call.done_writing()
