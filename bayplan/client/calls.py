"""What every group of calls stands on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import grpc.aio

from bayplan.client.managers import Managers, StreamBrokenError

if TYPE_CHECKING:
    from bayplan.v1.control_pb2_grpc import ControlAsyncStub  # exists in the .pyi alone

# Before a watch is opened again, so that a manager that ends each at once is not stormed.
_REOPEN_PAUSE_S = 0.1

_Reply = TypeVar("_Reply")


class Calls:
    """Asks the managers, and opens watches again that break."""

    def __init__(self, managers: Managers) -> None:
        self._managers = managers

    async def _ask(
        self,
        method: Callable[[ControlAsyncStub], Callable[..., grpc.aio.UnaryUnaryCall[Any, _Reply]]],
        request: Any,
    ) -> _Reply:
        return await self._managers.call(method, request, may_repeat=True)

    async def _watch(
        self,
        method: Callable[[ControlAsyncStub], Callable[..., grpc.aio.UnaryStreamCall[Any, _Reply]]],
        request: Any,
        *,
        first_within_s: float | None,
    ) -> AsyncGenerator[_Reply, None]:
        """A stream that is opened again whenever it ends; raises once nobody serves it any more."""
        while True:
            async with aclosing(
                self._managers.stream(method, request, first_within_s=first_within_s)
            ) as stream:
                try:
                    async for message in stream:
                        yield message
                except StreamBrokenError:
                    pass  # Usually the leader changed.
            await asyncio.sleep(_REOPEN_PAUSE_S)
