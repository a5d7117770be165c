"""How much one caller may have open at a time: calls, and connections that carry them.

Who has no certificate is counted by address. Connections that carry no call are counted, and
closed, by `connections`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from bayplan.identity.names import Kind
from manager.access.caller import Caller

# An agent has a stream, and one for each followed log.
CALLS_PER_IDENTITY_MAX = 512
# Without a certificate: health and joining.
CALLS_PER_STRANGER_MAX = 16
# One program of a user has one or two; an agent one for its stream and one for each followed log.
CONNECTIONS_PER_IDENTITY_MAX = 256


class Load:
    """What is open now. Managers are not counted: what they pass on is counted for whom they do it."""

    def __init__(self) -> None:
        # Caller → connection → calls on it.
        self._open: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def excess(self, caller: Caller, connection: str) -> str:
        """Why this caller may not open one more call now; empty if it may."""
        if caller.kind == Kind.MANAGER:
            return ""
        connections = self._open.get(_key(caller), Counter())
        most = CALLS_PER_IDENTITY_MAX if caller.kind else CALLS_PER_STRANGER_MAX
        if connections.total() >= most:
            return f"{caller.words} has {most} calls open already; try again when some have ended"
        if connection not in connections and len(connections) >= CONNECTIONS_PER_IDENTITY_MAX:
            return (
                f"{caller.words} has {len(connections)} connections already; try again when some have ended"
            )
        return ""

    @contextmanager
    def opened(self, caller: Caller, connection: str) -> Iterator[None]:
        """While the call lasts."""
        key = _key(caller)
        self._open[key][connection] += 1
        try:
            yield
        finally:
            connections = self._open[key]
            connections[connection] -= 1
            if not connections[connection]:
                del connections[connection]
            if not connections:
                del self._open[key]


def _key(caller: Caller) -> str:
    return caller.identity or caller.address
