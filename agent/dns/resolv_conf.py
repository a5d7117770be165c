"""Whom the host itself asks: its /etc/resolv.conf."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")
# As many as the C library takes from it.
SERVERS_MAX = 3


def parse_servers(text: str, *, own: Collection[str]) -> tuple[str, ...]:
    """Addresses of name servers, in their order, without our own: we would ask ourselves."""
    found = []
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_] if _is_address(address) and address not in own:
                found.append(address)
            case _:
                pass
    return tuple(dict.fromkeys(found))[:SERVERS_MAX]


class ResolvConf:
    """Reads it when it has changed."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._path = path
        self._text: str | None = None

    def changed(self) -> str | None:
        """Its text, if that is not the one of last time. A file that is not there, or cannot be read, is empty."""
        try:
            text = self._path.read_text(errors="replace")
        except OSError:
            text = ""
        if text == self._text:
            return None
        self._text = text
        return text


def _is_address(text: str) -> bool:
    try:
        ip_address(text)  # One of IPv6 may have a scope: fe80::1%eth0.
    except ValueError:
        return False
    return True
