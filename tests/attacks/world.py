"""A live cluster to attack: two managers in this process on a real etcd, and one of everybody who may call.

Each test attacks from an address of its own (`World.host`): what is rationed by address would else
be used up by the test before. Linux gives every process all of 127.0.0.0/8.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from bayplan.identity import certificates
from bayplan.identity.credentials import Credentials, OwnIdentity
from bayplan.identity.joining import Joined, join
from bayplan.identity.names import Identity, Kind
from bayplan.identity.tokens import JoinToken, parse_token
from bayplan.transport.grpc import GrpcTransport, join_channel
from bayplan.v1 import access_pb2 as access
from bayplan.v1 import callers_pb2
from bayplan.v1.access_pb2 import AuditEntry, JoinReply
from bayplan.v1.access_pb2_grpc import AccessStub
from bayplan.v1.control_pb2_grpc import ControlStub
from manager.access.access import Access, begin
from manager.access.settings import AccessSettings
from manager.manager import Manager, ManagerSettings
from manager.store import keys
from manager.store.etcd import EtcdStore
from tests.free_ports import free_port
from tests.real_etcd import RealEtcd

if TYPE_CHECKING:
    from bayplan.v1.access_pb2_grpc import AccessAsyncStub  # exists in the .pyi alone
    from bayplan.v1.control_pb2_grpc import ControlAsyncStub

LIFE_S = 24 * 3600.0
# What attackers would like to change. Left out: keys on leases, and what the leader writes by itself.
GUARDED = (
    keys.RESOURCES,
    keys.NODES,
    keys.NODE_INTENTS,
    keys.REVISIONS,
    keys.PLACEMENTS,
    keys.PKI,
    keys.SECRETS,
    keys.KEYRING,
)

_hosts = itertools.count(10)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveManager:
    """One that runs in this process."""

    id: str
    port: int
    access: Access
    manager: Manager

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def ca(self) -> certificates.Root:
        """The cluster's own root, key and all: for forging what only an insider could."""
        assert self.access.registry.ca is not None
        record = self.access.registry.ca.roots[0]
        return certificates.Root(
            certificate=certificates.from_pem(record.certificate_pem.encode())[0],
            key=certificates.key_from_pem(record.key_pem.encode()),
        )


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody with a certificate."""

    credentials: Credentials

    @property
    def identity(self) -> Identity:
        return self.credentials.identity

    def channel(self, address: str) -> grpc.aio.Channel:
        """To be closed by the caller: `async with`."""
        return GrpcTransport(OwnIdentity(self.credentials)).channel(address)


@dataclass(frozen=True, slots=True)
class Denial:
    """How a call ended that should not succeed."""

    code: grpc.StatusCode
    words: str


class World:
    """Made by `live_world`."""

    def __init__(self, directory: Path, etcd: RealEtcd, stack: AsyncExitStack) -> None:
        self.directory = directory
        self.etcd = etcd
        self.store = EtcdStore([etcd.endpoint])
        self.log = directory / "managers.log"
        self.managers: list[LiveManager] = []
        self.members: dict[str, Member] = {}
        self.secrets: list[str] = []  # Of every token that was made: none may be found anywhere.
        self._stack = stack

    # -- who is there --------------------------------------------------------------------------

    @property
    def address(self) -> str:
        return self.managers[0].address

    @property
    def cluster(self) -> str:
        return self.managers[0].access.cluster

    @property
    def roots_pem(self) -> bytes:
        return self.managers[0].access.roots.as_pem()

    @property
    def admin(self) -> Member:
        return self.members["admin"]

    def access(self, manager: int = 0) -> AccessAsyncStub:
        """As the admin."""
        return self._access[manager]

    def control(self, manager: int = 0) -> ControlAsyncStub:
        """As the admin."""
        return self._control[manager]

    async def begin(self) -> None:
        """Found the cluster and let everybody in."""
        self._stack.push_async_callback(self.store.aclose)
        first = await self.add_manager("m1")
        self.members["admin"] = await self.log_in((first.access.directory / "admin.token").read_text())
        self._access: list[AccessAsyncStub] = []
        self._control: list[ControlAsyncStub] = []
        self._add_stubs(first)
        second = await self.add_manager("m2", join=first.address, token=await self.token("manager"))
        self._add_stubs(second)
        for role in (callers_pb2.ROLE_OPERATOR, callers_pb2.ROLE_VIEWER):
            name = callers_pb2.Role.Name(role).removeprefix("ROLE_").lower()
            self.members[name] = await self.user(name, role)
        self.members["node"] = await self.node("n1")
        self.members["manager"] = Member((await self.join("manager", "m9")).credentials)
        await self._led()

    def _add_stubs(self, manager: LiveManager) -> None:
        channel = self.admin.channel(manager.address)
        self._stack.push_async_callback(channel.close)
        self._access.append(AccessStub(channel))
        self._control.append(ControlStub(channel))

    async def _led(self) -> None:
        """Until a leader has read the store, and both managers know each other and it."""
        async with asyncio.timeout(20):
            while True:
                known = [each.manager.managers() for each in self.managers]
                if all(
                    len(seen) == len(self.managers) and any(one.leader for one in seen) for seen in known
                ) and any(each.manager.leadership is not None for each in self.managers):
                    return
                await asyncio.sleep(0.05)

    async def add_manager(self, name: str, *, join: str = "", token: str = "") -> LiveManager:
        """One more in this process, as manager/main.py starts it."""
        port = free_port(in_a_row=2)
        settings = AccessSettings(
            data_dir=self.directory / name, join=join, join_token=token, join_token_file=None,
            cluster_key_command="", certificate_life_s=LIFE_S, insecure_loopback=False,
        )  # fmt: skip
        store = EtcdStore([self.etcd.endpoint])
        self._stack.push_async_callback(store.aclose)
        chance = random.Random(name)
        found = await begin(settings, manager_id=name, etcd=store, wall_s=time.time, chance=chance)
        manager = Manager(
            ManagerSettings(
                id=name, listen_host="127.0.0.1", listen_port=port, advertise=f"127.0.0.1:{port}"
            ),
            store=found.store,
            transport=GrpcTransport(found.own),
            access=found,
            wall_s=time.time,
            chance=chance,
        )
        running = asyncio.create_task(manager.run(), name=name)
        self._stack.push_async_callback(_ended, running)
        await serving(port)
        live = LiveManager(id=name, port=port, access=found, manager=manager)
        self.managers.append(live)
        return live

    # -- letting in ----------------------------------------------------------------------------

    async def token(self, kind: str, *, uses: int = 1, ttl_ms: int = 0) -> str:
        request = access.CreateJoinTokenRequest(kind=kind, uses=uses, ttl_ms=ttl_ms)
        return self._noted((await self.access().CreateJoinToken(request)).token)

    def _noted(self, token: str) -> str:
        self.secrets.append(parse_token(token).secret)
        return token

    async def join(self, kind: str, name: str) -> Joined:
        return await join([self.address], parse_token(await self.token(kind)), name=name)

    async def log_in(self, token: str) -> Member:
        return Member((await join([self.address], parse_token(self._noted(token)), name="")).credentials)

    async def node(self, name: str) -> Member:
        return Member((await self.join("node", name)).credentials)

    async def user(self, name: str, role: callers_pb2.Role, *, ttl_ms: int = 0) -> Member:
        made = await self.access().CreateUser(access.CreateUserRequest(name=name, role=role, ttl_ms=ttl_ms))
        return await self.log_in(made.token)

    async def ask_to_join(
        self, address: str, token: JoinToken, name: str, *, request: bytes | None = None
    ) -> JoinReply:
        """`Join` as it goes over the wire, with whatever an attacker puts into it."""
        content = certificates.certificate_request(certificates.new_key()) if request is None else request
        proof = access.TokenProof(id=token.id, secret=token.secret)
        async with join_channel(address, self.roots_pem, self.cluster) as channel:
            return await AccessStub(channel).Join(
                access.JoinRequest(certificate_request=content, name=name, token=proof), timeout=10
            )

    # -- attacking -----------------------------------------------------------------------------

    async def host(self, manager: LiveManager | int | None = None) -> str:
        """Address of the manager's main port, as it is seen from a host that nobody else attacks from."""
        port = manager if isinstance(manager, int) else (manager or self.managers[0]).port
        host = Host(free_host(), port)
        await host.start()
        self._stack.push_async_callback(host.stop)
        return f"{host.name}:{port}"

    @asynccontextmanager
    async def unchanged(self) -> AsyncIterator[None]:
        """What is within changes nothing in the store.

        The store's own revision is no measure: leases, the leader's commits and its decisions move it.
        """
        before = await self.guarded()
        yield
        assert await self.guarded() == before

    async def guarded(self) -> Mapping[str, int]:
        """Key → mod-revision of everything that attackers would like to change."""
        listings = [await self.store.list(prefix) for prefix in GUARDED]
        return {item.key: item.mod_revision for listing in listings for item in listing.items}

    async def audit(self, *, denied: bool = True, who: str = "", address: str = "") -> list[AuditEntry]:
        """The record of every manager."""
        reply = await self.access().ListAudit(access.ListAuditRequest(denied=denied, who=who, limit=10_000))
        assert not reply.unreachable
        return [entry for entry in reply.entries if not address or entry.address == address]

    def signed(
        self,
        identity: Identity,
        *,
        generation: int = 1,
        life_s: float = 3600.0,
        root: certificates.Root | None = None,
        made_s: float | None = None,
    ) -> Member:
        """A certificate that no manager has issued, by the cluster's own root unless another is given."""
        issuer, made_s = root or self.managers[0].ca, time.time() if made_s is None else made_s
        key = certificates.new_key()
        leaf = certificates.issue(
            issuer, key.public_key(), identity, generation=generation, life_s=life_s, now_s=made_s
        )
        return Member(
            Credentials(
                identity=identity,
                issued_s=made_s,
                expires_s=made_s + life_s,
                key_pem=certificates.key_to_pem(key),
                certificates_pem=certificates.to_pem(leaf),
                roots_pem=self.roots_pem,
            )
        )

    def identity(self, kind: Kind, name: str, *, cluster: str = "") -> Identity:
        return Identity(cluster=cluster or self.cluster, kind=kind, name=name)


