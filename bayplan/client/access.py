"""Calls about access: who is who, who may join, who may do what, and who did."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc.aio

from bayplan.client.access_types import (
    Audit,
    AuditEntry,
    Ca,
    CanI,
    CaRoot,
    IdentityInfo,
    JoinTokenInfo,
    NewToken,
    RotatedKeys,
    WhoAmI,
)
from bayplan.client.calls import Calls
from bayplan.client.managers import RepeatedNotFoundError

if TYPE_CHECKING:
    from bayplan.v1 import access_pb2 as access
    from bayplan.v1.access_pb2_grpc import AccessAsyncStub  # exists in the .pyi alone

ROLES = ("viewer", "operator", "admin")

# Every value in the store is encrypted again: as many etcd writes as the cluster has things.
_ROTATE_KEYS_EXTRA_S = 300.0

_Reply = TypeVar("_Reply")


class AccessCalls(Calls):
    """Tokens, users, certificates, keys, the audit log. The messages are imported by who uses them: few commands do."""

    async def _ask_access(
        self,
        method: Callable[[AccessAsyncStub], Callable[..., grpc.aio.UnaryUnaryCall[Any, _Reply]]],
        request: Any,
        *,
        may_repeat: bool = True,
        extra_s: float = 0.0,
    ) -> _Reply:
        from bayplan.v1.access_pb2_grpc import AccessStub

        return await self._managers.call_on(
            lambda channel: method(AccessStub(channel)), request, may_repeat=may_repeat, extra_s=extra_s
        )

    async def whoami(self) -> WhoAmI:
        """Who the cluster takes us for."""
        from bayplan.v1.access_pb2 import WhoAmIRequest

        reply = await self._ask_access(lambda stub: stub.WhoAmI, WhoAmIRequest())
        return WhoAmI(
            identity=reply.identity,
            role=role_word(reply.role),
            cluster=reply.cluster,
            certificate_until_ms=reply.not_after_ms,
            access_ends_ms=reply.access_ends_ms,
        )

    async def can_i(self, method: str) -> CanI:
        """Whether we may call `method`: "Scale", or "bayplan.v1.Control/Scale"."""
        from bayplan.v1.access_pb2 import CanIRequest

        reply = await self._ask_access(lambda stub: stub.CanI, CanIRequest(method=method))
        return CanI(allowed=reply.allowed, why=reply.why)

    # Tokens

    async def create_join_token(self, role: str, *, ttl_ms: int = 0, uses: int = 0) -> NewToken:
        """A token that lets hosts join.

        Args:
            role: "node" or "manager".
            ttl_ms: how long it can be used; 0: one hour.
            uses: how often; 0: once.

        Raises: InvalidDocumentError.
        """
        from bayplan.v1.access_pb2 import CreateJoinTokenRequest

        request = CreateJoinTokenRequest(kind=role, ttl_ms=ttl_ms, uses=uses)
        # Done twice it leaves a token that nobody knows, and that ends by itself.
        return _new_token(await self._ask_access(lambda stub: stub.CreateJoinToken, request))

    async def join_tokens(self) -> tuple[JoinTokenInfo, ...]:
        """Those that were made and are still remembered."""
        from bayplan.v1.access_pb2 import ListJoinTokensRequest

        reply = await self._ask_access(lambda stub: stub.ListJoinTokens, ListJoinTokensRequest())
        return tuple(map(_token_info, reply.tokens))

    async def revoke_join_token(self, id: str) -> None:  # noqa: A002  # what it is called everywhere
        """It cannot be used from now on. Raises: NotFoundError."""
        from bayplan.v1.access_pb2 import RevokeJoinTokenRequest

        try:
            await self._ask_access(lambda stub: stub.RevokeJoinToken, RevokeJoinTokenRequest(id=id))
        except RepeatedNotFoundError:
            return  # The first attempt did it, its answer was lost.

    # Users, nodes, managers

    async def create_user(self, name: str, role: str, *, ttl_ms: int = 0) -> NewToken:
        """A new user, or another token for one that exists, with the token for `bay login`.

        Args:
            name: of the user.
            role: "viewer", "operator" or "admin".
            ttl_ms: how long access lasts; 0: until it is revoked.

        Raises: InvalidDocumentError.
        """
        if role not in ROLES:
            raise ValueError(f"{role!r} is no role: {', '.join(ROLES)}")
        from bayplan.v1.access_pb2 import CreateUserRequest

        request = CreateUserRequest(name=name, role=f"ROLE_{role.upper()}", ttl_ms=ttl_ms)
        return _new_token(await self._ask_access(lambda stub: stub.CreateUser, request))

    async def identities(self, kind: str = "") -> tuple[IdentityInfo, ...]:
        """Of a kind ("user", "node", "manager"), or all."""
        from bayplan.v1.access_pb2 import ListIdentitiesRequest

        reply = await self._ask_access(lambda stub: stub.ListIdentities, ListIdentitiesRequest(kind=kind))
        return tuple(
            IdentityInfo(
                kind=one.kind,
                name=one.name,
                role=role_word(one.role),
                revoked=one.revoked,
                created_ms=one.created_ms,
                access_ends_ms=one.access_ends_ms,
                certificate_until_ms=one.not_after_ms,
                issuer=one.issuer,
            )
            for one in reply.identities
        )

    async def revoke(self, kind: str, name: str) -> bool:
        """End every certificate of an identity, on open streams too; whether that changed anything.

        Raises: NotFoundError; ForbiddenStateError: it must not be revoked now.
        """
        from bayplan.v1.access_pb2 import RevokeIdentityRequest

        request = RevokeIdentityRequest(kind=kind, name=name)
        return (await self._ask_access(lambda stub: stub.RevokeIdentity, request)).changed

    # Certificates and keys

    async def ca(self) -> Ca:
        """The roots that are trusted now."""
        from bayplan.v1.access_pb2 import ShowCaRequest

        return _ca(await self._ask_access(lambda stub: stub.ShowCa, ShowCaRequest()))

    async def rotate_ca(self, *, finish: bool = False, stolen: bool = False) -> Ca:
        """A new root signs from now on.

        Args:
            finish: of a rotation that is under way: the old root is dropped, whoever still needs it.
            stolen: the old root is dropped at once. Users log in, and nodes join, again; you too.

        Raises: ForbiddenStateError.
        """
        from bayplan.v1.access_pb2 import RotateCaRequest

        request = RotateCaRequest(finish=finish, stolen=stolen)
        ca = _ca(await self._ask_access(lambda stub: stub.RotateCa, request, may_repeat=finish))
        if not finish and not stolen:
            # The caller shall not be one of those for whom the old root is kept.
            await self._managers.renew()
        return ca

    async def rotate_keys(self) -> RotatedKeys:
        """New keys for what lies in the store; everything is encrypted again."""
        from bayplan.v1.access_pb2 import RotateKeysRequest

        reply = await self._ask_access(
            lambda stub: stub.RotateKeys,
            RotateKeysRequest(),
            may_repeat=False,
            extra_s=_ROTATE_KEYS_EXTRA_S,
        )
        return RotatedKeys(cluster_key_id=reply.cluster_key_id, rewritten=reply.rewritten)

    # What was decided

    async def audit(self, *, since_ms: int = 0, limit: int = 0, denied: bool = False, who: str = "") -> Audit:
        """Decisions about callers, of every manager that can be reached.

        Args:
            since_ms: not older.
            limit: the newest this many; 0: 200.
            denied: only what was not allowed.
            who: an identity, or a part of it.
        """
        from bayplan.v1.access_pb2 import ListAuditRequest

        request = ListAuditRequest(since_ms=since_ms, limit=limit, denied=denied, who=who)
        reply = await self._ask_access(lambda stub: stub.ListAudit, request)
        return Audit(
            entries=tuple(
                AuditEntry(
                    at_ms=one.at_ms,
                    manager=one.manager,
                    who=one.who,
                    via=one.via,
                    address=one.address,
                    method=one.method,
                    target=one.target,
                    allowed=one.allowed,
                    why=one.why,
                    outcome=one.outcome,
                    count=max(one.count, 1),
                )
                for one in reply.entries
            ),
            unreachable=tuple(reply.unreachable),
        )


def role_word(role: int) -> str:
    """A value of the wire's `Role` as users write it; empty for none."""
    return ROLES[role - 1] if 1 <= role <= len(ROLES) else ""


def _token_info(message: access.JoinToken) -> JoinTokenInfo:
    return JoinTokenInfo(
        id=message.id,
        role=message.kind,
        name=message.name,
        expires_ms=message.expires_ms,
        uses_left=message.uses_left,
        made_by=message.made_by,
        created_ms=message.created_ms,
        revoked=message.revoked,
    )


def _new_token(message: access.CreateJoinTokenReply) -> NewToken:
    return NewToken(token=message.token, about=_token_info(message.about), managers=tuple(message.managers))


def _ca(message: access.ShowCaReply) -> Ca:
    return Ca(
        roots=tuple(
            CaRoot(digest=root.digest, until_ms=root.not_after_ms, since_ms=root.since_ms)
            for root in message.roots
        ),
        waiting=tuple(message.waiting),
    )
