"""The real transport: gRPC over TCP, and plain TCP for signs of life.

Every channel and every server is made here, so that one page holds the options that decide how
fast a dead peer is noticed and how much a hostile one may send. Pings are answered by gRPC's own
threads: they show dead hosts, cut links and frozen processes, but not a stuck event loop. Who
wants to know whether a peer *works* sends heartbeats of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc.aio

from bayplan.transport.port import Contact, Listener, Register

if TYPE_CHECKING:
    from grpc_health.v1._async import HealthServicer

MESSAGE_MAX_BYTES = 16 << 20  # A full report of a node with thousands of pods; gRPC's own limit is 4 MiB.
METADATA_MAX_BYTES = 16 << 10  # A call carries a token and a few marks; more is an attack.
CONNECT_TIMEOUT_S = 2.0  # 0.5 s was too little on a busy machine of two cores.

_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    # The one that counts: since gRPC 1.62 or earlier keepalive_timeout_ms alone does nothing, and a
    # frozen peer is held for a minute (grpc/grpc#34647). With it: noticed after 3 s, on both sides.
    ("grpc.http2.ping_timeout_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
_LIMITS = (
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_metadata_size", METADATA_MAX_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_MAX_BYTES),
)
_CHANNEL = (
    *_KEEPALIVE,
    *_LIMITS,
    # Back-off grows to two minutes by default: fail-over would wait for it.
    ("grpc.initial_reconnect_backoff_ms", 100),
    (
        "grpc.min_reconnect_backoff_ms",
        int(CONNECT_TIMEOUT_S * 1000),
    ),  # Limits the attempt to connect as well.
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Channels to one address share a connection, and its back-off, unless told otherwise.
    ("grpc.use_local_subchannel_pool", 1),
    # The cluster's own traffic never goes through a web proxy of the environment.
    ("grpc.enable_http_proxy", 0),
)
_SERVER = (
    *_KEEPALIVE,
    *_LIMITS,
    # Clients ping each 2 s and sometimes early (grpc/grpc#28830); the default permits one in 5 min.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    # Two managers on one port would share its connections instead of failing.
    ("grpc.so_reuseport", 0),
)


class GrpcTransport:
    """Implements `Transport`. Use it from one event loop only: grpc.aio bears no second one."""

    def channel(self, address: str) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(address, options=_CHANNEL)

    async def serve(
        self, host: str, port: int, services: Sequence[Register], names: Sequence[str]
    ) -> Listener:
        """Serve at once. OSError if the port is taken or the address is not ours."""
        server = grpc.aio.server(options=_SERVER)
        for register in services:
            register(server)
        health = await add_standard_services(server, names)
        try:
            bound = server.add_insecure_port(f"{_bracketed(host)}:{port}")
        except RuntimeError as error:
            raise OSError(errno.EADDRINUSE, f"cannot listen on {host}:{port}") from error
        await server.start()
        return _GrpcListener(server, health, bound)

    async def contact(self, host: str, port: int, *, timeout_s: float) -> Contact:
        """Open and close a TCP connection. A kernel answers for a frozen process too."""
        try:
            async with asyncio.timeout(timeout_s):
                _, writer = await asyncio.open_connection(host, port)
        except (ConnectionRefusedError, ConnectionResetError):
            return Contact.REFUSED
        except OSError:
            # Too late (TimeoutError is an OSError), no route, no such host: nobody spoke for it.
            return Contact.SILENT
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return Contact.ANSWERED

    async def listen_for_contact(self, host: str, port: int) -> Listener:
        """Accept and close. OSError if the port is taken."""
        return _ContactListener(await asyncio.start_server(_close_at_once, host, port))


async def add_standard_services(server: grpc.aio.Server, names: Sequence[str]) -> HealthServicer:
    """Add health (SERVING for each of `names` and for "") and reflection."""
    # Only servers need them, and `bay` starts anew for each command.
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_health.v1._async import HealthServicer
    from grpc_reflection.v1alpha import reflection

    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    for name in names:
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection((*names, health_name, reflection.SERVICE_NAME), server)
    return health


class _GrpcListener:
    def __init__(self, server: grpc.aio.Server, health: HealthServicer, port: int) -> None:
        self._server = server
        self._health = health
        self._port = port

    @property
    def port(self) -> int:
        return self._port

    async def stop(self, grace_s: float) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


class _ContactListener:
    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self, grace_s: float) -> None:
        del grace_s  # Connections are closed as they come: there is nothing to wait for.
        self._server.close()
        await self._server.wait_closed()


def _close_at_once(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
