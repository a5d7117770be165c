from __future__ import annotations

import asyncio

import pytest

from bayplan.identity import certificates
from bayplan.identity.names import Kind
from manager.access import records
from manager.access.tokens import NotLetInError
from manager.errors import RefusedError
from manager.store import keys
from manager.store.records import DamagedRecordError
from tests.fakes.store import FakeEtcd
from tests.manager.access.world import (
    CLUSTER,
    DAY_S,
    HOUR_S,
    START_S,
    Clock,
    Desk,
    a_desk,
    an_identity,
    public,
)

pytestmark = pytest.mark.virtual_time


def copy_of(desk: Desk) -> tuple[records.CaRecord, tuple[records.IdentityRecord, ...]]:
    """What a manager has on its own disk."""
    assert desk.registry.ca is not None
    return desk.registry.ca, tuple(desk.registry.identities.values())


class TestFounding:
    async def test_makes_one_root_for_ten_years(self, desk: Desk) -> None:
        (root,) = desk.roots.trusted

        assert root.not_valid_after_utc.timestamp() == START_S + 3650 * DAY_S
        assert CLUSTER in root.subject.rfc4514_string()
        assert desk.roots.signing_digest == certificates.digest(root)
        assert certificates.from_pem(desk.roots.as_pem()) == [root]

    async def test_its_key_cannot_be_read_in_etcd(self, desk: Desk, server: FakeEtcd) -> None:
        assert not any(b"PRIVATE" in item.value or b"CERTIFICATE" in item.value for item in server.items())
        assert "PRIVATE" not in repr(desk.registry.ca)

    async def test_happens_once_however_many_begin(self, server: FakeEtcd, clock: Clock) -> None:
        desks = [Desk(server, clock, f"m{number}") for number in range(5)]
        for desk in desks:
            await desk.store.open()
        founded = await asyncio.gather(*(desk.roots.found(None, ()) for desk in desks))

        assert sorted(founded) == [False, False, False, False, True]
        assert len({desk.roots.signing_digest for desk in desks}) == 1

    async def test_again_changes_nothing(self, desk: Desk, server: FakeEtcd, clock: Clock) -> None:
        revision = server.revision

        assert not await desk.roots.found(None, ())
        assert (await a_desk(server, clock, "m2")).roots.signing_digest == desk.roots.signing_digest
        assert server.revision == revision

    async def test_a_lost_reply_is_no_second_root(self, server: FakeEtcd, clock: Clock) -> None:
        desk = Desk(server, clock)
        await desk.store.open()
        server.drop_next_reply("m1")

        assert await desk.roots.found(None, ())
        assert (await a_desk(server, clock, "m2")).roots.signing_digest == desk.roots.signing_digest


