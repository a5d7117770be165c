"""The cluster's root certificates: made once, replaced under load, and what they sign.

A new root signs from the moment it is made. The old one vouches for it (a cross-signed certificate
travels with every leaf), so whoever trusts only the old one can verify what the new one signs, and
nobody has to be told beforehand. The old one is trusted until nobody holds a good certificate of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from bayplan.identity import certificates
from bayplan.identity.names import Identity, Kind
from manager.access import records
from manager.access.registry import Registry
from manager.errors import RefusedError
from manager.store import keys
from manager.store.port import KeyValue, Store
from manager.store.records import DamagedRecordError
from manager.store.swap import retried, swap

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate and what its holder needs beside it."""

    identity: Identity
    role: int
    certificates_pem: bytes
    roots_pem: bytes


class Roots:
    """Of one cluster. Methods that change them may raise StoreError.

    Args:
        cluster: its id.
        life_s: of the certificates they sign.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        *,
        cluster: str,
        life_s: float,
        wall_s: Callable[[], float],
    ) -> None:
        self._store = store
        self._registry = registry
        self._cluster = cluster
        self._life_s = life_s
        self._wall_s = wall_s

    async def found(self, known_ca: records.CaRecord | None, known: Sequence[records.IdentityRecord]) -> bool:
        """Make the CA if there is none, of what is known from before if anything is; whether that was done.

        A store that came back from a backup learns at the same time who was revoked since; damaged records
        are replaced. Raises DamagedRecordError if the CA is damaged and nothing is known of it.
        """
        # Identities first: where there is a CA, they are complete.
        kept = {item.key: item for item in (await self._store.list(keys.PKI)).items}
        for record in known:
            key = keys.pki_identity(record.kind, record.name)
            item = kept.get(key)
            if item is None or _generation(item) < record.generation:
                version = item.mod_revision if item is not None else 0
                await swap(self._store, key, records.encode(record), version=version)
        has_founded = False
        ca = kept.get(keys.pki_ca())
        if ca is None or _is_lost(ca, known_ca):
            made = records.encode(known_ca or self._new_ca())
            version = ca.mod_revision if ca is not None else 0
            has_founded = await swap(self._store, keys.pki_ca(), made, version=version) is not None
        await self._registry.load()
        return has_founded

    def _new_ca(self) -> records.CaRecord:
        root = certificates.new_root(self._cluster, now_s=self._wall_s())
        return records.CaRecord(roots=(self._root_record(root),))

    def _root_record(self, root: certificates.Root) -> records.RootRecord:
        return records.RootRecord(
            certificate_pem=certificates.to_pem(root.certificate).decode(),
            key_pem=certificates.key_to_pem(root.key).decode(),
            since_ms=self._now_ms(),
        )

    @property
    def trusted(self) -> list[x509.Certificate]:
        """Those that are trusted, the one that signs first."""
        return [certificates.from_pem(root.certificate_pem.encode())[0] for root in self._ca().roots]

    def as_pem(self) -> bytes:
        """The same as a file."""
        return certificates.to_pem(*self.trusted)

    @property
    def signing_digest(self) -> str:
        """Of the root that signs: what new join tokens pin."""
        return certificates.digest(self.trusted[0])

    async def rotate(self, *, is_stolen: bool = False) -> None:
        """A new root signs; the old one vouches for it and stays trusted. Raises RefusedError.

        Not where its key was stolen: then nothing that it signed is good any more. While it was trusted, what
        a thief signs could be renewed under the new one.
        """

        async def attempt() -> bool | None:
            record, version = await self._read_ca()
            if len(record.roots) > 1 and not is_stolen:
                raise RefusedError(
                    "the last rotation is not over: certificates of the old root are still in use (see"
                    " `bay ca show`); it ends by itself, or now with `bay ca rotate --finish`"
                )
            old = _signing_root(record)
            new = certificates.new_root(self._cluster, now_s=self._wall_s())
            # Which of two CAs is the later one is told by this, whatever the clocks of managers say.
            since_ms = max(self._now_ms(), record.roots[0].since_ms + 1)
            signing = replace(self._root_record(new), since_ms=since_ms)
            if is_stolen:
                return await self._swap_ca(records.CaRecord(roots=(signing,)), version)
            cross = certificates.cross_signed(new, old, now_s=self._wall_s())
            following = records.CaRecord(
                roots=(signing, record.roots[0]), cross_pem=certificates.to_pem(cross).decode()
            )
            return await self._swap_ca(following, version)

        await retried("the CA", attempt)
        log.warning("ca.rotated", root=self.signing_digest, is_stolen=is_stolen)

    async def finish(self) -> None:
        """Trust the old root no more. Raises RefusedError."""

        async def attempt() -> bool | None:
            record, version = await self._read_ca()
            if len(record.roots) < 2:
                raise RefusedError("no rotation is under way: one root is trusted")
            return await self._swap_ca(records.CaRecord(roots=record.roots[:1]), version)

        await retried("the CA", attempt)
        log.warning("ca.rotation_finished", root=self.signing_digest)

    def waiting(self) -> list[str]:
        """Who still holds a good certificate of an older root than the one that signs."""
        current = certificates.key_identifier(self.trusted[0])
        is_rotating = len(self._ca().roots) > 1
        return sorted(
            f"{record.kind} {record.name}"
            for record in self._registry.identities.values()
            if not record.is_revoked
            and self._now_ms()
            < max(
                record.older_not_after_ms if is_rotating else 0,
                record.not_after_ms if record.issuer_key not in ("", current) else 0,
            )
        )

    async def _read_ca(self) -> tuple[records.CaRecord, int]:
        item = await self._store.get(keys.pki_ca())
        if item is None:
            raise RefusedError("the store has no CA")
        return records.decode_ca(item.value), item.mod_revision

    async def _swap_ca(self, record: records.CaRecord, version: int) -> bool | None:
        if await swap(self._store, keys.pki_ca(), records.encode(record), version=version) is None:
            return None
        await self._registry.load()
        return True

    def _ca(self) -> records.CaRecord:
        assert self._registry.ca is not None, "founded, or read, before anything is served"
        return self._registry.ca

    def sign(self, key: ec.EllipticCurvePublicKey, record: records.IdentityRecord) -> Issued:
        """A certificate for an identity."""
        ca = self._ca()
        identity = Identity(cluster=self._cluster, kind=Kind(record.kind), name=record.name)
        now_s, life_s = int(self._wall_s()), self._life_s
        if record.access_ends_ms:
            life_s = min(life_s, record.access_ends_ms / 1000 - now_s)
        leaf = certificates.issue(
            _signing_root(ca), key, identity,
            generation=record.generation, life_s=life_s, now_s=now_s,
        )  # fmt: skip
        # Who trusts only the old root yet is led there by its signature under the new one.
        chain = certificates.to_pem(leaf) + ca.cross_pem.encode()
        return Issued(identity=identity, role=record.role, certificates_pem=chain, roots_pem=self.as_pem())

    def _now_ms(self) -> int:
        return int(self._wall_s() * 1000)


def _generation(item: KeyValue) -> int:
    try:
        return records.decode_identity(item.value).generation
    except DamagedRecordError:
        return 0


def _is_lost(item: KeyValue, known_ca: records.CaRecord | None) -> bool:
    """Whether the CA in the store is damaged, or from before the last rotation, and can be replaced."""
    try:
        kept = records.decode_ca(item.value)
    except DamagedRecordError as error:
        if known_ca is None:
            raise DamagedRecordError(
                f"{item.key} is damaged ({error}), and this manager has no copy of it: restore etcd from a backup"
            ) from error
        log.error("ca.damaged", key=item.key, error=str(error))  # noqa: TRY400 - says all
        return True
    return known_ca is not None and kept.roots[0].since_ms < known_ca.roots[0].since_ms


def _signing_root(ca: records.CaRecord) -> certificates.Root:
    record = ca.roots[0]
    return certificates.Root(
        certificate=certificates.from_pem(record.certificate_pem.encode())[0],
        key=certificates.key_from_pem(record.key_pem.encode()),
    )
