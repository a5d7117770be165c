"""The gate's rules, one call at a time. Every method over the wire: tests/attacks/test_methods.py."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest

from bayplan.identity import certificates
from bayplan.identity.names import Identity, Kind
from bayplan.v1 import access_pb2, control_pb2
from bayplan.v1.callers_pb2 import ROLE_ADMIN, ROLE_OPERATOR, ROLE_VIEWER, Callers
from manager.access.audit import Entry
from manager.access.caller import DeniedError, note_target
from manager.access.gate import may_call, void_reason
from manager.store import keys
from tests.fakes.store import FakeEtcd
from tests.manager.access.door import CONNECT, FOLLOW, GET, JOIN, OK, SCALE, WATCH, Door, Outcome
from tests.manager.access.world import CLUSTER, HOUR_S, Clock, Desk, Member, a_desk, an_identity

pytestmark = pytest.mark.virtual_time


@pytest.fixture
def door(desk: Desk) -> Door:
    return Door(desk)


async def a_manager(desk: Desk, name: str = "m2") -> Member:
    key = certificates.new_key()
    identity = Identity(cluster=CLUSTER, kind=Kind.MANAGER, name=name)
    return Member(key, await desk.authority.enrol(identity, key.public_key()))


class TestWho:
    async def test_is_what_the_certificate_says(self, door: Door, desk: Desk) -> None:
        anna = await desk.user("anna", role=ROLE_OPERATOR)

        assert await door.call(SCALE, anna) == OK
        (seen,) = door.seen
        assert (seen.kind, seen.name, seen.role, seen.generation) == ("user", "anna", ROLE_OPERATOR, 1)
        assert (seen.identity, seen.address) == (f"spiffe://{CLUSTER}/user/anna", "10.0.0.7")
        assert seen.expires_ms == anna.leaf.expires_s * 1000

    async def test_without_one_is_nobody(self, door: Door) -> None:
        assert await door.call(JOIN) == OK
        assert await door.call(GET) == Outcome(
            grpc.StatusCode.UNAUTHENTICATED,
            "this method needs a certificate of the cluster; none was shown",
        )

    async def test_the_role_is_the_stores_not_the_certificates(self, door: Door, desk: Desk) -> None:
        anna = await desk.user("anna", role=ROLE_VIEWER)
        assert (await door.call(SCALE, anna)).code is grpc.StatusCode.PERMISSION_DENIED

        await desk.authority.create_user("anna", role=ROLE_ADMIN, access_ends_ms=0)

        assert await door.call(SCALE, anna) == OK

    async def test_a_lower_role_ends_the_certificates_of_the_higher_one(self, door: Door, desk: Desk) -> None:
        """As revoking does, so that no backup of the store gives it back."""
        anna = await desk.user("anna", role=ROLE_ADMIN)

        await desk.authority.create_user("anna", role=ROLE_VIEWER, access_ends_ms=0)

        assert (await door.call(SCALE, anna)).code is grpc.StatusCode.UNAUTHENTICATED

    async def test_whom_another_manager_let_in_a_moment_ago_is_known(
        self, door: Door, server: FakeEtcd, clock: Clock
    ) -> None:
        """This one has not heard of it yet."""
        other = await a_desk(server, clock, "m2")

        assert await door.call(GET, await other.user("anna")) == OK

    async def test_without_the_store_who_is_known_is_let_in(
        self, door: Door, desk: Desk, server: FakeEtcd
    ) -> None:
        anna, other = await desk.user("anna"), await a_desk(server, desk.clock, "m2")
        bob = await other.user("bob")
        server.kill()

        assert await door.call(GET, anna) == OK
        assert (await door.call(GET, bob)).code is grpc.StatusCode.UNAUTHENTICATED

    async def test_a_damaged_record_lets_nobody_in(self, door: Door, desk: Desk, server: FakeEtcd) -> None:
        other = await a_desk(server, desk.clock, "m2")
        bob = await other.user("bob")
        server.put(keys.pki_identity("user", "bob"), b"junk")

        assert await door.call(GET, bob) == Outcome(
            grpc.StatusCode.UNAUTHENTICATED, "user bob is not known to this cluster (any more)"
        )

    async def test_who_was_revoked_is_nobody(self, door: Door, desk: Desk) -> None:
        anna = await desk.user("anna")
        await desk.authority.revoke("user", "anna")

        assert await door.call(GET, anna) == Outcome(
            grpc.StatusCode.UNAUTHENTICATED, "the certificate of user anna was revoked"
        )

    async def test_a_certificate_that_ran_out_on_an_open_connection(
        self, door: Door, desk: Desk, clock: Clock
    ) -> None:
        anna = await desk.user("anna")
        clock.now_s = anna.leaf.expires_s + 1
        outcome = await door.call(GET, anna)

        assert outcome.code is grpc.StatusCode.UNAUTHENTICATED
        assert "has run out: connect again" in outcome.words

    async def test_of_another_cluster(self, door: Door, desk: Desk) -> None:
        assert desk.registry.ca is not None
        record = desk.registry.ca.roots[0]
        root = certificates.Root(
            certificate=certificates.from_pem(record.certificate_pem.encode())[0],
            key=certificates.key_from_pem(record.key_pem.encode()),
        )
        identity = Identity(cluster="other", kind=Kind.USER, name="anna")
        key = certificates.new_key()
        leaf = certificates.issue(
            root, key.public_key(), identity, generation=1, life_s=HOUR_S, now_s=desk.clock()
        )

        assert await door.call(GET, certificates.to_pem(leaf)) == Outcome(
            grpc.StatusCode.UNAUTHENTICATED, f"this certificate is for cluster other, this is {CLUSTER}"
        )

    @pytest.mark.parametrize(
        ("peer", "address"),
        [
            ("ipv4:10.0.0.7:51234", "10.0.0.7"),
            ("ipv6:[2001:db8::1]:51234", "2001:db8::1"),
            ("ipv6:%5B::1%5D:51234", "::1"),
            ("ipv6:%5Bfe80::1%25eth0%5D:51234", "fe80::1%eth0"),
            ("unix:/run/x", "/run/x"),
        ],
    )
    async def test_calls_from_where(self, door: Door, peer: str, address: str) -> None:
        await door.call(JOIN, peer=peer)

        assert door.seen[0].address == door.notes.entries[0].address == address


class TestWhether:
    async def test_a_role_below_is_refused_in_words(self, door: Door, desk: Desk) -> None:
        assert await door.call(SCALE, await desk.user("anna", role=ROLE_VIEWER)) == Outcome(
            grpc.StatusCode.PERMISSION_DENIED, "anna is a viewer: Scale is for operators and admins"
        )
        assert door.seen == []

    async def test_a_node_is_no_user_and_a_user_no_node(self, door: Door, desk: Desk) -> None:
        node, admin = await desk.node(), await desk.user("anna", role=ROLE_ADMIN)

        assert await door.call(CONNECT, node) == OK
        assert await door.call(GET, node) == Outcome(
            grpc.StatusCode.PERMISSION_DENIED, "this is node n1: Get is for viewers, operators and admins"
        )
        assert await door.call(CONNECT, admin) == Outcome(
            grpc.StatusCode.PERMISSION_DENIED, "anna is an admin: Connect is for nodes"
        )

    async def test_a_method_that_nobody_declared_is_for_nobody(self, door: Door, desk: Desk) -> None:
        outcome = await door.call("/other.Service/Do", await desk.user("anna", role=ROLE_ADMIN))

        assert outcome.code is grpc.StatusCode.PERMISSION_DENIED
        assert "/other.Service/Do says of nobody that they may call it" in outcome.words

    @pytest.mark.parametrize(
        ("callers", "kind", "role", "may"),
        [
            (Callers(anyone=True), "", 0, True),
            (Callers(node=True), "", 0, False),
            (Callers(node=True), "node", 0, True),
            (Callers(node=True), "manager", 0, False),
            (Callers(manager=True), "manager", 0, True),
            (Callers(manager=True), "user", ROLE_ADMIN, False),
            (Callers(user=ROLE_OPERATOR), "user", ROLE_VIEWER, False),
            (Callers(user=ROLE_OPERATOR), "user", ROLE_OPERATOR, True),
            (Callers(user=ROLE_OPERATOR), "user", ROLE_ADMIN, True),
            (Callers(user=ROLE_VIEWER), "user", 0, False),
            (Callers(user=ROLE_VIEWER), "node", ROLE_ADMIN, False),
            (Callers(), "user", ROLE_ADMIN, False),
            (Callers(node=True, manager=True, user=ROLE_VIEWER), "unchecked", 3, False),
        ],
    )
    def test_rules(self, callers: Callers, kind: str, role: int, *, may: bool) -> None:
        assert may_call(callers, kind, role) is may

    @pytest.mark.parametrize(
        ("record", "generation", "why"),
        [
            (an_identity(generation=2), 2, ""),
            (
                an_identity(generation=2),
                3,
                "the certificate of node n1 is of a generation that this cluster never issued",
            ),
            (an_identity(generation=2), 1, "the certificate of node n1 was revoked"),
            (an_identity(generation=2, is_revoked=True), 2, "the certificate of node n1 was revoked"),
            (an_identity("bob", kind="user", access_ends_ms=1001), 1, ""),
            (
                an_identity("bob", kind="user", access_ends_ms=1000),
                1,
                "the access of user bob has ended; an admin can make a new one with `bay user create bob`",
            ),
        ],
    )
    def test_void_certificates(self, record: Any, generation: int, why: str) -> None:
        assert void_reason(record, generation, now_ms=1000) == why

    async def test_calls_at_a_time_have_a_limit(self, door: Door) -> None:
        """Of who shows no certificate, by address."""
        open_calls = [asyncio.ensure_future(door.call(JOIN, behaviour=never)) for _ in range(16)]
        await asyncio.sleep(0.01)

        assert (await door.call(JOIN)).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await door.call(JOIN, peer="ipv4:10.0.0.8:1") == OK
        for each in open_calls:
            each.cancel()
        await asyncio.gather(*open_calls, return_exceptions=True)
        assert await door.call(JOIN) == OK


async def never(request: Any, context: Any) -> None:
    """A method that takes its time."""
    del request, context
    await asyncio.Event().wait()


class TestPassingOn:
    """A standby asks the leader for somebody."""

    async def test_counts_for_whom_it_is(self, door: Door, desk: Desk) -> None:
        manager, anna = await a_manager(desk), await desk.user("anna", role=ROLE_VIEWER)
        behalf = f"{anna.leaf.identity}#1"

        assert await door.call(GET, manager, behalf=behalf) == OK
        assert (await door.call(SCALE, manager, behalf=behalf)).words == (
            "anna is a viewer: Scale is for operators and admins"
        )
        assert (await door.call(FOLLOW, manager, behalf=behalf)).code is grpc.StatusCode.PERMISSION_DENIED
        (seen,) = door.seen
        assert (seen.name, seen.via) == ("anna", "m2")

    async def test_is_believed_of_managers_alone(self, door: Door, desk: Desk) -> None:
        node = await desk.node()
        await desk.user("anna", role=ROLE_ADMIN)
        outcome = await door.call(GET, node, behalf=f"spiffe://{CLUSTER}/user/anna#1")

        assert outcome.code is grpc.StatusCode.PERMISSION_DENIED
        assert outcome.words.startswith("this is node n1: ")
        nobody = await door.call(GET, behalf=f"spiffe://{CLUSTER}/user/anna#1")
        assert nobody.code is grpc.StatusCode.UNAUTHENTICATED

    async def test_ends_with_a_revocation_too(self, door: Door, desk: Desk) -> None:
        manager, anna = await a_manager(desk), await desk.user("anna")
        await desk.authority.revoke("user", "anna")
        outcome = await door.call(GET, manager, behalf=f"{anna.leaf.identity}#1")

        assert outcome == Outcome(grpc.StatusCode.UNAUTHENTICATED, "the certificate of user anna was revoked")

    @pytest.mark.parametrize(
        "behalf", ["anna", "#", "#1", f"spiffe://{CLUSTER}/user/anna", f"spiffe://{CLUSTER}/user/anna#x"]
    )
    async def test_for_what_is_nobody_is_refused(self, door: Door, desk: Desk, behalf: str) -> None:
        """Never taken for the manager's own call."""
        manager = await a_manager(desk)

        assert (await door.call(FOLLOW, manager, behalf=behalf)).code is grpc.StatusCode.UNAUTHENTICATED


