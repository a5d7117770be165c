"""What every store must do while a stream is open: watches and leases, over faults too."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from manager.store.port import CompactedError, DeleteKey, KeyChange, LeaseGoneError, Put, StoreReplacedError
from tests.contracts.store_harness import StoreHarness, put, put_until_done, take


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
