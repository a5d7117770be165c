"""Registry credentials from a file in the form of Docker's config.json, which people have already."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path

from bayplan.v1 import agent_link_pb2 as wire


class RegistryAuthError(ValueError):
    """The file cannot be used: the message says where and why."""


def read_registry_auth(path: Path) -> tuple[wire.RegistryCredential, ...]:
    """Every entry of `auths`. Raises RegistryAuthError, OSError."""
    try:
        entries = json.loads(path.read_text())["auths"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryAuthError(f"{path}: not in the form of Docker's config.json: no `auths`") from error
    return tuple(_credential(path, registry, entry) for registry, entry in entries)


def _credential(path: Path, registry: str, entry: object) -> wire.RegistryCredential:
    if not isinstance(entry, dict):
        raise RegistryAuthError(f"{path}: auths[{registry!r}] must be a mapping")
    username, password = entry.get("username", ""), entry.get("password", "")
    if "auth" in entry:
        try:
            username, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, TypeError) as error:
            raise RegistryAuthError(f"{path}: auths[{registry!r}].auth is not base64") from error
    if not username or not password:
        raise RegistryAuthError(
            f"{path}: auths[{registry!r}] has no password: credential helpers are not supported"
        )
    host = registry.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return wire.RegistryCredential(
        registry="docker.io" if host == "index.docker.io" else host, username=username, password=password
    )
