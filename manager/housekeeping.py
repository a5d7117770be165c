"""What keeps etcd small and healthy: compaction, and alarms before it is too late."""

from __future__ import annotations

import asyncio
from collections import deque

import structlog

from manager.events import EventLog
from manager.store.port import CompactedError, Store, StoreError

log = structlog.get_logger(__name__)

EVERY_S = 60.0
# History is kept this many rounds, so that a watch may resume after two minutes.
ROUNDS_KEPT = 2
QUOTA_SHARE_MAX = 0.6
# etcd's default --quota-backend-bytes, which its API does not tell.
DEFAULT_QUOTA_BYTES = 2 * 1024**3


class Housekeeping:
    """Runs on the leader."""

    def __init__(self, store: Store, events: EventLog) -> None:
        self._store = store
        self._events = events
        self._revisions: deque[int] = deque(maxlen=ROUNDS_KEPT + 1)
        self.alarms: tuple[str, ...] = ()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._check()
                await self._compact()
            except StoreError as error:
                log.warning("housekeeping.failed", error=str(error))
            await asyncio.sleep(EVERY_S)

    async def _compact(self) -> None:
        # Any key will do: what counts is the revision that the store has come to.
        listing = await self._store.list("/bayplan/v1/leader")
        self._revisions.append(listing.revision)
        if len(self._revisions) > ROUNDS_KEPT:
            try:
                await self._store.compact(self._revisions[0])
            except CompactedError:
                log.debug("compaction.superseded", revision=self._revisions[0])

    async def _check(self) -> None:
        status = await self._store.status()
        quota = status.quota_bytes or DEFAULT_QUOTA_BYTES
        alarms: list[str] = []
        if "NOSPACE" in status.alarms:
            alarms.append(
                "etcd is out of space and refuses writes: run `etcdctl defrag`, then `etcdctl alarm disarm`"
            )
        elif status.db_bytes > QUOTA_SHARE_MAX * quota:
            alarms.append(
                f"etcd uses {status.db_bytes >> 20} of {quota >> 20} MiB: run `etcdctl defrag` on each member,"
                " or raise --quota-backend-bytes"
            )
        if "CORRUPT" in status.alarms:
            alarms.append("etcd reports a corrupt member: restore it from its peers")
        for alarm in alarms:
            if alarm not in self.alarms:
                self._events.add("Alarm", alarm, obj="Cluster/store")
        self.alarms = tuple(alarms)
