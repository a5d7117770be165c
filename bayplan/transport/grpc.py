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
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import grpc.aio

from bayplan.identity.credentials import OwnIdentity
from bayplan.identity.names import manager_host
from bayplan.transport.port import Contact, Listener, Register

if TYPE_CHECKING:
    from grpc_health.v1._async import HealthServicer

MESSAGE_MAX_BYTES = 16 << 20  # A full report of a node with thousands of pods; gRPC's own limit is 4 MiB.
METADATA_MAX_BYTES = 16 << 10  # A call carries a token and a few marks; more is an attack.
# Calls that one connection may have open. A standby that forwards for many users needs the most.
CALLS_PER_CONNECTION_MAX = 1000
# At the join port anybody may speak, and a message is in memory before a method can refuse it: 40 calls of 15 MiB
# made a manager a gigabyte larger. Whoever joins sends 2 KiB.
JOIN_MESSAGE_MAX_BYTES = 64 << 10
JOIN_CALLS_PER_CONNECTION_MAX = 16
# A TLS handshake takes a few round trips; who needs longer holds a socket for nothing.
HANDSHAKE_TIMEOUT_S = 5.0
JOIN_PORT_OFFSET = 1
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
_METADATA = (
    ("grpc.max_metadata_size", METADATA_MAX_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_MAX_BYTES),
)
_LIMITS = (
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
    *_METADATA,
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
_ANY_SERVER = (
    *_KEEPALIVE,
    # Clients ping each 2 s and sometimes early (grpc/grpc#28830); the default permits one in 5 min.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_TIMEOUT_S * 1000)),
    # Two managers on one port would share its connections instead of failing.
    ("grpc.so_reuseport", 0),
)
_SERVER = (*_ANY_SERVER, *_LIMITS, ("grpc.max_concurrent_streams", CALLS_PER_CONNECTION_MAX))
_JOIN_SERVER = (
    *_ANY_SERVER,
    *_METADATA,
    ("grpc.max_receive_message_length", JOIN_MESSAGE_MAX_BYTES),
    ("grpc.max_concurrent_streams", JOIN_CALLS_PER_CONNECTION_MAX),
)


class GrpcTransport:
    """Implements `Transport`. Use it from one event loop only: grpc.aio bears no second one.

    Args:
        identity: what this process shows, and whom it trusts: mutual TLS. None: plain text, which
            daemons allow on loopback addresses alone.
    """

    def __init__(self, identity: OwnIdentity | None = None) -> None:
        self._identity = identity

    @property
    def identity_version(self) -> int:
        return self._identity.version if self._identity is not None else 0

    async def identity_newer_than(self, version: int) -> None:
        if self._identity is None:
            await asyncio.Event().wait()
        else:
            await self._identity.newer_than(version)

    def channel(self, address: str) -> grpc.aio.Channel:
        if self._identity is None:
            return grpc.aio.insecure_channel(address, options=_CHANNEL)
        own = self._identity.credentials
        credentials = grpc.ssl_channel_credentials(own.roots_pem, own.key_pem, own.certificates_pem)
        return grpc.aio.secure_channel(address, credentials, options=_to_manager(own.identity.cluster))

    async def serve(
        self,
        host: str,
        port: int,
        services: Sequence[Register],
        names: Sequence[str],
        *,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> Listener:
        """Serve at once. OSError if a port is taken or the address is not ours."""
        server = grpc.aio.server(options=_SERVER, interceptors=interceptors)
        servers, join_port = [server], 0
        if self._identity is None:
            bound = _bind(host, port, server.add_insecure_port)
        else:
            # A server of its own, for it has limits of its own.
            joining = grpc.aio.server(options=_JOIN_SERVER, interceptors=interceptors)
            servers.append(joining)
            closed, opened = (
                _server_credentials(self._identity, is_open=is_open) for is_open in (False, True)
            )
            bound = _bind(host, port, lambda address: server.add_secure_port(address, closed))
            join_port = _bind(
                host,
                port and port + JOIN_PORT_OFFSET,
                lambda address: joining.add_secure_port(address, opened),
            )
        healths = []
        for each in servers:
            for register in services:
                register(each)
            healths.append(await add_standard_services(each, names))
        for each in servers:
            await each.start()
        return _GrpcListener(servers, healths, bound, join_port)

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


def join_channel(address: str, roots_pem: bytes, cluster: str) -> grpc.aio.Channel:
    """A channel to a manager's join port, for who has no certificate (any more)."""
    credentials = grpc.ssl_channel_credentials(roots_pem)
    return grpc.aio.secure_channel(join_address(address), credentials, options=_to_manager(cluster))


def join_address(address: str) -> str:
    """The join port of the manager at `address`."""
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + JOIN_PORT_OFFSET}"


def _to_manager(cluster: str) -> tuple[tuple[str, str | int], ...]:
    # Whatever address was dialled, it must be a manager of this cluster: nodes' certificates lack the name.
    return (*_CHANNEL, ("grpc.ssl_target_name_override", manager_host(cluster)))


def _server_credentials(own: OwnIdentity, *, is_open: bool) -> grpc.ServerCredentials:
    """What each new connection is shown. `is_open`: at the join port, where no certificate is asked for."""

    def made() -> grpc.ServerCertificateConfiguration:
        shown = own.credentials
        # Who joins compares the root itself with the token.
        chain = shown.certificates_pem + (shown.roots_pem if is_open else b"")
        return grpc.ssl_server_certificate_configuration(
            [(shown.key_pem, chain)], None if is_open else shown.roots_pem
        )

    version = own.version
    first = made()

    def current() -> grpc.ServerCertificateConfiguration | None:
        """None: as before. Called in threads of gRPC's, at each handshake."""
        # Whatever else is returned gRPC takes for new, and puts in the place of what the handshakes in other
        # threads still hold: some hundred connections at once, from anybody, ended the whole process
        # ("Check failed: prior > 0", grpcio 1.85).
        nonlocal version
        if version == own.version:
            return None
        version = own.version
        return made()

    return grpc.dynamic_ssl_server_credentials(
        first,
        current,  # type: ignore[arg-type]  # typeshed's stub lacks the None that gRPC documents
        require_client_authentication=not is_open,
    )


def _bind(host: str, port: int, add: Callable[[str], int]) -> int:
    try:
        return add(f"{_bracketed(host)}:{port}")
    except RuntimeError as error:
        raise OSError(errno.EADDRINUSE, f"cannot listen on {host}:{port}") from error


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
    def __init__(
        self, servers: Sequence[grpc.aio.Server], healths: Sequence[HealthServicer], port: int, join_port: int
    ) -> None:
        self._servers = servers
        self._healths = healths
        self._port = port
        self._join_port = join_port

    @property
    def port(self) -> int:
        return self._port

    @property
    def join_port(self) -> int:
        return self._join_port

    async def stop(self, grace_s: float) -> None:
        for health in self._healths:
            await health.enter_graceful_shutdown()
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))


class _ContactListener:
    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def join_port(self) -> int:
        return 0

    async def stop(self, grace_s: float) -> None:
        del grace_s  # Connections are closed as they come: there is nothing to wait for.
        self._server.close()
        await self._server.wait_closed()


def _close_at_once(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
