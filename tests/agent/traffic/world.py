"""A node's proxy on loopback addresses: real HAProxy, the proxy that drives it, pods and callers in this process.

The node has 127.a.b.0/24 as its subnet, and a peer the next one; all of 127.0.0.0/8 is this host's.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from agent.network.table import NetworkTable
from agent.settings import AgentSettings
from agent.traffic import ports
from agent.traffic.proxy import HaproxyProxy
from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as pb
from tests.real_haproxy import RealHaproxy, haproxy_binary

TIMEOUT_S = 20.0
WEB, DB = "shop/web", "shop/db"
WEB_PORT, DB_PORT = 80, 5432


_Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


@dataclass
class Pod:
    """Answers HTTP with its name and echoes on its TCP port."""

    id: str
    address: str
    requests: int = 0
    connections: int = 0
    _servers: list[asyncio.Server] = field(default_factory=list)
    _answering: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    async def start(self) -> None:
        self._servers = [
            await asyncio.start_server(partial(self._accept, self._http), self.address, 8080),
            await asyncio.start_server(partial(self._accept, self._echo), self.address, DB_PORT),
        ]

    async def kill(self) -> None:
        """As SIGKILL does: nobody listens, and connections are reset."""
        for server in self._servers:
            server.close()
        for writer in self._answering.values():
            writer.transport.abort()
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        self._servers = []

    def fall_silent(self) -> list[socket.socket]:
        """As when its host has lost power: what is open hangs, and nobody answers who connects."""
        for server in self._servers:
            server.close()
        return [*silence(self.address, 8080), *silence(self.address, DB_PORT)]

    def _accept(self, answer: _Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(answer(reader, writer))
        self._answering[task] = writer
        task.add_done_callback(self._answering.pop)

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                path = head.split(b" ")[1].decode()
                if path.startswith("/slow"):
                    await asyncio.sleep(float(path.partition("=")[2]))
                if b"pgrade: chat" in head:
                    writer.write(
                        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"
                    )
                    await self._copy(reader, writer)
                    return
                body = head if path == "/head" else self.id.encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(self.id.encode() + b"\n")
            await self._copy(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def silence(address: str, port: int) -> list[socket.socket]:
    """Until these are closed nobody answers there: a queue is full, and the kernel drops who comes."""
    listener = socket.create_server((address, port), backlog=0)
    waiting = [socket.socket() for _ in range(2)]
    for each in waiting:
        each.setblocking(False)
        each.connect_ex((address, port))
    return [listener, *waiting]


class World:
    """What a test does and sees."""

    def __init__(self, directory: Path) -> None:
        chance = random.Random()
        self._prefix = f"127.{chance.randrange(1, 250)}.{chance.randrange(1, 120) * 2}"
        first, second, third = (int(each) for each in self._prefix.split("."))
        self.peer_prefix = f"{first}.{second}.{third + 1}"
        self.published = f"{self._prefix}.200"
        self.settings = AgentSettings(
            node="n1",
            data_dir=directory,
            managers=(),
            address="127.0.0.1",
            publish_addresses=(self.published,),
            run_dir=directory,
        )
        self.directory = directory / "proxy"
        self.haproxy = RealHaproxy(self.directory)
        self.proxy = HaproxyProxy(self.settings, binary=haproxy_binary())
        self.pods: dict[str, Pod] = {}
        self.applied: list[pb.TrafficApplied] = []
        self.proxy.on_applied = lambda: self.applied.append(self.proxy.applied())
        self._peer: asyncio.Server | None = None
        self._silent: list[socket.socket] = []
        self._running: asyncio.Task[None] | None = None
        self.network = NetworkTable().fold(
            pb.Network(
                full=True,
                settings=pb.NetworkSettings(id=1),
                subnet=f"{self._prefix}.0/24",
                peers=[pb.NetworkPeer(node="n2", address="127.0.0.1", subnet=f"{self.peer_prefix}.0/24")],
            )
        )
        self.traffic = TrafficTable()

    @property
    def gateway(self) -> str:
        return f"{self._prefix}.1"

    async def start_pod(self, name: str, *, node: str = "n1") -> Pod:
        prefix = self._prefix if node == "n1" else self.peer_prefix
        pod = Pod(id=name, address=f"{prefix}.{10 + len(self.pods)}")
        await pod.start()
        self.pods[name] = pod
        return pod

    async def start_peer(self) -> None:
        """Answers this node's checks, as the peer's proxy does."""

        def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            del reader
            writer.close()

        self._end_silence()
        self._peer = await asyncio.start_server(answer, *self._peers_health)

    @property
    def _peers_health(self) -> tuple[str, int]:
        return f"{self.peer_prefix}.1", self.settings.proxy_port + ports.HEALTH

    def kill_peers_proxy(self) -> None:
        """Its host lives, and refuses the checks."""
        assert self._peer is not None
        self._peer.close()

    def kill_peer(self) -> None:
        """The host is dead: whoever connects to it, or to its pods, hears nothing."""
        self.kill_peers_proxy()
        self._silent = silence(*self._peers_health)
        for pod in self.pods.values():
            if pod.address.startswith(self.peer_prefix + "."):
                self._silent += pod.fall_silent()

    def _end_silence(self) -> None:
        for each in self._silent:
            each.close()
        self._silent = []

    def say(self, **said: object) -> int:
        """What a leader says; the version of it."""
        version = self.traffic.version + 1
        message = pb.Traffic(version=version, **said)  # type: ignore[arg-type]
        self.traffic = self.traffic.fold(message)
        self.proxy.use(self.network, self.traffic)
        return version

    def endpoints(self, *names: str, service: str = WEB, target: int = 8080) -> int:
        """From now on these, and no others."""
        put = [
            pb.Endpoint(
                id=name,
                node="n1" if self.pods[name].address.startswith(self._prefix + ".") else "n2",
                address=self.pods[name].address,
                ports=[target],
                ready=True,
            )
            for name in names
        ]
        return self.say(endpoints=[pb.EndpointChanges(service=service, full=True, put=put)])

    def connect(self) -> None:
        """The agent starts."""
        self._running = asyncio.create_task(self.proxy.run())

    async def disconnect(self) -> None:
        """The agent ends; HAProxy goes on."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def restart_agent(self) -> None:
        await self.disconnect()
        self.proxy = HaproxyProxy(self.settings, binary=haproxy_binary())
        self.proxy.use(self.network, self.traffic)
        self.connect()

    async def until(self, what: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> float:
        """Wait for it; the seconds it took."""
        began_s = time.monotonic()
        while not what():
            if self._running is not None and self._running.done():
                self._running.result()
            if time.monotonic() - began_s > timeout_s:
                raise AssertionError(f"it does not come: {self.proxy.applied()} {self.proxy.problem()}")
            await asyncio.sleep(0.01)
        return time.monotonic() - began_s

    async def until_applied(self, version: int) -> float:
        return await self.until(lambda: self.proxy.applied().version >= version)

    async def get(self, path: str = "/", *, port: int = WEB_PORT, headers: str = "") -> tuple[int, str]:
        """One request on a connection of its own."""
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(self.published, port)
            try:
                host = "" if "Host:" in headers else "Host: web\r\n"
                writer.write(f"GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n".encode())
                answer = await reader.read()
            finally:
                writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body.decode()


@asynccontextmanager
async def a_world() -> AsyncIterator[World]:
    """A node with two services and no pods, whose HAProxy runs."""
    # Short, for paths of unix sockets end at 108 characters.
    directory = Path(tempfile.mkdtemp(prefix="bp-"))
    world = World(directory)
    try:
        await world.start_peer()
        world.connect()
        version = world.say(full=True, services=[web(), db()])
        await world.until((world.directory / "haproxy.cfg").exists)
        world.haproxy.start()
        await world.until_applied(version)
        yield world
    finally:
        await world.disconnect()
        world.haproxy.kill()
        world.kill_peers_proxy()
        world._end_silence()
        for pod in world.pods.values():
            await pod.kill()
        # The proxy was cut short, but not a thread of it that writes there.
        await asyncio.get_running_loop().shutdown_default_executor()
        shutil.rmtree(directory)


def web(**fields: object) -> pb.Service:
    return pb.Service(
        **{  # type: ignore[arg-type]
            "namespace": "shop",
            "name": "web",
            "vip": "10.96.0.10",
            "ports": [pb.ServicePort(port=WEB_PORT, http=True, load_balancer=True)],
            **fields,
        }
    )


def db(**fields: object) -> pb.Service:
    return pb.Service(
        **{  # type: ignore[arg-type]
            "namespace": "shop",
            "name": "db",
            "vip": "10.96.0.11",
            "ports": [pb.ServicePort(port=DB_PORT, load_balancer=True)],
            **fields,
        }
    )


@dataclass
class Load:
    """Requests at a steady rate, each counted."""

    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    async def one(self, world: World) -> None:
        began_s = time.monotonic()
        try:
            status, body = await world.get()
        except (OSError, TimeoutError, IndexError) as error:
            self.failed.append(repr(error))
            return
        self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
        if status == 200:
            self.answered[body] += 1
        else:
            self.failed.append(f"{status} {body}")


@asynccontextmanager
async def under_load(world: World, *, per_s: int = 100) -> AsyncIterator[Load]:
    """New connections at a constant rate, whatever becomes of those before."""
    load = Load()

    async def send() -> None:
        async with asyncio.TaskGroup() as requests:
            while not done.is_set():
                requests.create_task(load.one(world))
                await asyncio.sleep(1 / per_s)

    done = asyncio.Event()
    sending = asyncio.create_task(send())
    try:
        yield load
    finally:
        done.set()
        await sending
