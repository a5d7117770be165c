"""A watch that goes on exactly where it stopped.

The next revision to ask for moves only when a whole response has been handed over: etcd
may cut a response into fragments, and a revision may have many events. Progress
notifications move it too, so that a quiet prefix does not fall behind the compaction.
(Only the periodic ones: those asked for may overtake events in etcd 3.4, etcd-io/etcd#15220.)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import structlog
from aetcd.rpc import kv_pb2, rpc_pb2

from manager.store.etcd_members import Members, MemberStream
from manager.store.port import (
    CompactedError,
    KeyChange,
    StoreReplacedError,
    StoreUnavailableError,
    WatchBatch,
)

log = structlog.get_logger()

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 1.0


async def watch_prefix(
    members: Members, prefix: str, from_revision: int, read_revision: Callable[[], Awaitable[int]]
) -> AsyncGenerator[WatchBatch, None]:
    """See `Store.watch`. `read_revision` reads the store's revision from its quorum."""
    next_revision = from_revision
    retry_s = RETRY_FIRST_S
    while True:
        try:
            stream = await _open(members, prefix, next_revision, read_revision)
            try:
                while True:
                    batch = await _read_batch(stream)
                    retry_s = RETRY_FIRST_S
                    if batch.revision >= next_revision:
                        next_revision = batch.revision + 1
                        yield batch
            finally:
                stream.close()
        except StoreUnavailableError as error:
            log.info("watch.interrupted", prefix=prefix, next_revision=next_revision, error=str(error))
        await asyncio.sleep(retry_s)
        retry_s = min(2 * retry_s, RETRY_MAX_S)


async def _open(
    members: Members, prefix: str, next_revision: int, read_revision: Callable[[], Awaitable[int]]
) -> MemberStream:
    """A stream on which etcd has confirmed the watch."""
    stream = await members.open("Watch")
    try:
        await _confirm(stream, prefix, next_revision, read_revision)
    except BaseException:
        stream.close()
        raise
    return stream


async def _confirm(
    stream: MemberStream, prefix: str, next_revision: int, read_revision: Callable[[], Awaitable[int]]
) -> None:
    create = rpc_pb2.WatchCreateRequest(
        key=prefix.encode(),
        range_end=prefix_end(prefix),
        start_revision=next_revision,
        progress_notify=True,
        fragment=True,
    )
    await stream.write(rpc_pb2.WatchRequest(create_request=create))
    response = await stream.read()
    _raise_if_cancelled(response)
    # etcd would wait silently for a revision that lies in the future. Either this member lags
    # behind the others, or the store's past was replaced; the quorum knows.
    if response.header.revision < next_revision - 1:
        revision = await read_revision()
        if revision < next_revision - 1:
            raise StoreReplacedError(revision, expected=next_revision - 1)


async def _read_batch(stream: MemberStream) -> WatchBatch:
    """The next whole response."""
    changes: list[KeyChange] = []
    while True:
        response = await stream.read()
        _raise_if_cancelled(response)
        changes.extend(_change(event) for event in response.events)
        if not response.fragment:
            break
    if not changes:
        return WatchBatch(changes=(), revision=response.header.revision)
    # Not the header's revision: it may lie beyond changes that are still on their way.
    return WatchBatch(changes=tuple(changes), revision=changes[-1].mod_revision)


def _raise_if_cancelled(response: Any) -> None:
    if response.compact_revision:
        raise CompactedError(response.compact_revision)
    if response.canceled:
        raise StoreUnavailableError(f"etcd cancelled the watch: {response.cancel_reason}")


def _change(event: Any) -> KeyChange:
    kv = event.kv
    is_deleted = event.type == kv_pb2.Event.DELETE
    return KeyChange(
        key=kv.key.decode(errors="replace"),
        value=None if is_deleted else kv.value,
        mod_revision=kv.mod_revision,
        create_revision=kv.create_revision,
        lease=kv.lease,
    )


def prefix_end(prefix: str) -> bytes:
    """The first key after all that start with `prefix`."""
    key = prefix.encode()
    return key[:-1] + bytes([key[-1] + 1])  # UTF-8 never ends with 0xff.
