"""Who gets which certificate: by a token, by the certificate before, or by the cluster key itself.

Every manager can sign; what must not happen twice (a token's last use, an identity's next
generation) is decided by compare-and-swap in the store. Keys are made by whoever joins; of its
request only the public key counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from bayplan.identity import certificates
from bayplan.identity.names import Identity, Kind, is_identity_name
from bayplan.model.names import is_name
from manager.access import records
from manager.access.ages import age
from manager.access.gate import void_reason
from manager.access.registry import Registry
from manager.access.roots import Issued, Roots
from manager.access.tokens import NotLetInError, Tokens
from manager.errors import RefusedError
from manager.store import keys
from manager.store.port import Put, Store, StoreError
from manager.store.swap import retried, swap, swap_all

log = structlog.get_logger(__name__)

# A certificate that ran out still proves who its holder is, for so long: a host that was cut off, a person
# on holiday. What ends a stolen key is its revocation, which is looked up each time; see docs/security.md.
REJOIN_WITHIN_S = 30 * 86400.0


class Authority:
    """Of one cluster. Every method may raise StoreError.

    Args:
        check_manager: raises RefusedError while no manager can be let in by a token.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        roots: Roots,
        tokens: Tokens,
        *,
        wall_s: Callable[[], float],
        check_manager: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._registry = registry
        self._roots = roots
        self._tokens = tokens
        self._wall_s = wall_s
        self._check_manager = check_manager

    async def join_by_token(self, request: bytes, *, token_id: str, secret: str, name: str) -> Issued:
        """A first certificate. Raises CertificateError, NotLetInError, RefusedError."""
        key = certificates.requested_key(request)

        async def attempt() -> Issued | None:
            token, version = await self._tokens.find(token_id, secret)
            named = token.name or name
            kind = Kind(token.kind)
            if kind is not Kind.USER and not name:  # Only who logs in has no name to offer.
                raise RefusedError(
                    f"this token is not for a user but for a {kind}: log in with one of `bay user create`"
                )
            _check_name(kind, named)
            if kind is Kind.MANAGER:
                self._check_manager()
            before, before_version = await self._registry.read(kind.value, named)
            digest = certificates.key_digest(key)
            if (
                before is not None
                and not before.is_revoked
                and (before.token, before.key_digest) == (token_id, digest)
            ):
                # Its answer was lost: the same once more, and no use of the token.
                return await self._issued(key, before, before_version)
            self._tokens.check_good(token)
            following = self._joining(kind, named, before, token_id, digest)
            used = replace(token, uses_left=token.uses_left - 1)
            return await self._issued(key, following, before_version, used=(used, version))

        return await retried("the token", attempt)

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
        if before is not None and not before.is_revoked and before.issuer_key in self._registry.issuers:
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
        if not any(certificates.is_issued_by(shown, root) for root in self._roots.trusted):
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
            return await self._issued(key, record, version)

        try:
            return await retried(str(identity), attempt)
        except StoreError as error:
            # A store that is away for long must not cost every node its certificate. What was known of
            # this one before decides; it can be revoked as soon as the store is back.
            known = self._registry.identities.get((identity.kind.value, identity.name))
            if known is None or void_reason(known, generation, now_ms=self._now_ms()):
                raise
            log.warning("certificate.not_written_down", identity=str(identity), error=str(error))
            return self._roots.sign(key, known)

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
            return await self._issued(key, before, version)

        return await retried(str(identity), attempt)

    async def _issued(
        self,
        key: ec.EllipticCurvePublicKey,
        record: records.IdentityRecord,
        version: int,
        *,
        used: tuple[records.TokenRecord, int] | None = None,
    ) -> Issued | None:
        """Sign, and write the identity down (and the token that was used); None if somebody else was faster."""
        signed = self._roots.sign(key, record)
        leaf = certificates.read_leaf(certificates.from_pem(signed.certificates_pem)[0])
        older_ms = record.older_not_after_ms
        if record.kind == Kind.USER and record.issuer_key not in ("", leaf.issuer_key):
            older_ms = max(older_ms, record.not_after_ms)  # It may be on another of the user's computers.
        written = replace(
            record,
            not_after_ms=int(leaf.expires_s * 1000),
            issuer_key=leaf.issuer_key,
            older_not_after_ms=older_ms,
        )
        place = keys.pki_identity(record.kind, record.name)
        versions, puts = {place: version}, [Put(key=place, value=records.encode(written))]
        if used is not None:
            token, token_version = used
            versions[keys.pki_token(token.id)] = token_version
            puts.append(Put(key=keys.pki_token(token.id), value=records.encode(token)))
        if await swap_all(self._store, puts, versions=versions) is None:
            return None
        await self._registry.read(record.kind, record.name)
        log.info("certificate.issued", identity=str(signed.identity), expires_ms=written.not_after_ms)
        return signed

    async def create_user(self, name: str, *, role: int, access_ends_ms: int) -> None:
        """A user, or another role and end for one who exists; one who was revoked comes back. Raises RefusedError."""
        _check_name(Kind.USER, name)
        # Certificates end with a whole second. One that ran out a moment before the access could be exchanged.
        access_ends_ms = -(-access_ends_ms // 1000) * 1000

        async def attempt() -> bool | None:
            before, version = await self._registry.read(Kind.USER.value, name)
            generation = 1
            if before is not None:
                # Whoever was revoked, or whose access had ended, starts anew: old certificates stay void.
                is_void = bool(void_reason(before, before.generation, now_ms=self._now_ms()))
                # Less is written down like a revocation, so that no backup of the store brings more back.
                generation = before.generation + (is_void or role < before.role)
            record = records.IdentityRecord(
                kind=Kind.USER.value,
                name=name,
                generation=generation,
                role=role,
                created_ms=before.created_ms if before is not None else self._now_ms(),
                access_ends_ms=access_ends_ms,
                not_after_ms=before.not_after_ms if before is not None else 0,
                issuer_key=before.issuer_key if before is not None else "",
                older_not_after_ms=before.older_not_after_ms if before is not None else 0,
            )
            return await self._put_identity(record, version)

        await retried(f"user {name}", attempt)

    async def revoke(self, kind: str, name: str) -> bool:
        """End every certificate of an identity; whether there was one to end. Raises LookupError."""
        if kind not in {each.value for each in Kind} or not is_identity_name(name):
            raise LookupError(f"there is no {kind[:20]!r} of the name {name[:80]!r}")
        if kind == Kind.USER:
            await self._tokens.revoke_of(name)

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
        done = await swap(self._store, key, records.encode(record), version=version)
        await self._registry.read(record.kind, record.name)
        return True if done is not None else None

    def _now_ms(self) -> int:
        return int(self._wall_s() * 1000)


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
