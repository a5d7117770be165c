"""A store that encrypts: what users write is sealed before it reaches etcd, and opened when it is read.

A decorator of the Store port; only values under SEALED_PREFIXES are concerned (sealing.py says how).

Every transaction that puts a sealed value also compares the keyring with the one it was sealed by.
So from the moment a rotation has written its new data key nobody can write under an old one, however
slow they are, whatever request is still on its way; and a store that was wiped or restored beneath a
running manager never gets values that its keyring cannot open.

A value that cannot be opened harms only itself: it is handed on with a mark before it, so that every
decoder of records takes it for damaged. Data keys and cluster keys that were held once are kept in memory: a watch
may still bring what was sealed by them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from manager.store import keys
from manager.store.port import (
    Compare,
    Field,
    KeyChange,
    KeyValue,
    Lease,
    Listing,
    Operation,
    Put,
    Store,
    StoreError,
    StoreStatus,
    StoreUnavailableError,
    TxnResult,
    UnknownOutcomeError,
    WatchBatch,
)
from manager.store.records import DamagedRecordError
from manager.store.sealing import (
    DAMAGED_MARK,
    ClusterKey,
    Keyring,
    UnsealError,
    data_key_of,
    decode_keyring,
    encode_keyring,
    new_keyring,
    seal,
    unseal,
)

log = structlog.get_logger(__name__)

SEALED_PREFIXES = (keys.RESOURCES, keys.REVISIONS, keys.DECISIONS, keys.PKI, keys.SECRETS)

# A call of the store ends within a few seconds (its deadlines): what was read before the last value
# was sealed anew has been opened by then.
ROTATION_GRACE_S = 5.0
# Two do without disturbance: one that rewrites, one that finds nothing left.
_SWEEPS_MAX = 10
# Between a transaction and its repetition somebody would have to rotate, each time.
_KEYRING_RACES_MAX = 5
_RETRY_S = 1.0
# Names that are remembered, so that a warning and a fruitless reading happen once; then anew.
_NAMES_MAX = 10_000

_Item = TypeVar("_Item", KeyValue, KeyChange)


class StoreNotOpenError(StoreError):
    """`open` it before sealed keys are used."""


class KeyringError(StoreError):
    """The keyring is damaged or lost: an operator must restore it from a backup."""


class RotationUnfinishedError(StoreError):
    """Everything is readable, but old data keys are still in use: rotate again, which goes on from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """The keyring as it was last read."""

    value: bytes
    mod_revision: int
    ring: Keyring
    # The same with every data key of before: for sealing (the primary is the same) and opening.
    reading: Keyring


def is_sealed_key(key: str) -> bool:
    """Whether what stands under `key` is encrypted."""
    return key.startswith(SEALED_PREFIXES)