async def read_to_end(call: Any, *, within_s: float) -> Denial:
    """How a stream that was let in ended."""
    async with asyncio.timeout(within_s):
        try:
            while await call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return Denial(error.code(), error.details() or "")
    return Denial(await call.code(), await call.details() or "")


async def denial(call: Awaitable[Any]) -> Denial:
    """How `call` was refused; it must be."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return Denial(error.code(), error.details() or "")
    raise AssertionError(f"it was answered: {answer!r}")


class Host:
    """Passes connections on to a manager from a loopback address of its own."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self._port = port
        self._stack = AsyncExitStack()
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        for port in (self._port, self._port + 1):
            server = await asyncio.start_server(partial(self._accepted, port), self.name, port)
            self._stack.callback(server.close)

    async def stop(self) -> None:
        await self._stack.aclose()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accepted(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.ensure_future(self._serve(reader, writer, port))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        try:
            with contextlib.suppress(OSError):
                to_reader, to_writer = await asyncio.open_connection(
                    "127.0.0.1", port, local_addr=(self.name, 0)
                )
                try:
                    await _first_to_end(_pump(reader, to_writer), _pump(to_reader, writer))
                finally:
                    to_writer.transport.abort()
        finally:
            writer.transport.abort()


async def _first_to_end(*each: Coroutine[Any, Any, None]) -> None:
    pumps = [asyncio.ensure_future(one) for one in each]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def free_host() -> str:
    """A loopback address that no other test uses."""
    number = next(_hosts)
    return f"127.1.{number // 250}.{number % 250 + 1}"


async def serving(port: int, *, within_s: float = 20.0) -> None:
    """Until a manager listens there."""
    async with asyncio.timeout(within_s):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


async def _ended(running: asyncio.Task[None]) -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def live_world(directory: Path) -> AsyncIterator[World]:
    """A cluster for a package of tests; it takes about two seconds."""
    etcd = RealEtcd(directory)
    await asyncio.to_thread(etcd.start)
    try:
        async with AsyncExitStack() as stack:
            world = World(directory, etcd, stack)
            await world.begin()
            yield world
    finally:
        etcd.kill()
