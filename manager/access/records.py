"""What is kept of roots, identities and join tokens; the store encrypts it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import TypeAdapter

from manager.store.records import decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class RootRecord:
    """A root that is trusted."""

    certificate_pem: str
    key_pem: str = field(repr=False)
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CaRecord:
    """The roots, the one that signs first; at most two."""

    roots: tuple[RootRecord, ...]
    # The first root as the second vouches for it; empty while there is one.
    cross_pem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRecord:
    """A manager, node or user that was let in. `generation` only grows, so that nothing revoked comes back."""

    kind: str
    name: str
    generation: int  # Certificates of earlier ones are void.
    is_revoked: bool = False
    role: int = 0  # Of a user.
    created_ms: int
    access_ends_ms: int = 0  # Of a user; 0: not before it is revoked.
    # The last joining: the same request, repeated because its answer was lost, is answered again.
    token: str = ""
    key_digest: str = ""
    # The newest certificate.
    not_after_ms: int = 0
    issuer_key: str = ""
    older_not_after_ms: int = 0  # Of a user: the last one of an older root.


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A join token; of its secret the hash alone."""

    id: str
    kind: str
    name: str = ""  # Of the user whom it lets in.
    secret_hash: str = field(repr=False)
    created_ms: int
    expires_ms: int
    uses_left: int
    made_by: str
    is_revoked: bool = False


_CA = TypeAdapter(CaRecord)
_IDENTITY = TypeAdapter(IdentityRecord)
_TOKEN = TypeAdapter(TokenRecord)


def encode(record: CaRecord | IdentityRecord | TokenRecord) -> bytes:
    """JSON."""
    match record:
        case CaRecord():
            return _CA.dump_json(record)
        case IdentityRecord():
            return _IDENTITY.dump_json(record)
        case TokenRecord():
            return _TOKEN.dump_json(record)


def decode_ca(value: bytes) -> CaRecord:
    """Raises DamagedRecordError."""
    return decoded(_CA, value)


def decode_identity(value: bytes) -> IdentityRecord:
    """Raises DamagedRecordError."""
    return decoded(_IDENTITY, value)


def decode_token(value: bytes) -> TokenRecord:
    """Raises DamagedRecordError."""
    return decoded(_TOKEN, value)
