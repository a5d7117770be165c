"""Mutual TLS on real sockets. What hostile peers try at it: tests/attacks."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest

from bayplan.identity import certificates
from bayplan.identity.certificates import Root
from bayplan.identity.credentials import Credentials, OwnIdentity
from bayplan.identity.names import Identity, Kind
from bayplan.transport.grpc import GrpcTransport, join_address, join_channel
from bayplan.transport.port import Listener
from bayplan.v1 import access_pb2 as access
from bayplan.v1 import control_pb2 as control
from bayplan.v1.access_pb2_grpc import AccessServicer, AccessStub, add_AccessServicer_to_server
from bayplan.v1.control_pb2_grpc import ControlServicer, ControlStub, add_ControlServicer_to_server
from tests.contracts.transport import Ends, TransportContract

HOST = "127.0.0.1"
CLUSTER = "3f2a9c1d5e7b4a60"
NOW_S = time.time()
# A handshake on loopback takes milliseconds; a busy machine gets more.
CALL_TIMEOUT_S = 5.0


def a_root() -> Root:
    return certificates.new_root(CLUSTER, now_s=NOW_S)


ROOT = a_root()


def credentials_of(
    kind: Kind,
    name: str,
    *,
    root: Root = ROOT,
    trusts: tuple[Root, ...] = (),
    vouched_by: Root | None = None,
    cluster: str = CLUSTER,
) -> Credentials:
    """By `root`, and trusting the same unless told otherwise. `vouched_by`: an older root, for who trusts only it."""
    key = certificates.new_key()
    identity = Identity(cluster=cluster, kind=kind, name=name)
    leaf = certificates.issue(root, key.public_key(), identity, generation=1, life_s=3600, now_s=NOW_S)
    chain = [leaf]
    if vouched_by is not None:
        chain.append(certificates.cross_signed(root, vouched_by, now_s=NOW_S))
    return Credentials(
        identity=identity,
        issued_s=NOW_S,
        expires_s=NOW_S + 3600,
        key_pem=certificates.key_to_pem(key),
        certificates_pem=certificates.to_pem(*chain),
        roots_pem=certificates.to_pem(*(each.certificate for each in trusts or (root,))),
    )


def leaf_of(credentials: Credentials) -> str:
    return certificates.digest(certificates.from_pem(credentials.certificates_pem)[0])


@dataclass
class Seen(AccessServicer, ControlServicer):
    """Says who called, by the certificate that TLS has verified."""

    callers: list[str] = field(default_factory=list)  # Digests of the certificates they showed.

    async def WhoAmI(self, request: access.WhoAmIRequest, context: Any) -> access.WhoAmIReply:  # noqa: N802 - the proto's name
        del request
        shown = context.auth_context().get("x509_pem_cert", ())
        if not shown:
            self.callers.append("")
            return access.WhoAmIReply()
        (leaf,) = certificates.from_pem(shown[0])
        self.callers.append(certificates.digest(leaf))
        return access.WhoAmIReply(identity=str(certificates.read_leaf(leaf).identity))

    async def WatchEvents(  # noqa: N802 - the proto's name
        self, request: control.ListEventsRequest, context: Any
    ) -> AsyncIterator[control.Event]:
        del request, context
        for count in range(1000):
            yield control.Event(count=count)
            await asyncio.sleep(0.01)


@dataclass
class Server:
    """A manager's two ports."""

    own: OwnIdentity
    seen: Seen
    listener: Listener

    @property
    def address(self) -> str:
        return f"{HOST}:{self.listener.port}"

    @property
    def join_port(self) -> str:
        """As `join_channel` is given it: the main port before it."""
        return f"{HOST}:{self.listener.join_port - 1}"

    async def shown(self) -> str:
        """Digest of the certificate that a new connection sees."""
        pem = await asyncio.to_thread(ssl.get_server_certificate, (HOST, self.listener.join_port))
        return certificates.digest(certificates.from_pem(pem.encode())[0])


