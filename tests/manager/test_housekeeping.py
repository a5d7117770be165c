from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from manager.events import EventLog
from manager.housekeeping import Housekeeping
from manager.store.port import CompactedError
from tests.fakes.store import FakeEtcd, FakeStore

pytestmark = pytest.mark.virtual_time


@contextlib.asynccontextmanager
async def running(server: FakeEtcd) -> AsyncIterator[tuple[Housekeeping, EventLog]]:
    events = EventLog(lambda: asyncio.get_running_loop().time())
    housekeeping = Housekeeping(FakeStore(server, "m1"), events)
    task = asyncio.create_task(housekeeping.run(), name="housekeeping")
    try:
        await asyncio.sleep(1)
        yield housekeeping, events
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class TestHousekeeping:
    async def test_keeps_two_minutes_of_history(self) -> None:
        server = FakeEtcd()
        async with running(server):
            old = server.put("/bayplan/v1/x", b"0")
            server.put("/bayplan/v1/x", b"1")
            await asyncio.sleep(60)
            recent = server.put("/bayplan/v1/x", b"2")
            await asyncio.sleep(130)
            server.put("/bayplan/v1/x", b"3")
            store = FakeStore(server, "watcher")

            with pytest.raises(CompactedError):
                await anext(store.watch("/bayplan/v1/x", from_revision=old))
            assert (await anext(store.watch("/bayplan/v1/x", from_revision=recent + 1))).changes

    async def test_raises_an_alarm_with_its_cure_once_and_lets_it_go(self) -> None:
        server = FakeEtcd()
        server.is_full = True
        async with running(server) as (housekeeping, events):
            await asyncio.sleep(300)
            assert "etcdctl defrag" in housekeeping.alarms[0]
            assert [event.count for event in events.select(obj="Cluster/store")] == [1]
            server.is_full = False
            await asyncio.sleep(61)

            assert housekeeping.alarms == ()

    async def test_goes_on_after_the_store_was_away(self) -> None:
        server = FakeEtcd()
        async with running(server) as (housekeeping, _):
            server.kill()
            await asyncio.sleep(200)
            server.restart()
            server.is_full = True
            await asyncio.sleep(61)

            assert housekeeping.alarms
