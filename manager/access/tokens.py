"""Join tokens as managers keep them: a hash of the secret, an end, and how often it may still serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from bayplan.identity.names import Kind, is_identity_name
from bayplan.identity.tokens import JoinToken, is_secret, new_token, secret_hash
from manager.access import records
from manager.access.ages import age
from manager.errors import RefusedError
from manager.store import keys
from manager.store.port import Compare, DeleteKey, Field, KeyValue, Store
from manager.store.records import DamagedRecordError
from manager.store.swap import ConflictError, retried, swap

log = structlog.get_logger(__name__)

TTL_MS = 3600 * 1000
TTL_MAX_MS = 30 * 86400 * 1000
USES_MAX = 1000
TOKENS_MAX = 1000
KEPT_MS = 86400 * 1000  # After its end, so that whoever uses it is told why it is no good.


class NotLetInError(Exception):
    """A proof that does not hold; the text says what to do."""


class Tokens:
    """Of one cluster. Every method may raise StoreError."""

    def __init__(self, store: Store, *, wall_s: Callable[[], float]) -> None:
        self._store = store
        self._wall_s = wall_s

    async def find(self, token_id: str, secret: str) -> tuple[records.TokenRecord, int]:
        """The token with this secret, and its version. Raises NotLetInError."""
        item = await self._store.get(keys.pki_token(token_id)) if is_identity_name(token_id) else None
        record = _decoded(item) if item is not None else None
        # Compared in any case, so that an unknown id takes as long as a wrong secret.
        is_right = is_secret(secret, record.secret_hash if record is not None else secret_hash(""))
        if item is None or record is None or not is_right:
            raise NotLetInError(
                "this token is not valid here: make a new one with `bay join-token create` or `bay user create`"
            )
        return record, item.mod_revision

    def check_good(self, token: records.TokenRecord) -> None:
        """Raises NotLetInError unless it may be used (once more)."""
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

    async def create(
        self, kind: Kind, root_digest: str, *, name: str = "", ttl_ms: int, uses: int, made_by: str
    ) -> tuple[JoinToken, records.TokenRecord]:
        """A token, and what is kept of it. Raises RefusedError."""
        if not 0 <= ttl_ms <= TTL_MAX_MS or not 0 <= uses <= USES_MAX:
            raise RefusedError(f"a token lives at most 30 days, and serves at most {USES_MAX} times")
        if len(await self.all()) >= TOKENS_MAX:
            raise RefusedError(f"there are {TOKENS_MAX} join tokens: revoke some, or wait until they expire")
        token = new_token(root_digest)
        record = records.TokenRecord(
            id=token.id,
            kind=kind.value,
            name=name,
            secret_hash=secret_hash(token.secret),
            created_ms=self._now_ms(),
            expires_ms=self._now_ms() + (ttl_ms or TTL_MS),
            uses_left=uses or 1,
            made_by=made_by,
        )
        if await swap(self._store, keys.pki_token(token.id), records.encode(record), version=0) is None:
            raise ConflictError("a token of the same id exists; try again")
        return token, record

    async def all(self) -> list[records.TokenRecord]:
        """All that are kept; those that expired a day ago are thrown away now."""
        found: list[records.TokenRecord] = []
        for item in (await self._store.list(keys.PKI_TOKENS)).items:
            record = _decoded(item)
            if record is None:
                continue
            if record.expires_ms + KEPT_MS < self._now_ms():
                guard = Compare(key=item.key, field=Field.MOD_REVISION, to=item.mod_revision)
                await self._store.txn([guard], [DeleteKey(key=item.key)])
            else:
                found.append(record)
        return found

    async def revoke(self, token_id: str) -> None:
        """Raises LookupError."""

        async def attempt() -> int | None:
            key = keys.pki_token(token_id) if is_identity_name(token_id) else ""
            item = await self._store.get(key) if key else None
            if item is None:
                raise LookupError(f"there is no join token {token_id[:80]}")
            record = _decoded(item)
            if record is None:
                raise LookupError(f"there is no join token {token_id[:80]}")
            revoked = replace(record, is_revoked=True)
            return await swap(self._store, key, records.encode(revoked), version=item.mod_revision)

        await retried("the token", attempt)

    async def revoke_of(self, user: str) -> None:
        """All that would let a user in: none of them shall serve when the user is made anew."""
        for token in await self.all():
            if (token.kind, token.name) == (Kind.USER.value, user) and not token.is_revoked:
                await self.revoke(token.id)

    def _now_ms(self) -> int:
        return int(self._wall_s() * 1000)


def _decoded(item: KeyValue) -> records.TokenRecord | None:
    """None of junk: it lets nobody in, and stands in nobody's way."""
    try:
        return records.decode_token(item.value)
    except DamagedRecordError as error:
        log.warning("store_key.ignored", key=item.key, error=str(error))
        return None
