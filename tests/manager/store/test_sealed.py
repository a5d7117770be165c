from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager

import pytest
import structlog

from manager.store import keys, records, sealing
from manager.store.port import (
    Compare,
    DeleteKey,
    Field,
    Put,
    Store,
    StoreUnavailableError,
    UnknownOutcomeError,
)
from manager.store.sealed import SEALED_PREFIXES, KeyringError, SealedStore, StoreNotOpenError
from manager.store.sealing import ClusterKey, WrongClusterKeyError, data_key_of
from tests.contracts.store import StoreContract, absent
from tests.contracts.store_harness import StoreHarness, put, take
from tests.fakes.store import FakeEtcd, FakeStore
from tests.manager.store.harnesses import FakeHarness

pytestmark = pytest.mark.virtual_time

KEY = ClusterKey.generate()
WEB = keys.resource("Deployment", "default", "web")
SHOP = keys.resource("Deployment", "default", "shop")
NODE = keys.node("n1")
_numbers = itertools.count(1)


class SealedHarness(FakeHarness):
    async def client(self, name: str) -> Store:
        store = SealedStore(await super().client(name), KEY)
        await store.open()
        return store


class TestContractOfSealedKeys(StoreContract):
    @pytest.fixture
    async def harness(self) -> SealedHarness:
        return SealedHarness()

    @pytest.fixture
    def prefix(self) -> str:
        return f"{keys.SECRETS}contract-{next(_numbers)}/"

    async def test_values_are_compared(self, harness: StoreHarness, prefix: str) -> None:
        """Not these: equal values never have equal ciphertexts."""
        store = await harness.client("a")
        guard = Compare(key=prefix + "x", field=Field.VALUE, to=b"")

        with pytest.raises(AssertionError):
            await store.txn((guard,), ())

    async def test_a_missing_key_equals_no_value(self, harness: StoreHarness, prefix: str) -> None:
        await self.test_values_are_compared(harness, prefix)


class TestContractOfOtherKeys(StoreContract):
    @pytest.fixture
    async def harness(self) -> SealedHarness:
        return SealedHarness()


@pytest.fixture
def server() -> FakeEtcd:
    return FakeEtcd()


def manager(server: FakeEtcd, name: str = "m1", key: ClusterKey = KEY) -> SealedStore:
    return SealedStore(FakeStore(server, name), key)


async def opened(server: FakeEtcd, name: str = "m1", key: ClusterKey = KEY) -> SealedStore:
    store = manager(server, name, key)
    await store.open()
    return store


async def value_of(store: Store, key: str) -> bytes | None:
    found = await store.get(key)
    return found.value if found is not None else None


async def fill(store: Store, count: int = 3) -> dict[str, bytes]:
    """Some values in each sealed place; returns them all."""
    values = {
        f"{prefix}place/{number}": f"{prefix} {number}".encode()
        for prefix in SEALED_PREFIXES
        for number in range(count)
    }
    for key, value in values.items():
        await put(store, key, value)
    return values


async def read_all(store: Store) -> dict[str, bytes]:
    return {item.key: item.value for prefix in SEALED_PREFIXES for item in (await store.list(prefix)).items}


def data_keys_in_use(server: FakeEtcd) -> set[str | None]:
    return {data_key_of(item.value) for item in server.items() if item.key.startswith(SEALED_PREFIXES)}


def data_keys_in_keyring(server: FakeEtcd, key: ClusterKey) -> list[str]:
    found = server.get(keys.KEYRING)
    assert found is not None
    return list(sealing.decode_keyring(found.value, [key]).data_keys)


@asynccontextmanager
async def following(*stores: SealedStore) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as parts:
        tasks = [parts.create_task(store.watch_keyring()) for store in stores]
        yield
        for task in tasks:
            task.cancel()


