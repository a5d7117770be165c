"""Other keys for a sealed store: by one manager, cut short, and as seen by another."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import aclosing

import pytest

from manager.store import keys
from manager.store.port import (
    DeleteKey,
    Put,
    StoreUnavailableError,
    UnknownOutcomeError,
)
from manager.store.sealed import SealedStore
from manager.store.sealing import ClusterKey, WrongClusterKeyError
from tests.contracts.store_harness import put, take
from tests.fakes.store import FakeEtcd, FakeStore
from tests.manager.store.sealed import (
    KEY,
    SHOP,
    WEB,
    CountingStore,
    data_keys_in_keyring,
    data_keys_in_use,
    fill,
    following,
    manager,
    opened,
    read_all,
    value_of,
)

pytestmark = pytest.mark.virtual_time


class MeddledStore(FakeStore):
    """Before it writes one of the keys of `meddling`, another manager was faster, once."""

    def __init__(self, server: FakeEtcd, name: str, other: SealedStore) -> None:
        super().__init__(server, name)
        self.other = other
        self.meddling: dict[str, Put | DeleteKey] = {}

    async def txn(self, compares, operations):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - as in the fake
        for operation in operations:
            faster = self.meddling.pop(operation.key, None)
            if faster is not None:
                await self.other.txn((), (faster,))
        return await super().txn(compares, operations)


class FailingStore(FakeStore):
    """Every write from the `fails_at`-th on is lost on its way: a manager that was killed."""

    fails_at = 10**9
    writes = 0

    async def txn(self, compares, operations):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - as in the fake
        self.writes += 1
        if self.writes >= self.fails_at:
            raise StoreUnavailableError("killed")
        return await super().txn(compares, operations)


class TestRotation:
    @pytest.mark.parametrize("new_key", [None, ClusterKey.generate()])
    async def test_everything_is_encrypted_anew(self, server: FakeEtcd, new_key: ClusterKey | None) -> None:
        store = await opened(server)
        values = await fill(store)
        before = data_keys_in_keyring(server, KEY)

        rewritten = await store.rotate(new_key)

        after = data_keys_in_keyring(server, new_key or KEY)
        assert rewritten == len(values)
        assert len(after) == 1
        assert after != before
        assert data_keys_in_use(server) == set(after)
        assert await read_all(store) == values
        assert await read_all(await opened(server, "m2", new_key or KEY)) == values
        assert store.cluster_key_id == (new_key or KEY).id

    async def test_the_old_cluster_key_opens_nothing_any_more(self, server: FakeEtcd) -> None:
        store = await opened(server)
        await fill(store)

        await store.rotate(ClusterKey.generate())

        with pytest.raises(WrongClusterKeyError):
            await opened(server, "m2", KEY)

    async def test_leases_stay(self, server: FakeEtcd) -> None:
        store = await opened(server)
        lease = await store.grant_lease(60)
        await put(store, WEB, b"web", lease.id)

        await store.rotate()

        found = await store.get(WEB)
        assert found is not None
        assert found.lease == lease.id
        await store.revoke(lease.id)
        assert await store.get(WEB) is None

    async def test_an_empty_store_is_rotated_too(self, server: FakeEtcd) -> None:
        store = await opened(server)

        assert await store.rotate() == 0
        assert await store.rotate() == 0

        assert len(data_keys_in_keyring(server, KEY)) == 1

    async def test_another_manager_goes_on_writing_and_reading(self, server: FakeEtcd) -> None:
        """It is never told, and writes all the time: not one value is lost or left behind."""
        rotating, other = await opened(server), await opened(server, "m2")
        values = await fill(other)
        written: dict[str, bytes] = {}

        async def write() -> None:
            for number in itertools.count():
                key, value = f"{keys.RESOURCES}place/{number % 7}", f"written {number}".encode()
                await put(other, key, value)
                written[key] = value
                assert await value_of(other, key) == value

        async with asyncio.TaskGroup() as parts:
            writing = parts.create_task(write())
            for _ in range(3):
                await rotating.rotate()
            writing.cancel()

        (primary,) = data_keys_in_keyring(server, KEY)
        assert data_keys_in_use(server) == {primary}
        assert len(written) == 7
        assert await read_all(rotating) == await read_all(await opened(server, "m3")) == values | written

    async def test_a_write_that_was_stuck_cannot_come_in_under_an_old_data_key(
        self, server: FakeEtcd
    ) -> None:
        """It is on its way while everything is rotated, and arrives after the old data key is gone."""
        rotating, cut_off = await opened(server), await opened(server, "m2")
        await put(cut_off, WEB, b"before")
        server.cut("m2")
        with pytest.raises(UnknownOutcomeError):
            await put(cut_off, WEB, b"stuck")

        await rotating.rotate()
        server.heal("m2")
        await asyncio.sleep(1)

        assert await value_of(rotating, WEB) == b"before"
        await put(cut_off, WEB, b"after")
        assert await value_of(rotating, WEB) == b"after"

    async def test_what_was_changed_meanwhile_is_not_overwritten(self, server: FakeEtcd) -> None:
        """Between a listing and each rewriting somebody else changes, deletes or makes a key."""
        other = await opened(server, "m2")
        inner = MeddledStore(server, "m1", other)
        rotating = SealedStore(inner, KEY)
        await rotating.open()
        await put(other, WEB, b"1")
        await put(other, SHOP, b"1")
        inner.meddling = {WEB: Put(key=WEB, value=b"2"), SHOP: DeleteKey(key=SHOP)}

        await rotating.rotate()

        assert await value_of(other, WEB) == b"2"
        assert await value_of(other, SHOP) is None
        assert data_keys_in_use(server) == set(data_keys_in_keyring(server, KEY))

    async def test_a_watch_goes_on_in_order(self, server: FakeEtcd) -> None:
        """Also one that resumes before the rotation: history is under data keys that are gone."""
        rotating, other = await opened(server), await opened(server, "m2")
        start = await put(other, WEB, b"1")
        async with aclosing(other.watch(keys.ROOT, from_revision=start)) as watch:
            seen = await take(watch, 1)
            await rotating.rotate()
            await put(rotating, WEB, b"2")
            while seen[-1].value != b"2":
                seen += await take(watch, 1)
        async with aclosing(other.watch(WEB, from_revision=start)) as watch:
            again = await take(watch, 3)

        assert [change.value for change in seen if change.key == WEB] == [b"1", b"1", b"2"]
        assert [change.value for change in again] == [b"1", b"1", b"2"]

    async def test_old_data_keys_stay_for_a_while(self, server: FakeEtcd) -> None:
        """For readings that began before their values were sealed anew."""
        store = await opened(server)
        await fill(store)
        loop = asyncio.get_running_loop()
        before_s = loop.time()

        async with asyncio.TaskGroup() as parts:
            rotating = parts.create_task(store.rotate(grace_s=60))
            await asyncio.sleep(59)
            assert len(data_keys_in_use(server)) == 1
            assert len(data_keys_in_keyring(server, KEY)) == 2
            await rotating

        assert 60 < loop.time() - before_s < 62

    async def test_a_value_that_cannot_be_opened_stops_no_rotation(self, server: FakeEtcd) -> None:
        store = await opened(server)
        values = await fill(store)
        sealed = server.get(next(iter(values)))
        assert sealed is not None
        server.put(WEB, sealed.value)
        server.put(SHOP, b"plain")

        assert await store.rotate() == len(values)

        assert (await read_all(store)).items() >= values.items()
        assert [item.value for item in server.items(WEB)] == [sealed.value], "what it is stays to be seen"
        assert [item.value for item in server.items(SHOP)] == [b"plain"]


class TestRotationThatWasCutShort:
    @pytest.mark.parametrize("fails_at", [1, 2, 3, 8, 16, 17])
    @pytest.mark.parametrize("new_key", [None, ClusterKey.generate()])
    async def test_everything_is_readable_and_the_next_one_finishes_it(
        self, server: FakeEtcd, fails_at: int, new_key: ClusterKey | None
    ) -> None:
        """It takes 17 writes: the new data key, 15 values, the old one's end. Each may be the last."""
        values = await fill(await opened(server, "m0"))
        inner = FailingStore(server, "m1")
        inner.fails_at = fails_at
        killed = SealedStore(inner, KEY)
        await killed.open()
        with pytest.raises(StoreUnavailableError, match="killed"):
            await killed.rotate(new_key)

        again = manager(server, "m2")
        if new_key is not None:
            again.replace_cluster_key(new_key)  # Both are on disk by then.
        await again.open()
        assert await read_all(again) == values
        assert await again.rotate(new_key) == len(values) - max(0, fails_at - 2)

        (primary,) = data_keys_in_keyring(server, new_key or KEY)
        assert data_keys_in_use(server) == {primary}
        assert await read_all(again) == values

    async def test_lost_replies_are_no_failure(self, server: FakeEtcd) -> None:
        """Of the new data key, of a value, of another."""
        store = await opened(server)
        values = await fill(store)
        for _ in range(3):
            server.drop_next_reply("m1")

        await store.rotate()

        assert await read_all(store) == values
        assert data_keys_in_use(server) == set(data_keys_in_keyring(server, KEY))

    async def test_two_at_once_are_harmless(self, server: FakeEtcd) -> None:
        """Two administrators, two managers, two new cluster keys."""
        one, two = await opened(server), await opened(server, "m2")
        new_one, new_two = ClusterKey.generate(), ClusterKey.generate()
        one.replace_cluster_key(new_two)
        two.replace_cluster_key(new_one)
        values = await fill(one)

        await asyncio.gather(one.rotate(new_one), two.rotate(new_two))

        last = new_one if one.cluster_key_id == new_one.id else new_two
        (primary,) = data_keys_in_keyring(server, last)
        assert data_keys_in_use(server) == {primary}
        for store in (one, two, await opened(server, "m3", last)):
            assert await read_all(store) == values

    async def test_a_second_rotation_waits_for_its_own_grace(self, server: FakeEtcd) -> None:
        """The first one's grace ends soon after the second has begun: its old data keys are too young to go."""
        one, two = await opened(server), await opened(server, "m2")
        new_key = ClusterKey.generate()
        one.replace_cluster_key(new_key)
        await fill(one)
        async with asyncio.TaskGroup() as parts:
            parts.create_task(one.rotate(grace_s=60))
            await asyncio.sleep(55)
            parts.create_task(two.rotate(new_key, grace_s=60))
            await asyncio.sleep(50)
            assert len(data_keys_in_keyring(server, new_key)) == 3

        assert len(data_keys_in_keyring(server, new_key)) == 1

    async def test_one_manager_asked_twice_rotates_one_after_the_other(self, server: FakeEtcd) -> None:
        store = await opened(server)
        values = await fill(store)

        first, second = await asyncio.gather(store.rotate(), store.rotate())

        assert first == second == len(values)


