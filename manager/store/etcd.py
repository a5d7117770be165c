"""The store on etcd's v3 API, by grpc.aio and generated stubs.

No published Python client resumes a watch, pages at one revision, or bounds its calls; see
manager/store/etcd_members.py (failover, errors), etcd_watch.py and etcd_lease.py for how this one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import structlog
from aetcd.rpc import rpc_pb2

from manager.store.etcd_lease import EtcdLease, KeepAlives
from manager.store.etcd_members import EtcdTls, Members
from manager.store.etcd_watch import prefix_end, watch_prefix
from manager.store.port import (
    CompactedError,
    Compare,
    Field,
    KeyValue,
    Lease,
    LeaseGoneError,
    Listing,
    Operation,
    Put,
    StoreError,
    StoreStatus,
    StoreUnavailableError,
    StoreVersionError,
    TxnResult,
    WatchBatch,
)

log = structlog.get_logger()

PAGE_KEYS = 1000
# A listing whose revision is compacted away meanwhile starts anew; thrice means pages take minutes each.
LISTING_TRIES = 3
RELEASE_TIMEOUT_S = 1.0

OLDEST_VERSION = (3, 4, 23)
# They may lose committed transactions when killed (etcd-io/etcd#13766).
LOSING_VERSIONS = frozenset({(3, 5, 0), (3, 5, 1), (3, 5, 2)})

_COMPARE_TARGETS = {
    Field.CREATE_REVISION: (rpc_pb2.Compare.CREATE, "create_revision"),
    Field.MOD_REVISION: (rpc_pb2.Compare.MOD, "mod_revision"),
    Field.VALUE: (rpc_pb2.Compare.VALUE, "value"),
}


def check_version(version: str) -> None:
    """Raises StoreVersionError, in words for the operator, if we do not work with this etcd."""
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    parsed = tuple(int(number) for number in numbers.groups()) if numbers else ()
    if parsed in LOSING_VERSIONS:
        raise StoreVersionError(
            f"etcd {version} may lose data when it is killed (etcd-io/etcd#13766): upgrade it to 3.5.6 or later"
        )
    if parsed < OLDEST_VERSION:
        raise StoreVersionError(f"etcd {version} is too old: 3.4.23 or later is needed")


class EtcdStore:
    """`Store` on an etcd cluster. Make it on the event loop that uses it; close it with `aclose`."""

    def __init__(self, endpoints: Sequence[str], tls: EtcdTls | None = None) -> None:
        """Connects when first used.

        Args:
            endpoints: a "host:port" (or URL) per member.
            tls: PEM files; None: no TLS.
        Raises: ValueError on an endpoint that does not fit `tls`, OSError on a file that cannot be read.
        """
        self._members = Members(endpoints, tls)
        self._keep_alives = KeepAlives(self._members)
        self._keep_alives_task: asyncio.Task[None] | None = None

    async def check_version(self) -> None:
        """Ask every member that answers. Raises StoreVersionError, or StoreUnavailableError if none does."""
        statuses: list[Any] = []
        errors: list[str] = []
        for member in self._members.all:
            try:
                statuses.append(await member.call("Status", rpc_pb2.StatusRequest()))
            except StoreError as error:
                errors.append(str(error))
        if not statuses:
            raise StoreUnavailableError("; ".join(errors))
        for status in statuses:
            check_version(status.version)

    async def get(self, key: str) -> KeyValue | None:
        response = await self._members.call("Range", rpc_pb2.RangeRequest(key=key.encode()))
        return _key_value(response.kvs[0]) if response.kvs else None

    async def list(self, prefix: str) -> Listing:
        for _ in range(LISTING_TRIES):
            # The store was compacted between two pages: start anew.
            with contextlib.suppress(CompactedError):
                return await self._list_once(prefix)
        raise StoreUnavailableError(f"listing {prefix}: compacted while it was read, {LISTING_TRIES} times")

    async def _list_once(self, prefix: str) -> Listing:
        items: list[KeyValue] = []
        start, end, revision = prefix.encode(), prefix_end(prefix), 0
        while True:
            request = rpc_pb2.RangeRequest(key=start, range_end=end, limit=PAGE_KEYS, revision=revision)
            response = await self._members.call("Range", request)
            revision = revision or response.header.revision
            items.extend(_key_value(kv) for kv in response.kvs)
            if not response.more:
                return Listing(items=tuple(items), revision=revision)
            start = response.kvs[-1].key + b"\0"

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        compared = list(dict.fromkeys(compare.key for compare in compares))
        request = rpc_pb2.TxnRequest(
            compare=[_compare(compare) for compare in compares],
            success=[_operation(operation) for operation in operations],
            failure=[
                rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key.encode())) for key in compared
            ],
        )
        response = await self._members.write("Txn", request)
        found: dict[str, KeyValue] = {}
        if not response.succeeded:
            for part in response.responses:
                found.update((item.key, item) for item in map(_key_value, part.response_range.kvs))
        return TxnResult(succeeded=response.succeeded, revision=response.header.revision, found=found)

    def watch(self, prefix: str, *, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        return watch_prefix(self._members, prefix, from_revision, self._read_revision)

    async def _read_revision(self) -> int:
        request = rpc_pb2.RangeRequest(key=b"\0", count_only=True)
        response = await self._members.call("Range", request)
        return int(response.header.revision)

    async def grant_lease(self, ttl_s: int, *, keep_alive: bool = True) -> Lease:
        sent_at_s = asyncio.get_running_loop().time()
        # Repeated without care: a lease that nobody knows of expires.
        response = await self._members.call("LeaseGrant", rpc_pb2.LeaseGrantRequest(TTL=ttl_s))
        lease = EtcdLease(response.ID, ttl_s, sent_at_s)
        if keep_alive:
            self._keep_alives.add(lease)
            if self._keep_alives_task is None:
                # Owned by the store, which has no `run` of its own; ended by `aclose`.
                task = asyncio.create_task(self._keep_alives.run(), name="etcd keep-alives")
                self._keep_alives_task = task
        return lease

    async def release(self, lease: Lease) -> None:
        self._keep_alives.remove(lease.id)
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self.revoke(lease.id)
        except (StoreError, TimeoutError) as error:
            log.info("lease.left_to_expire", lease=f"{lease.id:x}", error=str(error))

    async def revoke(self, lease_id: int) -> None:
        with contextlib.suppress(LeaseGoneError):
            await self._members.call("LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=lease_id))

    async def compact(self, revision: int) -> None:
        with contextlib.suppress(CompactedError):  # Somebody was faster.
            await self._members.call("Compact", rpc_pb2.CompactionRequest(revision=revision))

    async def status(self) -> StoreStatus:
        response = await self._members.call("Status", rpc_pb2.StatusRequest())
        # "memberID:… alarm:NOSPACE" for alarms, prose for the rest ("etcdserver: no leader").
        alarms = {
            found.group(1) if (found := re.search(r"alarm:(\w+)", error)) else error
            for error in response.errors
        }
        return StoreStatus(
            version=response.version,
            cluster_id=response.header.cluster_id,
            db_bytes=response.dbSize,
            quota_bytes=0,  # etcd 3.4 does not say.
            alarms=tuple(sorted(alarms)),
        )

    async def aclose(self) -> None:
        """Stop renewing (leases are left to expire) and disconnect."""
        if self._keep_alives_task is not None:
            self._keep_alives_task.cancel()
            await asyncio.gather(self._keep_alives_task, return_exceptions=True)
        await self._members.close()


def _key_value(kv: Any) -> KeyValue:
    return KeyValue(
        key=kv.key.decode(errors="replace"),
        value=kv.value,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        lease=kv.lease,
    )


def _compare(compare: Compare) -> Any:
    target, attribute = _COMPARE_TARGETS[compare.field]
    return rpc_pb2.Compare(
        result=rpc_pb2.Compare.EQUAL, target=target, key=compare.key.encode(), **{attribute: compare.to}
    )


def _operation(operation: Operation) -> Any:
    key = operation.key.encode()
    if isinstance(operation, Put):
        put = rpc_pb2.PutRequest(key=key, value=operation.value, lease=operation.lease)
        return rpc_pb2.RequestOp(request_put=put)
    return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key))
