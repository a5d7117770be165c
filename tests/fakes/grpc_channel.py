"""Channels of the fake network: what generated stubs are made from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from tests.fakes.grpc_client import (
    RETRY_S,
    FakeCall,
    StreamResponseCall,
    StreamStreamCall,
    StreamUnaryCall,
    UnaryResponseCall,
)
from tests.fakes.grpc_server import as_metadata

if TYPE_CHECKING:
    from tests.fakes.network import FakeTransport


class FakeChannel(grpc.aio.Channel):
    """Calls from one process to one address. Each call finds its own way, there is no connection to share."""

    def __init__(self, transport: FakeTransport, address: str) -> None:
        self._transport = transport
        self._address = address
        self._calls: dict[FakeCall, None] = {}
        self._closed = False

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._callable(UnaryResponseCall, method, *args, **kwargs)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._callable(StreamResponseCall, method, *args, **kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._callable(StreamUnaryCall, method, *args, **kwargs)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._callable(StreamStreamCall, method, *args, **kwargs)

    def _callable(
        self,
        kind: type[FakeCall],
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        _registered_method: bool = False,  # noqa: FBT001, FBT002 - generated code passes it
    ) -> Callable[..., FakeCall]:
        def call(
            request: Any = None,
            *,
            timeout: float | None = None,
            metadata: Any = None,
            wait_for_ready: bool | None = None,
        ) -> FakeCall:
            if self._closed:
                raise grpc.aio.UsageError("Channel is closed.")
            made = kind(
                self._transport,
                self._address,
                method,
                request,
                request_serializer=request_serializer,
                response_deserializer=response_deserializer,
                timeout_s=timeout,
                metadata=as_metadata(metadata),
                wait_for_ready=bool(wait_for_ready),
            )
            self._calls[made] = None
            made.add_done_callback(lambda done: self._calls.pop(done, None))
            return made

        return call

    async def close(self, grace: float | None = None) -> None:
        self._closed = True
        if self._calls and grace:
            await asyncio.wait([asyncio.ensure_future(call.code()) for call in self._calls], timeout=grace)
        for call in list(self._calls):
            call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()

    async def channel_ready(self) -> None:
        host, _, port = self._address.rpartition(":")
        network = self._transport.network
        # Readiness has too many causes for one event to wait for.
        while network.is_blocked(self._transport.host, host) or not network.listens(host, int(port)):  # noqa: ASYNC110
            await asyncio.sleep(RETRY_S)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002
        raise NotImplementedError("await a call instead")

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        raise NotImplementedError("await a call instead")