class TestAnotherManagersRotation:
    async def test_it_is_followed(self, server: FakeEtcd) -> None:
        rotating, other = await opened(server), await opened(server, "m2")
        new_key = ClusterKey.generate()
        other.replace_cluster_key(new_key)
        async with following(rotating, other):
            values = await fill(rotating)
            await rotating.rotate(new_key)
            await asyncio.sleep(1)

            assert other.cluster_key_id == new_key.id
            assert await read_all(other) == values

    async def test_a_manager_that_lacks_the_new_cluster_key_says_so_until_it_has_it(
        self, server: FakeEtcd
    ) -> None:
        """It is not the documents that are damaged, so they are not shown as such."""
        rotating, other = await opened(server), await opened(server, "m2")
        new_key = ClusterKey.generate()
        async with following(other):
            await put(rotating, WEB, b"web")
            await rotating.rotate(new_key)

            for read in (other.get(WEB), other.list(keys.ROOT), put(other, WEB, b"mine")):
                with pytest.raises(WrongClusterKeyError, match=f"this manager has {KEY.id}"):
                    await read

            other.replace_cluster_key(new_key)
            assert await value_of(other, WEB) == b"web"
            await put(other, WEB, b"mine")
            assert await value_of(rotating, WEB) == b"mine"

    async def test_a_watch_waits_for_the_new_cluster_key_and_loses_nothing(self, server: FakeEtcd) -> None:
        rotating, other = await opened(server), await opened(server, "m2")
        new_key = ClusterKey.generate()
        start = await put(rotating, WEB, b"1")
        seen: list[bytes | None] = []

        async def watch() -> None:
            async for batch in other.watch(WEB, from_revision=start):
                seen.extend(change.value for change in batch.changes)

        async with asyncio.TaskGroup() as parts:
            watching = parts.create_task(watch())
            await rotating.rotate(new_key)
            await put(rotating, WEB, b"2")
            await asyncio.sleep(10)
            assert seen == [b"1"]

            other.replace_cluster_key(new_key)
            await asyncio.sleep(2)
            watching.cancel()

        assert seen == [b"1", b"1", b"2"]

    async def test_many_readers_share_one_reading_of_the_keyring(self, server: FakeEtcd) -> None:
        inner = CountingStore(server, "m2")
        other = SealedStore(inner, KEY)
        rotating = await opened(server)
        await other.open()
        await put(rotating, WEB, b"web")
        await rotating.rotate()
        before = inner.keyring_reads

        assert await asyncio.gather(*(value_of(other, WEB) for _ in range(50))) == [b"web"] * 50

        assert inner.keyring_reads - before <= 2
