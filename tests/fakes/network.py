"""A network in memory, on the loop's own time, with the faults of real ones.

The generated stubs and servicers run on it as they do on gRPC, messages are serialised on the way,
and `tests/contracts/transport.py` holds both to one behaviour. Faults, and what peers see of them:

- `FakeTransport.kill()`: a process dies, its host lives. Streams end at once, its ports refuse.
- `kill(host)`: all its processes die and streams end at once; then nothing answers.
- `cut`, `isolate`, `partition`: nothing arrives and nobody is told; after 3 s the keepalive gives
  streams up (UNAVAILABLE); new calls fail after 2 s of trying to connect. `heal` lets go what waited.
- `freeze(host)`: SIGSTOP of its processes: as cut, but its kernel still answers `contact`. Their own
  code and timers run on, for nobody can stop a coroutine from outside: a test that freezes a leader
  must know that only its words are held back. What happened meanwhile it learns when it thaws.

Killing does not cancel the tasks that a test started for that process: cancel them as well.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import grpc.aio
from grpc_health.v1._async import HealthServicer

from bayplan.transport.grpc import add_standard_services
from bayplan.transport.port import Contact, Listener, Register
from tests.fakes.grpc_channel import FakeChannel
from tests.fakes.grpc_server import FakeServer
from tests.fakes.wire import Open, Wire

_FIRST_FREE_PORT: Final = 20_000


class FakeNetwork:
    """Hosts, told apart by name, and the links between them."""

    def __init__(self, *, latency_s: float = 0.001) -> None:
        self.latency_s = latency_s
        self._processes: dict[str, list[FakeTransport]] = {}  # By host; a host stays known for ever.
        self._dead: set[str] = set()
        self._frozen: dict[str, list[Callable[[], None]]] = {}  # And what each learns when it thaws.
        self._cut: set[tuple[str, str]] = set()  # (from, to)
        self._wires: dict[Wire, None] = {}  # Ordered, so that a run repeats.

    # Faults

    def kill(self, host: str) -> None:
        """Every process of `host` dies at once, then the host is silent."""
        for transport in self._of(host):
            transport.kill()
        self._dead.add(host)

    def revive(self, host: str) -> None:
        """The host is back, empty: make new `FakeTransport`s for its new processes."""
        self._dead.discard(host)
        self._review()

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Nothing from `a` reaches `b`, nor back unless `one_way`."""
        self._cut.add((a, b))
        if not one_way:
            self._cut.add((b, a))
        self._review()

    def isolate(self, host: str) -> None:
        """Cut `host` from all others, those that are still to come included."""
        self.cut(host, "*")

    def partition(self, hosts: Iterable[str]) -> None:
        """Cut the group `hosts` from every other host there is now."""
        group = set(hosts)
        others = self._processes.keys() - group
        for a in sorted(group):
            for b in sorted(others):
                self.cut(a, b)

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """Join `a` and `b` again; `a` and everybody; or, without names, all."""
        self._cut = {
            (x, y)
            for x, y in self._cut
            if (a is not None and a not in (x, y)) or (b is not None and b not in (x, y))
        }
        self._review()

    def freeze(self, host: str) -> None:
        """SIGSTOP the processes of `host`."""
        self._frozen.setdefault(host, [])
        self._review()

    def thaw(self, host: str) -> None:
        """SIGCONT."""
        news = self._frozen.pop(host, [])
        self._review()
        for tell in news:
            tell()

    # For transports and wires

    def is_cut(self, source: str, target: str) -> bool:
        """Whether the link loses what `source` sends to `target`. Dead hosts receive nothing."""
        if target in self._dead:
            return True
        if source == target or not self._cut:
            return False
        return bool({(source, target), (source, "*"), ("*", target)} & self._cut)

    def is_blocked(self, source: str, target: str) -> bool:
        """Whether frames must wait: the link is cut, or one of the hosts' processes are frozen."""
        return source in self._frozen or target in self._frozen or self.is_cut(source, target)

    def when_thawed(self, host: str, tell: Callable[[], None]) -> None:
        """Call `tell` now, or once `host` is not frozen any more."""
        if host in self._frozen:
            self._frozen[host].append(tell)
        else:
            tell()

    def join(self, transport: FakeTransport) -> None:
        if transport.host in self._dead:
            raise ValueError(f"host {transport.host} is dead: revive it first")
        self._processes.setdefault(transport.host, []).append(transport)

    def leave(self, transport: FakeTransport) -> None:
        self._processes[transport.host].remove(transport)
        for wire in list(self._wires):
            wire.killed(transport)

    def add(self, wire: Wire) -> None:
        self._wires[wire] = None

    def forget(self, wire: Wire) -> None:
        self._wires.pop(wire, None)

    def accept(self, wire: Wire, opening: Open) -> bool:
        """Hand a new call to who listens at its address. False: nobody does."""
        host, _, port = opening.address.rpartition(":")
        for transport in self._of(host):
            listener = transport.listeners.get(int(port))
            if listener:
                listener.take(wire, opening, transport)
                return True
        return False

    def knows(self, host: str) -> bool:
        return host in self._processes

    def listens(self, host: str, port: int) -> bool:
        return any(port in transport.listeners for transport in self._of(host))

    def free_port(self, host: str) -> int:
        port = _FIRST_FREE_PORT
        while self.listens(host, port):
            port += 1
        return port

    @property
    def open_calls(self) -> int:
        """For tests that nothing leaks."""
        return len(self._wires)

    def _of(self, host: str) -> list[FakeTransport]:
        return list(self._processes.get(host, ()))

    def _review(self) -> None:
        for wire in list(self._wires):
            wire.review()


