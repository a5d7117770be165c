"""Connections to the members of an etcd cluster, and what their errors mean.

One channel per member, and failover of our own: gRPC's would stay with a member that is
cut off from the others but still answers TCP. We stay with a member until it fails, then
take the next, and move open streams along.

A write is sent only on a channel that is connected. So "not connected" surely did nothing,
and every failure after it has an unknown outcome; no guessing from error texts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import structlog
from aetcd.rpc import rpc_pb2_grpc

from manager.store.port import (
    CompactedError,
    LeaseGoneError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UnknownOutcomeError,
)

log = structlog.get_logger()

# A write takes milliseconds, one on an overloaded disk a second; beyond that the next member is better.
CALL_TIMEOUT_S = 3.0
CONNECT_TIMEOUT_S = 1.0
CONNECT_POLL_S = 0.01

_CHANNEL_OPTIONS: list[tuple[str, int]] = [
    # etcd cuts clients that ping more often than each 5 s (its --grpc-keepalive-min-time).
    ("grpc.keepalive_time_ms", 6000),
    ("grpc.keepalive_timeout_ms", 2000),
    # Without this one the line above has no effect (gRPC waits 60 s).
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A page of a listing has a thousand values of up to 1.5 MiB; the default is 4 MiB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # An http_proxy meant for the web must not catch the store's traffic.
    ("grpc.enable_http_proxy", 0),
    # Stores of one process (tests) shall not share connections.
    ("grpc.use_local_subchannel_pool", 1),
]

# A member without a leader refuses at once instead of holding the call until its deadline.
_REQUIRE_LEADER = (("hasleader", "true"),)

# These methods answer about the member itself, also one that is alone.
_OF_THE_MEMBER = frozenset({"Status"})

HOW_TO_FREE_SPACE = (
    "free it with: etcdctl compact REVISION && etcdctl defrag --cluster && etcdctl alarm disarm "
    "(REVISION as shown by: etcdctl endpoint status --write-out=json)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdTls:
    """Paths of PEM files. `cert` and `key` go together."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises OSError."""
        return grpc.ssl_channel_credentials(
            root_certificates=self.ca.read_bytes(),
            private_key=self.key.read_bytes() if self.key else None,
            certificate_chain=self.cert.read_bytes() if self.cert else None,
        )


