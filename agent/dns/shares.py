"""How much of the server's time each client takes: one that floods it, or asks what is slow to answer, must not starve the others."""

from __future__ import annotations

import time
from collections.abc import Callable

WINDOW_S = 1.0
# Of a second: 1,000 replies that have to be made, 25,000 that were made already.
SHARE_S = 0.25
# What is asked of others is done later, piece by piece: this is what it costs in all.
FORWARDED_S = 0.0005


class Shares:
    """`clock_s` tells seconds from any beginning."""

    def __init__(self, clock_s: Callable[[], float] = time.perf_counter) -> None:
        self._clock_s = clock_s
        self._used_s: dict[str, float] = {}
        self._began_s = clock_s()

    def begin(self) -> float:
        """When a client's turn begins, for `end`."""
        now_s = self._clock_s()
        if now_s - self._began_s >= WINDOW_S:
            self._began_s = now_s
            self._used_s.clear()
        return now_s

    def end(self, client: str, began_s: float, *, is_forwarded: bool) -> None:
        """It has had its turn."""
        took_s = self._clock_s() - began_s + (FORWARDED_S if is_forwarded else 0.0)
        self._used_s[client] = self._used_s.get(client, 0.0) + took_s

    def is_used_up(self, client: str) -> bool:
        """Whether it must wait for the next second. Who is alone takes from nobody."""
        return self._used_s.get(client, 0.0) > SHARE_S and len(self._used_s) > 1
