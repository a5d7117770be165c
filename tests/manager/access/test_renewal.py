"""Who gets the next certificate: for a good one, and for one that ran out."""

from __future__ import annotations

import pytest

from bayplan.identity import certificates
from bayplan.identity.certificates import CertificateError
from bayplan.identity.names import Kind
from manager.access.authority import REJOIN_WITHIN_S
from manager.access.tokens import NotLetInError
from manager.store.port import StoreError
from tests.fakes.store import FakeEtcd
from tests.manager.access.world import (
    DAY_S,
    HOUR_S,
    Clock,
    Desk,
    a_desk,
    identity,
    public,
)

pytestmark = pytest.mark.virtual_time


class TestRenewal:
    async def test_gives_a_new_certificate_of_the_same_generation(self, desk: Desk, clock: Clock) -> None:
        first = await desk.node()
        clock.now_s += 0.6 * DAY_S
        second = await desk.renew(first)

        assert second.leaf.identity == first.leaf.identity
        assert second.leaf.generation == first.leaf.generation
        assert second.leaf.expires_s == clock.now_s + DAY_S
        assert second.leaf.certificate.public_key() != first.leaf.certificate.public_key()
        assert (await desk.kept("node", "n1")).not_after_ms == second.leaf.expires_s * 1000

    async def test_not_after_a_revocation(self, desk: Desk, server: FakeEtcd, clock: Clock) -> None:
        """At whichever manager, even one that has not heard of it."""
        node = await desk.node()
        other = await a_desk(server, clock, "m2")
        await desk.authority.revoke("node", "n1")

        for each in (desk, other):
            with pytest.raises(NotLetInError, match="the certificate of node n1 was revoked"):
                await each.renew(node)

    async def test_not_for_an_earlier_generation(self, desk: Desk) -> None:
        """The name was given to another host."""
        before = await desk.node()
        await desk.authority.revoke("node", "n1")
        after = await desk.node()

        assert after.leaf.generation > before.leaf.generation
        await desk.renew(after)
        with pytest.raises(NotLetInError, match="was revoked"):
            await desk.renew(before)

    async def test_not_for_who_is_unknown(self, desk: Desk) -> None:
        with pytest.raises(NotLetInError, match="node n9 is not known to this cluster"):
            await desk.authority.renew(identity(Kind.NODE, "n9"), 1, public())

    async def test_an_outage_of_the_store_costs_nobody_their_certificate(
        self, desk: Desk, server: FakeEtcd, clock: Clock
    ) -> None:
        node = await desk.node()
        server.kill()
        clock.now_s += 0.6 * DAY_S
        renewed = await desk.renew(node)

        assert renewed.leaf.expires_s == clock.now_s + DAY_S
        assert certificates.is_issued_by(renewed.leaf.certificate, desk.roots.trusted[0])

    async def test_an_outage_does_not_bring_back_who_was_revoked(
        self, desk: Desk, server: FakeEtcd, clock: Clock
    ) -> None:
        node, bob = await desk.node(), await desk.user("bob", access_ends_ms=clock.now_ms + 3_600_000)
        await desk.authority.revoke("node", "n1")
        server.kill()
        clock.now_s += HOUR_S

        for member in (node, bob):
            with pytest.raises(StoreError):
                await desk.renew(member)
        with pytest.raises(StoreError):
            await desk.authority.renew(identity(Kind.NODE, "n9"), 1, public())

    async def test_a_wiped_store_gets_back_who_renews(self, desk: Desk, server: FakeEtcd) -> None:
        """Before any leader has put everything back."""
        node = await desk.node()
        server.wipe()
        await desk.renew(node)

        assert (await desk.kept("node", "n1")).generation == 1

    async def test_a_store_from_a_backup_does_not_bring_back_who_was_revoked_since(
        self, desk: Desk, server: FakeEtcd, clock: Clock
    ) -> None:
        """Nor before any leader has put it right."""
        node = await desk.node()
        backup = server.snapshot()
        await desk.authority.revoke("node", "n1")
        server.restore(backup)

        with pytest.raises(NotLetInError, match="was revoked"):
            await desk.renew(node)
        clock.now_s += 2 * DAY_S
        with pytest.raises(NotLetInError, match="was revoked"):
            await desk.rejoin(node)

    async def test_a_name_that_a_backup_does_not_know_begins_no_new_history(
        self, desk: Desk, server: FakeEtcd
    ) -> None:
        backup = server.snapshot()
        stolen = await desk.node()
        await desk.authority.revoke("node", "n1")
        server.restore(backup)
        again = await desk.node()

        assert again.leaf.generation > stolen.leaf.generation
        assert desk.is_void(stolen)


