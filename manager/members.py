"""Which managers live: each holds a key with its address, on a lease of its own."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import aclosing

import structlog

import bayplan
from manager.store import keys
from manager.store.port import CompactedError, Compare, Field, Lease, Put, Store, StoreError

log = structlog.get_logger(__name__)

LEASE_TTL_S = 10
_RETRY_S = 1.0


class DuplicateManagerError(Exception):
    """Another process runs with this manager's id."""


class Members:
    """Registers this manager and knows the others."""

    def __init__(self, store: Store, *, manager_id: str, address: str, chance: random.Random) -> None:
        self._store = store
        self._id = manager_id
        self._value = json.dumps(
            # The random part tells this process from another one of the same id and address.
            {"address": address, "version": bayplan.__version__, "run": f"{chance.getrandbits(64):x}"}
        ).encode()
        self._address = address
        self._known: dict[str, dict[str, str]] = {}

    def addresses(self) -> list[str]:
        """Of every living manager, this one too."""
        known = {entry["address"] for entry in self._known.values()} | {self._address}
        return sorted(known)

    def all(self) -> dict[str, dict[str, str]]:
        """By id: address and version."""
        return dict(self._known)

    async def run(self) -> None:
        """Until cancelled. Raises DuplicateManagerError when a living process has the id."""
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._stay_registered(), name="register")
            parts.create_task(self._follow(), name="members")

    async def _stay_registered(self) -> None:
        while True:
            lease: Lease | None = None
            try:
                lease = await self._store.grant_lease(LEASE_TTL_S)
                await self._register(lease)
                await lease.wait_gone()
            except StoreError as error:
                log.info("registration.failed", error=str(error))
                await asyncio.sleep(_RETRY_S)
            finally:
                if lease is not None:
                    await self._store.release(lease)

    async def _register(self, lease: Lease) -> None:
        key = keys.manager(self._id)
        is_absent = Compare(key=key, field=Field.CREATE_REVISION, to=0)
        # The key of a process that was killed a moment ago goes with its lease, which begins anew when etcd
        # restarts meanwhile.
        deadline_s = asyncio.get_running_loop().time() + 2 * LEASE_TTL_S + 2 * _RETRY_S
        while True:
            result = await self._store.txn([is_absent], [Put(key=key, value=self._value, lease=lease.id)])
            if result.succeeded or result.found[key].lease == lease.id:
                return
            # Ours, but on an earlier lease, which ends soon: a try whose reply was lost.
            is_own = result.found[key].value == self._value
            if not is_own and asyncio.get_running_loop().time() > deadline_s:
                other = json.loads(result.found[key].value)
                raise DuplicateManagerError(
                    f"another manager runs as {self._id} (at {other.get('address')}):"
                    " give each manager its own --id"
                )
            await asyncio.sleep(_RETRY_S)

    async def _follow(self) -> None:
        while True:
            try:
                listing = await self._store.list(keys.MANAGERS)
                self._known = {}
                for item in listing.items:
                    self._learn(item.key, item.value)
                watch = self._store.watch(keys.MANAGERS, from_revision=listing.revision + 1)
                async with aclosing(watch) as batches:
                    async for batch in batches:
                        for change in batch.changes:
                            self._learn(change.key, change.value)
            except CompactedError:
                continue
            except StoreError as error:
                log.info("members_watch.interrupted", error=str(error))
                await asyncio.sleep(_RETRY_S)

    def _learn(self, key: str, value: bytes | None) -> None:
        manager_id = keys.parse_manager(key)
        if manager_id is None:
            return
        if value is None:
            self._known.pop(manager_id, None)
            return
        try:
            self._known[manager_id] = {"address": "", "version": "", **json.loads(value)}
        except ValueError:
            log.warning("store_key.ignored", key=key)