class TestWhatEtcdHolds:
    async def test_nothing_that_users_wrote_can_be_read_there(self, server: FakeEtcd) -> None:
        store = await opened(server)
        for prefix in SEALED_PREFIXES:
            await put(store, prefix + "a/b/c", b"swordfish")

        held = b"".join(item.value for item in server.items())

        assert b"swordfish" not in held
        assert [await value_of(store, prefix + "a/b/c") for prefix in SEALED_PREFIXES] == [b"swordfish"] * 5

    async def test_the_cluster_key_does_not_reach_it(self, server: FakeEtcd) -> None:
        await opened(server)

        found = server.get(keys.KEYRING)
        assert found is not None
        assert KEY.secret not in found.value
        assert KEY.to_text().encode() not in found.value

    async def test_what_is_no_wish_of_users_stays_as_it_is(self, server: FakeEtcd) -> None:
        """Other keys are packed, compared by value, or read by tools."""
        store = await opened(server)
        await put(store, NODE, b"facts")

        found = server.get(NODE)
        assert found is not None
        assert found.value == b"facts"

    async def test_every_way_of_reading_opens_it(self, server: FakeEtcd) -> None:
        store = await opened(server)
        revision = await put(store, WEB, b"web")
        await put(store, NODE, b"facts")

        listing = await store.list(keys.ROOT)
        assert {item.key: item.value for item in listing.items}.items() >= {(WEB, b"web"), (NODE, b"facts")}
        lost = await store.txn((absent(WEB),), (Put(key=SHOP, value=b""),))
        assert {key: item.value for key, item in lost.found.items()} == {WEB: b"web"}
        looked = await store.txn((absent(WEB),), ())
        assert {key: item.value for key, item in looked.found.items()} == {WEB: b"web"}
        async with aclosing(store.watch(keys.ROOT, from_revision=revision)) as watch:
            assert [change.value for change in await take(watch, 2)] == [b"web", b"facts"]

    async def test_sealed_and_other_keys_share_a_transaction(self, server: FakeEtcd) -> None:
        store = await opened(server)
        await put(store, SHOP, b"old")

        await store.txn((), (Put(key=WEB, value=b"web"), Put(key=NODE, value=b"n"), DeleteKey(key=SHOP)))

        assert [await value_of(store, key) for key in (WEB, NODE, SHOP)] == [b"web", b"n", None]


class TestOpening:
    async def test_it_must_be_opened(self, server: FakeEtcd) -> None:
        await put(await opened(server), WEB, b"web")
        store = manager(server)

        with pytest.raises(StoreNotOpenError, match=r"call open\(\) first"):
            await put(store, WEB, b"web")
        with pytest.raises(StoreNotOpenError):
            await store.get(WEB)
        with pytest.raises(StoreNotOpenError):
            await store.list(keys.ROOT)
        with pytest.raises(StoreNotOpenError):
            await anext(store.watch(keys.ROOT, from_revision=1))
        await put(store, NODE, b"what the store is must be known before")

    async def test_all_founders_get_one_keyring(self, server: FakeEtcd) -> None:
        stores = [manager(server, f"m{number}") for number in range(5)]
        await asyncio.gather(*(store.open() for store in stores))

        for number, store in enumerate(stores):
            await put(store, f"{keys.SECRETS}of/{number}", b"mine")

        for store in stores:
            assert set((await read_all(store)).values()) == {b"mine"}
        assert len(data_keys_in_use(server)) == 1

    async def test_a_lost_reply_to_the_founding_is_repeated(self, server: FakeEtcd) -> None:
        store = manager(server)
        server.drop_next_reply("m1")

        with pytest.raises(StoreUnavailableError):
            await store.open()
        await store.open()

        await put(store, WEB, b"web")
        assert await value_of(await opened(server, "m2"), WEB) == b"web"

    async def test_a_manager_with_another_cluster_key_is_told_so(self, server: FakeEtcd) -> None:
        await put(await opened(server), WEB, b"web")
        other = ClusterKey.generate()

        with pytest.raises(WrongClusterKeyError) as caught:
            await opened(server, "m2", other)

        assert KEY.id in str(caught.value)
        assert other.id in str(caught.value)
        assert "cluster.key" in str(caught.value)

    async def test_a_lost_keyring_is_not_replaced_by_a_new_one(self, server: FakeEtcd) -> None:
        """Else everything would be damaged for good, and look as if only the documents were at fault."""
        await put(await opened(server), WEB, b"web")
        server.delete(keys.KEYRING)

        with pytest.raises(KeyringError, match="restore etcd from a backup"):
            await opened(server, "m2")

        assert server.get(keys.KEYRING) is None

    @pytest.mark.parametrize("value", [b"", b"junk", b"{}", b"[]"])
    async def test_a_damaged_keyring_is_named(self, server: FakeEtcd, value: bytes) -> None:
        server.put(keys.KEYRING, value)

        with pytest.raises(KeyringError, match="/bayplan/v1/keyring is damaged"):
            await opened(server)


