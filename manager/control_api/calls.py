"""What every call of the API shares: errors as status codes, and reaching the leader.

A call that needs the leader is answered here when this manager leads, else passed on to
the one that does. Right after a leader is lost the call waits for the next, for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, Protocol, TypeVar

import grpc
import grpc.aio
import structlog

from bayplan.transport.port import Transport
from bayplan.v1 import control_pb2_grpc
from manager.access.caller import DeniedError, on_behalf
from manager.commit import FencedError
from manager.control_api.documents import NotFoundError
from manager.dispatcher.attached import StreamFailedError
from manager.errors import RefusedError
from manager.leader import Leadership
from manager.store.port import StoreError, StoreFullError, StoreVersionError
from manager.store.records import DamagedRecordError
from manager.store.swap import ConflictError

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Answer = TypeVar("Answer")

# Marks a call that one manager passed to another: it is never passed on a second time.
FORWARDED = "bayplan-forwarded"
# A leader that is killed is replaced well within this.
LEADER_WAIT_S = 5.0
_POLL_S = 0.02
CHANNELS_KEPT = 2
# Calls pass on what is left of the caller's deadline; one without is given this.
DEFAULT_TIMEOUT_S = 30.0


class NoLeaderError(Exception):
    """Nobody leads right now, or who does cannot be reached."""


_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (DeniedError, grpc.StatusCode.PERMISSION_DENIED),
    (NotFoundError, grpc.StatusCode.NOT_FOUND),
    (ConflictError, grpc.StatusCode.ABORTED),
    (RefusedError, grpc.StatusCode.FAILED_PRECONDITION),
    (StreamFailedError, grpc.StatusCode.FAILED_PRECONDITION),
    (DamagedRecordError, grpc.StatusCode.FAILED_PRECONDITION),
    # What trying again will not cure: the text names the cure.
    (StoreFullError, grpc.StatusCode.FAILED_PRECONDITION),
    (StoreVersionError, grpc.StatusCode.FAILED_PRECONDITION),
    (StoreError, grpc.StatusCode.UNAVAILABLE),
    (NoLeaderError, grpc.StatusCode.UNAVAILABLE),
    (FencedError, grpc.StatusCode.UNAVAILABLE),
)


class Cluster(Protocol):
    """What a manager knows of who leads."""

    @property
    def manager_id(self) -> str: ...

    @property
    def leadership(self) -> Leadership | None:
        """While this manager leads and has read the store."""
        ...

    @property
    def leader_address(self) -> str:
        """Of another manager that leads; empty if none is known."""
        ...


class Calls:
    """Answers or forwards."""

    def __init__(self, cluster: Cluster, transport: Transport) -> None:
        self._cluster = cluster
        self._transport = transport
        # By manager that has ever led: there are a handful. The newest last; the one before may still have
        # streams, from when this manager showed its last certificate.
        # Streams go apart: however many are open, a call gets through.
        self._channels: dict[tuple[str, bool], list[tuple[int, grpc.aio.Channel]]] = {}

    async def aclose(self) -> None:
        """Close the channels to other managers."""
        channels, self._channels = self._channels, {}
        for kept in channels.values():
            for _, channel in kept:
                await channel.close()

    async def led(
        self,
        context: Context,
        method: str,
        request: Any,
        answer: Callable[[Leadership], Awaitable[Answer]],
    ) -> Answer:
        """A unary call that only the leader can answer."""
        try:
            while True:
                leadership, stub = await self._reach(context, for_stream=False)
                if leadership is not None:
                    return await answer(leadership)
                try:
                    result: Answer = await getattr(stub, method)(
                        request, timeout=_left_s(context), metadata=self._forwarding()
                    )
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE or _is_late(context):
                        await _pass_on(context, error)
                    await asyncio.sleep(_POLL_S)
                else:
                    return result
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await abort(context, error)

    async def led_stream(
        self,
        context: Context,
        method: str,
        request: Any,
        answer: Callable[[Leadership], AsyncGenerator[Any, None]],
    ) -> AsyncGenerator[Any, None]:
        """A stream that only the leader can give; ends with UNAVAILABLE when the leader changes."""
        try:
            leadership, stub = await self._reach(context, for_stream=True)
            if leadership is not None:
                async with aclosing(answer(leadership)) as messages:
                    async for message in messages:
                        yield message
                if leadership.is_over:
                    raise NoLeaderError("the leader has changed; call again")  # noqa: TRY301 - a status code
                return
            call = getattr(stub, method)(request, metadata=self._forwarding())
            try:
                async for message in call:
                    yield message
            finally:
                call.cancel()
        except grpc.aio.AioRpcError as error:
            await _pass_on(context, error)
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await abort(context, error)

    async def _reach(
        self, context: Context, *, for_stream: bool
    ) -> tuple[Leadership, None] | tuple[None, control_pb2_grpc.ControlAsyncStub]:
        """The leadership of this manager, or a stub of the leader. Raises NoLeaderError."""
        loop = asyncio.get_running_loop()
        is_forwarded = any(key == FORWARDED for key, _ in context.invocation_metadata() or ())
        until_s = loop.time() + min(LEADER_WAIT_S, _left_s(context))
        while True:
            leadership = self._cluster.leadership
            if leadership is not None and not leadership.term.is_suspended:
                return leadership, None
            address = self._cluster.leader_address
            if address and leadership is None and not is_forwarded:
                return None, await self._stub(address, for_stream=for_stream)
            if loop.time() >= until_s:
                raise NoLeaderError(
                    f"no leader: {self._cluster.manager_id} knows of no manager that leads now."
                    " Pods run on; check that etcd and a majority of its members answer"
                )
            await asyncio.sleep(_POLL_S)

    async def _stub(self, address: str, *, for_stream: bool) -> control_pb2_grpc.ControlAsyncStub:
        kept = self._channels.setdefault((address, for_stream), [])
        version = self._transport.identity_version
        if not kept or kept[-1][0] != version:
            kept.append((version, self._transport.channel(address)))
            if len(kept) > CHANNELS_KEPT:
                _, oldest = kept.pop(0)
                await oldest.close()
        return control_pb2_grpc.ControlStub(kept[-1][1])

    def _forwarding(self) -> tuple[tuple[str, str], ...]:
        return ((FORWARDED, self._cluster.manager_id), *on_behalf())


def _left_s(context: Context) -> float:
    left_s = context.time_remaining()
    return DEFAULT_TIMEOUT_S if left_s is None else max(left_s, 0.0)


def _is_late(context: Context) -> bool:
    left_s = context.time_remaining()
    return left_s is None or left_s < 1.0


async def _pass_on(context: Context, error: grpc.aio.AioRpcError) -> NoReturn:
    await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))
    raise AssertionError("abort returns never")


async def abort(context: Context, error: Exception, *, note: str = "") -> NoReturn:
    """End the call with the status code and the words for `error`, followed by `note`."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    for kind, code in _CODES:
        if isinstance(error, kind):
            await context.abort(code, f"{error}{note}")
    log.error("call.failed", exc_info=error)
    await context.abort(
        grpc.StatusCode.INTERNAL,
        f"{type(error).__name__}: {error} (a fault of the manager; see its log){note}",
    )
    raise AssertionError("abort returns never")
