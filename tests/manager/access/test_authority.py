"""Who gets which certificate. By whom and how it is asked for over the wire: tests/attacks."""

from __future__ import annotations

import asyncio

import pytest

from bayplan.identity import certificates
from bayplan.identity.certificates import CertificateError
from bayplan.identity.names import Kind
from manager.access.tokens import NotLetInError
from manager.errors import RefusedError
from manager.store import keys
from manager.store.port import StoreError
from tests.fakes.store import FakeEtcd
from tests.manager.access.world import (
    DAY_S,
    HOUR_S,
    Clock,
    Desk,
    Member,
    a_desk,
    identity,
    public,
)

pytestmark = pytest.mark.virtual_time


class TestJoiningByToken:
    async def test_lets_in_once(self, desk: Desk) -> None:
        token = await desk.token()
        node = await desk.join(token, "n1")

        assert node.leaf.identity == identity(Kind.NODE, "n1")
        assert node.leaf.generation == 1
        assert node.leaf.certificate.public_key() == node.key.public_key()
        with pytest.raises(NotLetInError, match="used up"):
            await desk.join(token, "n2")

    async def test_what_was_given_is_written_down(self, desk: Desk, clock: Clock) -> None:
        node = await desk.node()
        kept = await desk.kept("node", "n1")

        assert kept == desk.registry.identities[("node", "n1")]
        assert kept.not_after_ms == clock.now_ms + DAY_S * 1000
        assert kept.issuer_key == node.leaf.issuer_key
        assert not desk.is_void(node)

    async def test_as_often_as_it_may(self, desk: Desk) -> None:
        token = await desk.token(uses=3)
        for name in ("n1", "n2", "n3"):
            await desk.join(token, name)

        assert await desk.uses_left(token) == 0
        with pytest.raises(NotLetInError, match="used up"):
            await desk.join(token, "n4")

    async def test_the_same_key_again_gets_its_lost_answer(self, desk: Desk, clock: Clock) -> None:
        """The manager died after it had written, before it could answer; the token is used up by then."""
        token, key = await desk.token(), certificates.new_key()
        first = await desk.join(token, "n1", key=key)
        clock.now_s += 2 * HOUR_S
        again = await desk.join(token, "n1", key=key)

        assert again.leaf.identity == first.leaf.identity
        assert again.leaf.generation == first.leaf.generation == 1
        assert await desk.uses_left(token) == 0

    async def test_another_key_is_somebody_else(self, desk: Desk) -> None:
        token = await desk.token(uses=2)
        await desk.join(token, "n1")

        with pytest.raises(RefusedError, match="node n1 is a member already"):
            await desk.join(token, "n1")
        assert await desk.uses_left(token) == 1, "what was refused used up nothing"

    async def test_the_same_key_for_another_name_is_another_use(self, desk: Desk) -> None:
        token, key = await desk.token(), certificates.new_key()
        await desk.join(token, "n1", key=key)
        with pytest.raises(NotLetInError, match="used up"):
            await desk.join(token, "n2", key=key)

    async def test_who_was_revoked_does_not_get_it_again(self, desk: Desk) -> None:
        token, key = await desk.token(uses=2), certificates.new_key()
        await desk.join(token, "n1", key=key)
        await desk.authority.revoke("node", "n1")
        again = await desk.join(token, "n1", key=key)

        assert again.leaf.generation == 3, "it has joined anew, by a use of the token"
        assert await desk.uses_left(token) == 0

    async def test_a_reply_of_the_store_that_is_lost_costs_no_use(self, desk: Desk, server: FakeEtcd) -> None:
        token = await desk.token(uses=2)
        server.drop_next_reply("m1")
        node = await desk.join(token)

        assert await desk.uses_left(token) == 1
        assert not desk.is_void(node)

    async def test_of_two_at_once_one_has_the_last_use(
        self, desk: Desk, server: FakeEtcd, clock: Clock
    ) -> None:
        """At different managers."""
        other = await a_desk(server, clock, "m2")
        token = await desk.token()
        outcomes = await asyncio.gather(
            desk.join(token, "n1"), other.join(token, "n2"), return_exceptions=True
        )

        (failed,) = [each for each in outcomes if not isinstance(each, Member)]
        assert isinstance(failed, NotLetInError)
        assert "used up" in str(failed)
        assert len(server.items(keys.PKI_IDENTITIES)) == 1

    async def test_of_two_at_once_one_has_the_name(self, desk: Desk, server: FakeEtcd, clock: Clock) -> None:
        other = await a_desk(server, clock, "m2")
        tokens = await desk.token(), await desk.token()
        outcomes = await asyncio.gather(desk.join(tokens[0]), other.join(tokens[1]), return_exceptions=True)

        assert sorted(type(each).__name__ for each in outcomes) == ["Member", "RefusedError"]
        assert sorted([await desk.uses_left(each) for each in tokens]) == [0, 1]

    @pytest.mark.parametrize("name", [".", "a/b", "N1", "n_1", "-n", "n" * 64, "n1\n"])
    async def test_a_node_must_be_called_as_nodes_are(self, desk: Desk, name: str) -> None:
        token = await desk.token()
        with pytest.raises(RefusedError, match="is no name of a node: lower case letters"):
            await desk.join(token, name)
        assert await desk.uses_left(token) == 1

    @pytest.mark.parametrize("kind", [Kind.NODE, Kind.MANAGER])
    async def test_a_token_for_hosts_does_not_log_a_user_in(self, desk: Desk, kind: Kind) -> None:
        token = await desk.token(kind)
        with pytest.raises(RefusedError, match=f"not for a user but for a {kind}: log in with one of"):
            await desk.join(token, "")
        assert await desk.uses_left(token) == 1

    async def test_a_manager_may_have_a_wider_name(self, desk: Desk) -> None:
        member = await desk.join(await desk.token(Kind.MANAGER), "M_1.rack2")

        assert member.leaf.identity == identity(Kind.MANAGER, "M_1.rack2")
        with pytest.raises(RefusedError, match="is no name of a manager"):
            await desk.join(await desk.token(Kind.MANAGER), "../m2")

    async def test_a_bad_request_is_looked_at_first(self, desk: Desk) -> None:
        token = await desk.token()
        with pytest.raises(CertificateError):
            await desk.authority.join_by_token(b"junk", token_id=token.id, secret=token.secret, name="n1")
        assert await desk.uses_left(token) == 1

    async def test_without_the_store_nobody_joins(self, desk: Desk, server: FakeEtcd) -> None:
        token = await desk.token()
        server.kill()
        with pytest.raises(StoreError):
            await desk.join(token)


