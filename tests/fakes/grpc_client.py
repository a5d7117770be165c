"""The calling half of the fake network: calls that generated stubs can make.

Copies grpc.aio's manners: `await` or `async for` or `read`; an iterator of requests or `write`;
a cancelled call raises CancelledError; a failed one raises AioRpcError, after all that arrived before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from tests.fakes.wire import (
    CONNECT_TIMEOUT_S,
    Accepted,
    Data,
    Frame,
    HalfClose,
    Headers,
    Metadata,
    Open,
    Reset,
    Status,
    Wire,
)

if TYPE_CHECKING:
    from tests.fakes.network import FakeTransport

RETRY_S: Final = 0.1  # As bayplan/transport/grpc.py begins.
_CANCELLED = Status(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
_DEADLINE = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


class FakeCall:
    """What all four kinds of calls share."""

    request_streams = False

    def __init__(
        self,
        transport: FakeTransport,
        address: str,
        method: str,
        request: Any,
        *,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        timeout_s: float | None,
        metadata: Metadata,
        wait_for_ready: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._address = address
        self._serialize = request_serializer
        self._deserialize = response_deserializer
        self._wait_for_ready = wait_for_ready
        self._status: Status | None = None  # How it ended, once all that arrived before was read.
        self._coming_status: Status | None = None
        self._responses: deque[bytes] = deque()
        self._headers: Metadata = ()
        self._headers_came = asyncio.Event()
        self._connected = asyncio.Event()
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._half_closed = False
        self._callbacks: list[Callable[[Any], None]] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._poller: asyncio.Task[None] | None = None
        self._wire: Wire | None = None
        self._deadline_s = None if timeout_s is None else self._loop.time() + timeout_s
        self._open = Open(address, method, metadata, self._deadline_s)
        self._has_iterator = self.request_streams and request is not None
        self._first = None if self.request_streams else request_serializer(request)
        if self._deadline_s is not None:
            self._timers.append(self._loop.call_at(self._deadline_s, self._end_now, _DEADLINE))
        self._timers.append(self._loop.call_later(0, self._connect))
        if self._has_iterator:
            self._poller = self._loop.create_task(self._send_all(request), name=f"requests of {method}")

    # What calling code uses

    def cancel(self) -> bool:
        return self._end_now(_CANCELLED)

    def cancelled(self) -> bool:
        return self._status is not None and self._status.code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        return self._status is not None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self.done():
            callback(self)
        else:
            self._callbacks.append(callback)

    def time_remaining(self) -> float | None:
        return None if self._deadline_s is None else max(0.0, self._deadline_s - self._loop.time())

    async def initial_metadata(self) -> grpc.aio.Metadata:
        await self._headers_came.wait()
        return _as_aio(self._headers)

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return _as_aio((await self._end()).trailing)

    async def code(self) -> grpc.StatusCode:
        return (await self._end()).code

    async def details(self) -> str:
        return (await self._end()).details

    async def wait_for_connection(self) -> None:
        await self._connected.wait()
        if self._coming_status and self._wire is None:
            raise self._error(self._coming_status)
        if self.done():
            self._raise_for_status()

    # The wire

    def _connect(self) -> None:
        host, _, _port = self._address.rpartition(":")
        if self._transport.is_killed:
            self._end_in_order(Status(grpc.StatusCode.UNAVAILABLE, "this process was killed"))
            return
        self._wire = Wire(
            self._transport.network, self._transport, host, to_client=self._receive, client_lost=self._lost
        )
        self._wire.to_server.send(self._open)
        self._timers.append(self._loop.call_later(CONNECT_TIMEOUT_S, self._connect_timed_out))

    def _connect_timed_out(self) -> None:
        if not self._connected.is_set():
            self._not_connected(f"failed to connect to all addresses: {self._address}: timed out")

    def _not_connected(self, details: str) -> None:
        self._leave()
        if self._wait_for_ready and not self._transport.is_killed:
            self._timers.append(self._loop.call_later(RETRY_S, self._connect))
        else:
            self._end_in_order(Status(grpc.StatusCode.UNAVAILABLE, details))

    def _receive(self, frame: Frame) -> None:
        match frame:
            case Accepted():
                if self._first is not None and self._wire:
                    self._wire.to_server.send(Data(self._first))
                    self._wire.to_server.send(HalfClose())
                self._connected.set()
            case Headers(metadata):
                self._headers = metadata
                self._headers_came.set()
            case Data(payload):
                self._responses.append(payload)
                self._changed.set()
            case Status(_, details) as status:
                if self._connected.is_set():
                    self._end_in_order(status)
                else:
                    self._not_connected(details)
            case Reset():
                self._lost("Socket closed")

    def _lost(self, details: str) -> None:
        self._end_in_order(Status(grpc.StatusCode.UNAVAILABLE, details))

    def _end_in_order(self, status: Status) -> None:
        """End after what has arrived was read."""
        if self._coming_status is None:
            self._coming_status = status
            self._leave()
            self._settle()

    def _settle(self) -> None:
        if self._coming_status and not self._responses and not self._status:
            self._end_now(self._coming_status)
        self._changed.set()

    def _end_now(self, status: Status) -> bool:
        if self._status:
            return False
        self._status = self._coming_status = status
        self._responses.clear()
        for timer in self._timers:
            timer.cancel()
        if self._wire:
            # The server, if it still answers: it hears that nobody listens any more.
            self._wire.to_server.send(Reset())
            self._leave()
        if self._poller:
            self._poller.cancel()
        for event in (self._ended, self._headers_came, self._connected, self._changed):
            event.set()
        for callback in self._callbacks:
            callback(self)
        return True

    def _leave(self) -> None:
        if self._wire:
            self._wire.client_leaves()
            self._wire = None

    # For the kinds of calls

    async def _end(self) -> Status:
        await self._ended.wait()
        assert self._status
        return self._status

    def _error(self, status: Status) -> grpc.aio.AioRpcError:
        return grpc.aio.AioRpcError(
            status.code, _as_aio(self._headers), _as_aio(status.trailing), status.details
        )

    def _raise_for_status(self) -> None:
        assert self._status
        if self._status is _CANCELLED:
            raise asyncio.CancelledError
        if self._status.code is not grpc.StatusCode.OK:
            raise self._error(self._status)

    async def _read(self) -> Any:
        """The next response, EOF at their end. Who cancels a read cancels the call, as on gRPC."""
        try:
            while not self._responses and not self._status:
                self._changed.clear()
                await self._changed.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if not self._responses:
            return grpc.aio.EOF
        payload = self._responses.popleft()
        if self._wire:
            self._wire.to_client.was_read(payload)
        self._settle()
        return self._deserialize(payload)

    async def _write(self, request: Any) -> None:
        if self.done():
            raise asyncio.InvalidStateError("RPC already finished.")
        if self._half_closed:
            raise asyncio.InvalidStateError('RPC is half closed after calling "done_writing".')
        try:
            await self._connected.wait()
            if self._wire:
                await self._wire.to_server.room()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._wire:
            self._wire.to_server.send(Data(self._serialize(request)))
        elif self._coming_status and self._coming_status.code is not grpc.StatusCode.OK:
            raise self._error(self._coming_status)

    async def _close_writing(self) -> None:
        if not self.done() and not self._half_closed:
            self._half_closed = True
            await self._connected.wait()
            if self._wire:
                self._wire.to_server.send(HalfClose())

    async def _send_all(self, requests: Any) -> None:
        try:
            if hasattr(requests, "__aiter__"):
                async for request in requests:
                    await self._write(request)
            else:
                for request in requests:
                    await self._write(request)
            await self._close_writing()
        except grpc.aio.AioRpcError:
            return  # The call's own end says it.
        except BaseException:  # noqa: BLE001 - as gRPC: an iterator that fails cancels its call
            self.cancel()


class UnaryResponseCall(FakeCall):
    _response: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._respond().__await__()

    async def _respond(self) -> Any:
        try:
            if not self.done():
                self._response = await self._read()
            await self._end()
        except asyncio.CancelledError:
            self.cancel()
            raise
        self._raise_for_status()
        return self._response


class StreamResponseCall(FakeCall):
    _iterator: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._iterator is None:
            self._iterator = self._iterate()
        return self._iterator

    async def _iterate(self) -> AsyncIterator[Any]:
        while (response := await self._read()) is not grpc.aio.EOF:
            yield response
        self._raise_for_status()

    async def read(self) -> Any:
        response = await self._read()
        if response is grpc.aio.EOF:
            self._raise_for_status()
        return response


class StreamRequestCall(FakeCall):
    request_streams = True

    async def write(self, request: Any) -> None:
        self._refuse_mixing()
        await self._write(request)

    async def done_writing(self) -> None:
        self._refuse_mixing()
        await self._close_writing()

    def _refuse_mixing(self) -> None:
        if self._has_iterator:
            raise grpc.aio.UsageError("The iterator and read/write APIs may not be mixed on a single RPC.")


class StreamUnaryCall(StreamRequestCall, UnaryResponseCall):
    pass


class StreamStreamCall(StreamRequestCall, StreamResponseCall):
    pass


def _as_aio(metadata: Metadata) -> grpc.aio.Metadata:
    return grpc.aio.Metadata.from_tuple(tuple((pair.key, pair.value) for pair in metadata))