class TestRejoining:
    async def test_who_was_away_for_long_comes_back_by_its_key(self, desk: Desk, clock: Clock) -> None:
        node = await desk.node()
        clock.now_s += 10 * DAY_S
        back = await desk.rejoin(node)

        assert back.leaf.identity == node.leaf.identity
        assert back.leaf.generation == node.leaf.generation
        assert back.leaf.expires_s == clock.now_s + DAY_S

    async def test_but_not_for_ever(self, desk: Desk, clock: Clock) -> None:
        node = await desk.node()
        clock.now_s += DAY_S + REJOIN_WITHIN_S
        await desk.rejoin(node)
        clock.now_s += 1

        with pytest.raises(
            NotLetInError, match="expired 30 d ago, which is too long: join again with a new token"
        ):
            await desk.rejoin(node)

    async def test_nor_after_a_revocation(self, desk: Desk) -> None:
        node = await desk.node()
        await desk.authority.revoke("node", "n1")
        with pytest.raises(NotLetInError, match="the certificate of node n1 was revoked"):
            await desk.rejoin(node)

    async def test_the_certificate_alone_is_no_proof(self, desk: Desk) -> None:
        """Everybody who was ever dialled by it has seen it."""
        node = await desk.node()
        with pytest.raises(NotLetInError, match="not signed by the key of the certificate that it shows"):
            await desk.rejoin(node, signer=certificates.new_key())

    async def test_a_signature_is_good_for_its_request_alone(self, desk: Desk) -> None:
        node = await desk.node()
        earlier = certificates.certificate_request(certificates.new_key())
        with pytest.raises(NotLetInError, match="not signed by the key"):
            await desk.authority.join_by_expired(
                certificates.certificate_request(certificates.new_key()),
                certificate=certificates.to_der(node.leaf.certificate),
                signature=certificates.sign(node.key, earlier),
            )

    async def test_a_certificate_of_another_root_is_none(self, desk: Desk, clock: Clock) -> None:
        foreign = await a_desk(FakeEtcd(), clock)
        with pytest.raises(NotLetInError, match="issued by another cluster, or by a root that was replaced"):
            await desk.rejoin(await foreign.node())

    async def test_a_root_itself_is_none(self, desk: Desk) -> None:
        """It is signed by a trusted root: by itself."""
        assert desk.registry.ca is not None
        key = certificates.key_from_pem(desk.registry.ca.roots[0].key_pem.encode())
        request = certificates.certificate_request(certificates.new_key())
        with pytest.raises(CertificateError, match="none of Bayplan's"):
            await desk.authority.join_by_expired(
                request,
                certificate=certificates.to_der(desk.roots.trusted[0]),
                signature=certificates.sign(key, request),
            )

    async def test_the_old_root_counts_until_the_rotation_is_over(self, desk: Desk) -> None:
        node = await desk.node()
        await desk.roots.rotate()
        await desk.rejoin(node)
        await desk.roots.finish()

        with pytest.raises(NotLetInError, match="join again with a new token"):
            await desk.rejoin(node)

    @pytest.mark.parametrize("content", [b"", b"junk", b"\x30\x03\x02\x01\x00"])
    async def test_junk_is_refused_in_words(self, desk: Desk, content: bytes) -> None:
        request = certificates.certificate_request(certificates.new_key())
        with pytest.raises(CertificateError, match="this is no certificate"):
            await desk.authority.join_by_expired(request, certificate=content, signature=b"")
