"""A manager's Access over plain values, with a true root: to see what clients make of its answers."""

# ruff: noqa: N802 - the methods bear the wire's names
from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import grpc.aio

from bayplan.identity import certificates
from bayplan.identity.certificates import Root
from bayplan.identity.credentials import Credentials, OwnIdentity
from bayplan.identity.names import Identity, Kind
from bayplan.identity.tokens import JoinToken, new_token
from bayplan.transport.grpc import GrpcTransport
from bayplan.v1 import access_pb2 as access
from bayplan.v1.access_pb2_grpc import AccessServicer, add_AccessServicer_to_server
from bayplan.v1.callers_pb2 import ROLE_ADMIN, ROLE_VIEWER
from tests.bayplan.client.fake_control import FakeControl, served

Context = grpc.aio.ServicerContext[Any, Any]

CLUSTER = "3f2a9c1d5e7b4a60"
DAY_S = 86_400.0
# Shown as 2d2h, however slow the machine.
A_WHILE_MS = 50 * 3_600_000 + 1_800_000


def a_root(cluster: str = CLUSTER) -> Root:
    """Made long enough ago for any certificate of a test."""
    return certificates.new_root(cluster, now_s=time.time() - 30 * DAY_S)


def credentials_of(
    root: Root, kind: Kind, name: str, *, issued_s: float, life_s: float = DAY_S, cluster: str = CLUSTER
) -> Credentials:
    """As if `root` had issued them then."""
    key = certificates.new_key()
    identity = Identity(cluster=cluster, kind=kind, name=name)
    leaf = certificates.issue(root, key.public_key(), identity, generation=1, life_s=life_s, now_s=issued_s)
    return Credentials(
        identity=identity,
        issued_s=issued_s,
        expires_s=issued_s + life_s,
        key_pem=certificates.key_to_pem(key),
        certificates_pem=certificates.to_pem(leaf),
        roots_pem=certificates.to_pem(root.certificate),
    )