@asynccontextmanager
async def serving(credentials: Credentials) -> AsyncIterator[Server]:
    own = OwnIdentity(credentials)
    seen = Seen()  # type: ignore[abstract]
    registers = [partial(add_AccessServicer_to_server, seen), partial(add_ControlServicer_to_server, seen)]
    listener = await GrpcTransport(own).serve(HOST, 0, registers, [])
    try:
        yield Server(own, seen, listener)
    finally:
        await listener.stop(0)


MANAGER = credentials_of(Kind.MANAGER, "m1")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving(MANAGER) as server:
        yield server


async def who_am_i(channel: grpc.aio.Channel) -> str:
    reply = await AccessStub(channel).WhoAmI(access.WhoAmIRequest(), timeout=CALL_TIMEOUT_S)
    return reply.identity


async def count_in(events: Any) -> int:
    """Of the next event."""
    event: control.Event = await events.read()
    return event.count


async def ask(credentials: Credentials, address: str) -> str:
    """Over a connection of its own."""
    async with GrpcTransport(OwnIdentity(credentials)).channel(address) as channel:
        return await who_am_i(channel)


async def is_refused(credentials: Credentials, server: Server) -> bool:
    """Whether no connection came about, so that nothing was heard."""
    before = len(server.seen.callers)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(credentials, server.address)
    return caught.value.code() is grpc.StatusCode.UNAVAILABLE and len(server.seen.callers) == before


class TestTheContractOverTls(TransportContract):
    @pytest.fixture
    def ends(self) -> Ends:
        node = OwnIdentity(credentials_of(Kind.NODE, "n1"))
        return Ends(GrpcTransport(node), GrpcTransport(OwnIdentity(MANAGER)), HOST)


