"""Registries' user names and passwords in the store: one key a registry.

A registry is a host, or host:port, which need not fit into a key: what does not is written as `_` and
two hexadecimal digits. No host has a `_`, so the way back is clear.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from pydantic import TypeAdapter

from manager.store import keys
from manager.store.records import DamagedRecordError, decoded

_GROUP = "registries"
REGISTRIES = keys.secrets_of(_GROUP)
"""Prefix of all of them."""

# An IPv6 address in brackets begins with what no part of a key may begin with.
_BRACKET = "_5b"
_BRACKET_FIRST = "x" + _BRACKET


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryLogin:
    """What nodes show to a registry."""

    username: str
    password: str = field(repr=False)


_LOGIN = TypeAdapter(RegistryLogin)


def registry_key(registry: str) -> str:
    """Key of a registry, host or host:port. Raises ValueError for what is no such thing."""
    if "_" in registry or not registry.isascii():
        raise ValueError(f"{registry!r} cannot be a registry")
    part = re.sub(r"[^-A-Za-z0-9.]", lambda match: f"_{ord(match[0]):02x}", registry)
    if part.startswith(_BRACKET):
        part = part.replace(_BRACKET, _BRACKET_FIRST, 1)
    return keys.secret(_GROUP, part)


def parse_registry_key(key: str) -> str | None:
    """The registry."""
    match keys.parse_secret(key):
        case (group, part) if group == _GROUP:
            if part.startswith(_BRACKET_FIRST):
                part = part.replace(_BRACKET_FIRST, _BRACKET, 1)
            return unquote(part.replace("_", "%"))
        case _:
            return None


def encode_login(login: RegistryLogin) -> bytes:
    """JSON."""
    return _LOGIN.dump_json(login)


def decode_login(value: bytes) -> RegistryLogin:
    """Raises DamagedRecordError, without a word of the value."""
    try:
        return decoded(_LOGIN, value)
    except DamagedRecordError:
        raise DamagedRecordError("no user name and password") from None