@dataclass
class FakeAccess(AccessServicer):
    """Set what it holds, and what it should fail with; `requests` is what it was asked."""

    root: Root = field(default_factory=a_root)
    token: JoinToken = field(init=False)  # Lets `user` log in, once.
    user: str = "admin"
    kind: Kind = Kind.USER
    life_s: float = DAY_S
    tokens: list[access.JoinToken] = field(default_factory=list)
    identities: list[access.IdentityFacts] = field(default_factory=list)
    entries: list[access.AuditEntry] = field(default_factory=list)
    unreachable: Sequence[str] = ()
    waiting: Sequence[str] = ()
    denied: set[str] = field(default_factory=set)  # Methods that CanI says no to.
    failures: list[tuple[grpc.StatusCode, str]] = field(default_factory=list)  # One a call, then none.
    renewals: list[tuple[grpc.StatusCode, str]] = field(default_factory=list)  # The same, of these alone.
    loses_answers: int = 0  # To so many who joined; their tokens are used.
    requests: list[Any] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)  # Serial numbers of the certificates they showed.

    def __post_init__(self) -> None:
        self.token = new_token(certificates.digest(self.root.certificate))
        self._used_by = ""

    async def _begin(self, request: Any, context: Context) -> None:
        self.requests.append(request)
        if self.failures:
            await context.abort(*self.failures.pop(0))

    def named(self, name: str) -> list[Any]:
        """Requests of the type `name`."""
        return [one for one in self.requests if type(one).__name__ == name]

    async def Join(self, request: access.JoinRequest, context: Context) -> access.JoinReply:
        await self._begin(request, context)
        if request.WhichOneof("proof") == "expired":
            before = certificates.from_der(request.expired.certificate)
            assert certificates.is_signed(before, request.expired.signature, request.certificate_request)
            return await self._issued(request.certificate_request, context)
        if request.token.secret != self.token.secret:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this cluster knows no such join token")
        key = certificates.key_digest(certificates.requested_key(request.certificate_request))
        if self._used_by not in {"", key}:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this join token was used already")
        self._used_by = key
        if self.loses_answers:
            self.loses_answers -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was closed")
        return await self._issued(request.certificate_request, context)

    async def Renew(self, request: access.RenewRequest, context: Context) -> access.JoinReply:
        await self._begin(request, context)
        return await self._issued(request.certificate_request, context)

    async def _issued(self, request: bytes, context: Context) -> access.JoinReply:
        if self.renewals:
            await context.abort(*self.renewals.pop(0))
        identity = Identity(cluster=CLUSTER, kind=self.kind, name=self.user)
        leaf = certificates.issue(
            self.root,
            certificates.requested_key(request),
            identity,
            generation=1,
            life_s=self.life_s,
            now_s=time.time(),
        )
        return access.JoinReply(
            certificates=certificates.to_pem(leaf).decode(),
            roots=certificates.to_pem(self.root.certificate).decode(),
            cluster=CLUSTER,
            managers=["10.0.0.1:7400"],
            identity=str(identity),
            role=ROLE_ADMIN,
        )

    async def WhoAmI(self, request: access.WhoAmIRequest, context: Context) -> access.WhoAmIReply:
        await self._begin(request, context)
        for shown in context.auth_context().get("x509_pem_cert", ()):
            self.callers.append(str(certificates.from_pem(shown)[0].serial_number))
        return access.WhoAmIReply(
            identity=f"spiffe://{CLUSTER}/user/admin",
            role=ROLE_ADMIN,
            cluster=CLUSTER,
            not_after_ms=int(time.time() * 1000) + A_WHILE_MS,
        )

    async def CanI(self, request: access.CanIRequest, context: Context) -> access.CanIReply:
        await self._begin(request, context)
        allowed = request.method not in self.denied
        return access.CanIReply(
            allowed=allowed, why="" if allowed else "admin is a viewer: this needs operator"
        )

    def _new(self, kind: str, uses: int = 1) -> access.CreateJoinTokenReply:
        about = access.JoinToken(
            id=self.token.id, kind=kind, uses_left=uses, expires_ms=int((time.time() + 3600) * 1000)
        )
        managers = ["10.0.0.1:7400", "10.0.0.2:7400"]
        return access.CreateJoinTokenReply(token=str(self.token), about=about, managers=managers)

    async def CreateJoinToken(
        self, request: access.CreateJoinTokenRequest, context: Context
    ) -> access.CreateJoinTokenReply:
        await self._begin(request, context)
        return self._new(request.kind, request.uses)

    async def ListJoinTokens(
        self, request: access.ListJoinTokensRequest, context: Context
    ) -> access.ListJoinTokensReply:
        await self._begin(request, context)
        return access.ListJoinTokensReply(tokens=self.tokens)

    async def RevokeJoinToken(
        self, request: access.RevokeJoinTokenRequest, context: Context
    ) -> access.RevokeJoinTokenReply:
        await self._begin(request, context)
        return access.RevokeJoinTokenReply()

    async def CreateUser(
        self, request: access.CreateUserRequest, context: Context
    ) -> access.CreateJoinTokenReply:
        await self._begin(request, context)
        return self._new("user")

    async def ListIdentities(
        self, request: access.ListIdentitiesRequest, context: Context
    ) -> access.ListIdentitiesReply:
        await self._begin(request, context)
        found = [one for one in self.identities if request.kind in {"", one.kind}]
        return access.ListIdentitiesReply(identities=found)

    async def RevokeIdentity(
        self, request: access.RevokeIdentityRequest, context: Context
    ) -> access.RevokeIdentityReply:
        await self._begin(request, context)
        return access.RevokeIdentityReply(changed=True)

    async def ShowCa(self, request: access.ShowCaRequest, context: Context) -> access.ShowCaReply:
        await self._begin(request, context)
        return self._ca()

    async def RotateCa(self, request: access.RotateCaRequest, context: Context) -> access.ShowCaReply:
        await self._begin(request, context)
        return self._ca()

    def _ca(self) -> access.ShowCaReply:
        now_ms = int(time.time() * 1000)
        roots = [
            access.Root(digest=letter * 64, since_ms=now_ms - A_WHILE_MS, not_after_ms=now_ms + A_WHILE_MS)
            for letter in "ab"
        ]
        return access.ShowCaReply(roots=roots, waiting=self.waiting)

    async def RotateKeys(self, request: access.RotateKeysRequest, context: Context) -> access.RotateKeysReply:
        await self._begin(request, context)
        return access.RotateKeysReply(cluster_key_id="k2", rewritten=12)

    async def TakeClusterKey(
        self, request: access.TakeClusterKeyRequest, context: Context
    ) -> access.TakeClusterKeyReply:
        del request, context
        raise AssertionError("managers alone call this")

    async def ListOwnAudit(self, request: access.ListAuditRequest, context: Context) -> access.ListAuditReply:
        del request, context
        raise AssertionError("managers alone call this")

    async def ListAudit(self, request: access.ListAuditRequest, context: Context) -> access.ListAuditReply:
        await self._begin(request, context)
        return access.ListAuditReply(entries=self.entries, unreachable=self.unreachable)


def an_identity(name: str = "alice", **changes: Any) -> access.IdentityFacts:
    """An active viewer."""
    now_ms = int(time.time() * 1000)
    fields: dict[str, Any] = {
        "kind": "user",
        "name": name,
        "role": ROLE_VIEWER,
        "created_ms": now_ms - 1000,
        "not_after_ms": now_ms + A_WHILE_MS,
    }
    return access.IdentityFacts(**(fields | changes))


@asynccontextmanager
async def secured(fake: FakeAccess, control: FakeControl | None = None) -> AsyncIterator[str]:
    """Serve both with TLS, as a manager of the root's cluster does; yields its address."""
    own = OwnIdentity(
        credentials_of(fake.root, Kind.MANAGER, "m1", issued_s=time.time() - DAY_S, life_s=9 * DAY_S)
    )
    register = partial(add_AccessServicer_to_server, fake)
    async with AsyncExitStack() as stack:
        for _ in range(50):
            # Below the ports that the kernel gives away by itself; the next one up is the join port.
            port = random.randrange(20_000, 32_000)
            server = served(control or FakeControl(), GrpcTransport(own), "127.0.0.1", port, more=[register])
            try:
                address = await stack.enter_async_context(server)
            except OSError:
                continue
            yield address
            return
    raise AssertionError("no two free ports side by side")
