"""Who is let in, as the store says: read once, then followed, so that every call can be judged from memory.

A judgement that memory cannot give (an identity that another manager has made a moment ago) reads
the one key. A manager cut off from the store judges by what it knew last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from functools import lru_cache

import structlog

from bayplan.identity import certificates
from manager.access import records
from manager.store import keys
from manager.store.port import CompactedError, KeyValue, Store, StoreError
from manager.store.records import DamagedRecordError

log = structlog.get_logger(__name__)

_RETRY_S = 1.0


class Registry:
    """Roots and identities. `changed` are called after each change of either."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.ca: records.CaRecord | None = None
        self.identities: dict[tuple[str, str], records.IdentityRecord] = {}
        self.changed: list[Callable[[], None]] = []
        self._versions: dict[str, int] = {}
        self._revision = 0

    async def load(self) -> None:
        """Everything, as it stands now. What it lacks stays known: see `read`. Raises StoreError."""
        before = dict(self._versions)
        listing = await self._store.list(keys.PKI)
        # Another history may count its revisions from one again; what the watch brought meanwhile is newer.
        self._versions = {
            key: version for key, version in self._versions.items() if before.get(key) != version
        }
        self._revision = listing.revision
        for item in listing.items:
            self._learn(item.key, item.value, item.mod_revision)
        self._tell()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                watch = self._store.watch(keys.PKI, from_revision=self._revision + 1)
                async with aclosing(watch) as batches:
                    async for batch in batches:
                        for change in batch.changes:
                            self._learn(change.key, change.value, change.mod_revision)
                        self._revision = batch.revision
                        if batch.changes:
                            self._tell()
            except CompactedError:
                await self._load_again()
            except StoreError as error:
                log.info("identities_watch.interrupted", error=str(error))
                await asyncio.sleep(_RETRY_S)

    async def _load_again(self) -> None:
        try:
            await self.load()
        except StoreError as error:
            log.info("identities.not_read", error=str(error))
            await asyncio.sleep(_RETRY_S)

    async def read(self, kind: str, name: str) -> tuple[records.IdentityRecord | None, int]:
        """One identity as the store has it now, and its version there (0: absent).

        Nobody deletes identities. What the store lacks, or has of an earlier generation, it has lost: it
        was wiped, or restored from a backup. Then what was known counts, and goes back with the next write.
        Raises StoreError, DamagedRecordError.
        """
        item = await self._store.get(keys.pki_identity(kind, name))
        if item is None:
            return self.identities.get((kind, name)), 0
        self.learn(item)
        known = self.identities.get((kind, name))
        return known or records.decode_identity(item.value), item.mod_revision

    async def read_ca(self) -> None:
        """As the store has it now. Raises StoreError."""
        item = await self._store.get(keys.pki_ca())
        if item is not None:
            self.learn(item)

    @property
    def issuers(self) -> frozenset[str]:
        """Key identifiers of the roots that are trusted."""
        return _issuers(self.ca) if self.ca is not None else frozenset()

    def learn(self, item: KeyValue) -> None:
        """One key as it was just read or written."""
        self._learn(item.key, item.value, item.mod_revision)

    def _learn(self, key: str, value: bytes | None, mod_revision: int) -> None:
        if mod_revision < self._versions.get(key, 0):
            return  # Read before the watch brought an older state of it.
        self._versions[key] = mod_revision
        try:
            if key == keys.pki_ca():
                self._learn_ca(key, value)
            elif (place := keys.parse_pki_identity(key)) is not None:
                if value is None:
                    self.identities.pop(place, None)
                    return
                record, known = records.decode_identity(value), self.identities.get(place)
                if known is not None and known.generation > record.generation:
                    # The store came back from a backup: who was revoked since stays so.
                    log.warning("identity.older_in_store", key=key)
                else:
                    self.identities[place] = record
        except DamagedRecordError as error:
            log.warning("store_key.ignored", key=key, error=str(error))

    def _learn_ca(self, key: str, value: bytes | None) -> None:
        """What was known stays where the store lost it, or came back from before a rotation: it gets it back."""
        if value is None:
            return
        ca = records.decode_ca(value)
        if self.ca is not None and ca.roots[0].since_ms < self.ca.roots[0].since_ms:
            log.warning("ca.older_in_store", key=key)
        else:
            self.ca = ca

    def _tell(self) -> None:
        for callback in self.changed:
            callback()


@lru_cache(maxsize=2)
def _issuers(ca: records.CaRecord) -> frozenset[str]:
    return frozenset(
        certificates.key_identifier(certificates.from_pem(root.certificate_pem.encode())[0])
        for root in ca.roots
    )
