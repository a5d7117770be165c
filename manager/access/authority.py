"""The cluster's certificate authority: decides who gets which certificate, and signs it.

Every manager can sign; what must not happen twice (a token's last use, an identity's next
generation) is decided by compare-and-swap in the store. Keys are made by whoever joins; of its
request only the public key counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from bayplan.identity import certificates
from bayplan.identity.names import Identity, Kind, is_identity_name
from bayplan.identity.tokens import JoinToken, is_secret, new_token, secret_hash
from bayplan.model.names import is_name
from manager.access import records
from manager.access.ages import age
from manager.access.gate import void_reason
from manager.access.registry import Registry
from manager.control_api.swap import ConflictError, retried
from manager.store import keys
from manager.store.port import (
    Compare,
    DeleteKey,
    Field,
    Operation,
    Put,
    Store,
    StoreError,
    UnknownOutcomeError,
)

log = structlog.get_logger(__name__)

TOKEN_TTL_MS = 3600 * 1000
TOKEN_TTL_MAX_MS = 30 * 86400 * 1000
TOKEN_USES_MAX = 1000
TOKENS_MAX = 1000
# A certificate that ran out still proves who its holder is, for so long: a host that was cut off, a person
# on holiday. What ends a stolen key is its revocation, which is looked up each time; see docs/security.md.
REJOIN_WITHIN_S = 30 * 86400.0


class NotLetInError(Exception):
    """A proof that does not hold; the text says what to do."""


class RefusedError(Exception):
    """The state of things forbids it; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate and what its holder needs beside it."""

    identity: Identity
    role: int
    certificates_pem: bytes
    roots_pem: bytes


class Authority:
    """Of one cluster. Every method may raise StoreError.

    Args:
        cluster: its id.
        life_s: of the certificates it signs.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        *,
        cluster: Callable[[], str],
        life_s: float,
        wall_s: Callable[[], float],
    ) -> None:
        self._store = store
        self._registry = registry
        self._cluster = cluster
        self._life_s = life_s
        self._wall_s = wall_s

    # -- the roots -----------------------------------------------------------------------------

    async def found(self, known_ca: records.CaRecord | None, known: Sequence[records.IdentityRecord]) -> bool:
        """Make the CA if there is none, of what is known from before if anything is; whether that was done.

        A store that came back from a backup learns at the same time who was revoked since.
        """
        # Identities first: where there is a CA, they are complete.
        kept = {item.key: item for item in (await self._store.list(keys.PKI)).items}
        for record in known:
            key = keys.pki_identity(record.kind, record.name)
            item = kept.get(key)
            if item is None or records.decode_identity(item.value).generation < record.generation:
                version = item.mod_revision if item is not None else 0
                guard = Compare(key=key, field=Field.MOD_REVISION, to=version)
                await self._store.txn([guard], [Put(key=key, value=records.encode(record))])
        has_founded = False
        if keys.pki_ca() not in kept:
            absent = Compare(key=keys.pki_ca(), field=Field.CREATE_REVISION, to=0)
            put = Put(key=keys.pki_ca(), value=records.encode(known_ca or self._new_ca()))
            has_founded = (await self._store.txn([absent], [put])).succeeded
        await self._registry.load()
        return has_founded

    def _new_ca(self) -> records.CaRecord:
        root = certificates.new_root(self._cluster(), now_s=self._wall_s())
        return records.CaRecord(roots=(self._root_record(root),))

    def _root_record(self, root: certificates.Root) -> records.RootRecord:
        return records.RootRecord(
            certificate_pem=certificates.to_pem(root.certificate).decode(),
            key_pem=certificates.key_to_pem(root.key).decode(),
            since_ms=self._now_ms(),
        )

    @property
    def roots(self) -> list[x509.Certificate]:
        """Those that are trusted, the one that signs first."""
        return [certificates.from_pem(root.certificate_pem.encode())[0] for root in self._ca().roots]

    def roots_pem(self) -> bytes:
        """The same as a file."""
        return certificates.to_pem(*self.roots)

    @property
    def root_digest(self) -> str:
        """Of the root that signs: what new join tokens pin."""
        return certificates.digest(self.roots[0])

    async def rotate(self) -> None:
        """A new root signs; the old one vouches for it and stays trusted. Raises RefusedError."""

        async def attempt() -> bool | None:
            record, version = await self._read_ca()
            if len(record.roots) > 1:
                raise RefusedError(
                    "the last rotation is not over: certificates of the old root are still in use (see"
                    " `bay ca show`); it ends by itself, or now with `bay ca rotate --finish`"
                )
            old = _signing_root(record)
            new = certificates.new_root(self._cluster(), now_s=self._wall_s())
            cross = certificates.cross_signed(new, old, now_s=self._wall_s())
            following = records.CaRecord(
                roots=(self._root_record(new), record.roots[0]), cross_pem=certificates.to_pem(cross).decode()
            )
            return await self._swap_ca(following, version)

        await retried("the CA", attempt)
        log.warning("ca.rotated", root=self.root_digest)

    async def finish_rotation(self) -> None:
        """Trust the old root no more. Raises RefusedError."""

        async def attempt() -> bool | None:
            record, version = await self._read_ca()
            if len(record.roots) < 2:
                raise RefusedError("no rotation is under way: one root is trusted")
            return await self._swap_ca(records.CaRecord(roots=record.roots[:1]), version)

        await retried("the CA", attempt)
        log.warning("ca.rotation_finished", root=self.root_digest)

    def waiting(self) -> list[str]:
        """Who still holds a good certificate of an older root than the one that signs."""
        current = certificates.key_identifier(self.roots[0])
        return sorted(
            f"{record.kind} {record.name}"
            for record in self._registry.identities.values()
            if not record.is_revoked
            and record.issuer_key not in ("", current)
            and record.not_after_ms > self._now_ms()
        )

    async def _read_ca(self) -> tuple[records.CaRecord, int]:
        item = await self._store.get(keys.pki_ca())
        if item is None:
            raise RefusedError("the store has no CA")
        return records.decode_ca(item.value), item.mod_revision

    async def _swap_ca(self, record: records.CaRecord, version: int) -> bool | None:
        key = keys.pki_ca()
        guard = Compare(key=key, field=Field.MOD_REVISION, to=version)
        done = await self._decided([guard], [Put(key=key, value=records.encode(record))])
        if done:
            await self._registry.load()
        return done or None

    def _ca(self) -> records.CaRecord:
        assert self._registry.ca is not None, "founded, or read, before anything is served"
        return self._registry.ca

    # -- letting in ----------------------------------------------------------------------------

    async def join_by_token(self, request: bytes, *, token_id: str, secret: str, name: str) -> Issued:
        """A first certificate. Raises CertificateError, NotLetInError, RefusedError."""
        key = certificates.requested_key(request)

        async def attempt() -> Issued | None:
            token, version = await self._good_token(token_id, secret)
            named = token.name or name
            kind = Kind(token.kind)
            _check_name(kind, named)
            before, before_version = await self._registry.read(kind.value, named)
            digest = certificates.key_digest(key)
            if (
                before is not None
                and not before.is_revoked
                and (before.token, before.key_digest) == (token_id, digest)
            ):
                # Its answer was lost: the same once more, and no use of the token.
                return await self._issued(key, before, before_version, [])
            self._check_good(token)
            following = self._joining(kind, named, before, token_id, digest)
            used = Put(
                key=keys.pki_token(token_id),
                value=records.encode(replace(token, uses_left=token.uses_left - 1)),
            )
            guard = Compare(key=keys.pki_token(token_id), field=Field.MOD_REVISION, to=version)
            return await self._issued(key, following, before_version, [(guard, used)])

        return await retried("the token", attempt)

    async def _good_token(self, token_id: str, secret: str) -> tuple[records.TokenRecord, int]:
        item = await self._store.get(keys.pki_token(token_id)) if is_identity_name(token_id) else None
        record = records.decode_token(item.value) if item is not None else None
        # Compared in any case, so that an unknown id takes as long as a wrong secret.
        is_right = is_secret(secret, record.secret_hash if record is not None else secret_hash(""))
        if item is None or record is None or not is_right:
            raise NotLetInError(
                "this token is not valid here: make a new one with `bay join-token create` or `bay user create`"
            )
        return record, item.mod_revision

    def _check_good(self, token: records.TokenRecord) -> None:
        again = (
            f"`bay user create {token.name}`"
            if token.kind == Kind.USER
            else f"`bay join-token create --role {token.kind}`"
        )
        if token.is_revoked:
            raise NotLetInError(f"this token was revoked; make a new one with {again}")
        if self._now_ms() >= token.expires_ms:
            ago = age(self._now_ms() - token.expires_ms)
            raise NotLetInError(f"this token expired {ago} ago; make a new one with {again}")
        if token.uses_left <= 0:
            raise NotLetInError(f"this token is used up; make a new one with {again}")

    def _joining(
        self, kind: Kind, name: str, before: records.IdentityRecord | None, token_id: str, key_digest: str
    ) -> records.IdentityRecord:
        """What is written down of the one who joins. Raises NotLetInError, RefusedError."""
        if kind is Kind.USER:
            if before is None:
                raise NotLetInError(f"user {name} does not exist any more")
            if why := void_reason(before, before.generation, now_ms=self._now_ms()):
                raise NotLetInError(why)
            return replace(before, token=token_id, key_digest=key_digest)
        if before is not None and not before.is_revoked:
            raise RefusedError(
                f"{kind} {name} is a member already. If this host takes its place: `bay {kind} revoke {name}`,"
                f" then join again; else give this one another name"
            )
        return records.IdentityRecord(
            kind=kind.value,
            name=name,
            generation=before.generation + 1 if before is not None else 1,
            created_ms=self._now_ms(),
            token=token_id,
            key_digest=key_digest,
        )

    async def join_by_expired(self, request: bytes, *, certificate: bytes, signature: bytes) -> Issued:
        """A new certificate for one that ran out. Raises CertificateError, NotLetInError."""
        key = certificates.requested_key(request)
        shown = certificates.from_der(certificate)
        if not any(certificates.is_issued_by(shown, root) for root in self.roots):
            raise NotLetInError(
                "the certificate that ran out was issued by another cluster, or by a root that was replaced"
                " since: join again with a new token"
            )
        if not certificates.is_signed(shown, signature, request):
            raise NotLetInError("the request is not signed by the key of the certificate that it shows")
        leaf = certificates.read_leaf(shown)
        silence_s = self._wall_s() - leaf.expires_s
        if silence_s > REJOIN_WITHIN_S:
            raise NotLetInError(
                f"this certificate expired {age(silence_s * 1000)} ago, which is too long: join again with a new token"
            )
        return await self.renew(leaf.identity, leaf.generation, key)

    async def renew(self, identity: Identity, generation: int, key: ec.EllipticCurvePublicKey) -> Issued:
        """A new certificate for somebody who was let in. Raises NotLetInError."""

        async def attempt() -> Issued | None:
            record, version = await self._registry.read(identity.kind.value, identity.name)
            if record is None:
                raise NotLetInError(f"{identity.words} is not known to this cluster (any more)")
            if why := void_reason(record, generation, now_ms=self._now_ms()):
                raise NotLetInError(why)
            return await self._issued(key, record, version, [])

        try:
            return await retried(str(identity), attempt)
        except StoreError as error:
            # A store that is away for long must not cost every node its certificate. What was known of
            # this one before decides; it can be revoked as soon as the store is back.
            known = self._registry.identities.get((identity.kind.value, identity.name))
            if known is None or void_reason(known, generation, now_ms=self._now_ms()):
                raise
            log.warning("certificate.not_written_down", identity=str(identity), error=str(error))
            return self.sign(key, known)

    async def enrol(self, identity: Identity, key: ec.EllipticCurvePublicKey) -> Issued:
        """For a manager that holds the cluster key: it needs nobody's leave."""

        async def attempt() -> Issued | None:
            before, version = await self._registry.read(identity.kind.value, identity.name)
            if before is None or before.is_revoked:
                generation = before.generation + 1 if before is not None else 1
                before = records.IdentityRecord(
                    kind=identity.kind.value,
                    name=identity.name,
                    generation=generation,
                    created_ms=self._now_ms(),
                )
            return await self._issued(key, before, version, [])

        return await retried(str(identity), attempt)

    async def _issued(
        self,
        key: ec.EllipticCurvePublicKey,
        record: records.IdentityRecord,
        version: int,
        also: Sequence[tuple[Compare, Operation]],
    ) -> Issued | None:
        """Write the identity down, then sign; None if somebody else was faster."""
        signed = self.sign(key, record)
        leaf = certificates.read_leaf(certificates.from_pem(signed.certificates_pem)[0])
        written = replace(record, not_after_ms=int(leaf.expires_s * 1000), issuer_key=leaf.issuer_key)
        place = keys.pki_identity(record.kind, record.name)
        guards = [Compare(key=place, field=Field.MOD_REVISION, to=version), *(guard for guard, _ in also)]
        operations = [Put(key=place, value=records.encode(written)), *(operation for _, operation in also)]
        if not await self._decided(guards, operations):
            return None
        await self._registry.read(record.kind, record.name)
        log.info("certificate.issued", identity=str(signed.identity), expires_ms=written.not_after_ms)
        return signed

    def sign(self, key: ec.EllipticCurvePublicKey, record: records.IdentityRecord) -> Issued:
        """The certificate alone."""
        ca = self._ca()
        identity = Identity(cluster=self._cluster(), kind=Kind(record.kind), name=record.name)
        life_s = self._life_s
        if record.access_ends_ms:
            life_s = min(life_s, max(record.access_ends_ms / 1000 - self._wall_s(), 1.0))
        leaf = certificates.issue(
            _signing_root(ca), key, identity,
            generation=record.generation, life_s=life_s, now_s=self._wall_s(),
        )  # fmt: skip
        # Who trusts only the old root yet is led there by its signature under the new one.
        chain = certificates.to_pem(leaf) + ca.cross_pem.encode()
        return Issued(identity=identity, role=record.role, certificates_pem=chain, roots_pem=self.roots_pem())

    async def _decided(self, guards: Sequence[Compare], operations: Sequence[Operation]) -> bool:
        """Do it, unless a guard fails; a write whose answer was lost is looked at."""
        try:
            return (await self._store.txn(guards, operations)).succeeded
        except UnknownOutcomeError:
            result = await self._store.txn(guards, operations)
            puts = [each for each in operations if isinstance(each, Put)]
            return result.succeeded or all(
                put.key in result.found and result.found[put.key].value == put.value for put in puts
            )

    # -- tokens --------------------------------------------------------------------------------

    async def create_token(
        self, kind: Kind, *, name: str = "", ttl_ms: int, uses: int, made_by: str
    ) -> tuple[JoinToken, records.TokenRecord]:
        """A token, and what is kept of it. Raises RefusedError."""
        if not 0 <= ttl_ms <= TOKEN_TTL_MAX_MS or not 0 <= uses <= TOKEN_USES_MAX:
            raise RefusedError(f"a token lives at most 30 days, and serves at most {TOKEN_USES_MAX} times")
        if len(await self.tokens()) >= TOKENS_MAX:
            raise RefusedError(f"there are {TOKENS_MAX} join tokens: revoke some, or wait until they expire")
        token = new_token(self.root_digest)
        record = records.TokenRecord(
            id=token.id,
            kind=kind.value,
            name=name,
            secret_hash=secret_hash(token.secret),
            created_ms=self._now_ms(),
            expires_ms=self._now_ms() + (ttl_ms or TOKEN_TTL_MS),
            uses_left=uses or 1,
            made_by=made_by,
        )
        key = keys.pki_token(token.id)
        absent = Compare(key=key, field=Field.CREATE_REVISION, to=0)
        if not await self._decided([absent], [Put(key=key, value=records.encode(record))]):
            raise ConflictError("a token of the same id exists; try again")
        return token, record

    async def tokens(self) -> list[records.TokenRecord]:
        """All that are kept; those that expired a day ago are thrown away now."""
        found: list[records.TokenRecord] = []
        for item in (await self._store.list(keys.PKI_TOKENS)).items:
            record = records.decode_token(item.value)
            if record.expires_ms + 86400 * 1000 < self._now_ms():
                guard = Compare(key=item.key, field=Field.MOD_REVISION, to=item.mod_revision)
                await self._store.txn([guard], [DeleteKey(key=item.key)])
            else:
                found.append(record)
        return found

    async def revoke_token(self, token_id: str) -> None:
        """Raises LookupError."""

        async def attempt() -> bool | None:
            key = keys.pki_token(token_id) if is_identity_name(token_id) else ""
            item = await self._store.get(key) if key else None
            if item is None:
                raise LookupError(f"there is no join token {token_id}")
            record = replace(records.decode_token(item.value), is_revoked=True)
            guard = Compare(key=key, field=Field.MOD_REVISION, to=item.mod_revision)
            return await self._decided([guard], [Put(key=key, value=records.encode(record))]) or None

        await retried("the token", attempt)

    # -- identities ----------------------------------------------------------------------------

    async def create_user(self, name: str, *, role: int, access_ends_ms: int) -> None:
        """A user, or another role and end for one who exists; one who was revoked comes back. Raises RefusedError."""
        _check_name(Kind.USER, name)

        async def attempt() -> bool | None:
            before, version = await self._registry.read(Kind.USER.value, name)
            generation = 1
            if before is not None:
                # Whoever was revoked, or whose access had ended, starts anew: old certificates stay void.
                is_void = void_reason(before, before.generation, now_ms=self._now_ms())
                generation = before.generation + bool(is_void)
            record = records.IdentityRecord(
                kind=Kind.USER.value,
                name=name,
                generation=generation,
                role=role,
                created_ms=before.created_ms if before is not None else self._now_ms(),
                access_ends_ms=access_ends_ms,
                not_after_ms=before.not_after_ms if before is not None else 0,
                issuer_key=before.issuer_key if before is not None else "",
            )
            return await self._put_identity(record, version)

        await retried(f"user {name}", attempt)

    async def revoke(self, kind: str, name: str) -> bool:
        """End every certificate of an identity; whether there was one to end. Raises LookupError."""

        async def attempt() -> str | None:
            record, version = await self._registry.read(kind, name)
            if record is None:
                raise LookupError(f"there is no {kind} {name}")
            if record.is_revoked:
                return "was revoked before"
            ended = replace(record, is_revoked=True, generation=record.generation + 1)
            return "revoked" if await self._put_identity(ended, version) else None

        outcome = await retried(f"{kind} {name}", attempt)
        await self._registry.load()
        log.warning("identity.revoked", kind=kind, name=name, outcome=outcome)
        return outcome == "revoked"

    async def _put_identity(self, record: records.IdentityRecord, version: int) -> bool | None:
        key = keys.pki_identity(record.kind, record.name)
        guard = Compare(key=key, field=Field.MOD_REVISION, to=version)
        done = await self._decided([guard], [Put(key=key, value=records.encode(record))])
        await self._registry.read(record.kind, record.name)
        return done or None

    def _now_ms(self) -> int:
        return int(self._wall_s() * 1000)


def _signing_root(ca: records.CaRecord) -> certificates.Root:
    record = ca.roots[0]
    return certificates.Root(
        certificate=certificates.from_pem(record.certificate_pem.encode())[0],
        key=certificates.key_from_pem(record.key_pem.encode()),
    )


def _check_name(kind: Kind, name: str) -> None:
    is_good = is_name(name) if kind is Kind.NODE else is_identity_name(name)
    if not is_good:
        raise RefusedError(
            f"{name[:80]!r} is no name of a {kind}: "
            + (
                "lower case letters, digits and '-', at most 63"
                if kind is Kind.NODE
                else "letters, digits, '-', '_' and '.', at most 63"
            )
        )
