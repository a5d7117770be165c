"""The methods of the service Access. Who may call them, the gate has decided; see proto/."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn, Protocol, TypeVar

import grpc
import grpc.aio
import structlog

from bayplan.identity import certificates
from bayplan.identity.names import Kind, parse_identity
from bayplan.transport.port import Transport
from bayplan.v1 import access_pb2 as api
from bayplan.v1 import access_pb2_grpc, callers_pb2
from manager.access.access import Access
from manager.access.attempts import Attempts
from manager.access.audit import Entry
from manager.access.caller import current_caller, note_target, role_of
from manager.access.gate import may_call
from manager.access.methods import words_of_callers
from manager.access.records import TokenRecord
from manager.access.roots import Issued
from manager.access.tokens import NotLetInError
from manager.control_api.calls import Context
from manager.control_api.calls import abort as abort_call
from manager.errors import RefusedError

log = structlog.get_logger(__name__)

_PEER_TIMEOUT_S = 3.0
USER_TTL_MAX_MS = 3653 * 86400 * 1000
AUDIT_LIMIT = 200
AUDIT_LIMIT_MAX = 10_000

_Reply = TypeVar("_Reply")

_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (NotLetInError, grpc.StatusCode.UNAUTHENTICATED),
    (certificates.CertificateError, grpc.StatusCode.INVALID_ARGUMENT),
    (LookupError, grpc.StatusCode.NOT_FOUND),
)


class Cluster(Protocol):
    """What the servicer asks of its manager."""

    @property
    def manager_id(self) -> str: ...

    @property
    def cluster_id(self) -> str: ...

    def manager_addresses(self) -> list[str]:
        """Of every living manager, this one too."""
        ...

    def other_managers(self) -> dict[str, str]:
        """Id → address of every other living manager."""
        ...


class AccessServicer(access_pb2_grpc.AccessServicer):
    """Served by every manager."""

    def __init__(
        self,
        cluster: Cluster,
        access: Access,
        *,
        methods: dict[str, callers_pb2.Callers],
        transport: Transport,
        loop_s: Callable[[], float],
    ) -> None:
        self._cluster = cluster
        self._roots, self._tokens, self._authority = access.roots, access.tokens, access.authority
        self._registry = access.registry
        self._audit = access.audit
        self._cluster_keys = access.cluster_keys
        self._methods = methods
        self._transport = transport
        self._wall_s = access.wall_s
        self._attempts = Attempts(loop_s)

    # -- certificates --------------------------------------------------------------------------

    async def Join(self, request: api.JoinRequest, context: Context) -> api.JoinReply:
        """By a token, or by a certificate that ran out."""
        address = current_caller().address
        wait_s = self._attempts.wait_s(address)
        if wait_s > 0:
            current_caller().denied = "too many failed attempts"
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"too many failed attempts to join from {address}; wait {wait_s:.0f} s",
            )
        try:
            issued = await self._join(request)
        except (NotLetInError, RefusedError, certificates.CertificateError) as error:
            self._attempts.failed(address)
            current_caller().denied = str(error)
            await _abort(context, error)
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await _abort(context, error)
        note_target(str(issued.identity))
        reply = self._reply(issued)
        if issued.identity.kind is Kind.MANAGER:
            reply.cluster_key, reply.cluster_key_id = self._cluster_keys.current()
        return reply

    async def _join(self, request: api.JoinRequest) -> Issued:
        match request.WhichOneof("proof"):
            case "token":
                return await self._authority.join_by_token(
                    request.certificate_request,
                    token_id=request.token.id,
                    secret=request.token.secret,
                    name=request.name,
                )
            case "expired":
                return await self._authority.join_by_expired(
                    request.certificate_request,
                    certificate=request.expired.certificate,
                    signature=request.expired.signature,
                )
        raise NotLetInError("joining needs a token, or a certificate that ran out")

    async def Renew(self, request: api.RenewRequest, context: Context) -> api.JoinReply:
        """For whoever shows a certificate that is still good."""
        caller = current_caller()

        async def answer() -> api.JoinReply:
            key = certificates.requested_key(request.certificate_request)
            identity = parse_identity(caller.identity)
            return self._reply(await self._authority.renew(identity, caller.generation, key))

        return await self._answered(context, answer)

    def _reply(self, issued: Issued) -> api.JoinReply:
        return api.JoinReply(
            certificates=issued.certificates_pem.decode(),
            roots=issued.roots_pem.decode(),
            cluster=issued.identity.cluster,
            managers=self._cluster.manager_addresses(),
            identity=str(issued.identity),
            role=role_of(issued.role),
        )

    async def WhoAmI(self, request: api.WhoAmIRequest, context: Context) -> api.WhoAmIReply:
        """What the certificate says, and what is kept of its holder."""
        del request, context
        caller = current_caller()
        record = self._registry.identities.get((caller.kind, caller.name))
        return api.WhoAmIReply(
            identity=caller.identity,
            role=role_of(caller.role),
            cluster=self._cluster.cluster_id,
            not_after_ms=caller.expires_ms,
            access_ends_ms=record.access_ends_ms if record is not None else 0,
        )

    async def CanI(self, request: api.CanIRequest, context: Context) -> api.CanIReply:
        """Whether the caller may call a method."""
        found = [path for path in self._methods if path.removeprefix("/") == request.method]
        found = found or [path for path in self._methods if path.endswith(f"/{request.method}")]
        if len(found) != 1:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no method {request.method[:80]!r}")
        callers, caller = self._methods[found[0]], current_caller()
        allowed = may_call(callers, caller.kind, caller.role)
        return api.CanIReply(
            allowed=allowed,
            why="" if allowed else f"{found[0].rpartition('/')[2]} is for {words_of_callers(callers)}",
        )

    # -- tokens and identities -----------------------------------------------------------------

    async def CreateJoinToken(
        self, request: api.CreateJoinTokenRequest, context: Context
    ) -> api.CreateJoinTokenReply:
        """For a node or a manager."""
        if request.kind not in {Kind.NODE.value, Kind.MANAGER.value}:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"a token is for a node or a manager, not for {request.kind[:40]!r};"
                " a user's is made by `bay user create`",
            )
        return await self._answered(
            context, lambda: self._token(Kind(request.kind), ttl_ms=request.ttl_ms, uses=request.uses)
        )

    async def _token(
        self, kind: Kind, *, name: str = "", ttl_ms: int = 0, uses: int = 0
    ) -> api.CreateJoinTokenReply:
        token, record = await self._tokens.create(
            kind,
            self._roots.signing_digest,
            name=name,
            ttl_ms=ttl_ms,
            uses=uses,
            made_by=current_caller().name,
        )
        return api.CreateJoinTokenReply(
            token=str(token), about=_about(record), managers=self._cluster.manager_addresses()
        )

    async def ListJoinTokens(
        self, request: api.ListJoinTokensRequest, context: Context
    ) -> api.ListJoinTokensReply:
        """Without their secrets, which nobody keeps."""
        del request

        async def answer() -> api.ListJoinTokensReply:
            return api.ListJoinTokensReply(tokens=[_about(each) for each in await self._tokens.all()])

        return await self._answered(context, answer)

    async def RevokeJoinToken(
        self, request: api.RevokeJoinTokenRequest, context: Context
    ) -> api.RevokeJoinTokenReply:
        """Nobody joins by it any more; who has, stays."""

        async def answer() -> api.RevokeJoinTokenReply:
            await self._tokens.revoke(request.id)
            return api.RevokeJoinTokenReply()

        return await self._answered(context, answer)

    async def CreateUser(self, request: api.CreateUserRequest, context: Context) -> api.CreateJoinTokenReply:
        """And the token for their first login."""
        if not request.role or request.role not in callers_pb2.Role.values():
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "a user needs a role: viewer, operator or admin"
            )
        if not 0 <= request.ttl_ms <= USER_TTL_MAX_MS:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "a user's access lasts ten years at most; 0 is without an end",
            )

        async def answer() -> api.CreateJoinTokenReply:
            ends_ms = int(self._wall_s() * 1000) + request.ttl_ms if request.ttl_ms else 0
            await self._authority.create_user(request.name, role=request.role, access_ends_ms=ends_ms)
            return await self._token(Kind.USER, name=request.name)

        return await self._answered(context, answer)

    async def ListIdentities(
        self, request: api.ListIdentitiesRequest, context: Context
    ) -> api.ListIdentitiesReply:
        """Everybody who was ever let in and not forgotten."""
        del context
        digests = {
            certificates.key_identifier(root): certificates.digest(root) for root in self._roots.trusted
        }
        return api.ListIdentitiesReply(
            identities=[
                api.IdentityFacts(
                    kind=record.kind,
                    name=record.name,
                    role=role_of(record.role),
                    revoked=record.is_revoked,
                    created_ms=record.created_ms,
                    access_ends_ms=record.access_ends_ms,
                    not_after_ms=record.not_after_ms,
                    issuer=digests.get(record.issuer_key, ""),
                )
                for _, record in sorted(self._registry.identities.items())
                if request.kind in ("", record.kind)
            ]
        )

    async def RevokeIdentity(
        self, request: api.RevokeIdentityRequest, context: Context
    ) -> api.RevokeIdentityReply:
        """Every manager ends its connections as soon as it hears of it from the store."""

        async def answer() -> api.RevokeIdentityReply:
            if request.kind == Kind.MANAGER and request.name == self._cluster.manager_id:
                raise RefusedError(
                    f"manager {request.name} is the one that you ask: let another manager revoke it (--managers)"
                )
            changed = await self._authority.revoke(request.kind, request.name)
            return api.RevokeIdentityReply(changed=changed)

        return await self._answered(context, answer)

    # -- roots and keys ------------------------------------------------------------------------

    async def ShowCa(self, request: api.ShowCaRequest, context: Context) -> api.ShowCaReply:
        """Which roots are trusted, and who still needs the older one."""
        del request, context
        return self._shown_ca()

    def _shown_ca(self) -> api.ShowCaReply:
        kept = self._registry.ca
        since = [root.since_ms for root in kept.roots] if kept is not None else []
        return api.ShowCaReply(
            roots=[
                api.Root(
                    digest=certificates.digest(root),
                    not_after_ms=int(root.not_valid_after_utc.timestamp() * 1000),
                    since_ms=since_ms,
                )
                for root, since_ms in zip(self._roots.trusted, since, strict=True)
            ],
            waiting=self._roots.waiting(),
        )

    async def RotateCa(self, request: api.RotateCaRequest, context: Context) -> api.ShowCaReply:
        """A new root, or the end of the old one."""
        if request.finish and request.stolen:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "write finish or stolen, not both")

        async def answer() -> api.ShowCaReply:
            if request.finish:
                await self._roots.finish()
            else:
                await self._roots.rotate(is_stolen=request.stolen)
            return self._shown_ca()

        return await self._answered(context, answer)

    async def RotateKeys(self, request: api.RotateKeysRequest, context: Context) -> api.RotateKeysReply:
        """Give every manager the next cluster key, then encrypt everything anew."""
        del request

        async def answer() -> api.RotateKeysReply:
            key_id, rewritten = await self._cluster_keys.rotate(self._give_key)
            return api.RotateKeysReply(cluster_key_id=key_id, rewritten=rewritten)

        return await self._answered(context, answer)

    async def _give_key(self, key: api.TakeClusterKeyRequest) -> None:
        """Raises RefusedError unless every other living manager has it."""
        for manager_id, address in self._cluster.other_managers().items():
            record = self._registry.identities.get((Kind.MANAGER.value, manager_id))
            if record is None or record.is_revoked:
                continue  # It may still be able to write to etcd that it lives.
            channel = self._transport.channel(address)
            try:
                await access_pb2_grpc.AccessStub(channel).TakeClusterKey(key, timeout=_PEER_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                raise RefusedError(
                    f"manager {manager_id} at {address} could not be given the next cluster key"
                    f" ({error.details()}): nothing was changed. Start it, or stop it for good, and try again"
                ) from error
            finally:
                await channel.close()

    async def TakeClusterKey(
        self, request: api.TakeClusterKeyRequest, context: Context
    ) -> api.TakeClusterKeyReply:
        """Keep the next cluster key; it counts when the store is encrypted under it."""

        async def answer() -> api.TakeClusterKeyReply:
            await self._cluster_keys.take(request.key)
            return api.TakeClusterKeyReply()

        return await self._answered(context, answer)

    # -- the record ----------------------------------------------------------------------------

    async def ListAudit(self, request: api.ListAuditRequest, context: Context) -> api.ListAuditReply:
        """Of every manager that can be reached."""
        del context
        others = self._cluster.other_managers()
        answers = await asyncio.gather(*(self._audit_of(address, request) for address in others.values()))
        found = await self._own_audit(request)
        unreachable = [name for name, answer in zip(others, answers, strict=True) if answer is None]
        for answer in answers:
            found += answer or []
        found.sort(key=lambda entry: entry.at_ms)
        return api.ListAuditReply(entries=found[-_limit(request) :], unreachable=unreachable)

    async def ListOwnAudit(self, request: api.ListAuditRequest, context: Context) -> api.ListAuditReply:
        """Of this one."""
        del context
        return api.ListAuditReply(entries=await self._own_audit(request))

    async def _own_audit(self, request: api.ListAuditRequest) -> list[api.AuditEntry]:
        entries = await self._audit.read(
            since_ms=request.since_ms, limit=_limit(request), denied=request.denied, who=request.who
        )
        return [_entry(entry) for entry in entries]

    async def _audit_of(self, address: str, request: api.ListAuditRequest) -> list[api.AuditEntry] | None:
        channel = self._transport.channel(address)
        try:
            reply = await access_pb2_grpc.AccessStub(channel).ListOwnAudit(request, timeout=_PEER_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            log.info("audit.not_reached", manager=address, code=error.code().name)
            return None
        finally:
            await channel.close()
        return list(reply.entries)

    async def _answered(self, context: Context, answer: Callable[[], Awaitable[_Reply]]) -> _Reply:
        try:
            return await answer()
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await _abort(context, error)


def _about(record: TokenRecord) -> api.JoinToken:
    return api.JoinToken(
        id=record.id,
        kind=record.kind,
        name=record.name,
        expires_ms=record.expires_ms,
        uses_left=record.uses_left,
        made_by=record.made_by,
        created_ms=record.created_ms,
        revoked=record.is_revoked,
    )


def _entry(entry: Entry) -> api.AuditEntry:
    return api.AuditEntry(
        at_ms=entry.at_ms,
        manager=entry.manager,
        who=entry.who,
        via=entry.via,
        address=entry.address,
        method=entry.method,
        target=entry.target,
        allowed=entry.allowed,
        why=entry.why,
        outcome=entry.outcome,
        count=entry.count,
    )


def _limit(request: api.ListAuditRequest) -> int:
    return min(max(request.limit, 0) or AUDIT_LIMIT, AUDIT_LIMIT_MAX)


async def _abort(context: Context, error: Exception) -> NoReturn:
    for kind, code in _CODES:
        if isinstance(error, kind):
            await context.abort(code, str(error))
    await abort_call(context, error)
