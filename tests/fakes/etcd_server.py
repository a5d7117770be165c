"""etcd in memory, on the loop's time: the server. Its clients are in tests/fakes/store.py.

It passes the contract suite that real etcd passes (tests/contracts/store.py). Where etcd leaves
something open the fake takes the choice that is worse for us: a request that was stuck on its way
is done late, although its sender has given up; leases that ended while the server was frozen are
gone before anything else happens; a restored store keeps its cluster id.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from manager.store.port import (
    CompactedError,
    Compare,
    DeleteKey,
    Field,
    KeyChange,
    KeyValue,
    LeaseGoneError,
    Operation,
    Put,
    StoreError,
    StoreFullError,
    StoreReplacedError,
    TxnResult,
    UnknownOutcomeError,
)

PROGRESS_EVERY_S = 10.0
OPERATIONS_MAX = 128  # etcd's --max-txn-ops
REQUEST_BYTES_MAX = 1536 * 1024  # etcd's --max-request-bytes


@dataclass(slots=True)
class _ServerLease:
    id: int
    ttl_s: int
    keys: set[str] = field(default_factory=set)
    timer: asyncio.TimerHandle | None = None
    is_overdue: bool = False  # It ran out while the server was frozen.


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A backup, as `etcdctl snapshot save` makes it."""

    revision: int = 1
    compacted: int = 0
    keys: tuple[KeyValue, ...] = ()
    lease_ttls_s: tuple[tuple[int, int], ...] = ()
    history: tuple[tuple[int, tuple[KeyChange, ...]], ...] = ()


@dataclass(slots=True)
class _Request:
    """On its way to the server, or stuck there."""

    client: str
    execute: Callable[[], Any]
    reply: asyncio.Future[Any]


