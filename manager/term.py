"""A term: one leadership of one manager, with the epoch that fences its writes and commands."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import structlog

from bayplan.v1 import agent_link_pb2 as wire
from manager.store import keys
from manager.store.port import Compare, Field, KeyChange, KeyValue, Lease

log = structlog.get_logger()

# A second before the lease of 3 s could end: so nobody else leads while this leader still commands.
SUSPEND_AFTER_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """Names a term. Epochs of one store incarnation grow; those of two cannot be compared."""

    store: str
    revision: int

    def to_wire(self) -> wire.Epoch:
        """As agents are told it."""
        return wire.Epoch(store=self.store, revision=self.revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderKey:
    """The leader key as it was seen."""

    id: str
    address: str
    create_revision: int
    lease: int


class Term:
    """One leadership of this manager."""

    def __init__(self, epoch: Epoch, lease: Lease) -> None:
        self.epoch = epoch
        self.guard = Compare(key=keys.LEADER, field=Field.CREATE_REVISION, to=epoch.revision)
        self._lease = lease
        self._suspended = asyncio.Event()
        self._active = asyncio.Event()
        self._active.set()
        self._ended = asyncio.Event()
        self.end_reason = ""

    @property
    def is_suspended(self) -> bool:
        """Whether the leader must not commit or command now.

        Looks at the clock, so it is true at once when the process wakes from a pause, before
        `wait_suspended` returns.
        """
        return self._suspended.is_set() or self.silence_left_s <= 0

    @property
    def silence_left_s(self) -> float:
        """How long etcd may be silent from now on before the leader is suspended."""
        return self._lease.answered_at_s + SUSPEND_AFTER_S - asyncio.get_running_loop().time()

    @property
    def lease(self) -> Lease:
        """What the leader key is on."""
        return self._lease

    async def wait_suspended(self) -> None:
        """Return when the leader is suspended."""
        await self._suspended.wait()

    async def wait_active(self) -> None:
        """Return when the leader is not suspended."""
        await self._active.wait()

    async def wait_ended(self) -> None:
        """Return when the term is over."""
        await self._ended.wait()

    def suspend(self) -> None:
        self._active.clear()
        self._suspended.set()

    def resume(self) -> None:
        if not self._ended.is_set():
            self._suspended.clear()
            self._active.set()

    def end(self, reason: str) -> None:
        """End it; the first reason counts."""
        if not self._ended.is_set():
            self.end_reason = reason
            self.suspend()
            self._ended.set()


def leader_key(found: KeyValue | KeyChange | None) -> LeaderKey | None:
    """The leader named by the key as it was found; None if it does not exist."""
    if found is None or found.value is None:
        return None
    try:
        content = json.loads(found.value)
        leader_id, address = str(content["id"]), str(content["address"])
    except (ValueError, KeyError, TypeError):
        # Somebody else's key still keeps us from leading.
        log.warning("leader_key.unreadable", value=found.value[:100])
        leader_id, address = "", ""
    return LeaderKey(id=leader_id, address=address, create_revision=found.create_revision, lease=found.lease)
