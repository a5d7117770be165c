"""Who knocks too often: joining is open to everybody, so failing at it is rationed by address."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

# A person mistypes a token a few times; 128 random bits are not found at ten guesses a minute.
FAILURES_MAX = 10
WINDOW_S = 60.0
_ADDRESSES_MAX = 10_000


class Attempts:
    """Failures of the last minute, by address."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """How long this address must wait before it is heard; 0: it is heard now."""
        recent = self._recent(_host(address))
        return recent[0] + WINDOW_S - self._now_s() if len(recent) >= FAILURES_MAX else 0.0

    def failed(self, address: str) -> None:
        """One more."""
        host = _host(address)
        self._failures[host] = [*self._recent(host), self._now_s()][-FAILURES_MAX:]
        self._failures.move_to_end(host)
        while len(self._failures) > _ADDRESSES_MAX:
            self._failures.popitem(last=False)

    def _recent(self, host: str) -> list[float]:
        return [at_s for at_s in self._failures.get(host, ()) if self._now_s() - at_s < WINDOW_S]


def _host(address: str) -> str:
    """An IPv6 host has a whole /64 to knock from."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        # Without the scope of a link-local one, whose `exploded` Python 3.11 cannot say.
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)