class WatchConnection:
    """What the server has yet to send to one watcher."""

    def __init__(self, client: str, prefix: str) -> None:
        self.client = client
        self.prefix = prefix
        self.is_broken = False
        self._changes: list[KeyChange] = []
        self._wake = asyncio.Event()

    def push(self, changes: Sequence[KeyChange]) -> None:
        mine = [change for change in changes if change.key.startswith(self.prefix)]
        if mine:
            self._changes.extend(mine)
            self._wake.set()

    def cut(self) -> None:
        self.is_broken = True
        self._wake.set()

    async def wait(self) -> None:
        """Return when there is something to take, or the connection broke, or progress is due."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROGRESS_EVERY_S):
                await self._wake.wait()

    def take(self) -> tuple[KeyChange, ...]:
        taken, self._changes = tuple(self._changes), []
        self._wake.clear()
        return taken


class FakeEtcd:
    """The server. Its methods are synchronous and always work: tests use them to look and to meddle."""

    def __init__(self, *, latency_s: float = 0.001, version: str = "3.4.23") -> None:
        self.latency_s = latency_s
        self.version = version
        self.cluster_id = 0xCDF818194E3A8C32
        self.is_full = False  # Out of quota: alarm NOSPACE.
        self.revision = 1
        self.is_running = True
        self.is_paused = False
        self.starts = 1  # Tells connections of a killed server from later ones.
        self._compacted = 0
        self._keys: dict[str, KeyValue] = {}
        self._history: list[tuple[int, tuple[KeyChange, ...]]] = []
        self._leases: dict[int, _ServerLease] = {}
        self._next_lease = 1000
        self._cut_clients: set[str] = set()
        self._replies_to_drop: list[str | None] = []
        self._stuck: list[_Request] = []
        self._watches: list[WatchConnection] = []

    # -- faults --------------------------------------------------------------------------------

    def kill(self) -> None:
        """Stop at once (kill -9): what was not answered is lost, what was committed is kept."""
        self.is_running = False
        self.is_paused = False
        self.starts += 1
        for request in self._stuck:
            if not request.reply.done():
                request.reply.set_exception(UnknownOutcomeError("the connection to etcd broke"))
        self._stuck.clear()
        self._break_watches()

    def restart(self) -> None:
        """Start again. As in etcd, every lease gets its whole TTL anew."""
        self.is_running = True
        for lease in self._leases.values():
            self._renew(lease)

    def pause(self) -> None:
        """Freeze (SIGSTOP): connections stay open, nothing is answered."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on: leases that ran out meanwhile end first, then what is stuck is done."""
        self.is_paused = False
        for lease in [lease for lease in self._leases.values() if lease.is_overdue]:
            self.revoke(lease.id)
        self._unstick()

    def cut(self, client: str) -> None:
        """Cut the client with this name off; its requests are stuck on their way."""
        self._cut_clients.add(client)
        self._break_watches(client)

    def heal(self, client: str) -> None:
        """Undo `cut`: what is stuck arrives."""
        self._cut_clients.discard(client)
        self._unstick()

    def drop_next_reply(self, client: str | None = None) -> None:
        """Do the next write (of `client`, or of anybody) but lose its reply."""
        self._replies_to_drop.append(client)

    def snapshot(self) -> Snapshot:
        """A backup as it can be restored later."""
        return Snapshot(
            revision=self.revision,
            compacted=self._compacted,
            keys=tuple(self._keys.values()),
            lease_ttls_s=tuple((lease.id, lease.ttl_s) for lease in self._leases.values()),
            history=tuple(self._history),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Become what the store was: connections break, and revisions are given a second time."""
        self.kill()
        self.revision = snapshot.revision
        self._compacted = snapshot.compacted
        self._history = list(snapshot.history)
        self._keys = {kv.key: kv for kv in snapshot.keys}
        for lease in self._leases.values():
            self._stop(lease)
        self._leases = {}
        for lease_id, ttl_s in snapshot.lease_ttls_s:
            held = {kv.key for kv in snapshot.keys if kv.lease == lease_id}
            self._leases[lease_id] = _ServerLease(lease_id, ttl_s, held)
        self.restart()

    def wipe(self) -> None:
        """Lose everything, as after `rm -r` of the data directory."""
        self.restore(Snapshot())

    def _break_watches(self, client: str | None = None) -> None:
        for connection in [each for each in self._watches if client in (None, each.client)]:
            connection.cut()
            self._watches.remove(connection)

    # -- connections ---------------------------------------------------------------------------

    def is_reachable(self, client: str) -> bool:
        """Whether a request of this client is answered now."""
        return self.is_running and not self.is_paused and client not in self._cut_clients

    def submit(self, client: str, execute: Callable[[], Any]) -> asyncio.Future[Any]:
        """Do it now, or when the client's requests get through again."""
        request = _Request(client, execute, asyncio.get_running_loop().create_future())
        if self.is_reachable(client):
            self._execute(request)
        else:
            self._stuck.append(request)
        return request.reply

    def loses_reply(self, client: str) -> bool:
        """Whether the reply to a write that was just done is to be lost."""
        for wanted in (client, None):
            if wanted in self._replies_to_drop:
                self._replies_to_drop.remove(wanted)
                return True
        return False

    def _unstick(self) -> None:
        through = [request for request in self._stuck if self.is_reachable(request.client)]
        self._stuck = [request for request in self._stuck if not self.is_reachable(request.client)]
        for request in through:
            self._execute(request)

    @staticmethod
    def _execute(request: _Request) -> None:
        try:
            result = request.execute()
        except StoreError as error:
            if not request.reply.done():
                request.reply.set_exception(error)
        else:
            if not request.reply.done():
                request.reply.set_result(result)

    def open_watch(self, client: str, prefix: str, next_revision: int) -> WatchConnection:
        """A connection with everything since `next_revision` waiting on it."""
        if next_revision - 1 > self.revision:
            raise StoreReplacedError(self.revision, expected=next_revision - 1)
        if next_revision < self._compacted:
            raise CompactedError(self._compacted)
        connection = WatchConnection(client, prefix)
        for revision, changes in self._history:
            if revision >= next_revision:
                connection.push(changes)
        self._watches.append(connection)
        return connection

    def close_watch(self, connection: WatchConnection) -> None:
        if connection in self._watches:
            self._watches.remove(connection)

    # -- keys ----------------------------------------------------------------------------------

    def get(self, key: str) -> KeyValue | None:
        return self._keys.get(key)

    def items(self, prefix: str = "/") -> tuple[KeyValue, ...]:
        """Keys under a prefix, in order."""
        return tuple(self._keys[key] for key in sorted(self._keys) if key.startswith(prefix))

    def put(self, key: str, value: bytes, lease: int = 0) -> int:
        """Put one key behind everybody's back; returns the revision."""
        return self.txn((), (Put(key=key, value=value, lease=lease),)).revision

    def delete(self, key: str) -> int:
        """Delete one key behind everybody's back; returns the revision."""
        return self.txn((), (DeleteKey(key=key),)).revision

    def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        """As `Store.txn`."""
        self._refuse_bad(operations)
        if not all(self._holds(compare) for compare in compares):
            found = {
                compare.key: self._keys[compare.key] for compare in compares if compare.key in self._keys
            }
            return TxnResult(succeeded=False, revision=self.revision, found=found)
        self._commit(operations)
        return TxnResult(succeeded=True, revision=self.revision, found={})

    def _refuse_bad(self, operations: Sequence[Operation]) -> None:
        puts = [operation for operation in operations if isinstance(operation, Put)]
        if len(operations) > OPERATIONS_MAX:
            raise StoreError("etcdserver: too many operations in txn request")
        if len({operation.key for operation in operations}) < len(operations):
            raise StoreError("etcdserver: duplicate key given in txn request")
        if sum(len(put.key) + len(put.value) for put in puts) > REQUEST_BYTES_MAX:
            raise StoreError("etcdserver: request is too large")
        if puts and self.is_full:
            raise StoreFullError(
                "out of space (NOSPACE); free it with: etcdctl compact, defrag, alarm disarm"
            )
        for put in puts:
            if put.lease and put.lease not in self._leases:
                raise LeaseGoneError("etcdserver: requested lease not found")

    def _holds(self, compare: Compare) -> bool:
        found = self._keys.get(compare.key)
        match compare.field:
            case Field.CREATE_REVISION:
                return (found.create_revision if found else 0) == compare.to
            case Field.MOD_REVISION:
                return (found.mod_revision if found else 0) == compare.to
            case Field.VALUE:
                return found is not None and found.value == compare.to

    def _commit(self, operations: Sequence[Operation]) -> None:
        revision = self.revision + 1
        changes: list[KeyChange] = []
        for operation in operations:
            before = self._keys.pop(operation.key, None)
            if before is not None and before.lease in self._leases:
                self._leases[before.lease].keys.discard(operation.key)
            if isinstance(operation, Put):
                created = before.create_revision if before else revision
                kv = KeyValue(
                    key=operation.key,
                    value=operation.value,
                    create_revision=created,
                    mod_revision=revision,
                    lease=operation.lease,
                )
                self._keys[operation.key] = kv
                if operation.lease:
                    self._leases[operation.lease].keys.add(operation.key)
                changes.append(
                    KeyChange(
                        key=kv.key,
                        value=kv.value,
                        mod_revision=revision,
                        create_revision=created,
                        lease=kv.lease,
                    )
                )
            elif before is not None:
                changes.append(KeyChange(key=operation.key, value=None, mod_revision=revision))
        if changes:
            self.revision = revision
            self._history.append((revision, tuple(changes)))
            for connection in self._watches:
                connection.push(changes)

    def compact(self, revision: int) -> None:
        """As `Store.compact`."""
        if revision > self.revision:
            raise StoreError("etcdserver: mvcc: required revision is a future revision")
        self._compacted = max(self._compacted, revision)
        self._history = [entry for entry in self._history if entry[0] >= self._compacted]

    # -- leases --------------------------------------------------------------------------------

    def grant(self, ttl_s: int) -> int:
        """A new lease's id."""
        if self.is_full:
            raise StoreFullError(
                "out of space (NOSPACE); free it with: etcdctl compact, defrag, alarm disarm"
            )
        self._next_lease += 1
        lease = _ServerLease(self._next_lease, ttl_s)
        self._leases[lease.id] = lease
        self._renew(lease)
        return lease.id

    def keep_alive(self, lease_id: int) -> int:
        """Renew; returns the TTL, 0 if the lease is gone."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return 0
        self._renew(lease)
        return lease.ttl_s

    def revoke(self, lease_id: int) -> None:
        """End a lease and delete its keys."""
        lease = self._leases.pop(lease_id, None)
        if lease is not None:
            self._stop(lease)
            self._commit([DeleteKey(key=key) for key in sorted(lease.keys)])

    def _renew(self, lease: _ServerLease) -> None:
        self._stop(lease)
        lease.is_overdue = False
        lease.timer = asyncio.get_running_loop().call_later(lease.ttl_s, self._expire, lease)

    def _expire(self, lease: _ServerLease) -> None:
        if self.is_paused:
            lease.is_overdue = True
        elif self.is_running:
            self.revoke(lease.id)

    @staticmethod
    def _stop(lease: _ServerLease) -> None:
        if lease.timer is not None:
            lease.timer.cancel()