class TestARootThatWasDropped:
    async def test_vouches_for_nobody_any_more_on_open_connections_either(
        self, door: Door, desk: Desk
    ) -> None:
        anna = await desk.user("anna")
        await desk.roots.rotate()
        assert await door.call(GET, anna) == OK
        await desk.roots.finish()
        outcome = await door.call(GET, anna)

        assert outcome.code is grpc.StatusCode.UNAUTHENTICATED
        assert "the root that issued the certificate of this connection is trusted no more" in outcome.words

    async def test_ends_streams_at_a_code_at_which_clients_connect_again(
        self, door: Door, desk: Desk
    ) -> None:
        reading, manager = await door.open(WATCH, await desk.user("anna")), await a_manager(desk)
        following = await door.open(FOLLOW, manager)
        running = asyncio.ensure_future(door.gate.run())
        await desk.roots.rotate(is_stolen=True)

        assert (await reading).code is grpc.StatusCode.UNAVAILABLE
        assert (await following).code is grpc.StatusCode.UNAVAILABLE
        running.cancel()

    async def test_a_root_that_another_manager_made_a_moment_ago_is_known(
        self, door: Door, desk: Desk, server: FakeEtcd
    ) -> None:
        other = await a_desk(server, desk.clock, "m2")
        await other.roots.rotate()

        assert await door.call(GET, await other.user("bob")) == OK


