"""The brake: when many nodes vanish at once, the fault is more likely ours than theirs.

Pure. A cut link in front of the leader looks like the death of half the cluster, and replacing half
a cluster onto the other half is a disaster of its own. So nothing is replaced for a minute, people
are told, and then it goes slowly.
"""

from __future__ import annotations

from collections.abc import Mapping

WINDOW_S = 30.0
HOLD_S = 60.0
NODES_MIN = 2
PODS_PER_S = 10
# The slow phase ends by itself: a node that never comes back must not slow the cluster for ever.
SLOW_S = 600.0


class Brake:
    """Off → holding (60 s, nothing is replaced) → slow (10 pods a second) → off."""

    def __init__(self) -> None:
        self._pulled_s: float | None = None
        self._wave: frozenset[str] = frozenset()
        self._reason = ""
        self._slow_since_s: float | None = None
        self._tokens = 0.0
        self._filled_s = 0.0

    @property
    def reason(self) -> str:
        """Why nothing may be replaced, in words; empty if it may."""
        return self._reason if self._pulled_s is not None else ""

    @property
    def ends_s(self) -> float:
        """When it stops holding. Infinite when it does not."""
        return float("inf") if self._pulled_s is None else self._pulled_s + HOLD_S

    def judge(self, silent_s: Mapping[str, float], nodes: int, now_s: float, *, is_verdict: bool) -> None:
        """Pull or release.

        Args:
            silent_s: since when each node is silent that is suspect, down, or late with its heartbeat.
            nodes: how many there are in all.
            now_s: the time of this judgement.
            is_verdict: a node became down just now. Only then it pulls: streams that break together and
                are back before a verdict falls are a hiccup.
        """
        if self._pulled_s is None:
            self._end_slow_phase(silent_s, now_s)
            recent = {name for name, at_s in silent_s.items() if now_s - at_s <= WINDOW_S}
            # Nodes that died long ago and were replaced count neither as dying nor as the cluster.
            others = nodes - (len(silent_s) - len(recent))
            if is_verdict and len(recent) >= NODES_MIN and 2 * len(recent) >= others:
                self._pulled_s = now_s
                self._wave = frozenset(recent)
                self._reason = (
                    f"{len(recent)} of {others} nodes fell silent within {WINDOW_S:.0f} s: "
                    f"nothing is replaced for {HOLD_S:.0f} s"
                )
        elif now_s >= self._pulled_s + HOLD_S:
            self._pulled_s = None
            self._slow_since_s = self._filled_s = now_s
            self._tokens = 0.0

    def budget(self, now_s: float) -> int | None:
        """How many pods may be replaced now; None: any number."""
        if self._pulled_s is not None:
            return 0
        if self._slow_since_s is None:
            return None
        self._tokens = min(float(PODS_PER_S), self._tokens + (now_s - self._filled_s) * PODS_PER_S)
        self._filled_s = now_s
        return int(self._tokens + 1e-9)  # Nine tenths and one tenth make one.

    def spend(self, pods: int) -> None:
        """`pods` were replaced, out of the last `budget`."""
        self._tokens -= pods

    def _end_slow_phase(self, silent_s: Mapping[str, float], now_s: float) -> None:
        if self._slow_since_s is not None and (
            now_s - self._slow_since_s > SLOW_S or not self._wave & silent_s.keys()
        ):
            self._slow_since_s = None