class Member:
    """One etcd server."""

    def __init__(self, endpoint: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.endpoint = endpoint
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(endpoint, options=_CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(endpoint, credentials, options=_CHANNEL_OPTIONS)
        kv = rpc_pb2_grpc.KVStub(self._channel)
        lease = rpc_pb2_grpc.LeaseStub(self._channel)
        self._methods: dict[str, Any] = {
            "Range": kv.Range,
            "Txn": kv.Txn,
            "Compact": kv.Compact,
            "LeaseGrant": lease.LeaseGrant,
            "LeaseRevoke": lease.LeaseRevoke,
            "LeaseKeepAlive": lease.LeaseKeepAlive,
            "Watch": rpc_pb2_grpc.WatchStub(self._channel).Watch,
            "Status": rpc_pb2_grpc.MaintenanceStub(self._channel).Status,
        }
        self.streams: set[MemberStream] = set()

    async def connect(self) -> None:
        """Return when connected. Raises StoreUnavailableError."""
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + CONNECT_TIMEOUT_S
        try:
            while (
                state := self._channel.get_state(try_to_connect=True)
            ) is not grpc.ChannelConnectivity.READY:
                if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE or loop.time() > give_up_s:
                    raise StoreUnavailableError(f"cannot connect to etcd at {self.endpoint}")
                await asyncio.sleep(CONNECT_POLL_S)
        except grpc.aio.UsageError as error:
            raise StoreUnavailableError("the store is closed") from error

    async def call(self, method: str, request: Any) -> Any:
        """Call once. Raises StoreUnavailableError if it surely did nothing."""
        await self.connect()
        metadata = None if method in _OF_THE_MEMBER else _REQUIRE_LEADER
        try:
            return await self._methods[method](request, timeout=CALL_TIMEOUT_S, metadata=metadata)
        except grpc.aio.UsageError as error:
            raise StoreUnavailableError("the store is closed") from error
        except grpc.aio.AioRpcError as error:
            raise _meaning(error, f"{method} at {self.endpoint}") from error

    async def open(self, method: str) -> MemberStream:
        """Open a stream of requests and responses."""
        await self.connect()
        stream = MemberStream(self, method, self._methods[method](metadata=_REQUIRE_LEADER))
        self.streams.add(stream)
        return stream

    async def close(self) -> None:
        await self._channel.close()


class MemberStream:
    """A stream to one member. It ends when the member fails, or when we leave the member."""

    def __init__(self, member: Member, method: str, call: Any) -> None:
        self.member = member
        self._what = f"{method} at {member.endpoint}"
        self._call = call
        self._abandoned = False

    async def write(self, request: Any) -> None:
        """Send one request. Raises StoreUnavailableError."""
        with self._ending_named():
            await self._call.write(request)

    async def read(self) -> Any:
        """The next response. Raises StoreUnavailableError when the stream ends."""
        with self._ending_named():
            response = await self._call.read()
        if response is grpc.aio.EOF:
            raise StoreUnavailableError(f"{self._what}: the stream has ended")
        return response

    @contextlib.contextmanager
    def _ending_named(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise StoreUnavailableError(f"{self._what}: {error.code().name}: {error.details()}") from error
        except asyncio.InvalidStateError as error:
            raise StoreUnavailableError(f"{self._what}: the stream has ended") from error
        except asyncio.CancelledError as error:
            # gRPC tells a cancelled stream and a cancelled task by one exception; only the first is ours.
            task = asyncio.current_task()
            if not self._abandoned or (task and task.cancelling()):
                raise
            raise StoreUnavailableError(f"{self._what}: the member was left") from error

    def abandon(self) -> None:
        """End the stream from our side: its reader gets StoreUnavailableError."""
        self._abandoned = True
        self.close()

    def close(self) -> None:
        self.member.streams.discard(self)
        self._call.cancel()


class Members:
    """The members of the cluster, one of which is in use."""

    def __init__(self, endpoints: Sequence[str], tls: EtcdTls | None) -> None:
        if not endpoints:
            raise ValueError("an etcd endpoint is needed, like 127.0.0.1:2379")
        credentials = tls.credentials() if tls else None
        self.all = [Member(_host_and_port(endpoint, tls), credentials) for endpoint in endpoints]
        self._current = 0

    @property
    def current(self) -> Member:
        """The member in use."""
        return self.all[self._current]

    async def call(self, method: str, request: Any) -> Any:
        """Call what may be repeated (reads, and what is the same done twice), at each member once at most.

        Raises StoreUnavailableError when none answered.
        """
        errors: list[str] = []
        for _ in self.all:
            member = self.current
            try:
                return await member.call(method, request)
            except (StoreUnavailableError, UnknownOutcomeError) as error:
                errors.append(str(error))
                self.leave(member)
        raise StoreUnavailableError("; ".join(errors))

    async def write(self, method: str, request: Any) -> Any:
        """Call what must not be done twice: the next member is tried only if nothing was sent."""
        errors: list[str] = []
        for _ in self.all:
            member = self.current
            try:
                return await member.call(method, request)
            except StoreUnavailableError as error:
                errors.append(str(error))
                self.leave(member)
            except UnknownOutcomeError:
                self.leave(member)
                raise
        raise StoreUnavailableError("; ".join(errors))

    async def open(self, method: str) -> MemberStream:
        """Open a stream to the member in use. Raises StoreUnavailableError; the next try takes the next member."""
        member = self.current
        try:
            return await member.open(method)
        except StoreUnavailableError:
            self.leave(member)
            raise

    def leave(self, member: Member) -> None:
        """Use the next member from now on, and end the streams to this one. Alone, it is kept."""
        if member is not self.current or len(self.all) == 1:
            return
        self._current = (self._current + 1) % len(self.all)
        log.info("etcd_member.left", member=member.endpoint, next=self.current.endpoint)
        for stream in list(member.streams):
            stream.abandon()

    async def close(self) -> None:
        for member in self.all:
            await member.close()


def _host_and_port(endpoint: str, tls: EtcdTls | None) -> str:
    scheme, separator, rest = endpoint.rpartition("://")
    if separator and scheme != ("https" if tls else "http"):
        cure = "give the CA's file" if scheme == "https" else "write https:// or leave the TLS files out"
        raise ValueError(f"etcd endpoint {endpoint} does not fit the TLS settings: {cure}")
    return rest.rstrip("/")


def _meaning(error: grpc.aio.AioRpcError, what: str) -> StoreError:
    """What the caller of a unary call should do about `error`."""
    code, details = error.code(), error.details() or ""
    message = f"{what}: {code.name}: {details}"
    if "database space exceeded" in details:
        return StoreFullError(f"{what}: etcd is out of space (NOSPACE); {HOW_TO_FREE_SPACE}")
    if "lease not found" in details:
        return LeaseGoneError(message)
    if "has been compacted" in details:
        return CompactedError(0)
    if "etcdserver: no leader" in details or "too many requests" in details:
        return StoreUnavailableError(message)  # Refused before it was proposed.
    if code in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ):
        return StoreError(message)
    return UnknownOutcomeError(message)
