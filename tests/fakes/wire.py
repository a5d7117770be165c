"""One call's way between two processes of the fake network: two pipes of frames, in order.

A frame takes one latency. While the link is cut, or one of the two processes is frozen, frames wait
where they are, as TCP would hold them. Nobody is told until the keepalive has given up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import grpc

if TYPE_CHECKING:
    from tests.fakes.network import FakeNetwork, FakeTransport

# As bayplan/transport/grpc.py sets it: a ping after 2 s of silence, and 1 s for its answer.
KEEPALIVE_S = 3.0
# As bayplan/transport/grpc.py sets it.
CONNECT_TIMEOUT_S = 2.0
# A writer waits while this much was not read yet: HTTP/2's initial window.
WINDOW_BYTES = 64 << 10


class Metadatum(NamedTuple):
    key: str
    value: str | bytes


Metadata = tuple[Metadatum, ...]


@dataclass(frozen=True, slots=True)
class Open:
    """Client to server: begin a call."""

    address: str
    method: str
    metadata: Metadata
    deadline_s: float | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Server to client: the connection stands."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Server to client."""

    metadata: Metadata


@dataclass(frozen=True, slots=True)
class Data:
    """Either way: one message."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class HalfClose:
    """Client to server: no more messages."""


@dataclass(frozen=True, slots=True)
class Status:
    """Server to client: the end of the call."""

    code: grpc.StatusCode
    details: str = ""
    trailing: Metadata = ()


@dataclass(frozen=True, slots=True)
class Reset:
    """Either way: the call was cancelled, or the process that held this end is no more."""


Frame = Open | Accepted | Headers | Data | HalfClose | Status | Reset


class Pipe:
    """Frames from one host to another."""

    def __init__(self, network: FakeNetwork, source_host: str, target_host: str) -> None:
        self._network = network
        self._source_host = source_host
        self._target_host = target_host
        self._sink: Callable[[Frame], None] | None = None
        self._frames: deque[Frame] = deque()
        self._held = 0  # Frames whose time has come, while the way was blocked.
        self._unread_bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    @property
    def is_blocked(self) -> bool:
        return self._network.is_blocked(self._source_host, self._target_host)

    def deliver_to(self, sink: Callable[[Frame], None] | None) -> None:
        """None: nobody reads here any more, what arrives is dropped and no writer waits."""
        self._sink = sink
        if sink is None:
            self._room.set()

    def send(self, frame: Frame) -> None:
        if isinstance(frame, Data):
            self._unread_bytes += len(frame.payload)
            if self._unread_bytes >= WINDOW_BYTES and self._sink is not None:
                self._room.clear()
        self._frames.append(frame)
        self._travel()

    def was_read(self, payload: bytes) -> None:
        self._unread_bytes -= len(payload)
        if self._unread_bytes < WINDOW_BYTES:
            self._room.set()

    async def room(self) -> None:
        """Wait until the reader has read enough."""
        await self._room.wait()

    def release(self) -> None:
        """Let go what waited, if the way is free."""
        if not self.is_blocked:
            held, self._held = self._held, 0
            for _ in range(held):
                self._travel()

    def _travel(self) -> None:
        asyncio.get_running_loop().call_later(self._network.latency_s, self._arrive)

    def _arrive(self) -> None:
        if self.is_blocked:
            self._held += 1
            return
        # Always the oldest: equal timers may fire in any order, frames never change theirs.
        frame = self._frames.popleft()
        if self._sink is not None:
            self._sink(frame)


class Wire:
    """Both pipes of one call. Each end leaves it; an end that cannot know is told by the keepalive."""

    def __init__(
        self,
        network: FakeNetwork,
        client: FakeTransport,
        server_host: str,
        *,
        to_client: Callable[[Frame], None],
        client_lost: Callable[[str], None],
    ) -> None:
        self._network = network
        self.client: FakeTransport | None = client
        self.server: FakeTransport | None = None
        self.client_host = client.host
        self._server_host = server_host
        self.to_server = Pipe(network, client.host, server_host)
        self.to_client = Pipe(network, server_host, client.host)
        self.to_client.deliver_to(to_client)
        self.to_server.deliver_to(self._arrive_at_host)
        self._client_lost = client_lost
        self._server_lost: Callable[[], None] | None = None
        self._keepalive: asyncio.TimerHandle | None = None
        network.add(self)

    def accept(
        self, server: FakeTransport, *, to_server: Callable[[Frame], None], server_lost: Callable[[], None]
    ) -> None:
        """A listener takes the call."""
        self.server = server
        self._server_lost = server_lost
        self.to_server.deliver_to(to_server)
        self.to_client.send(Accepted())
        self.review()

    def client_leaves(self) -> None:
        """The client hears no more. It has sent a Reset if the call was not over."""
        self.client = None
        self.to_client.deliver_to(None)
        if self.server is None:
            self._end()

    def server_leaves(self) -> None:
        """The server hears no more. It has sent the Status, or a Reset."""
        self.server = None
        self.to_server.deliver_to(None)
        if self.client is None:
            self._end()

    def review(self) -> None:
        """Something changed in the network: let frames go, or begin to count the silence."""
        self.to_server.release()
        self.to_client.release()
        blocked = self.to_server.is_blocked or self.to_client.is_blocked
        if not blocked and self._keepalive:
            self._keepalive.cancel()
            self._keepalive = None
        # A call that was not accepted yet has its time to connect instead.
        elif blocked and self._keepalive is None and self._server_lost:
            self._keepalive = asyncio.get_running_loop().call_later(KEEPALIVE_S, self._give_up)

    def killed(self, owner: FakeTransport) -> None:
        """The process at one end (or both) is no more: its kernel tells the other end."""
        if self.client is owner:
            self.to_server.send(Reset())
            self._client_lost("this process was killed")
        if self.server is owner and self._server_lost:
            self.to_client.send(Reset())
            self._server_lost()

    def _arrive_at_host(self, frame: Frame) -> None:
        if isinstance(frame, Open) and not self._network.accept(self, frame):
            self.to_server.deliver_to(None)
            refused = f"failed to connect to all addresses: {frame.address}: connection refused"
            self.to_client.send(Status(grpc.StatusCode.UNAVAILABLE, refused))

    def _give_up(self) -> None:
        """No answer to a ping. A frozen end learns of it when it thaws."""
        if self.client is not None:
            self._network.when_thawed(self.client_host, lambda: self._client_lost("keepalive timeout"))
        if self.server is not None and self._server_lost:
            self._network.when_thawed(self._server_host, self._server_lost)

    def _end(self) -> None:
        if self._keepalive:
            self._keepalive.cancel()
            self._keepalive = None
        self._network.forget(self)
