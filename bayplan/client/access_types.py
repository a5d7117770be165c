"""What the calls about access give: frozen values. Times are milliseconds since the Unix epoch, 0 where there is none."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoAmI:
    """Who the cluster takes the caller for."""

    identity: str  # spiffe://<cluster>/<kind>/<name>
    role: str  # viewer, operator, admin; empty: no user.
    cluster: str
    certificate_until_ms: int
    access_ends_ms: int  # 0: not before it is revoked.


@dataclass(frozen=True, slots=True, kw_only=True)
class CanI:
    """Whether the caller may do something."""

    allowed: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTokenInfo:
    """What is known of a token; never its secret."""

    id: str
    role: str  # node, manager, user
    name: str  # Of a user.
    expires_ms: int
    uses_left: int
    made_by: str
    created_ms: int
    revoked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token that was just made."""

    token: str = field(repr=False)  # Shown this once.
    about: JoinTokenInfo
    managers: tuple[str, ...]  # Where it can be used, host:port.


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityInfo:
    """A user, node or manager that has, or had, certificates."""

    kind: str  # user, node, manager
    name: str
    role: str  # Of a user.
    revoked: bool
    created_ms: int
    access_ends_ms: int  # 0: not before it is revoked.
    certificate_until_ms: int  # Of the newest; 0: it never had one.
    issuer: str  # Digest of the root behind it.


@dataclass(frozen=True, slots=True, kw_only=True)
class CaRoot:
    """A root that is trusted."""

    digest: str  # SHA-256 of the certificate, hex.
    until_ms: int
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ca:
    """Whom the cluster trusts to say who is who."""

    roots: tuple[CaRoot, ...]  # The one that signs first.
    waiting: tuple[str, ...]  # Identities that still hold a certificate of an older root.


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedKeys:
    """What came of new keys for the store."""

    cluster_key_id: str
    rewritten: int  # Values encrypted again.


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One decision about a caller."""

    at_ms: int
    manager: str
    who: str  # spiffe://…, or empty.
    via: str  # The manager that passed the call on.
    address: str
    method: str
    target: str
    allowed: bool
    why: str
    outcome: str  # Status code.
    count: int  # The same that many times within seconds.


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Decisions, oldest first."""

    entries: tuple[AuditEntry, ...]
    unreachable: tuple[str, ...]  # Managers whose part is missing.
