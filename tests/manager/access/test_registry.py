from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import structlog

from manager.access import records
from manager.access.registry import Registry
from manager.store import keys
from manager.store.port import Listing
from manager.store.records import DamagedRecordError
from tests.fakes.store import FakeEtcd, FakeStore
from tests.manager.access.world import an_identity

pytestmark = pytest.mark.virtual_time

CA = records.CaRecord(roots=(records.RootRecord(certificate_pem="c", key_pem="k", since_ms=1),))
# A watch that was interrupted is opened again after a second.
WITHIN_S = 3.0


def put(server: FakeEtcd, record: records.IdentityRecord) -> None:
    """As another manager writes it; encryption is of no matter here."""
    server.put(keys.pki_identity(record.kind, record.name), records.encode(record))


@pytest.fixture
def registry(server: FakeEtcd) -> Registry:
    server.put(keys.pki_ca(), records.encode(CA))
    return Registry(FakeStore(server, "m1"))


@asynccontextmanager
async def followed(registry: Registry) -> AsyncIterator[None]:
    await registry.load()
    async with asyncio.TaskGroup() as parts:
        following = parts.create_task(registry.run())
        yield
        following.cancel()


async def settle() -> None:
    await asyncio.sleep(WITHIN_S)


def generations(registry: Registry) -> dict[str, int]:
    return {name: record.generation for (_, name), record in registry.identities.items()}


