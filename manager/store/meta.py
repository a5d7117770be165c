"""Which store this is: made by the first manager, checked by every other."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from manager.store import keys
from manager.store.port import Compare, Field, KeyValue, Put, Store
from manager.store.records import FORMAT_VERSION, FORMAT_VERSIONS_UPGRADED, Meta, decode_meta, encode_meta

log = structlog.get_logger()


class FormatVersionError(Exception):
    """The store was written by a bayplan with another format: run that version, or upgrade the store."""


async def ensure_meta(store: Store, new_id: Callable[[], str], *, cluster_id: str = "") -> Meta:
    """Read what the store is; make it if it is empty.

    `new_id` gives a new random id each time. `cluster_id` is of the cluster whose store it is, if
    that is known: then an empty store is one that was wiped.

    Raises: FormatVersionError, DamagedRecordError, StoreError (repeat it: an existing one is kept).
    """
    found = await store.get(keys.META)
    if found is None:
        meta = Meta(format_version=FORMAT_VERSION, cluster_id=cluster_id or new_id(), incarnation=new_id())
        is_absent = Compare(key=keys.META, field=Field.CREATE_REVISION, to=0)
        result = await store.txn([is_absent], [Put(key=keys.META, value=encode_meta(meta))])
        if result.succeeded:
            log.info("store.founded", cluster=meta.cluster_id, incarnation=meta.incarnation)
            return meta
        found = result.found[keys.META]
    return _checked(found)


def _checked(found: KeyValue) -> Meta:
    meta = decode_meta(found.value)
    if meta.format_version not in (FORMAT_VERSION, *FORMAT_VERSIONS_UPGRADED):
        raise FormatVersionError(
            f"the store has format {meta.format_version}, this manager understands {FORMAT_VERSION}: "
            "run the same bayplan version on all managers"
        )
    return meta
