"""Clients of the etcd in memory (tests/fakes/etcd_server.py): they implement the Store port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from manager.store.port import (
    Compare,
    KeyValue,
    Lease,
    Listing,
    Operation,
    StoreError,
    StoreStatus,
    StoreUnavailableError,
    TxnResult,
    UnknownOutcomeError,
    WatchBatch,
)
from tests.fakes.etcd_server import FakeEtcd, WatchConnection

__all__ = ["FakeEtcd", "FakeLease", "FakeStore"]

CALL_TIMEOUT_S = 3.0
RETRY_S = 0.05


class FakeLease:
    """A lease as its client sees it."""

    def __init__(self, lease_id: int, ttl_s: int, answered_at_s: float) -> None:
        self.id = lease_id
        self.ttl_s = ttl_s
        self.answered_at_s = answered_at_s
        self.gone = asyncio.Event()

    @property
    def is_gone(self) -> bool:
        return self.gone.is_set()

    async def wait_gone(self) -> None:
        await self.gone.wait()


class FakeStore:
    """A client, known to the server by `name`."""

    def __init__(self, server: FakeEtcd, name: str) -> None:
        self._server = server
        self.name = name
        self._leases: dict[int, FakeLease] = {}
        self._is_closed = False

    async def get(self, key: str) -> KeyValue | None:
        found: KeyValue | None = await self._read(lambda: self._server.get(key))
        return found

    async def list(self, prefix: str) -> Listing:
        listing: Listing = await self._read(
            lambda: Listing(items=self._server.items(prefix), revision=self._server.revision)
        )
        return listing

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        result: TxnResult = await self._call(lambda: self._server.txn(compares, operations), is_write=True)
        return result

    async def watch(self, prefix: str, *, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        next_revision = from_revision
        while True:
            await self._wait_reachable()
            connection = self._server.open_watch(self.name, prefix, next_revision)
            try:
                async for batch in self._batches(connection):
                    if batch.revision >= next_revision:
                        next_revision = batch.revision + 1
                        yield batch
            finally:
                self._server.close_watch(connection)

    async def _batches(self, connection: WatchConnection) -> AsyncGenerator[WatchBatch, None]:
        while True:
            await connection.wait()
            await asyncio.sleep(self._server.latency_s)
            if connection.is_broken or self._is_closed:
                return
            if self._server.is_reachable(self.name):
                changes = connection.take()
                # Nothing is on its way any more, so all that the store has was delivered.
                yield WatchBatch(
                    changes=changes, revision=changes[-1].mod_revision if changes else self._server.revision
                )
            else:
                await asyncio.sleep(RETRY_S)

    async def _wait_reachable(self) -> None:
        await asyncio.sleep(self._server.latency_s)
        while not self._server.is_reachable(self.name):
            await asyncio.sleep(RETRY_S)
            if self._is_closed:
                raise StoreUnavailableError("the store is closed")

    async def grant_lease(self, ttl_s: int, *, keep_alive: bool = True) -> Lease:
        loop = asyncio.get_running_loop()
        sent_at_s = loop.time()
        lease_id: int = await self._read(lambda: self._server.grant(ttl_s))
        lease = FakeLease(lease_id, ttl_s, sent_at_s)
        if keep_alive:
            self._leases[lease_id] = lease
            loop.call_later(min(1.0, ttl_s / 3), self._send_keep_alive, lease)
        return lease

    def _send_keep_alive(self, lease: FakeLease) -> None:
        if self._is_closed or lease.id not in self._leases:
            return
        loop = asyncio.get_running_loop()
        loop.call_later(min(1.0, lease.ttl_s / 3), self._send_keep_alive, lease)
        loop.call_later(self._server.latency_s, self._answer_keep_alive, lease, loop.time())

    def _answer_keep_alive(self, lease: FakeLease, sent_at_s: float) -> None:
        if self._is_closed or not self._server.is_reachable(self.name):
            return
        if self._server.keep_alive(lease.id):
            lease.answered_at_s = sent_at_s
        else:
            self._leases.pop(lease.id, None)
            lease.gone.set()

    async def release(self, lease: Lease) -> None:
        self._leases.pop(lease.id, None)
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(1):
                await self.revoke(lease.id)

    async def revoke(self, lease_id: int) -> None:
        await self._read(lambda: self._server.revoke(lease_id))

    async def compact(self, revision: int) -> None:
        await self._read(lambda: self._server.compact(revision))

    async def status(self) -> StoreStatus:
        status: StoreStatus = await self._read(self._status)
        return status

    def _status(self) -> StoreStatus:
        return StoreStatus(
            version=self._server.version,
            cluster_id=self._server.cluster_id,
            db_bytes=sum(len(kv.key) + len(kv.value) for kv in self._server.items()),
            quota_bytes=0,
            alarms=("NOSPACE",) if self._server.is_full else (),
        )

    async def aclose(self) -> None:
        self._is_closed = True

    async def _read(self, execute: Callable[[], Any]) -> Any:
        """Call what may be repeated."""
        try:
            return await self._call(execute, is_write=False)
        except UnknownOutcomeError as error:
            raise StoreUnavailableError(str(error)) from error

    async def _call(self, execute: Callable[[], Any], *, is_write: bool) -> Any:
        server = self._server
        if self._is_closed or not server.is_running:
            await asyncio.sleep(server.latency_s)
            raise StoreUnavailableError(f"{self.name} cannot connect to etcd")
        starts = server.starts
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await asyncio.sleep(server.latency_s / 2)
                if server.starts == starts:
                    result = await server.submit(self.name, execute)
                    if is_write and server.loses_reply(self.name):
                        await asyncio.sleep(2 * CALL_TIMEOUT_S)
                    await asyncio.sleep(server.latency_s / 2)
        except TimeoutError as error:
            raise UnknownOutcomeError(f"{self.name}: no answer from etcd") from error
        if server.starts != starts:
            raise UnknownOutcomeError(f"{self.name}: the connection to etcd broke")
        return result