class TestOpenStreams:
    async def test_end_when_the_manager_that_passed_them_on_is_revoked(self, door: Door, desk: Desk) -> None:
        manager, anna = await a_manager(desk), await desk.user("anna")
        reading = await door.open(WATCH, manager, behalf=f"{anna.leaf.identity}#1")
        await desk.authority.revoke("manager", "m2")

        assert await reading == Outcome(
            grpc.StatusCode.UNAUTHENTICATED, "the certificate of manager m2 was revoked"
        )

    async def test_end_when_their_caller_is_revoked(self, door: Door, desk: Desk) -> None:
        anna, bob = await desk.user("anna"), await desk.user("bob")
        annas, bobs = await door.open(WATCH, anna), await door.open(WATCH, bob)
        await desk.authority.revoke("user", "anna")

        assert await annas == Outcome(
            grpc.StatusCode.UNAUTHENTICATED, "the certificate of user anna was revoked"
        )
        assert not bobs.done()
        bobs.cancel()

    async def test_end_when_their_certificate_runs_out(self, door: Door, desk: Desk, clock: Clock) -> None:
        """By a code at which clients connect again."""
        reading = await door.open(WATCH, anna := await desk.user("anna"))
        running = asyncio.ensure_future(door.gate.run())
        await asyncio.sleep(2)
        assert not reading.done()
        clock.now_s = anna.leaf.expires_s + 1

        assert (await reading).code is grpc.StatusCode.UNAVAILABLE
        running.cancel()

    async def test_end_when_their_users_access_does(self, door: Door, desk: Desk, clock: Clock) -> None:
        reading = await door.open(WATCH, await desk.user("bob", access_ends_ms=clock.now_ms + 60_000))
        running = asyncio.ensure_future(door.gate.run())
        clock.now_s += 60

        outcome = await reading
        assert outcome.code is grpc.StatusCode.UNAUTHENTICATED
        assert outcome.words.startswith("the access of user bob has ended")
        running.cancel()

    async def test_of_managers_outlast_their_certificate(self, door: Door, desk: Desk, clock: Clock) -> None:
        reading = await door.open(FOLLOW, await a_manager(desk))
        running = asyncio.ensure_future(door.gate.run())
        clock.now_s += 2 * 24 * HOUR_S
        await asyncio.sleep(3)
        assert not reading.done()

        await desk.authority.revoke("manager", "m2")
        assert (await reading).code is grpc.StatusCode.UNAUTHENTICATED
        running.cancel()