class TestBothSides:
    @pytest.mark.parametrize("kind", list(Kind))
    async def test_know_each_other(self, server: Server, kind: Kind) -> None:
        asking = credentials_of(kind, "x1")

        assert await ask(asking, server.address) == str(asking.identity)
        assert server.seen.callers == [leaf_of(asking)]

    async def test_without_a_certificate_there_is_no_connection(self, server: Server) -> None:
        channel = join_channel(f"{HOST}:{server.listener.port - 1}", MANAGER.roots_pem, CLUSTER)
        async with channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await who_am_i(channel)

        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert server.seen.callers == []

    async def test_in_plain_text_there_is_none(self, server: Server) -> None:
        async with GrpcTransport().channel(server.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await who_am_i(channel)
        assert server.seen.callers == []

    async def test_a_server_of_another_root_is_not_spoken_to(self, server: Server) -> None:
        """It bears the same names."""
        stranger = a_root()

        assert await is_refused(credentials_of(Kind.NODE, "n1", trusts=(stranger,)), server)

    async def test_a_client_of_another_root_is_not_heard(self, server: Server) -> None:
        assert await is_refused(credentials_of(Kind.NODE, "n1", root=a_root(), trusts=(ROOT,)), server)

    @pytest.mark.parametrize("kind", [Kind.NODE, Kind.USER])
    async def test_nobody_but_a_manager_can_serve(self, kind: Kind) -> None:
        """Its certificate is good, by the right root; it is not for this."""
        async with serving(credentials_of(kind, "n1")) as server:
            assert await is_refused(credentials_of(Kind.NODE, "n2"), server)

    async def test_a_manager_of_another_cluster_is_not_taken_for_ours(self) -> None:
        """Even where one root has signed for both."""
        async with serving(credentials_of(Kind.MANAGER, "m1", cluster="other")) as server:
            assert await is_refused(credentials_of(Kind.NODE, "n1"), server)


class TestTheJoinPort:
    async def test_hears_who_has_no_certificate(self, server: Server) -> None:
        async with join_channel(server.join_port, MANAGER.roots_pem, CLUSTER) as channel:
            assert await who_am_i(channel) == ""

    async def test_is_a_managers_too(self) -> None:
        """Who joins would tell a node its secret."""
        async with serving(credentials_of(Kind.NODE, "n1")) as server:
            async with join_channel(server.join_port, MANAGER.roots_pem, CLUSTER) as channel:
                with pytest.raises(grpc.aio.AioRpcError):
                    await who_am_i(channel)
            assert server.seen.callers == []

    @pytest.mark.parametrize(
        ("address", "expected"),
        [("10.0.0.7:7400", "10.0.0.7:7401"), ("m1.lan:1", "m1.lan:2"), ("[::1]:7400", "[::1]:7401")],
    )
    def test_is_the_next_one(self, address: str, expected: str) -> None:
        assert join_address(address) == expected

    async def test_is_there_with_tls_alone(self, server: Server) -> None:
        assert server.listener.join_port
        plain = await GrpcTransport().serve(HOST, 0, [], [])
        assert plain.join_port == 0
        await plain.stop(0)


class TestAReplacedIdentity:
    async def test_of_a_server_is_shown_to_new_connections_only(self, server: Server) -> None:
        node = GrpcTransport(OwnIdentity(credentials_of(Kind.NODE, "n1")))
        async with node.channel(server.address) as channel:
            events = ControlStub(channel).WatchEvents(control.ListEventsRequest())
            assert await count_in(events) == 0
            renewed = credentials_of(Kind.MANAGER, "m1")
            assert await server.shown() == leaf_of(MANAGER)
            server.own.replace(renewed)

            assert await server.shown() == leaf_of(renewed)
            assert [await count_in(events) for _ in range(3)] == [1, 2, 3], "what stands goes on"
            events.cancel()
        assert await ask(credentials_of(Kind.NODE, "n2"), server.address)

    async def test_of_a_client_is_shown_by_new_channels_only(self, server: Server) -> None:
        before, after = credentials_of(Kind.NODE, "n1"), credentials_of(Kind.NODE, "n1")
        own = OwnIdentity(before)
        transport = GrpcTransport(own)
        async with transport.channel(server.address) as old:
            await who_am_i(old)
            own.replace(after)
            async with transport.channel(server.address) as new:
                await who_am_i(new)
            await who_am_i(old)

        assert server.seen.callers == [leaf_of(each) for each in (before, after, before)]

    async def test_is_heard_of(self) -> None:
        own = OwnIdentity(MANAGER)
        transport = GrpcTransport(own)
        assert transport.identity_version == 1
        waiting = asyncio.ensure_future(transport.identity_newer_than(1))
        await asyncio.sleep(0)
        assert not waiting.done()
        own.replace(MANAGER)
        await waiting

        assert transport.identity_version == 2

    async def test_there_is_none_in_plain_text(self) -> None:
        transport = GrpcTransport()
        waiting = asyncio.ensure_future(transport.identity_newer_than(0))
        await asyncio.sleep(0)

        assert transport.identity_version == 0
        assert not waiting.done()
        waiting.cancel()


class TestARotationOfTheRoot:
    NEW = a_root()

    async def test_old_and_new_speak_with_each_other(self) -> None:
        """In whichever order managers and nodes come to the new root, nobody needs to be told beforehand."""
        both = (self.NEW, ROOT)
        old_node = credentials_of(Kind.NODE, "n1")
        new_node = credentials_of(Kind.NODE, "n2", root=self.NEW, vouched_by=ROOT, trusts=both)
        new_manager = credentials_of(Kind.MANAGER, "m1", root=self.NEW, vouched_by=ROOT, trusts=both)
        for manager in (MANAGER, new_manager):
            async with serving(manager) as server:
                for node in (old_node, new_node):
                    assert await ask(node, server.address) == str(node.identity)

    async def test_after_its_end_the_old_one_is_nobodys(self, server: Server) -> None:
        old_node, new_node = credentials_of(Kind.NODE, "n1"), credentials_of(Kind.NODE, "n2", root=self.NEW)
        server.own.replace(credentials_of(Kind.MANAGER, "m1", root=self.NEW))

        assert await ask(new_node, server.address) == str(new_node.identity)
        assert await is_refused(old_node, server)
        assert await is_refused(replace(old_node, roots_pem=new_node.roots_pem), server)