class TestFoundingFromACopy:
    async def test_a_wiped_store_gets_everything_back(
        self, desk: Desk, server: FakeEtcd, clock: Clock
    ) -> None:
        """So nobody has to join again."""
        node, anna = await desk.node(), await desk.user("anna")
        root, copy = desk.roots.signing_digest, copy_of(desk)
        server.wipe()
        other = Desk(server, clock, "m2")
        await other.store.open()

        assert await other.roots.found(*copy)
        assert other.roots.signing_digest == root
        for member in (node, anna):
            assert (await other.renew(member)).leaf.identity == member.leaf.identity

    async def test_a_restored_store_learns_who_was_revoked_since(
        self, desk: Desk, server: FakeEtcd, clock: Clock
    ) -> None:
        await desk.node("n1")
        backup = server.snapshot()
        await desk.node("n2")
        for name in ("n1", "n2"):
            await desk.authority.revoke("node", name)
        server.restore(backup)

        assert not await desk.roots.found(*copy_of(desk)), "it has its CA"
        for name in ("n1", "n2"):
            kept = await desk.kept("node", name)
            assert (kept.is_revoked, kept.generation) == (True, 2)
        assert (await a_desk(server, clock, "m2")).registry.identities.keys() == {
            ("node", "n1"), ("node", "n2"),
        }  # fmt: skip

    async def test_an_old_copy_does_not_undo_what_happened_since(self, desk: Desk) -> None:
        """A manager that was stopped for long."""
        await desk.node("n1")
        copy = copy_of(desk)
        await desk.authority.revoke("node", "n1")
        root = desk.roots.signing_digest
        await desk.roots.rotate()
        await desk.roots.found(*copy)

        assert (await desk.kept("node", "n1")).is_revoked
        assert desk.roots.signing_digest != root

    async def test_identities_are_complete_where_there_is_a_ca(
        self, desk: Desk, server: FakeEtcd, clock: Clock
    ) -> None:
        """Crash at the last step: the next one does the rest."""
        await desk.node("n1")
        copy = copy_of(desk)
        server.wipe()
        await desk.store.open()
        await desk.put(copy[1][0])
        assert server.get(keys.pki_ca()) is None
        other = Desk(server, clock, "m2")
        await other.store.open()

        assert await other.roots.found(*copy)
        assert other.registry.identities.keys() == {("node", "n1")}

    async def test_damaged_records_are_replaced_by_it(self, desk: Desk, server: FakeEtcd) -> None:
        """One of them would else keep every manager from starting."""
        await desk.node("n1")
        copy, root = copy_of(desk), desk.roots.signing_digest
        for key in (keys.pki_ca(), keys.pki_identity("node", "n1")):
            server.put(key, b"junk")

        assert await desk.roots.found(*copy)
        assert await desk.kept("node", "n1") == copy[1][0]
        assert desk.roots.signing_digest == root

    async def test_a_ca_from_before_the_last_rotation_is_replaced_by_it(
        self, desk: Desk, server: FakeEtcd
    ) -> None:
        """The store came back from a backup: what the new root has signed since must stay good."""
        backup = server.snapshot()
        await desk.roots.rotate()
        node, copy = await desk.node(), copy_of(desk)
        server.restore(backup)

        assert await desk.roots.found(*copy)
        assert desk.registry.ca == copy[0]
        await desk.rejoin(node)

    async def test_of_two_cas_the_later_one_counts_whatever_the_clocks_say(
        self, desk: Desk, server: FakeEtcd, clock: Clock
    ) -> None:
        """The manager that rotates is slow by an hour; another one starts with its copy from before."""
        copy = copy_of(desk)
        slow = await a_desk(server, Clock(clock.now_s - HOUR_S), "m2")
        await slow.roots.rotate()
        await desk.roots.found(*copy)

        assert desk.roots.signing_digest == slow.roots.signing_digest

    async def test_a_damaged_ca_that_nobody_knows_is_for_an_operator(
        self, server: FakeEtcd, clock: Clock
    ) -> None:
        server.put(keys.pki_ca(), b"junk")
        with pytest.raises(DamagedRecordError, match=r"/pki/ca is damaged .*restore etcd from a backup"):
            await a_desk(server, clock, "m2")


class TestSigning:
    async def test_for_as_long_as_the_operator_said(self, server: FakeEtcd, clock: Clock) -> None:
        desk = await a_desk(server, clock, life_s=60.0)

        assert (await desk.node()).life_s == 60.0

    async def test_not_beyond_a_users_access(self, desk: Desk, clock: Clock) -> None:
        member = await desk.user("bob", access_ends_ms=clock.now_ms + 3_600_000)

        assert member.life_s == HOUR_S

    async def test_a_users_longer_access_does_not_make_it_longer(self, desk: Desk, clock: Clock) -> None:
        member = await desk.user("bob", access_ends_ms=clock.now_ms + 30 * 86_400_000)

        assert member.life_s == DAY_S

    async def test_names_who_it_is_for_and_whom_to_trust(self, desk: Desk) -> None:
        issued = desk.roots.sign(public(), an_identity("anna", kind="user", generation=4, role=2))
        (leaf,) = certificates.from_pem(issued.certificates_pem)

        assert certificates.read_leaf(leaf).generation == 4
        assert (issued.identity.kind, issued.identity.name, issued.role) == (Kind.USER, "anna", 2)
        assert issued.roots_pem == desk.roots.as_pem()


