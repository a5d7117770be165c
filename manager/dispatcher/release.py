"""When a pod that is to stop may be told so: once no proxy sends it anything any more.

Pure. First every proxy that is in reach must have left it out, 5 s at most; then its last requests may
end, for as long as its template allows. A node that is suspect is not waited for: it may be dead. What
is unknown to a new leader, it learns anew: its own first sight of the pod counts.

    wanted STOP ──all proxies applied a version without it, or 5 s──► draining ──no requests, or drain_s──► released
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SPREAD_S = 5.0
_NAMED_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyView:
    """What a node's proxy has said of itself to this leader."""

    applied: int = 0  # The version of the traffic that it follows; 0: none of ours.
    draining: frozenset[str] = frozenset()  # Endpoints that it left out and that still have requests.


@dataclass(slots=True, kw_only=True)
class Leaving:
    """A pod on its way out."""

    node: str
    since_s: float
    version: int  # The first without it.
    drain_s: float
    drains_until_s: float = 0.0  # Set once no proxy sends it anything new.


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A pod that may stop now."""

    uid: str
    node: str
    still: tuple[str, ...] = ()  # Nodes with requests for it that are cut: its time is over.


class Departures:
    """Every pod that waits, and those that do not any more. Lives for one term."""

    def __init__(self) -> None:
        self._leaving: dict[str, Leaving] = {}
        self._released: set[str] = set()
        self._proxies: Mapping[str, ProxyView] = {}

    def leave(self, uid: str, *, node: str, version: int, drain_s: float, now_s: float) -> None:
        """A pod is to stop, and is out of the traffic from `version` on. The first word counts."""
        if uid not in self._leaving and uid not in self._released:
            self._leaving[uid] = Leaving(node=node, since_s=now_s, version=version, drain_s=drain_s)

    def release(self, uid: str) -> None:
        """Nothing speaks against stopping it."""
        self._leaving.pop(uid, None)
        self._released.add(uid)

    def forget(self, uid: str) -> None:
        """Its record is gone."""
        self._leaving.pop(uid, None)
        self._released.discard(uid)

    def is_waiting(self, uid: str) -> bool:
        """Whether it must run on for now."""
        return uid in self._leaving

    def judge(self, proxies: Mapping[str, ProxyView], now_s: float) -> list[Released]:
        """Let go whoever may go.

        Args:
            proxies: of the nodes that are waited for: what is in reach, or is expected back at once.
            now_s: the time of this judgement.
        """
        self._proxies = proxies
        if not self._leaving:
            return []
        applied = min((proxy.applied for proxy in proxies.values()), default=None)
        draining = _draining(proxies)
        released: list[Released] = []
        for uid, pod in list(self._leaving.items()):
            if not pod.drains_until_s:
                is_out = applied is None or applied >= pod.version
                if not is_out and now_s < pod.since_s + SPREAD_S:
                    continue
                pod.drains_until_s = now_s + pod.drain_s
            still = draining.get(uid, [])
            if not still or now_s >= pod.drains_until_s:
                self.release(uid)
                released.append(Released(uid=uid, node=pod.node, still=tuple(still)))
        return released

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._leaving)

    @property
    def next_look_s(self) -> float:
        """When time alone changes something; infinite when nothing waits."""
        return min(
            (pod.drains_until_s or pod.since_s + SPREAD_S for pod in self._leaving.values()),
            default=float("inf"),
        )

    def why(self, uid: str) -> str:
        """What it waits for, in words; empty if for nothing."""
        pod = self._leaving.get(uid)
        if pod is None:
            return ""
        if not pod.drains_until_s:
            behind = sorted(name for name, proxy in self._proxies.items() if proxy.applied < pod.version)
            return f"leaving the proxies: {_names(behind)} to follow" if behind else "leaving the proxies"
        still = _draining(self._proxies).get(uid)
        return f"draining: requests left on {_names(still)}" if still else "draining"


def _draining(proxies: Mapping[str, ProxyView]) -> dict[str, list[str]]:
    """By pod, the nodes with requests for it."""
    found: dict[str, list[str]] = {}
    for name in sorted(proxies):
        for uid in proxies[name].draining:
            found.setdefault(uid, []).append(name)
    return found


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED_MAX} more" if len(listed) > _NAMED_MAX else ""
    return ", ".join(listed[:_NAMED_MAX]) + more