class FakeTransport:
    """Implements `Transport` for one process on `host`. Others reach it at "<host>:<port>"."""

    def __init__(self, network: FakeNetwork, host: str) -> None:
        self.network = network
        self.host = host
        self.is_killed = False
        self.listeners: dict[int, FakeServer | None] = {}  # None: answers contact only.
        self._identity_version = 0
        self._renewed = asyncio.Event()
        network.join(self)

    def kill(self) -> None:
        """The process dies, like by SIGKILL. Idempotent."""
        if not self.is_killed:
            self.is_killed = True
            self.listeners.clear()
            self.network.leave(self)

    def channel(self, address: str) -> grpc.aio.Channel:
        return FakeChannel(self, address)

    def renew_identity(self) -> None:
        """As if there were certificates, and this process had got a new one."""
        self._identity_version += 1
        self._renewed.set()
        self._renewed = asyncio.Event()

    @property
    def identity_version(self) -> int:
        return self._identity_version

    async def identity_newer_than(self, version: int) -> None:
        while self._identity_version <= version:
            await self._renewed.wait()

    async def serve(
        self,
        host: str,
        port: int,
        services: Sequence[Register],
        names: Sequence[str],
        *,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> Listener:
        """Serve at once, on every address of the host, whatever `host` says."""
        assert not interceptors, "nobody is told apart on this network"
        del host
        server = FakeServer()
        for register in services:
            register(server)
        health = await add_standard_services(server, names)
        return _FakeListener(self, self._bind(port, server), server, health)

    async def contact(self, host: str, port: int, *, timeout_s: float) -> Contact:
        network = self.network
        round_trip_s = 2 * network.latency_s
        lost = self.is_killed or network.is_cut(self.host, host) or network.is_cut(host, self.host)
        if lost or not network.knows(host) or round_trip_s > timeout_s:
            await asyncio.sleep(timeout_s)
            return Contact.SILENT
        await asyncio.sleep(round_trip_s)
        return Contact.ANSWERED if network.listens(host, port) else Contact.REFUSED

    async def listen_for_contact(self, host: str, port: int) -> Listener:
        del host
        return _FakeListener(self, self._bind(port, None))

    def _bind(self, port: int, server: FakeServer | None) -> int:
        if self.is_killed:
            raise OSError(errno.ESRCH, f"this process on {self.host} was killed")
        if port == 0:
            port = self.network.free_port(self.host)
        if self.network.listens(self.host, port):
            raise OSError(errno.EADDRINUSE, f"cannot listen on {self.host}:{port}")
        self.listeners[port] = server
        return port


class _FakeListener:
    def __init__(
        self,
        transport: FakeTransport,
        port: int,
        server: FakeServer | None = None,
        health: HealthServicer | None = None,
    ) -> None:
        self._transport = transport
        self._port = port
        self._server = server
        self._health = health

    @property
    def port(self) -> int:
        return self._port

    @property
    def join_port(self) -> int:
        """Everybody is let in."""
        return 0

    async def stop(self, grace_s: float) -> None:
        self._transport.listeners.pop(self._port, None)
        if self._server and self._health:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(grace_s)