class TestUsers:
    async def test_are_named_by_the_token_whatever_they_say(self, desk: Desk) -> None:
        await desk.authority.create_user("bob", role=1, access_ends_ms=0)
        member = await desk.join(await desk.token(Kind.USER, name="bob"), "admin")

        assert member.leaf.identity == identity(Kind.USER, "bob")
        assert member.issued.role == 1

    async def test_may_log_in_on_several_computers(self, desk: Desk) -> None:
        one = await desk.user("bob", role=1)
        other = await desk.join(await desk.token(Kind.USER, name="bob"))

        assert one.leaf.generation == other.leaf.generation
        assert not desk.is_void(one)

    async def test_have_one_role_that_changes_at_once(self, desk: Desk) -> None:
        member = await desk.user("bob", role=1)
        await desk.authority.create_user("bob", role=3, access_ends_ms=0)

        assert (await desk.kept("user", "bob")).role == 3
        assert not desk.is_void(member)
        assert (await desk.renew(member)).issued.role == 3

    async def test_lose_their_access_when_it_ends(self, desk: Desk, clock: Clock) -> None:
        member = await desk.user("bob", access_ends_ms=clock.now_ms + 3_600_000)
        token = await desk.token(Kind.USER, name="bob", ttl_ms=DAY_S_MS)
        clock.now_s += HOUR_S

        assert desk.is_void(member)
        words = "the access of user bob has ended; an admin can make a new one with `bay user create bob`"
        for attempt in (desk.renew(member), desk.join(token)):
            with pytest.raises(NotLetInError, match=words):
                await attempt

    @pytest.mark.parametrize("fraction_s", [0.001, 0.3, 0.7, 0.999])
    async def test_have_certificates_until_their_access_ends_and_not_for_a_moment_less(
        self, desk: Desk, clock: Clock, fraction_s: float
    ) -> None:
        clock.now_s += fraction_s
        member = await desk.user("bob", access_ends_ms=clock.now_ms + 2000)
        clock.now_s = member.leaf.expires_s

        assert desk.is_void(member)
        with pytest.raises(NotLetInError, match="the access of user bob has ended"):
            await desk.rejoin(member)

    async def test_who_is_made_anew_has_no_use_of_the_certificates_before(
        self, desk: Desk, clock: Clock
    ) -> None:
        ended = await desk.user("bob", access_ends_ms=clock.now_ms + 3_600_000)
        clock.now_s += HOUR_S
        new = await desk.user("bob")

        assert desk.is_void(ended)
        assert not desk.is_void(new)
        with pytest.raises(NotLetInError, match="was revoked"):
            await desk.rejoin(ended)

    async def test_who_was_revoked_can_come_back(self, desk: Desk) -> None:
        before = await desk.user("bob")
        await desk.authority.revoke("user", "bob")
        after = await desk.user("bob")

        assert after.leaf.generation > before.leaf.generation
        assert desk.is_void(before)
        assert not desk.is_void(after)

    async def test_a_token_of_one_who_was_revoked_is_no_good(self, desk: Desk) -> None:
        await desk.user("bob")
        token = await desk.token(Kind.USER, name="bob")
        await desk.authority.revoke("user", "bob")

        with pytest.raises(NotLetInError, match="this token was revoked"):
            await desk.join(token)

    async def test_nor_when_they_come_back(self, desk: Desk) -> None:
        """It may have been stolen with all the rest."""
        await desk.user("bob")
        token = await desk.token(Kind.USER, name="bob")
        await desk.authority.revoke("user", "bob")
        await desk.user("bob")

        with pytest.raises(NotLetInError, match="this token was revoked"):
            await desk.join(token)

    async def test_a_token_for_nobody_is_no_good(self, desk: Desk) -> None:
        with pytest.raises(NotLetInError, match="user bob does not exist any more"):
            await desk.join(await desk.token(Kind.USER, name="bob"))

    @pytest.mark.parametrize("name", ["", "a/b", "bob smith", "b" * 64, "bоb"])  # noqa: RUF001 - a look-alike
    async def test_must_be_called_something_that_can_be_told_apart(self, desk: Desk, name: str) -> None:
        with pytest.raises(RefusedError, match="is no name of a user: letters, digits"):
            await desk.authority.create_user(name, role=1, access_ends_ms=0)


