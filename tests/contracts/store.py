"""What every store must do: one suite for real etcd and for the fake.

A subclass gives the fixture `harness`. Waits are on the loop's time, which is virtual for the fake.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Protocol

import pytest

from manager.store.port import (
    CompactedError,
    Compare,
    DeleteKey,
    Field,
    KeyChange,
    LeaseGoneError,
    Put,
    Store,
    StoreError,
    StoreReplacedError,
    StoreUnavailableError,
    UnknownOutcomeError,
    WatchBatch,
)

_numbers = itertools.count(1)


class StoreHarness(Protocol):
    """A server with clients, and its faults."""

    async def client(self, name: str) -> Store:
        """A client with a connection of its own."""
        ...

    async def kill(self) -> None: ...

    async def restart(self) -> None: ...

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def wipe(self) -> None:
        """Kill it, delete its data, start it."""
        ...

    async def cut(self, name: str) -> None: ...

    async def heal(self, name: str) -> None: ...

    def losing_reply(self, name: str) -> AbstractAsyncContextManager[None]:
        """The write within is done, but its reply is lost."""
        ...


@pytest.fixture
def prefix() -> str:
    """A place of its own for each test: the real server is shared."""
    return f"/contract/{next(_numbers)}/"


def absent(key: str) -> Compare:
    return Compare(key=key, field=Field.CREATE_REVISION, to=0)


async def put(store: Store, key: str, value: bytes, lease: int = 0) -> int:
    return (await store.txn((), (Put(key=key, value=value, lease=lease),))).revision


async def put_until_done(store: Store, key: str, value: bytes) -> int:
    """For when the server has just come back."""
    while True:
        try:
            return await put(store, key, value)
        except (StoreUnavailableError, UnknownOutcomeError):
            await asyncio.sleep(0.1)


async def take(watch: AsyncGenerator[WatchBatch, None], count: int) -> list[KeyChange]:
    """The next `count` changes."""
    changes: list[KeyChange] = []
    while len(changes) < count:
        async with asyncio.timeout(30):
            changes.extend((await anext(watch)).changes)
    return changes


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


class WatchContract:
    async def test_past_and_present_come_in_order(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        first = await put(store, prefix + "x", b"1")
        await put(store, prefix + "x", b"2")
        await put(store, "/contract/elsewhere", b"")

        async with aclosing(store.watch(prefix, from_revision=first)) as watch:
            past = await take(watch, 2)
            await store.txn((), (DeleteKey(key=prefix + "x"),))
            present = await take(watch, 1)

        assert [(change.key, change.value) for change in past + present] == [
            (prefix + "x", b"1"),
            (prefix + "x", b"2"),
            (prefix + "x", None),
        ]
        assert [change.create_revision for change in past] == [first, first]

    async def test_a_revision_is_never_split(self, harness: StoreHarness, prefix: str) -> None:
        """Revisions of 1 MB each: etcd sends what a late watcher missed in fragments."""
        store = await harness.client("a")
        start = await put(store, prefix + "start", b"")
        for _ in range(5):
            await store.txn((), [Put(key=f"{prefix}{n:03}", value=bytes(10_000)) for n in range(100)])

        seen: list[int] = []
        async with aclosing(store.watch(prefix, from_revision=start + 1)) as watch:
            while len(seen) < 500:
                batch = await anext(watch)
                seen.extend(change.mod_revision for change in batch.changes)
                assert seen == sorted(seen)
                assert len(seen) % 100 == 0, "a batch ends with a whole revision"
                assert batch.revision == seen[-1]
        assert len(seen) == 500

    @pytest.mark.parametrize("fault", ["kill", "cut", "pause"])
    async def test_it_goes_on_where_it_stopped(self, harness: StoreHarness, prefix: str, fault: str) -> None:
        """Each change exactly once and in order, over two interruptions with writes in between."""
        watcher, writer = await harness.client("a"), await harness.client("b")
        start = await put(writer, prefix + "start", b"")
        wanted: list[int] = []
        async with aclosing(watcher.watch(prefix, from_revision=start + 1)) as watch:
            seen: list[KeyChange] = []
            for _ in range(2):
                wanted.append(await put(writer, prefix + "x", b"before"))
                seen.extend(await take(watch, 1))
                if fault == "cut":
                    await harness.cut("a")
                    wanted.append(await put(writer, prefix + "x", b"meanwhile"))
                    await asyncio.sleep(1)
                    await harness.heal("a")
                elif fault == "kill":
                    await harness.kill()
                    await asyncio.sleep(0.3)
                    await harness.restart()
                else:
                    await harness.pause()
                    await asyncio.sleep(1)
                    await harness.resume()
                wanted.append(await put_until_done(writer, prefix + "x", b"after"))
                seen.extend(await take(watch, len(wanted) - len(seen)))
            end = await put(writer, prefix + "end", b"")
            seen.extend(await take(watch, 1))

        assert [change.mod_revision for change in seen] == [*wanted, end]

    async def test_a_compacted_revision_is_an_error(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        first = await put(store, prefix + "x", b"1")
        await put(store, prefix + "x", b"2")
        last = await put(store, prefix + "x", b"3")
        await store.compact(last)
        await store.compact(last)  # Twice is no error.

        with pytest.raises(CompactedError) as caught:
            await anext(store.watch(prefix, from_revision=first))

        assert caught.value.revision == last
        listing = await store.list(prefix)
        async with aclosing(store.watch(prefix, from_revision=listing.revision + 1)) as watch:
            await put(store, prefix + "x", b"4")
            assert [change.value for change in await take(watch, 1)] == [b"4"]

    async def test_compaction_during_an_interruption(self, harness: StoreHarness, prefix: str) -> None:
        watcher, writer = await harness.client("a"), await harness.client("b")
        start = await put(writer, prefix + "x", b"1")
        with pytest.raises(CompactedError):  # noqa: PT012 - the watch is opened before it fails
            async with aclosing(watcher.watch(prefix, from_revision=start)) as watch:
                await take(watch, 1)
                await harness.kill()
                await harness.restart()
                # The watcher is not reading: it reconnects only when asked for more.
                await put_until_done(writer, prefix + "x", b"2")
                await writer.compact(await put(writer, prefix + "x", b"3"))
                await take(watch, 2)

    async def test_a_quiet_watch_moves_on(self, harness: StoreHarness, prefix: str) -> None:
        """Writes elsewhere move its revision, else it would fall behind the compaction."""
        store = await harness.client("a")
        start = await put(store, prefix + "x", b"")
        async with aclosing(store.watch(prefix, from_revision=start + 1)) as watch:
            revision = await put(store, "/contract/elsewhere", b"")
            async with asyncio.timeout(30):
                batch = await anext(watch)

        assert batch.changes == ()
        assert batch.revision == revision

    async def test_a_store_from_the_past_is_recognised(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        start = 0
        for number in range(20):
            start = await put(store, prefix + "x", str(number).encode())
        async with aclosing(store.watch(prefix, from_revision=start)) as watch:
            await take(watch, 1)
            await harness.wipe()
            with pytest.raises(StoreReplacedError):
                await anext(watch)


class LeaseContract:
    async def test_it_lives_while_its_client_lives(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        loop = asyncio.get_running_loop()
        lease = await store.grant_lease(3)
        await put(store, prefix + "x", b"", lease.id)
        granted_s = loop.time()

        await asyncio.sleep(6)

        found = await store.get(prefix + "x")
        assert found is not None
        assert found.lease == lease.id
        assert not lease.is_gone
        assert granted_s + 4 < lease.answered_at_s <= loop.time()

    async def test_it_expires_when_its_client_is_cut_off(self, harness: StoreHarness, prefix: str) -> None:
        store, other = await harness.client("a"), await harness.client("b")
        lease = await store.grant_lease(3)
        revision = await put(store, prefix + "x", b"", lease.id)
        async with aclosing(other.watch(prefix, from_revision=revision + 1)) as watch:
            await harness.cut("a")
            changes = await take(watch, 1)
        assert [change.value for change in changes] == [None]
        assert not lease.is_gone, "etcd could not say so yet"

        await harness.heal("a")
        async with asyncio.timeout(20):
            await lease.wait_gone()
        assert lease.is_gone

    async def test_without_keep_alive_it_expires(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        lease = await store.grant_lease(2, keep_alive=False)
        await put(store, prefix + "x", b"", lease.id)

        await asyncio.sleep(4.5)

        assert await store.get(prefix + "x") is None

    async def test_anybody_may_revoke_it(self, harness: StoreHarness, prefix: str) -> None:
        store, other = await harness.client("a"), await harness.client("b")
        lease = await store.grant_lease(3)
        await put(store, prefix + "x", b"", lease.id)

        await other.revoke(lease.id)
        await other.revoke(lease.id)  # Twice is no error.

        assert await store.get(prefix + "x") is None
        async with asyncio.timeout(3):
            await lease.wait_gone()
        with pytest.raises(LeaseGoneError):
            await store.txn(
                (), (Put(key=prefix + "y", value=b""), Put(key=prefix + "x", value=b"", lease=lease.id))
            )
        assert await store.get(prefix + "y") is None

    async def test_releasing_it_deletes_its_keys(self, harness: StoreHarness, prefix: str) -> None:
        store = await harness.client("a")
        lease = await store.grant_lease(3)
        await put(store, prefix + "x", b"", lease.id)

        await store.release(lease)

        assert await store.get(prefix + "x") is None

    async def test_releasing_takes_a_second_at_most(self, harness: StoreHarness) -> None:
        store = await harness.client("a")
        lease = await store.grant_lease(3)
        await harness.pause()
        loop = asyncio.get_running_loop()
        before_s = loop.time()

        await store.release(lease)

        assert loop.time() - before_s < 1.5

    async def test_silence_is_not_loss(self, harness: StoreHarness) -> None:
        """A frozen store answers nothing: the lease is neither renewed nor gone."""
        store = await harness.client("a")
        lease = await store.grant_lease(3)
        await asyncio.sleep(1.5)
        await harness.pause()
        await asyncio.sleep(0.1)
        answered_at_s = lease.answered_at_s

        await asyncio.sleep(3)

        assert lease.answered_at_s == answered_at_s
        assert not lease.is_gone


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
