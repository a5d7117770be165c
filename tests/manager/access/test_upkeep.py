"""What a manager keeps up: its certificate, its copy of who is let in, and the rotation of the roots."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
import structlog

from bayplan.identity import certificates
from bayplan.identity.names import Kind
from manager.access import access as module
from manager.access.access import Access, NotAMemberError
from manager.access.backup import read_backup
from manager.store.sealing import read_cluster_key
from tests.fakes.store import FakeEtcd
from tests.manager.access.host import LIFE_S, Host, a_token, kept_up, let_in
from tests.manager.access.world import START_S

pytestmark = pytest.mark.virtual_time


def wall_s() -> float:
    """It goes with the loop's time."""
    return START_S + asyncio.get_running_loop().time() - 1_000.0


@pytest.fixture
async def running(server: FakeEtcd, tmp_path: Path) -> Access:
    return await Host(server, wall_s, tmp_path / "m1").begin()


class TestItsOwnCertificate:
    async def test_is_renewed_at_half_to_seventy_percent_of_its_life(self, running: Access) -> None:
        async with kept_up(running.registry.run(), running._keep_certificate()):
            issued_s = running.own.credentials.issued_s
            for version in (1, 2, 3):
                await running.own.newer_than(version)
                age_s, issued_s = wall_s() - issued_s, running.own.credentials.issued_s
                assert 0.5 * LIFE_S <= age_s <= 0.7 * LIFE_S + 61

    async def test_is_on_disk_before_it_is_shown(
        self, running: Access, server: FakeEtcd, tmp_path: Path
    ) -> None:
        async with kept_up(running.registry.run(), running._keep_certificate()):
            await running.own.newer_than(1)
        again = await Host(server, wall_s, tmp_path / "m1").begin()

        shown = running.own.credentials
        assert again.own.credentials.certificates_pem == shown.certificates_pem
        assert again.own.credentials.key_pem == shown.key_pem

    async def test_is_renewed_at_once_when_the_roots_change(self, running: Access) -> None:
        """Whoever it serves and dials next may trust either."""
        async with kept_up(running.registry.run(), running._keep_certificate()):
            await asyncio.sleep(10)
            began_s = wall_s()
            await running.roots.rotate()
            await running.own.newer_than(1)
            assert wall_s() - began_s < 1

        assert running.own.credentials.roots_pem == running.roots.as_pem()
        assert running.roots.waiting() == []

    async def test_survives_a_full_disk(self, running: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(module, "save_credentials", full)
        async with kept_up(running.registry.run(), running._keep_certificate()) as tasks:
            await running.own.newer_than(1)
            assert not any(task.done() for task in tasks)

    async def test_survives_an_outage_of_the_store(self, running: Access, server: FakeEtcd) -> None:
        async with kept_up(running.registry.run(), running._keep_certificate()) as tasks:
            server.kill()
            await running.own.newer_than(1)
            assert not any(task.done() for task in tasks)

    async def test_survives_a_store_that_was_wiped(self, running: Access, server: FakeEtcd) -> None:
        """Before any leader has put back what it lost."""
        async with kept_up(running.registry.run(), running._keep_certificate()) as tasks:
            server.wipe()
            await running.own.newer_than(1)
            assert not any(task.done() for task in tasks)

    async def test_of_a_manager_that_is_revoked_ends_it(self, running: Access) -> None:
        async with kept_up(running.registry.run(), running._keep_certificate()) as tasks:
            await asyncio.sleep(10)
            await running.authority.revoke("manager", "m1")
            with pytest.raises(NotAMemberError) as caught:
                await asyncio.wait_for(tasks[1], 2)

        assert str(caught.value).startswith("manager m1 was revoked: it stops. To let this host join again")


class TestTheCopyOnDisk:
    async def test_follows_what_changes(self, running: Access) -> None:
        async with kept_up(running.registry.run(), running._keep_copy()):
            await let_in(running, await a_token(running, Kind.NODE), "n1")
            await running.authority.revoke("node", "n1")
            await asyncio.sleep(3)

        key = read_cluster_key(running.directory / "cluster.key")
        copy = read_backup(running.directory, [key])
        assert copy.ca == running.registry.ca
        assert set(copy.identities) == set(running.registry.identities.values())
        assert any(record.is_revoked for record in copy.identities)

    async def test_that_cannot_be_written_stops_nothing(self, running: Access) -> None:
        in_the_way = running.directory / "identities.sealed"
        in_the_way.mkdir()
        with structlog.testing.capture_logs() as logs:
            async with kept_up(running.registry.run(), running._keep_copy()) as tasks:
                await asyncio.sleep(3)
                assert not any(task.done() for task in tasks)

        assert "identities_copy.not_written" in {entry["event"] for entry in logs}


class TestTheEndOfARotation:
    async def test_comes_when_nobody_needs_the_old_root(self, running: Access) -> None:
        node = await let_in(running, await a_token(running, Kind.NODE), "n1")
        async with kept_up(
            running.registry.run(), running._keep_certificate(), running._end_rotations(lambda: True)
        ):
            await running.roots.rotate()
            await asyncio.sleep(60)
            assert len(running.roots.trusted) == 2
            assert running.roots.waiting() == ["node n1"]

            leaf = node.leaf
            key = certificates.new_key().public_key()
            await running.authority.renew(leaf.identity, leaf.generation, key)
            await asyncio.sleep(60)
            assert len(running.roots.trusted) == 1

    async def test_does_not_wait_for_who_is_gone(self, running: Access) -> None:
        """Its certificate runs out."""
        await let_in(running, await a_token(running, Kind.NODE), "n1")
        async with kept_up(
            running.registry.run(), running._keep_certificate(), running._end_rotations(lambda: True)
        ):
            await running.roots.rotate()
            await asyncio.sleep(LIFE_S + 60)
            assert len(running.roots.trusted) == 1

    async def test_is_the_leaders_to_decide(self, running: Access) -> None:
        async with kept_up(
            running.registry.run(), running._keep_certificate(), running._end_rotations(lambda: False)
        ):
            await running.roots.rotate()
            await asyncio.sleep(LIFE_S + 60)
            assert len(running.roots.trusted) == 2
