"""What every store must do: one suite for real etcd and for the fake.

A subclass gives the fixture `harness`. Waits are on the loop's time, which is virtual for the fake.
"""

from __future__ import annotations

import asyncio

import pytest

from manager.store.port import (
    Compare,
    DeleteKey,
    Field,
    Put,
    StoreError,
    StoreUnavailableError,
    UnknownOutcomeError,
)
from tests.contracts.store_harness import StoreHarness, put, put_until_done
from tests.contracts.store_streams import LeaseContract, WatchContract


def absent(key: str) -> Compare:
    return Compare(key=key, field=Field.CREATE_REVISION, to=0)


class TransactionContract:
    async def test_an_absent_key_is_none(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")

        assert await store.get(prefix + "x") is None

    async def test_what_was_put_is_read(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")

        first = await put(store, prefix + "x", b"1")
        second = await put(store, prefix + "x", b"\x00\xff")

        found = await store.get(prefix + "x")
        assert found is not None
        assert (found.value, found.create_revision, found.mod_revision) == (b"\x00\xff", first, second)

    async def test_a_key_is_created_once(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        key = prefix + "x"

        first = await store.txn((absent(key),), (Put(key=key, value=b"1"),))
        second = await store.txn((absent(key),), (Put(key=key, value=b"2"),))

        assert first.succeeded
        assert not second.succeeded
        assert second.found[key].value == b"1"
        assert second.found[key].create_revision == first.revision

    async def test_one_guard_that_fails_stops_all(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        x, y = prefix + "x", prefix + "y"
        revision = await put(store, x, b"1")
        guards = (Compare(key=x, field=Field.MOD_REVISION, to=revision), absent(y))

        assert (await store.txn(guards, (Put(key=x, value=b"2"), Put(key=y, value=b"2")))).succeeded
        assert not (await store.txn(guards, (DeleteKey(key=x), Put(key=y, value=b"3")))).succeeded

        listing = await store.list(prefix)
        assert [(item.key, item.value) for item in listing.items] == [(x, b"2"), (y, b"2")]

    async def test_values_are_compared(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        key = prefix + "x"
        await put(store, key, b"")

        for to, holds in ((b"other", False), (b"", True)):
            guard = Compare(key=key, field=Field.VALUE, to=to)
            assert (await store.txn((guard,), ())).succeeded is holds

    async def test_a_missing_key_equals_no_value(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        guard = Compare(key=prefix + "x", field=Field.VALUE, to=b"")

        assert not (await store.txn((guard,), ())).succeeded

    async def test_deleting_nothing_changes_nothing(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        revision = await put(store, prefix + "x", b"1")

        result = await store.txn((), (DeleteKey(key=prefix + "y"),))

        assert result.succeeded
        assert result.revision == revision

    async def test_nonsense_is_refused_and_not_repeated(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        twice = (Put(key=prefix + "x", value=b"1"), Put(key=prefix + "x", value=b"2"))
        too_large = (Put(key=prefix + "x", value=bytes(2 * 1024 * 1024)),)

        for operations in (twice, too_large):
            with pytest.raises(StoreError) as caught:
                await store.txn((), operations)
            assert not isinstance(caught.value, (UnknownOutcomeError, StoreUnavailableError))
        assert await store.get(prefix + "x") is None

    async def test_a_lost_reply_is_an_unknown_outcome(self, harness: StoreHarness, prefix: str) -> None:
        """The same guarded transaction, repeated, tells that it was done."""
        store = await harness.client("a")
        key = prefix + "x"
        await put(store, prefix + "warm", b"")

        async with harness.losing_reply("a"):
            with pytest.raises(UnknownOutcomeError):
                await store.txn((absent(key),), (Put(key=key, value=b"mine"),))

        again = None
        while again is None:
            try:
                again = await store.txn((absent(key),), (Put(key=key, value=b"mine"),))
            except (UnknownOutcomeError, StoreUnavailableError):
                await asyncio.sleep(0.1)
        assert not again.succeeded
        assert again.found[key].value == b"mine"
        assert again.found[key].create_revision == again.found[key].mod_revision

    async def test_a_late_duplicate_is_harmless(self, harness: StoreHarness, prefix: str) -> None:
        """A guarded transaction gets stuck, is done by another way, and then arrives after all."""
        stuck, direct = await harness.client("a"), await harness.client("b")
        key = prefix + "x"
        revision = await put(stuck, key, b"1")
        guard = Compare(key=key, field=Field.MOD_REVISION, to=revision)

        await harness.cut("a")
        with pytest.raises(UnknownOutcomeError):
            await stuck.txn((guard,), (Put(key=key, value=b"2"),))
        done = await direct.txn((guard,), (Put(key=key, value=b"2"),))
        await harness.heal("a")
        await asyncio.sleep(1)

        assert done.succeeded
        found = await direct.get(key)
        assert found is not None
        assert found.mod_revision == done.revision


class ListingContract:
    async def test_only_the_prefix_in_order(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        for name in ("b", "a", "c/d"):
            await put(store, prefix + "in/" + name, name.encode())
        await put(store, prefix + "in0", b"beside")

        listing = await store.list(prefix + "in/")

        assert [item.key.removeprefix(prefix) for item in listing.items] == ["in/a", "in/b", "in/c/d"]
        assert listing.revision >= max(item.mod_revision for item in listing.items)

    async def test_many_pages_show_one_revision(self, harness: StoreHarness, prefix: str) -> None:
        """While pages are read, the first and the last key are changed together again and again."""
        store, writer = await harness.client("a"), await harness.client("b")
        for start in range(0, 2500, 100):
            keys = [f"{prefix}{number:05}" for number in range(start, start + 100)]
            await store.txn((), [Put(key=key, value=b"0") for key in keys])
        ends = f"{prefix}00000", f"{prefix}02499"

        async def change() -> None:
            for round_number in range(1, 100_000):
                value = str(round_number).encode()
                await writer.txn((), [Put(key=key, value=value) for key in ends])

        async with asyncio.TaskGroup() as tasks:
            changing = tasks.create_task(change())
            await asyncio.sleep(0.05)
            for _ in range(5):
                listing = await store.list(prefix)
                assert len(listing.items) == 2500
                assert listing.items[0].value == listing.items[-1].value != b"0"
                assert listing.items[0].mod_revision <= listing.revision
            changing.cancel()


class OutageContract:
    async def test_a_dead_server_has_surely_done_nothing(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        await put(store, prefix + "x", b"")
        await harness.kill()
        await asyncio.sleep(0.2)

        with pytest.raises(StoreUnavailableError):
            await put(store, prefix + "x", b"2")
        with pytest.raises(StoreUnavailableError):
            await store.get(prefix + "x")

    async def test_data_outlives_the_server(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        await put(store, prefix + "x", b"kept")
        await harness.kill()
        await harness.restart()

        revision = await put_until_done(store, prefix + "y", b"")

        found = await store.get(prefix + "x")
        assert found is not None
        assert found.value == b"kept"
        assert found.mod_revision < revision

    async def test_a_frozen_server_holds_nobody_for_long(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        loop = asyncio.get_running_loop()
        await put(store, prefix + "x", b"")
        await harness.pause()
        before_s = loop.time()

        with pytest.raises(StoreUnavailableError):
            await store.get(prefix + "x")
        with pytest.raises((StoreUnavailableError, UnknownOutcomeError)) as caught:
            await put(store, prefix + "x", b"2")

        assert loop.time() - before_s < 10
        await harness.resume()
        await put_until_done(store, prefix + "y", b"")
        found = await store.get(prefix + "x")
        assert found is not None
        if caught.type is StoreUnavailableError:
            assert found.value == b"", "that error promises that nothing was done"

    async def test_a_closed_store_says_so(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        await put(store, prefix + "x", b"")
        await store.aclose()

        with pytest.raises(StoreUnavailableError):
            await store.get(prefix + "x")

    async def test_it_says_how_it_is(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        await put(store, prefix + "x", b"")

        status = await store.status()

        assert status.version.startswith("3.")
        assert status.db_bytes > 0
        assert status.alarms == ()


class StoreContract(TransactionContract, ListingContract, WatchContract, LeaseContract, OutageContract):
    """All of it."""
