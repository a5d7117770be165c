"""The serving half of the fake network: runs generated servicers as grpc.aio does.

What it copies on purpose (seen on grpcio 1.85): when a client dies, `async for request in requests`
ends politely first, and the handler gets a CancelledError at its next await; a handler that raises
becomes UNKNOWN; one that was not written is UNIMPLEMENTED.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio

from tests.fakes.wire import Data, Frame, HalfClose, Headers, Metadata, Metadatum, Open, Reset, Status, Wire

if TYPE_CHECKING:
    from tests.fakes.network import FakeTransport

Handler = Any  # grpc.RpcMethodHandler: its stub types describe the blocking stack.

_log = logging.getLogger(__name__)


class FakeServer(grpc.aio.Server):
    """Takes handlers from generated `add_…Servicer_to_server` functions."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._calls: dict[ServerCall, None] = {}  # Ordered, so that a run repeats.

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        for method, handler in method_handlers.items():
            self._handlers[f"/{service_name}/{method}"] = handler

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Nothing: generated code registers each method as well."""

    def take(self, wire: Wire, opening: Open, transport: FakeTransport) -> None:
        """Begin a call."""
        call = ServerCall(wire, opening, self._handlers.get(opening.method), self._calls)
        wire.accept(transport, to_server=call.receive, server_lost=call.lost)

    async def stop(self, grace: float | None) -> None:
        """Wait up to `grace` seconds for handlers, then cut them. The transport sends no new ones."""
        tasks = [call.task for call in self._calls]
        if tasks and grace:
            await asyncio.wait(tasks, timeout=grace)
        for call in list(self._calls):
            call.cut()
        await asyncio.gather(*tasks)

    def add_insecure_port(self, address: str) -> int:
        raise NotImplementedError("FakeTransport.serve gives ports")

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        raise NotImplementedError("FakeTransport.serve gives ports")

    async def start(self) -> None:
        raise NotImplementedError("FakeTransport.serve starts")

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - gRPC's name
        raise NotImplementedError("stop the listener instead")


class ServerCall:
    """One call being answered."""

    def __init__(
        self, wire: Wire, opening: Open, handler: Handler | None, calls: dict[ServerCall, None]
    ) -> None:
        self.opening = opening
        self.peer = f"ipv4:{wire.client_host}:0"
        self.code = grpc.StatusCode.OK
        self.details = ""
        self.trailing: Metadata = ()
        self.is_over = False
        self.callbacks: list[Callable[[], None]] = []
        self._wire = wire
        self._handler = handler
        self._headers_sent = False
        self._requests: deque[bytes] = deque()
        self._requests_ended = False
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = None
        if opening.deadline_s is not None:
            self._deadline = self._loop.call_at(opening.deadline_s, self.lost)
        self.task = self._loop.create_task(self._run(), name=f"serving {opening.method}")
        self._calls = calls
        calls[self] = None

    # From the wire

    def receive(self, frame: Frame) -> None:
        match frame:
            case Data(payload):
                self._requests.append(payload)
                self._arrived.set()
            case HalfClose():
                self._requests_ended = True
                self._arrived.set()
            case Reset():
                self.lost()

    def lost(self) -> None:
        """The client is gone: it cancelled, died, or ran out of time."""
        if not self.is_over:
            self._finish()
            self._requests_ended = True
            self._arrived.set()
            # Later than whoever waits for a request: it sees a polite end first, as on gRPC.
            self._loop.call_soon(self.task.cancel)

    def cut(self) -> None:
        """The server stops."""
        if not self.is_over:
            self.end(grpc.StatusCode.UNAVAILABLE, "Server shutting down")
            self.task.cancel()

    # From the context

    async def read(self) -> bytes | None:
        """The next request, None at their end."""
        while not self._requests and not self._requests_ended:
            self._arrived.clear()
            await self._arrived.wait()
        if not self._requests:
            return None
        payload = self._requests.popleft()
        self._wire.to_server.was_read(payload)
        return payload

    async def write(self, payload: bytes) -> None:
        self.send_headers(())
        await self._wire.to_client.room()
        if self.is_over:
            raise grpc.aio.InternalError("the call is over")
        self._wire.to_client.send(Data(payload))

    def send_headers(self, metadata: Metadata) -> None:
        if not self._headers_sent and not self.is_over:
            self._headers_sent = True
            self._wire.to_client.send(Headers(metadata))

    def end(self, code: grpc.StatusCode, details: str) -> None:
        if not self.is_over:
            self.send_headers(())
            self._wire.to_client.send(Status(code, details, self.trailing))
            self._finish()

    def _finish(self) -> None:
        self.is_over = True
        if self._deadline:
            self._deadline.cancel()
        self._wire.server_leaves()

    # The handler

    async def _run(self) -> None:
        try:
            await self._handle()
        except asyncio.CancelledError:
            if not self.is_over:
                # As on gRPC: who raises CancelledError by himself leaves his client waiting.
                _log.warning("the handler of %s cancelled itself", self.opening.method)
        except grpc.aio.AbortError:
            pass  # The status was sent by `abort`.
        except Exception as error:  # noqa: BLE001 - the client is told, as gRPC does
            if not self.is_over:
                _log.exception("the handler of %s failed", self.opening.method)
                code = grpc.StatusCode.UNKNOWN if self.code is grpc.StatusCode.OK else self.code
                self.end(code, f"Unexpected {type(error)}: {error}")
        finally:
            del self._calls[self]
            for callback in self.callbacks:
                callback()

    async def _handle(self) -> None:
        handler = self._handler
        if handler is None:
            self.end(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            return
        context = FakeContext(self, handler)
        if handler.request_streaming:
            request: Any = _Requests(context)
        else:
            payload = await self.read()
            if payload is None:
                return
            request = handler.request_deserializer(payload)
        if handler.response_streaming:
            method = handler.stream_stream or handler.unary_stream
            await self._stream(method(request, context), context)
        else:
            method = handler.stream_unary or handler.unary_unary
            response = method(request, context)
            if inspect.isawaitable(response):
                response = await response
            if self.code is grpc.StatusCode.OK and not self.is_over:
                await self.write(handler.response_serializer(response))
        self.end(self.code, self.details)

    async def _stream(self, responses: Any, context: FakeContext) -> None:
        if inspect.isawaitable(responses):
            await responses  # The handler calls context.write itself.
            return
        try:
            async for response in responses:
                await context.write(response)
        finally:
            await responses.aclose()


class FakeContext(grpc.aio.ServicerContext[Any, Any]):
    """What a handler may ask of its call."""

    def __init__(self, call: ServerCall, handler: Handler) -> None:
        self._call = call
        self._handler = handler

    async def read(self) -> Any:
        payload = await self._call.read()
        return grpc.aio.EOF if payload is None else self._handler.request_deserializer(payload)

    async def write(self, message: Any) -> None:
        await self._call.write(self._handler.response_serializer(message))

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        self._call.code, self._call.details = code, details
        self._call.end(code, details)
        raise grpc.aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        self._call.send_headers(as_metadata(initial_metadata))

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._call.trailing = as_metadata(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self._call.trailing

    def invocation_metadata(self) -> Any:
        return self._call.opening.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self._call.code = code

    def code(self) -> grpc.StatusCode:
        return self._call.code

    def set_details(self, details: str) -> None:
        self._call.details = details

    def details(self) -> str:
        return self._call.details

    def time_remaining(self) -> Any:
        deadline_s = self._call.opening.deadline_s
        if deadline_s is None:
            return None
        return max(0.0, deadline_s - asyncio.get_running_loop().time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._call.callbacks.append(lambda: callback(self))

    def done(self) -> bool:
        return self._call.is_over

    def cancelled(self) -> bool:
        return self._call.code is grpc.StatusCode.CANCELLED

    def peer(self) -> str:
        return self._call.peer

    def peer_identities(self) -> None:
        return None

    def peer_identity_key(self) -> None:
        return None

    def auth_context(self) -> dict[str, Iterable[bytes]]:
        return {}

    def set_compression(self, compression: grpc.Compression) -> None:
        """Nothing is compressed in memory."""

    def disable_next_message_compression(self) -> None:
        """Nothing is compressed in memory."""


class _Requests(AsyncIterator[Any]):
    def __init__(self, context: FakeContext) -> None:
        self._context = context

    async def __anext__(self) -> Any:
        request = await self._context.read()
        if request is grpc.aio.EOF:
            raise StopAsyncIteration
        return request


def as_metadata(pairs: Any) -> Metadata:
    """Normalise (key, value) pairs."""
    return tuple(Metadatum(key, value) for key, value in pairs or ())