class TestTheRecord:
    async def test_has_every_decision(self, door: Door, desk: Desk, clock: Clock) -> None:
        anna = await desk.user("anna", role=ROLE_VIEWER)
        await door.call(GET, anna)
        await door.call(SCALE, anna, request=control_pb2.ScaleRequest(name="web"))
        allowed = Entry(
            at_ms=clock.now_ms,
            manager="m1",
            who=f"spiffe://{CLUSTER}/user/anna",
            via="",
            address="10.0.0.7",
            method="bayplan.v1.Control/Get",
            target="Deployment/default/web",
            allowed=True,
            why="viewer",
            outcome="OK",
        )
        denied = replace(
            allowed,
            method="bayplan.v1.Control/Scale",
            target="web",
            allowed=False,
            why="anna is a viewer: Scale is for operators and admins",
            outcome="PERMISSION_DENIED",
        )

        assert door.notes.entries == [allowed, denied]

    async def test_has_nothing_of_questions_for_health(self, door: Door) -> None:
        """A load balancer, or a stranger, would fill it."""
        assert await door.call("/grpc.health.v1.Health/Check") == OK
        assert door.notes.entries == []

    async def test_has_what_a_method_itself_refuses(self, door: Door, desk: Desk) -> None:
        async def behaviour(_request: Any, _context: Any) -> None:
            raise DeniedError("anna is a viewer: reading secrets needs the role operator")

        outcome = await door.call(GET, await desk.user("anna", role=ROLE_VIEWER), behaviour=behaviour)
        (entry,) = door.notes.entries

        assert outcome.code is grpc.StatusCode.PERMISSION_DENIED
        assert (entry.allowed, entry.outcome) == (False, "PERMISSION_DENIED")
        assert entry.why == outcome.words == "anna is a viewer: reading secrets needs the role operator"

    async def test_has_the_target_that_a_method_found(self, door: Door) -> None:
        async def behaviour(_request: Any, _context: Any) -> None:
            note_target("node/n1")

        await door.call(JOIN, request=access_pb2.JoinRequest(), behaviour=behaviour)

        assert door.notes.entries[0].target == "node/n1"
        assert door.notes.entries[0].why == "open to everybody"

    async def test_has_a_stream_when_it_begins(self, door: Door, desk: Desk) -> None:
        reading = await door.open(WATCH, await desk.user("anna"))

        assert [(entry.allowed, entry.outcome) for entry in door.notes.entries] == [(True, "")]
        reading.cancel()

    async def test_has_how_a_call_failed(self, door: Door, desk: Desk) -> None:
        async def behaviour(_request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no web")

        await door.call(GET, await desk.user("anna"), behaviour=behaviour)

        assert [(entry.allowed, entry.outcome) for entry in door.notes.entries] == [(True, "NOT_FOUND")]


class TestWords:
    async def test_steer_no_terminal(self, door: Door) -> None:
        """They may repeat what the caller sent."""

        async def behaviour(_request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no \x1b[2J\nhere")

        assert (await door.call(JOIN, behaviour=behaviour)).words == "no \\x1b[2J\nhere"

    async def test_have_an_end(self, door: Door) -> None:
        """Peers take 8 KiB of trailers."""

        async def behaviour(_request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "x" * 100_000)

        assert len((await door.call(JOIN, behaviour=behaviour)).words) < 3000
