"""Who leads: one manager at a time holds the leader key, on a lease that it keeps alive.

A term is known by its epoch, the create-revision of that key in one history of the store, and
every write of a leader compares the key (`Term.guard`). So a leader that was paused or cut off
cannot write, whatever it believes; suspension and the lease only make that rare and short.

When to depose a leader that has fallen silent is decided elsewhere; `take_over` only does it.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import structlog

from manager.store import keys
from manager.store.meta import ensure_meta
from manager.store.port import (
    Compare,
    Field,
    KeyChange,
    KeyValue,
    Lease,
    LeaseGoneError,
    Put,
    Store,
    StoreError,
    StoreReplacedError,
    UnknownOutcomeError,
)
from manager.term import SUSPEND_AFTER_S, Epoch, LeaderKey, Term, leader_key

__all__ = ["Election", "Epoch", "LeaderKey", "Term"]

log = structlog.get_logger()

LEASE_TTL_S = 3
SUSPENDED_POLL_S = 0.05
FORGOTTEN_POLL_S = 0.5
TAKEOVER_EVERY_S = 30
TAKEOVER_TRIES = 3
# A standby tries now and then although it believes that somebody leads: watches may fail silently,
# and the try costs a read.
RETRY_CAMPAIGN_S = 2.0
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 1.0
# Who resigned lets others go first.
AFTER_RESIGNING_S = 2.0


class Election:
    """One manager's part in the election. One object, one `run`."""

    def __init__(
        self, store: Store, *, manager_id: str, address: str, chance: random.Random, cluster_id: str = ""
    ) -> None:
        """Stands as `manager_id` at `address` ("host:port"); `chance` gives jitter and the store's ids.

        `cluster_id` is kept when the store was wiped; empty: the store's own.
        """
        self._store = store
        self._cluster_id = cluster_id
        self._id = manager_id
        self._value = json.dumps({"id": manager_id, "address": address}).encode()
        self._chance = chance
        self._leader: LeaderKey | None = None
        self._leader_revision = 0  # Up to which revision of the store `_leader` is known.
        self._news = asyncio.Event()  # Set once, and replaced, at each change of `_leader`.
        self._campaign_now = asyncio.Event()
        self._term: Term | None = None
        self._lease: Lease | None = None

    @property
    def leader(self) -> LeaderKey | None:
        """Who leads, as far as is known here."""
        return self._leader

    @property
    def term(self) -> Term | None:
        """The present term, if this manager leads."""
        return self._term

    async def leader_changes(self) -> AsyncGenerator[LeaderKey | None, None]:
        """The leader now, and at each change; who reads slowly gets the latest only."""
        while True:
            news, known = self._news, self._leader
            yield known
            while self._leader == known:
                await news.wait()
                news = self._news

    async def run(
        self,
        lead: Callable[[Term], Awaitable[None]],
        *,
        is_followed: Callable[[int], Awaitable[bool]] | None = None,
    ) -> None:
        """Stand in the election until cancelled, and call `lead` for each term won.

        `lead` is cancelled when its term is lost; when it returns, the leadership is given up; what it
        raises ends `run`. Raises FormatVersionError or DamagedRecordError if the store is not ours.

        Args:
            lead: one leadership.
            is_followed: whether others still take this manager for the leader of an epoch; None: it is
                alone. Asked when its lease must have ended, but etcd does not answer to say so.
        """
        try:
            async with asyncio.TaskGroup() as parts:
                parts.create_task(self._follow(), name="leader watch")
                parts.create_task(self._campaign(lead, is_followed or _always), name="campaign")
        finally:
            await self._give_up_lease()

    async def resign(self) -> None:
        """Give the leadership up, if it is held; returns when the term is over and `lead` has ended."""
        term = self._term
        if term is not None:
            term.end("resigned")
            while self._term is term:
                await self._news.wait()

    async def take_over(self, observed: LeaderKey) -> bool:
        """Depose a leader that is believed dead, so that a campaign wins at once.

        At most once in 30 s and cluster. Returns False if that, or another leader by now, forbids it,
        or if the store does not answer.
        """
        try:
            stamp = await self._store.grant_lease(TAKEOVER_EVERY_S, keep_alive=False)
            if not await self._stamp_takeover(observed, stamp):
                await self._store.release(stamp)
                return False
            await self._store.revoke(observed.lease)
        except StoreError as error:
            log.warning("takeover.failed", leader=observed.id, error=str(error))
            return False
        log.warning("leader.deposed", leader=observed.id, epoch=observed.create_revision)
        self._campaign_now.set()
        return True

    async def _stamp_takeover(self, observed: LeaderKey, stamp: Lease) -> bool:
        compares = (
            Compare(key=keys.TAKEOVER, field=Field.CREATE_REVISION, to=0),
            Compare(key=keys.LEADER, field=Field.CREATE_REVISION, to=observed.create_revision),
        )
        put = Put(key=keys.TAKEOVER, value=self._id.encode(), lease=stamp.id)
        for _ in range(TAKEOVER_TRIES):
            try:
                result = await self._store.txn(compares, (put,))
            except UnknownOutcomeError:
                continue
            # An earlier try may have been done although its reply was lost.
            found = result.found.get(keys.TAKEOVER)
            return result.succeeded or (found is not None and found.lease == stamp.id)
        return False

    # -- knowing the leader ----------------------------------------------------------------------

    async def _follow(self) -> None:
        retry_s = RETRY_FIRST_S
        while True:
            try:
                # A listing, for its revision; junk keys that begin alike are passed over.
                listing = await self._store.list(keys.LEADER)
                found = [item for item in listing.items if item.key == keys.LEADER]
                self._learn(found[0] if found else None, listing.revision)
                retry_s = RETRY_FIRST_S
                await self._follow_watch(listing.revision + 1)
            except StoreReplacedError as error:
                self._forget(str(error))
            except StoreError as error:
                log.info("leader_watch.interrupted", error=str(error))
            retry_s = await self._pause(retry_s)

    def _forget(self, reason: str) -> None:
        """Start anew with a store that has another past."""
        log.warning("store.replaced", error=reason)
        self._leader_revision = 0
        if self._term is not None:
            # A restored backup may hold this very term's key: what the leader remembers is wrong all the same.
            self._term.end("the store was replaced")

    async def _follow_watch(self, from_revision: int) -> None:
        async with aclosing(self._store.watch(keys.LEADER, from_revision=from_revision)) as batches:
            async for batch in batches:
                for change in batch.changes:
                    if change.key == keys.LEADER:
                        self._learn(change, change.mod_revision)

    def _learn(self, found: KeyValue | KeyChange | None, revision: int) -> None:
        """Take note of the leader key as it was at a revision of the store; old news is passed over."""
        if revision < self._leader_revision:
            return
        self._leader_revision = revision
        leader = leader_key(found)
        if self._term is not None and (leader is None or leader.create_revision != self._term.epoch.revision):
            self._term.end("the leader key was deleted" if leader is None else f"{leader.id} leads")
        if leader != self._leader:
            self._leader = leader
            log.info("leader.changed", leader=leader.id if leader else None)
            self._announce()
        if leader is None:
            self._campaign_now.set()

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # -- becoming the leader ---------------------------------------------------------------------

    async def _campaign(
        self, lead: Callable[[Term], Awaitable[None]], is_followed: Callable[[int], Awaitable[bool]]
    ) -> None:
        retry_s = RETRY_FIRST_S
        while True:
            self._campaign_now.clear()
            try:
                term = await self._stand()
                retry_s = RETRY_FIRST_S
            except StoreError as error:
                log.info("campaign.failed", error=str(error))
                retry_s = await self._pause(retry_s)
                continue
            if term is None:
                await self._wait_for_vacancy()
            else:
                await self._lead(term, lead, is_followed)

    async def _wait_for_vacancy(self) -> None:
        try:
            async with asyncio.timeout(RETRY_CAMPAIGN_S * self._chance.uniform(0.75, 1.25)):
                await self._campaign_now.wait()
        except TimeoutError:
            return

    async def _stand(self) -> Term | None:
        """Try once to become the leader. The lease is got beforehand, so that a vacancy costs one write."""
        if self._lease is None or self._lease.is_gone:
            self._lease = await self._store.grant_lease(LEASE_TTL_S)
        lease = self._lease
        meta = await ensure_meta(
            self._store, lambda: f"{self._chance.getrandbits(64):016x}", cluster_id=self._cluster_id
        )
        is_vacant = Compare(key=keys.LEADER, field=Field.CREATE_REVISION, to=0)
        put = Put(key=keys.LEADER, value=self._value, lease=lease.id)
        try:
            result = await self._store.txn((is_vacant,), (put,))
        except LeaseGoneError:
            self._lease = None
            raise
        found = _key_as_put(put, result.revision) if result.succeeded else result.found[keys.LEADER]
        self._learn(found, result.revision)
        # It may be ours by an earlier try whose reply was lost.
        if found.lease != lease.id:
            return None
        return Term(Epoch(store=meta.incarnation, revision=found.create_revision), lease)

    async def _lead(
        self,
        term: Term,
        lead: Callable[[Term], Awaitable[None]],
        is_followed: Callable[[int], Awaitable[bool]],
    ) -> None:
        log.info("leadership.won", epoch=term.epoch.revision, store=term.epoch.store)
        self._term = term
        try:
            async with asyncio.TaskGroup() as parts:
                leading = parts.create_task(_run_lead(lead, term), name="leadership")
                guards = [
                    parts.create_task(self._suspend_when_silent(term), name="suspension"),
                    parts.create_task(_end_with_lease(term), name="lease end"),
                    parts.create_task(_end_when_forgotten(term, is_followed), name="forgotten"),
                    parts.create_task(_cancel_at_end(term, leading), name="term end"),
                ]
                await asyncio.wait((leading,))
                for guard in guards:
                    guard.cancel()
        finally:
            term.end("gave up")
            log.info("leadership.ended", epoch=term.epoch.revision, reason=term.end_reason)
            await self._give_up_lease()
            self._term = None
            self._announce()
        if term.end_reason in ("gave up", "resigned"):
            await asyncio.sleep(AFTER_RESIGNING_S)

    async def _give_up_lease(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            await self._store.release(lease)

    async def _suspend_when_silent(self, term: Term) -> None:
        while True:
            if term.silence_left_s > 0:
                # A timer may fire a rounding error too early; do not spin then.
                await asyncio.sleep(term.silence_left_s + 0.001)
            else:
                await self._suspend_until_answered(term)

    async def _suspend_until_answered(self, term: Term) -> None:
        term.suspend()
        log.warning("leader.suspended", epoch=term.epoch.revision)
        while True:
            await asyncio.sleep(SUSPENDED_POLL_S)
            if term.silence_left_s <= 0:
                continue
            try:
                found = await self._store.get(keys.LEADER)
            except StoreError:
                continue
            if found is None or found.create_revision != term.epoch.revision:
                term.end("the leader key was lost while suspended")
                return
            if term.silence_left_s > 0:
                term.resume()
                log.info("leader.resumed", epoch=term.epoch.revision)
                return

    async def _pause(self, retry_s: float) -> float:
        """Wait about `retry_s`; returns how long to wait the next time."""
        await asyncio.sleep(retry_s * self._chance.uniform(0.5, 1.0))
        return min(2 * retry_s, RETRY_MAX_S)


async def _run_lead(lead: Callable[[Term], Awaitable[None]], term: Term) -> None:
    await lead(term)


async def _end_with_lease(term: Term) -> None:
    await term.lease.wait_gone()
    term.end("the lease is gone")


async def _end_when_forgotten(term: Term, is_followed: Callable[[int], Awaitable[bool]]) -> None:
    """End the term of a leader that is cut off from etcd while others have gone on.

    Its agents are still connected to it and would never look for the new leader. But when etcd is silent
    for everybody there is no other leader, and the agents' streams are kept.
    """
    while True:
        await term.wait_suspended()
        await asyncio.sleep(FORGOTTEN_POLL_S)
        if term.silence_left_s < SUSPEND_AFTER_S - LEASE_TTL_S and not await is_followed(term.epoch.revision):
            term.end("etcd is silent and the other managers do not follow any more")
            return


async def _always(epoch: int) -> bool:
    del epoch
    return True


async def _cancel_at_end(term: Term, leading: asyncio.Task[None]) -> None:
    await term.wait_ended()
    leading.cancel()


def _key_as_put(put: Put, revision: int) -> KeyValue:
    return KeyValue(
        key=put.key, value=put.value, create_revision=revision, mod_revision=revision, lease=put.lease
    )
