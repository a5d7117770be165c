"""Leases, all kept alive over one stream.

What counts is when an answered keep-alive was *sent*: the lease lives at least from then on
for its TTL, however late the answer came.
"""

from __future__ import annotations

import asyncio
from collections import deque

import structlog
from aetcd.rpc import rpc_pb2

from manager.store.etcd_members import Members, MemberStream
from manager.store.port import StoreUnavailableError

log = structlog.get_logger()

SEND_EVERY_S = 1.0
# A leader with a lease of 3 s suspends after 2 s of silence: leave time to ask the next member.
# Doubled while nobody answers, for a store that is merely slow.
PATIENCE_S = 0.7
PATIENCE_MAX_S = 6.0
RETRY_S = 0.2


class EtcdLease:
    """A granted lease."""

    def __init__(self, lease_id: int, ttl_s: int, granted_at_s: float) -> None:
        self.id = lease_id
        self.ttl_s = ttl_s
        self.answered_at_s = granted_at_s
        self._gone = asyncio.Event()

    @property
    def is_gone(self) -> bool:
        return self._gone.is_set()

    async def wait_gone(self) -> None:
        await self._gone.wait()

    def set_gone(self) -> None:
        self._gone.set()


class KeepAlives:
    """Renews leases until they are removed or gone."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._leases: dict[int, EtcdLease] = {}
        self._added = asyncio.Event()
        self._patience_s = PATIENCE_S

    def add(self, lease: EtcdLease) -> None:
        self._leases[lease.id] = lease
        self._added.set()

    def remove(self, lease_id: int) -> None:
        self._leases.pop(lease_id, None)

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await self._wait_for_leases()
            try:
                await self._renew_over_one_stream()
            except* StoreUnavailableError as errors:
                log.info("lease_stream.interrupted", error=str(errors.exceptions[0]))
            await asyncio.sleep(RETRY_S)

    async def _wait_for_leases(self) -> None:
        while not self._leases:
            self._added.clear()
            await self._added.wait()

    async def _renew_over_one_stream(self) -> None:
        stream = await self._members.open("LeaseKeepAlive")
        # Answers come in the order of the requests; a lease is in it once per round.
        unanswered: deque[tuple[int, float]] = deque()
        try:
            async with asyncio.TaskGroup() as parts:
                parts.create_task(self._receive(stream, unanswered), name="lease answers")
                parts.create_task(self._send(stream, unanswered), name="lease requests")
        finally:
            stream.close()

    async def _send(self, stream: MemberStream, unanswered: deque[tuple[int, float]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wait_for_leases()
            sent_at_s = loop.time()
            for lease in list(self._leases.values()):
                unanswered.append((lease.id, sent_at_s))
                await stream.write(rpc_pb2.LeaseKeepAliveRequest(ID=lease.id))
            shortest_s = min((lease.ttl_s for lease in self._leases.values()), default=3)
            await asyncio.sleep(min(SEND_EVERY_S, shortest_s / 3) * PATIENCE_S)
            if unanswered and loop.time() - unanswered[0][1] >= self._patience_s:
                self._patience_s = min(2 * self._patience_s, PATIENCE_MAX_S)
                self._members.leave(stream.member)
            await asyncio.sleep(min(SEND_EVERY_S, shortest_s / 3) * (1 - PATIENCE_S))

    async def _receive(self, stream: MemberStream, unanswered: deque[tuple[int, float]]) -> None:
        while True:
            response = await stream.read()
            self._patience_s = PATIENCE_S
            while unanswered:
                lease_id, sent_at_s = unanswered.popleft()
                if lease_id == response.ID:
                    self._answer(lease_id, sent_at_s, ttl_s=response.TTL)
                    break

    def _answer(self, lease_id: int, sent_at_s: float, *, ttl_s: int) -> None:
        lease = self._leases.get(lease_id)
        if lease is None:
            return
        if ttl_s > 0:
            lease.answered_at_s = sent_at_s
        else:
            log.info("lease.lost", lease=f"{lease_id:x}")
            self.remove(lease_id)
            lease.set_gone()
