"""Join tokens: `bay1.<digest of the root>.<id>.<secret>`.

The digest lets the one who joins find a false manager out before the secret is sent; the secret
lets the manager find a false one who joins. Managers keep only the secret's hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

# 128 bits that nobody can guess need no slow hash.
_SECRET_BYTES = 16
_TOKEN = re.compile(r"bay1\.([0-9a-f]{64})\.([0-9a-z]{10})\.([0-9a-f]{32})")


class TokenError(ValueError):
    """No join token. The text never repeats it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """Shown once, when it is made."""

    root_digest: str
    id: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"bay1.{self.root_digest}.{self.id}.{self.secret}"


def new_token(root_digest: str) -> JoinToken:
    """A random one."""
    return JoinToken(
        root_digest=root_digest, id=secrets.token_hex(5), secret=secrets.token_hex(_SECRET_BYTES)
    )


def parse_token(text: str) -> JoinToken:
    """Raises TokenError."""
    match = _TOKEN.fullmatch(text.strip())
    if match is None:
        raise TokenError("this is no join token: one is made by `bay join-token create` or `bay user create`")
    return JoinToken(root_digest=match[1], id=match[2], secret=match[3])


def secret_hash(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_secret(secret: str, kept: str) -> bool:
    """Compares in constant time."""
    return hmac.compare_digest(secret_hash(secret), kept)