DAY_S_MS = int(DAY_S * 1000)


class TestEnrolling:
    """Of a manager that has the cluster key."""

    async def test_needs_nobodys_leave(self, desk: Desk) -> None:
        issued = await desk.authority.enrol(identity(Kind.MANAGER, "m1"), public())

        assert issued.identity == identity(Kind.MANAGER, "m1")
        assert (await desk.kept("manager", "m1")).generation == 1

    async def test_again_stays_in_its_generation(self, desk: Desk) -> None:
        """Crash of a founder before its certificate was on disk."""
        for _ in range(2):
            await desk.authority.enrol(identity(Kind.MANAGER, "m1"), public())

        assert (await desk.kept("manager", "m1")).generation == 1

    async def test_after_a_revocation_begins_a_new_one(self, desk: Desk) -> None:
        await desk.authority.enrol(identity(Kind.MANAGER, "m1"), public())
        await desk.authority.revoke("manager", "m1")
        await desk.authority.enrol(identity(Kind.MANAGER, "m1"), public())

        kept = await desk.kept("manager", "m1")
        assert (kept.generation, kept.is_revoked) == (3, False)


class TestRevocation:
    async def test_ends_every_certificate(self, desk: Desk) -> None:
        node = await desk.node()
        renewed = await desk.renew(node)

        assert await desk.authority.revoke("node", "n1")
        assert desk.is_void(node)
        assert desk.is_void(renewed)

    async def test_again_changes_nothing(self, desk: Desk) -> None:
        await desk.node()
        await desk.authority.revoke("node", "n1")

        assert not await desk.authority.revoke("node", "n1")
        assert (await desk.kept("node", "n1")).generation == 2

    async def test_of_two_at_once_one_did_it(self, desk: Desk, server: FakeEtcd, clock: Clock) -> None:
        await desk.node()
        other = await a_desk(server, clock, "m2")
        outcomes = await asyncio.gather(
            desk.authority.revoke("node", "n1"), other.authority.revoke("node", "n1")
        )

        assert sorted(outcomes) == [False, True]

    async def test_against_a_renewal_at_the_same_time_wins(
        self, desk: Desk, server: FakeEtcd, clock: Clock
    ) -> None:
        node = await desk.node()
        other = await a_desk(server, clock, "m2")
        renewed, _ = await asyncio.gather(
            other.renew(node), desk.authority.revoke("node", "n1"), return_exceptions=True
        )
        await desk.registry.load()

        assert (await desk.kept("node", "n1")).is_revoked
        assert not isinstance(renewed, Member) or desk.is_void(renewed)

    @pytest.mark.parametrize(
        ("kind", "name"), [("node", "n9"), ("user", "../ca"), ("root", "n1"), ("", ""), ("node", "x" * 300)]
    )
    async def test_of_nobody_says_so(self, desk: Desk, kind: str, name: str) -> None:
        with pytest.raises(LookupError, match="there is no ") as caught:
            await desk.authority.revoke(kind, name)
        assert len(str(caught.value)) < 200