class TestRotation:
    async def test_a_new_root_signs_and_the_old_one_is_still_trusted(self, desk: Desk) -> None:
        (old,) = desk.roots.trusted
        await desk.roots.rotate()
        new, kept = desk.roots.trusted

        assert kept == old
        assert desk.roots.signing_digest == certificates.digest(new)
        node = await desk.node()
        leaf, cross = certificates.from_pem(node.issued.certificates_pem)
        assert certificates.is_issued_by(leaf, new)
        assert certificates.is_issued_by(cross, old), "leads there who trusts the old one alone"
        assert certificates.from_pem(node.issued.roots_pem) == [new, old]

    async def test_waits_for_everybody_who_holds_a_good_certificate_of_the_old_one(
        self, desk: Desk, clock: Clock
    ) -> None:
        n1, n2 = await desk.node("n1"), await desk.node("n2")
        await desk.node("n3")
        await desk.user("anna")
        await desk.authority.create_user("never-logged-in", role=1, access_ends_ms=0)
        assert desk.roots.waiting() == []
        await desk.roots.rotate()
        assert desk.roots.waiting() == ["node n1", "node n2", "node n3", "user anna"]

        await desk.renew(n1)
        assert desk.roots.waiting() == ["node n2", "node n3", "user anna"]
        await desk.authority.revoke("node", "n2")
        assert desk.roots.waiting() == ["node n3", "user anna"]
        clock.now_s += DAY_S + 1
        assert desk.roots.waiting() == [], "the rest ran out"
        assert n2.leaf.issuer_key != certificates.key_identifier(desk.roots.trusted[0])

    async def test_waits_for_the_certificate_on_a_users_other_computer(
        self, desk: Desk, clock: Clock
    ) -> None:
        anna = await desk.user("anna")
        await desk.roots.rotate()
        clock.now_s += HOUR_S
        await desk.renew(anna)

        assert desk.roots.waiting() == ["user anna"]
        clock.now_s = anna.leaf.expires_s + 1
        assert desk.roots.waiting() == []

    async def test_waits_for_nothing_once_it_is_over(self, desk: Desk, clock: Clock) -> None:
        anna = await desk.user("anna")
        await desk.roots.rotate()
        clock.now_s += 1
        await desk.renew(anna)
        await desk.roots.finish()

        assert desk.roots.waiting() == [], "no matter what was on another computer"

    async def test_of_one_that_was_stolen_keeps_nobody(self, desk: Desk) -> None:
        """What a thief signs could be renewed for as long as the old root is trusted."""
        node = await desk.node("n1")
        await desk.roots.rotate()
        (*_, old) = desk.roots.trusted
        await desk.roots.rotate(is_stolen=True)

        assert old not in desk.roots.trusted
        assert len(desk.roots.trusted) == 1
        assert desk.roots.waiting() == ["node n1"]
        with pytest.raises(NotLetInError, match="by a root that was replaced since: join again"):
            await desk.rejoin(node)
        # The name is free for who shows a token.
        again = await desk.node("n1")
        assert again.leaf.generation > node.leaf.generation
        assert certificates.is_issued_by(again.leaf.certificate, desk.roots.trusted[0])

    async def test_ends_with_one_root_again(self, desk: Desk) -> None:
        (old,) = desk.roots.trusted
        await desk.roots.rotate()
        await desk.roots.finish()
        (new,) = desk.roots.trusted

        assert new != old
        assert len(certificates.from_pem((await desk.node()).issued.certificates_pem)) == 1

    async def test_a_second_one_waits_for_the_end_of_the_first(self, desk: Desk) -> None:
        await desk.roots.rotate()
        with pytest.raises(RefusedError, match=r"`bay ca show`.*`bay ca rotate --finish`"):
            await desk.roots.rotate()
        await desk.roots.finish()
        await desk.roots.rotate()

    async def test_cannot_be_ended_before_it_began(self, desk: Desk) -> None:
        with pytest.raises(RefusedError, match="no rotation is under way: one root is trusted"):
            await desk.roots.finish()

    async def test_of_two_at_once_one_counts(self, desk: Desk, server: FakeEtcd, clock: Clock) -> None:
        other = await a_desk(server, clock, "m2")
        outcomes = await asyncio.gather(desk.roots.rotate(), other.roots.rotate(), return_exceptions=True)

        assert sorted(type(each).__name__ for each in outcomes) == ["NoneType", "RefusedError"]
        await desk.registry.load()
        await other.registry.load()
        assert desk.roots.signing_digest == other.roots.signing_digest

    async def test_a_lost_reply_is_no_second_rotation(self, desk: Desk, server: FakeEtcd) -> None:
        server.drop_next_reply("m1")
        await desk.roots.rotate()

        assert len(desk.roots.trusted) == 2

    async def test_a_store_without_a_ca_says_so(self, desk: Desk, server: FakeEtcd) -> None:
        server.delete(keys.pki_ca())
        with pytest.raises(RefusedError, match="the store has no CA"):
            await desk.roots.rotate()

    async def test_records_of_both_roots_are_read_back(self, desk: Desk) -> None:
        await desk.roots.rotate()
        ca = desk.registry.ca
        assert ca is not None

        assert records.decode_ca(records.encode(ca)) == ca
        assert ca.cross_pem