class TestDamage:
    async def test_it_harms_only_itself(self, server: FakeEtcd) -> None:
        """Moved, changed, of no known data key, plain: the neighbours are read all the same."""
        store = await opened(server)
        await put(store, WEB, b"web")
        await put(store, SHOP, b"shop")
        sealed = server.get(WEB)
        assert sealed is not None
        moved, changed, unknown, plain = (f"{keys.SECRETS}bad/{number}" for number in range(4))
        start = server.put(moved, sealed.value)
        server.put(changed, sealed.value[:-1] + bytes([sealed.value[-1] ^ 1]))
        server.put(unknown, sealing.seal(unknown, b"x", sealing.new_keyring(KEY)))
        server.put(plain, b'{"kind": "Secret"}')
        last = await put(store, NODE, b"facts")

        found = {item.key: item.value for item in (await store.list(keys.ROOT)).items}

        assert (found[WEB], found[SHOP], found[NODE]) == (b"web", b"shop", b"facts")
        for key in (moved, changed, unknown, plain):
            with pytest.raises(records.DamagedRecordError):
                records.decode_json(found[key])
        async with aclosing(store.watch(keys.ROOT, from_revision=start)) as watch:
            assert [change.mod_revision for change in await take(watch, 5)] == [*range(start, last), last]

    async def test_plain_text_is_not_taken_for_a_document(self, server: FakeEtcd) -> None:
        """Who may write to etcd could else start what they like on every node."""
        store = await opened(server)
        document = records.StoredDocument(uid="u1", generation=1, created_ms=1, deleting=False, document={})
        server.put(WEB, records.encode_document(document))

        for value in (await value_of(store, WEB), (await store.list(WEB)).items[0].value):
            assert value is not None
            with pytest.raises(records.DamagedRecordError):
                records.decode_document(value)

    async def test_it_is_warned_of_once(self, server: FakeEtcd) -> None:
        store = await opened(server)
        for key in (WEB, SHOP):
            server.put(key, b"\xb1" + bytes(60))
        with structlog.testing.capture_logs() as logs:
            for _ in range(10):
                await store.list(keys.RESOURCES)

        assert [entry["key"] for entry in logs if entry["log_level"] == "warning"] == [SHOP, WEB]

    async def test_an_unknown_data_key_is_looked_for_once(self, server: FakeEtcd) -> None:
        """Not once for every reading: junk would double what etcd has to do."""
        inner = CountingStore(server, "m1")
        store = SealedStore(inner, KEY)
        await store.open()
        server.put(WEB, sealing.seal(WEB, b"x", sealing.new_keyring(KEY)))
        before = inner.keyring_reads

        for _ in range(10):
            await store.list(keys.RESOURCES)

        assert inner.keyring_reads == before + 1


class CountingStore(FakeStore):
    keyring_reads = 0

    async def get(self, key: str):  # type: ignore[no-untyped-def]  # noqa: ANN201 - as in the fake
        self.keyring_reads += key == keys.KEYRING
        return await super().get(key)


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


class TestAStoreThatWasMeddledWith:
    async def test_a_keyring_that_an_operator_put_back_is_used(self, server: FakeEtcd) -> None:
        """Its values were looked at before, when they could not be opened."""
        ring = sealing.new_keyring(KEY)
        store = await opened(server)
        server.put(WEB, sealing.seal(WEB, b"web", ring))
        with pytest.raises(records.DamagedRecordError):
            records.decode_json(await value_of(store, WEB) or b"")

        async with following(store):
            await asyncio.sleep(1)
            server.put(keys.KEYRING, sealing.encode_keyring(ring, KEY))
            await asyncio.sleep(1)

        assert await value_of(store, WEB) == b"web"

    @pytest.mark.parametrize("is_followed", [True, False])
    async def test_a_deleted_keyring_is_put_back(self, server: FakeEtcd, *, is_followed: bool) -> None:
        """By any manager that lives: without it nothing could be read after their restart."""
        store = await opened(server)
        await put(store, WEB, b"web")
        async with following(*[store] * is_followed):
            await asyncio.sleep(1)
            server.delete(keys.KEYRING)
            await asyncio.sleep(3)
            if not is_followed:
                await put(store, SHOP, b"shop")

        assert await value_of(await opened(server, "m2"), WEB) == b"web"

    async def test_a_wiped_store_gets_nothing_that_cannot_be_opened(self, server: FakeEtcd) -> None:
        """Managers live on; a new one founds the keyring, by chance at the same revision as before."""
        old = await opened(server)
        server.wipe()
        new = await opened(server, "m2")
        first = server.get(keys.KEYRING)
        assert first is not None

        await put(old, WEB, b"web")

        assert server.get(keys.KEYRING) == first
        assert await value_of(new, WEB) == b"web"
        assert await value_of(await opened(server, "m3"), WEB) == b"web"

    async def test_a_backup_from_before_a_rotation_is_read(self, server: FakeEtcd) -> None:
        store = await opened(server)
        await put(store, WEB, b"old")
        backup = server.snapshot()
        await store.rotate()
        await put(store, WEB, b"new")

        server.restore(backup)

        assert await value_of(store, WEB) == b"old"
        await put(store, SHOP, b"shop")
        fresh = await opened(server, "m2")
        assert await values_of(fresh, (WEB, SHOP)) == [b"old", b"shop"]


async def values_of(store: Store, names: Iterable[str]) -> list[bytes | None]:
    return [await value_of(store, name) for name in names]