class TestFollowing:
    async def test_what_is_there_is_read(self, server: FakeEtcd, registry: Registry) -> None:
        put(server, an_identity("n1"))
        put(server, an_identity("anna", kind="user", role=3))
        await registry.load()

        assert registry.ca == CA
        assert registry.identities[("user", "anna")].role == 3
        assert registry.identities.keys() == {("user", "anna"), ("node", "n1")}

    async def test_what_others_write_is_heard_of_at_once(self, server: FakeEtcd, registry: Registry) -> None:
        heard = asyncio.Event()
        registry.changed.append(heard.set)
        async with followed(registry):
            await asyncio.sleep(0.1)
            heard.clear()
            put(server, an_identity("n1"))
            async with asyncio.timeout(0.1):
                await heard.wait()

            assert generations(registry) == {"n1": 1}

    async def test_what_an_operator_deletes_by_hand_is_gone(
        self, server: FakeEtcd, registry: Registry
    ) -> None:
        put(server, an_identity("n1"))
        async with followed(registry):
            server.delete(keys.pki_identity("node", "n1"))
            await settle()

            assert registry.identities == {}

    async def test_tokens_are_no_matter_of_it(self, server: FakeEtcd, registry: Registry) -> None:
        server.put(keys.pki_token("a1"), b"no identity")
        with structlog.testing.capture_logs() as logs:
            await registry.load()

        assert registry.identities == {}
        assert logs == []

    async def test_an_outage_is_followed_through(self, server: FakeEtcd, registry: Registry) -> None:
        put(server, an_identity("n1"))
        async with followed(registry):
            server.kill()
            await settle()
            assert generations(registry) == {"n1": 1}, "by what it knew last"
            server.restart()
            put(server, an_identity("n2"))
            await settle()

            assert generations(registry) == {"n1": 1, "n2": 1}

    async def test_a_compaction_meanwhile_loses_nothing(self, server: FakeEtcd, registry: Registry) -> None:
        async with followed(registry):
            server.cut("m1")
            for generation in (1, 2, 3):
                put(server, an_identity("n1", generation=generation))
            server.compact(server.revision)
            server.heal("m1")
            await settle()

            assert generations(registry) == {"n1": 3}

    async def test_an_older_reading_does_not_undo_what_the_watch_brought(
        self, server: FakeEtcd, registry: Registry
    ) -> None:
        put(server, an_identity("n1", role=1))
        before = server.get(keys.pki_identity("node", "n1"))
        assert before is not None
        async with followed(registry):
            put(server, an_identity("n1", role=3))
            await settle()
            registry.learn(before)

            assert registry.identities[("node", "n1")].role == 3

    async def test_nor_does_a_listing_that_takes_its_time(
        self, server: FakeEtcd, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(server, an_identity("n1", role=1))
        async with followed(registry):
            listing = await registry._store.list(keys.PKI)

            async def slow(prefix: str) -> Listing:
                del prefix
                await settle()
                return listing

            monkeypatch.setattr(registry._store, "list", slow)
            loading = asyncio.ensure_future(registry.load())
            await asyncio.sleep(0)
            put(server, an_identity("n1", role=3))
            await loading

            assert registry.identities[("node", "n1")].role == 3


class TestReading:
    async def test_one_that_another_manager_made_a_moment_ago(
        self, server: FakeEtcd, registry: Registry
    ) -> None:
        await registry.load()
        revision = server.put(keys.pki_identity("node", "n1"), records.encode(an_identity("n1")))

        assert await registry.read("node", "n1") == (an_identity("n1"), revision)
        assert generations(registry) == {"n1": 1}

    async def test_one_that_nobody_made(self, registry: Registry) -> None:
        assert await registry.read("node", "n1") == (None, 0)

    async def test_a_damaged_one(self, server: FakeEtcd, registry: Registry) -> None:
        """It may have been revoked: nothing may take its place as if it were new."""
        server.put(keys.pki_identity("node", "n1"), b"{}")
        with pytest.raises(DamagedRecordError):
            await registry.read("node", "n1")

    async def test_a_damaged_one_that_was_known_goes_back_with_the_next_write(
        self, server: FakeEtcd, registry: Registry
    ) -> None:
        put(server, an_identity("n1", generation=3))
        await registry.load()
        revision = server.put(keys.pki_identity("node", "n1"), b"{}")

        assert await registry.read("node", "n1") == (an_identity("n1", generation=3), revision)


class TestAStoreThatWasWiped:
    async def test_what_was_known_stays(self, server: FakeEtcd, registry: Registry) -> None:
        put(server, an_identity("n1"))
        async with followed(registry):
            server.wipe()
            await settle()

            assert registry.ca == CA
            assert generations(registry) == {"n1": 1}
            assert await registry.read("node", "n1") == (an_identity("n1"), 0), "it can be written back"

    async def test_it_is_followed_from_its_new_beginning(self, server: FakeEtcd, registry: Registry) -> None:
        """Revisions are counted from one again: lower ones are no older ones."""
        for generation in range(1, 20):
            put(server, an_identity("n1", generation=generation))
        async with followed(registry):
            server.wipe()
            await settle()
            put(server, an_identity("n1", generation=20))
            await settle()

            assert generations(registry) == {"n1": 20}


class TestAStoreThatCameBackFromABackup:
    async def test_who_was_revoked_since_stays_so(self, server: FakeEtcd, registry: Registry) -> None:
        put(server, an_identity("n1"))
        backup = server.snapshot()
        ended = an_identity("n1", generation=2, is_revoked=True)
        async with followed(registry):
            put(server, ended)
            await settle()
            server.restore(backup)
            await settle()

            assert registry.identities[("node", "n1")] == ended
            # A renewal that reads the store itself must not find the time before.
            assert (await registry.read("node", "n1"))[0] == ended

    async def test_who_came_since_stays_known(self, server: FakeEtcd, registry: Registry) -> None:
        """Else a name that was revoked since would begin at its first generation again, and old keys with it."""
        put(server, an_identity("n1"))
        backup = server.snapshot()
        ended = an_identity("n2", generation=2, is_revoked=True)
        async with followed(registry):
            put(server, ended)
            await settle()
            server.restore(backup)
            await settle()

            assert generations(registry) == {"n1": 1, "n2": 2}
            assert await registry.read("node", "n2") == (ended, 0)

    async def test_a_later_generation_counts(self, server: FakeEtcd, registry: Registry) -> None:
        put(server, an_identity("n1", generation=5))
        await registry.load()
        put(server, an_identity("n1", generation=6))
        await registry.load()

        assert generations(registry) == {"n1": 6}


class TestDamage:
    async def test_harms_only_itself(self, server: FakeEtcd, registry: Registry) -> None:
        put(server, an_identity("n1"))
        for name, value in {"a": b"", "b": b"\xff", "c": b"{}", "d": b"[]", "e": b'{"kind": 1}'}.items():
            server.put(keys.pki_identity("node", name), value)
        server.put(f"{keys.PKI_IDENTITIES}node/x/y/z", b"junk")
        with structlog.testing.capture_logs() as logs:
            await registry.load()

        assert generations(registry) == {"n1": 1}
        assert {entry["key"][-1] for entry in logs if entry["event"] == "store_key.ignored"} == set("abcde")

    async def test_a_ca_from_before_a_rotation_does_not_come_back(
        self, server: FakeEtcd, registry: Registry
    ) -> None:
        old = replace(CA, roots=(replace(CA.roots[0], since_ms=CA.roots[0].since_ms - 1),))
        async with followed(registry):
            server.put(keys.pki_ca(), records.encode(old))
            await settle()
            assert registry.ca == CA

    async def test_of_the_ca_leaves_what_was_known(self, server: FakeEtcd, registry: Registry) -> None:
        await registry.load()
        server.put(keys.pki_ca(), b"junk")
        await registry.load()

        assert registry.ca == CA

    async def test_a_later_managers_new_field_is_none(self, server: FakeEtcd, registry: Registry) -> None:
        """During an upgrade."""
        content = records.encode(an_identity("n1")).replace(b"{", b'{"new_field":1,', 1)
        server.put(keys.pki_identity("node", "n1"), content)
        await registry.load()

        assert registry.identities[("node", "n1")] == an_identity("n1")
