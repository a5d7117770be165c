from __future__ import annotations

import asyncio
import itertools
from contextlib import aclosing

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
)
from manager.store.sealed import SEALED_PREFIXES, KeyringError, SealedStore, StoreNotOpenError
from manager.store.sealing import ClusterKey, WrongClusterKeyError
from tests.contracts.store import StoreContract, absent
from tests.contracts.store_harness import StoreHarness, put, take
from tests.fakes.store import FakeEtcd
from tests.manager.store.harnesses import FakeHarness
from tests.manager.store.sealed import (
    KEY,
    NODE,
    SHOP,
    WEB,
    CountingStore,
    data_keys_in_use,
    following,
    manager,
    opened,
    read_all,
    value_of,
    values_of,
)

pytestmark = pytest.mark.virtual_time

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
