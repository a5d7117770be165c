"""A stream in both directions to something in a pod: what exec and port-forward share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from bayplan.client.errors import UnavailableError
from bayplan.client.managers import to_error
from bayplan.transport.errors import words_of

Begin = Callable[[], Awaitable[tuple[grpc.aio.StreamStreamCall[Any, Any], str]]]


class PodStream:
    """Use it as a context manager: leaving it ends the stream. One reader, any number of writers.

    Args:
        begin: opens the call; its manager's address is for messages.
        start: the first message.
        what: the stream leads to, in messages.
    """

    def __init__(self, begin: Begin, start: Any, *, what: str) -> None:
        self._begin = begin
        self._start = start
        self._what = what
        self._address = ""
        # gRPC bears one write in flight on a stream.
        self._writing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._call, self._address = await self._begin()
        await self._write(self._start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()

    async def _messages(self) -> AsyncGenerator[Any, None]:
        """Until the other side ends. Raises the errors of this package when it could not run, or was cut off."""
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                yield message
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise UnavailableError(
                    f"the connection to the {self._what} was lost: manager {self._address}: {words_of(error)}"
                ) from error
            raise to_error(error) from error

    async def _write(self, message: Any) -> None:
        async with self._writing:
            try:
                await self._call.write(message)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                # The call has ended: its reader learns why, and says so once.
                return
