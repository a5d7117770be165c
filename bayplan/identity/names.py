"""Who somebody is: `spiffe://<cluster>/<manager|node|user>/<name>`, in one URI of a certificate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

# ASCII alone: no name looks like another, and none can leave its place in a path, a key or a log line.
_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,62}")
_URI = re.compile(r"spiffe://([a-z0-9][-a-z0-9.]{0,62})/(manager|node|user)/([^/]{1,63})")


class Kind(StrEnum):
    """What somebody is."""

    MANAGER = "manager"
    NODE = "node"
    USER = "user"


class IdentityError(ValueError):
    """No identity of a cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One member of one cluster."""

    cluster: str
    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"spiffe://{self.cluster}/{self.kind}/{self.name}"

    @property
    def words(self) -> str:
        """For messages: `node n1`."""
        return f"{self.kind} {self.name}"


def is_identity_name(name: str) -> bool:
    """Whether somebody may be called so."""
    return _NAME.fullmatch(name) is not None


def parse_identity(uri: str) -> Identity:
    """The inverse of str(). Raises IdentityError."""
    match = _URI.fullmatch(uri)
    if match is None or not is_identity_name(match[3]):
        raise IdentityError(f"{uri[:120]!r} is no identity")
    return Identity(cluster=match[1], kind=Kind(match[2]), name=match[3])


def manager_host(cluster: str) -> str:
    """The host name that certificates of managers alone carry: what clients demand of whom they dial."""
    return f"manager.{cluster}"