class SealedStore:
    """`Store` over another one. `open` it first; run `watch_keyring` for as long as it is used.

    A seal or an open costs 3.5 µs for 1 KiB (sealing.py): a listing of 10,000 documents takes the loop
    65 ms more, once for each new leader and each sweep. A transaction grows by the keyring, 200 bytes.

    Beyond the port's errors each call may raise KeyringError and WrongClusterKeyError; nothing was done then.
    """

    def __init__(self, inner: Store, cluster_key: ClusterKey) -> None:
        self._inner = inner
        self._cluster_keys = [cluster_key]  # The last is the one to use; see `replace_cluster_key`.
        self._held_or_none: _Held | None = None
        self._reading_keyring = asyncio.Lock()
        self._readings_begun = 0
        self._readings_done = 0
        self._rotating = asyncio.Lock()
        self._missing: set[str] = set()  # Data keys that were looked for in vain.
        self._warned: set[str] = set()  # Keys whose values cannot be opened.

    # -- the keyring ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read the keyring, or found it in a store that has none. To be repeated after a StoreError.

        Raises: WrongClusterKeyError, KeyringError (both for an operator), StoreError.
        """
        self._adopt(await self._inner.get(keys.KEYRING) or await self._found())

    async def _found(self) -> KeyValue:
        for prefix in SEALED_PREFIXES:
            listing = await self._inner.list(prefix)
            if any(data_key_of(item.value) for item in listing.items):
                # Another manager may have founded it and written since we looked.
                found = await self._inner.get(keys.KEYRING)
                if found is not None:
                    return found
                raise KeyringError(
                    f"the store holds encrypted values, but their keyring {keys.KEYRING} is gone:"
                    " restore etcd from a backup; without the keyring nothing can be read"
                )
        cluster_key = self._cluster_keys[-1]
        return await self._create(encode_keyring(new_keyring(cluster_key), cluster_key))

    async def _create(self, value: bytes) -> KeyValue:
        """Put the keyring where there is none; returns what stands there then."""
        is_absent = Compare(key=keys.KEYRING, field=Field.CREATE_REVISION, to=0)
        try:
            result = await self._inner.txn([is_absent], [Put(key=keys.KEYRING, value=value)])
        except UnknownOutcomeError as error:
            # Nothing of the caller's was done, and a repetition reads what was.
            raise StoreUnavailableError("no answer whether the keyring was written; try again") from error
        if not result.succeeded:
            return result.found[keys.KEYRING]
        log.info("keyring.created", key=keys.KEYRING)
        at = result.revision
        return KeyValue(key=keys.KEYRING, value=value, create_revision=at, mod_revision=at)

    @property
    def _held(self) -> _Held:
        if self._held_or_none is None:
            raise StoreNotOpenError("the store is encrypted and not open: call open() first")
        return self._held_or_none

    @property
    def cluster_key_id(self) -> str:
        """Of the cluster key that the keyring is wrapped by."""
        return self._held.ring.cluster_key_id

    def replace_cluster_key(self, key: ClusterKey) -> None:
        """Use another cluster key: one that the keyring is, or is about to be, wrapped by.

        The ones of before stay known, so every manager can be given the new one before the rotation.
        """
        self._cluster_keys = [*(each for each in self._cluster_keys if each.id != key.id), key]

    async def watch_keyring(self) -> None:
        """Follow rotations of other managers, until cancelled.

        Nothing depends on it being prompt: who meets a data key that is not known reads the keyring.
        But a manager that follows knows each data key before it is dropped.
        """
        while True:
            try:
                await self._refresh()
                listing = await self._inner.list(keys.KEYRING)  # For its revision.
                for item in listing.items:
                    self._adopt_newer(item)
                await self._follow(listing.revision + 1)
            except StoreError as error:
                log.warning("keyring.not_followed", error=str(error))
            await asyncio.sleep(_RETRY_S)

    async def _follow(self, from_revision: int) -> None:
        """Returns when the keyring is gone."""
        async with aclosing(self._inner.watch(keys.KEYRING, from_revision=from_revision)) as batches:
            async for batch in batches:
                for change in batch.changes:
                    if change.key == keys.KEYRING and change.value is None:
                        return
                    self._adopt_newer(change)

    def _adopt_newer(self, item: KeyValue | KeyChange) -> None:
        if (
            item.key == keys.KEYRING
            and item.value is not None
            and item.mod_revision > self._held.mod_revision
        ):
            self._adopt(item)

    def _adopt(self, item: KeyValue | KeyChange) -> None:
        """Hold the keyring as it stands in the store."""
        held = self._held_or_none
        assert item.value is not None
        if held is not None and held.value == item.value:
            self._held_or_none = replace(held, mod_revision=item.mod_revision)
            return
        try:
            ring = decode_keyring(item.value, self._cluster_keys)
        except DamagedRecordError as error:
            raise KeyringError(f"{keys.KEYRING} is damaged ({error}): restore etcd from a backup") from error
        reading = ring.remembering(held.reading.data_keys) if held is not None else ring
        self._held_or_none = _Held(
            value=item.value, mod_revision=item.mod_revision, ring=ring, reading=reading
        )
        log.info(
            "keyring.read", cluster_key=ring.cluster_key_id, primary=ring.primary, of=len(ring.data_keys)
        )

    async def _refresh(self) -> None:
        """Read the keyring: as it stood after this call began. Callers at one time share a reading."""
        begun_before = self._readings_begun
        async with self._reading_keyring:
            if self._readings_done > begun_before:
                return  # One that began after this call was made.
            self._readings_begun += 1
            begun = self._readings_begun
            held = self._held
            found = await self._inner.get(keys.KEYRING)
            if found is None:
                # Deleted, or the whole store was wiped. In memory it is whole, and values need it.
                log.error("keyring.missed", key=keys.KEYRING)
                found = await self._create(held.value)
            self._adopt(found)
            self._readings_done = begun

    # -- reading -------------------------------------------------------------------------------------

    async def get(self, key: str) -> KeyValue | None:
        found = await self._inner.get(key)
        if found is None:
            return None
        (opened,) = await self._opened((found,))
        return opened

    async def list(self, prefix: str) -> Listing:
        listing = await self._inner.list(prefix)
        return replace(listing, items=await self._opened(listing.items))

    async def watch(self, prefix: str, *, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        async with aclosing(self._inner.watch(prefix, from_revision=from_revision)) as batches:
            async for batch in batches:
                yield replace(batch, changes=await self._opened_surely(batch.changes))

    async def _opened_surely(self, changes: tuple[KeyChange, ...]) -> tuple[KeyChange, ...]:
        """A watch outlasts outages: it waits for a keyring that cannot be read now, and drops nothing."""
        while True:
            try:
                return await self._opened(changes)
            except StoreNotOpenError:
                raise
            except StoreError as error:
                log.warning("watch.waits_for_keyring", error=str(error))
            await asyncio.sleep(_RETRY_S)

    async def _opened(self, items: Sequence[_Item]) -> tuple[_Item, ...]:
        await self._learn(item.value for item in items if item.value is not None and is_sealed_key(item.key))
        return tuple(self._opened_one(item) for item in items)

    async def _learn(self, sealed: Iterable[bytes]) -> None:
        """Read the keyring if one of these values is of a data key that is not known: somebody has rotated."""
        met = {key_id for value in sealed if (key_id := data_key_of(value)) is not None}
        if not met:
            return
        unknown = met - self._held.reading.data_keys.keys() - self._missing
        if unknown:
            await self._refresh()
            if len(self._missing) > _NAMES_MAX:
                self._missing.clear()
            # By the time a value is read the keyring has its data key, or it never will.
            self._missing |= unknown - self._held.reading.data_keys.keys()

    def _opened_one(self, item: _Item) -> _Item:
        if item.value is None or not is_sealed_key(item.key):
            return item
        value = self._unsealed(item.key, item.value)
        # Marked, for plain text that somebody else put there would else be taken for ours.
        return replace(item, value=DAMAGED_MARK + item.value if value is None else value)

    def _unsealed(self, key: str, value: bytes) -> bytes | None:
        try:
            return unseal(key, value, self._held.reading)
        except UnsealError as error:
            if key not in self._warned:
                if len(self._warned) > _NAMES_MAX:
                    self._warned.clear()
                self._warned.add(key)
                log.warning("store_key.not_opened", key=key, error=str(error))
            return None

    # -- writing -------------------------------------------------------------------------------------

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        # Equal values never have equal ciphertexts.
        assert not any(is_sealed_key(each.key) and each.field is Field.VALUE for each in compares)
        if not any(isinstance(each, Put) and is_sealed_key(each.key) for each in operations):
            return await self._opened_result(await self._inner.txn(compares, operations))
        for _ in range(_KEYRING_RACES_MAX):
            held = self._held
            guard = Compare(key=keys.KEYRING, field=Field.VALUE, to=held.value)
            sealed = [_sealed(each, held.reading) for each in operations]
            result = await self._inner.txn((*compares, guard), sealed)
            found = dict(result.found)
            keyring = found.pop(keys.KEYRING, None)
            if result.succeeded or (keyring is not None and keyring.value == held.value):
                return await self._opened_result(replace(result, found=found))
            if keyring is None:
                await self._refresh()
            else:
                self._adopt(keyring)
        raise StoreUnavailableError("the keyring is being changed all the time; try again")

    async def _opened_result(self, result: TxnResult) -> TxnResult:
        if not result.found:
            return result
        opened = await self._opened(tuple(result.found.values()))
        return replace(result, found={item.key: item for item in opened})

    # -- rotation ------------------------------------------------------------------------------------

    async def rotate(
        self, new_cluster_key: ClusterKey | None = None, *, grace_s: float = ROTATION_GRACE_S
    ) -> int:
        """Encrypt everything by a new data key, and forget the old ones; returns how many values were rewritten.

        With `new_cluster_key` the keyring is wrapped by it from the first step on: every manager must
        have it on disk before, beside the one it has, and be told by `replace_cluster_key`.

        Values are rewritten one by one while everybody goes on working, each guarded by its
        mod-revision; what was changed meanwhile is under the new data key anyway. A rewritten document
        has another version: a client that expects the one before gets a conflict, and reads it again.
        The leader folds rewritten documents in as changed ones, and its sweep the templates. It takes
        a millisecond a value where etcd answers in one.

        A crash leaves everything readable. Called again, with the same cluster key or none, it finishes.
        Raises: StoreError (call it again), RotationUnfinishedError.
        """
        async with self._rotating:
            await self._begin_rotation(new_cluster_key)
            rewritten, waited_for = 0, b""  # The keyring that was left alone for the grace.
            for _ in range(_SWEEPS_MAX):
                await self._refresh()
                held = self._held
                if len(held.ring.data_keys) == 1:
                    return rewritten  # Another manager has finished it.
                stale, done = await self._sweep()
                rewritten += done
                if stale:
                    waited_for = b""
                elif waited_for != held.value:
                    await asyncio.sleep(grace_s)
                    waited_for = held.value
                elif await self._swap_keyring(held, held.ring.settled()):
                    log.info("keyring.rotated", primary=held.ring.primary, rewritten=rewritten)
                    return rewritten
        raise RotationUnfinishedError(
            f"{rewritten} values were encrypted again, but old data keys are still in use: rotate again"
        )

    async def _begin_rotation(self, new_cluster_key: ClusterKey | None) -> None:
        if new_cluster_key is not None:
            self.replace_cluster_key(new_cluster_key)
        for _ in range(_KEYRING_RACES_MAX):
            await self._refresh()
            held = self._held
            cluster_key = new_cluster_key or self._cluster_key(held.ring)
            if len(held.ring.data_keys) > 1 and held.ring.cluster_key_id == cluster_key.id:
                log.info("rotation.resumed", primary=held.ring.primary)
                return
            if await self._swap_keyring(held, held.ring.rotated(cluster_key)):
                return
        raise StoreUnavailableError("the keyring is being changed all the time; try again")

    def _cluster_key(self, ring: Keyring) -> ClusterKey:
        return next(key for key in self._cluster_keys if key.id == ring.cluster_key_id)

    async def _swap_keyring(self, held: _Held, ring: Keyring) -> bool:
        """Write another keyring in the place of the one held; False if that is not the store's any more."""
        value = encode_keyring(ring, self._cluster_key(ring))
        guard = Compare(key=keys.KEYRING, field=Field.VALUE, to=held.value)
        try:
            await self._inner.txn([guard], [Put(key=keys.KEYRING, value=value)])
        except UnknownOutcomeError as error:
            log.info("keyring.outcome_unknown", error=str(error))
        await self._refresh()  # Tells whether it was done.
        return self._held.value == value

    async def _sweep(self) -> tuple[int, int]:
        """Rewrite what is not under the primary: (how many values were not, how many were rewritten).

        What cannot be opened is under no data key that is held, so nothing is lost with one, and it stays
        as it is. One write at a time, so that a rotation takes little of the store from everybody else.
        """
        stale = rewritten = 0
        for prefix in SEALED_PREFIXES:
            listing = await self._inner.list(prefix)
            await self._learn(item.value for item in listing.items)
            for item in listing.items:
                if data_key_of(item.value) == self._held.ring.primary:
                    continue
                value = self._unsealed(item.key, item.value)
                if value is not None:
                    stale += 1
                    rewritten += await self._rewrite(item, value)
        return stale, rewritten

    async def _rewrite(self, item: KeyValue, value: bytes) -> bool:
        """Seal a value anew, unless it has been changed. False: the next sweep looks at it again."""
        guard = Compare(key=item.key, field=Field.MOD_REVISION, to=item.mod_revision)
        try:
            result = await self.txn([guard], [Put(key=item.key, value=value, lease=item.lease)])
        except UnknownOutcomeError as error:
            log.info("rotation.outcome_unknown", key=item.key, error=str(error))
            return False
        return result.succeeded

    # -- what has nothing to do with it --------------------------------------------------------------

    async def grant_lease(self, ttl_s: int, *, keep_alive: bool = True) -> Lease:
        return await self._inner.grant_lease(ttl_s, keep_alive=keep_alive)

    async def release(self, lease: Lease) -> None:
        await self._inner.release(lease)

    async def revoke(self, lease_id: int) -> None:
        await self._inner.revoke(lease_id)

    async def compact(self, revision: int) -> None:
        await self._inner.compact(revision)

    async def status(self) -> StoreStatus:
        return await self._inner.status()

    async def aclose(self) -> None:
        await self._inner.aclose()


def _sealed(operation: Operation, ring: Keyring) -> Operation:
    if isinstance(operation, Put) and is_sealed_key(operation.key):
        return replace(operation, value=seal(operation.key, operation.value, ring))
    return operation
