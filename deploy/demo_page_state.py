"""What the demo's page shows: who answered, what failed, how long it took, and what the cluster did. Pure.

Everything is bounded, so that a page may be left open for days.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.load_record import Record

HISTORY_S = 120
# A pod's share is of what it answered lately.
LATELY_S = 10
EVENTS_MAX = 60
FAILURES_MAX = 40
# Names that are gone from the cluster are kept while there are not too many.
PODS_KEPT_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """As the leader judges it."""

    name: str
    status: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodState:
    """As the leader knows it."""

    name: str
    node: str
    status: str
    is_ready: bool


@dataclass(slots=True)
class _Second:
    number: int
    well: int = 0
    failed: int = 0
    took_s: list[float] = field(default_factory=list)
    pods: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        took = sorted(self.took_s)
        return {
            "second": self.number,
            "well": self.well,
            "failed": self.failed,
            "p50_ms": round(took[len(took) // 2] * 1000, 1) if took else 0,
            "max_ms": round(took[-1] * 1000, 1) if took else 0,
        }


class PageState:
    """`targets`: URL → the node that it is of."""

    def __init__(self, targets: Mapping[str, str]) -> None:
        self.targets = dict(targets)
        self._well: Counter[str] = Counter()  # By node through which it went.
        self._failed: Counter[str] = Counter()
        self._pods_answered: Counter[str] = Counter()
        self._seconds: deque[_Second] = deque(maxlen=HISTORY_S)
        self._failures: deque[dict[str, Any]] = deque(maxlen=FAILURES_MAX)
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS_MAX)
        self._nodes: tuple[NodeState, ...] = ()
        self._pods: tuple[PodState, ...] = ()
        self._problem = ""

    # What is seen

    def add(self, record: Record) -> None:
        """What the load saw."""
        node = self.targets.get(record.target, "")
        second = self._second(int(record.ended_s))
        if record.failure:
            self._failed[node] += 1
            second.failed += 1
            self._failures.append(
                {"at_s": round(record.began_s, 1), "node": node, "pod": record.pod, "text": record.failure}
            )
            return
        self._well[node] += 1
        self._pods_answered[record.pod] += 1
        second.well += 1
        second.pods[record.pod] += 1
        second.took_s.append(record.took_s)
        if len(self._pods_answered) > PODS_KEPT_MAX:
            self._forget_pods()

    def set_cluster(self, nodes: Iterable[NodeState], pods: Iterable[PodState]) -> None:
        self._nodes, self._pods, self._problem = tuple(nodes), tuple(pods), ""

    def set_problem(self, words: str) -> None:
        """The cluster could not be asked; what was known stays, and is shown as old."""
        self._problem = words

    def add_event(self, *, at_ms: int, is_warning: bool, about: str, text: str) -> None:
        event = {"at_ms": at_ms, "warning": is_warning, "object": about, "text": text}
        # After a break some come twice.
        if event not in self._events:
            self._events.append(event)

    # What is shown

    def snapshot(self, now_s: float) -> dict[str, Any]:
        """For JSON."""
        lately: Counter[str] = Counter()
        for second in self._seconds:
            if second.number >= now_s - LATELY_S:
                lately.update(second.pods)
        return {
            "now_s": now_s,
            "answered": self._well.total(),
            "failed": self._failed.total(),
            "problem": self._problem,
            "nodes": [self._node(name) for name in self._node_names()],
            "pods": [
                {
                    "name": pod.name,
                    "node": pod.node,
                    "status": pod.status,
                    "ready": pod.is_ready,
                    "answered": self._pods_answered[pod.name],
                    "lately": lately[pod.name],
                }
                for pod in sorted(self._pods, key=lambda pod: (pod.node, pod.name))
            ],
            "history": [second.as_json() for second in self._seconds if second.number < int(now_s)],
            "failures": [*reversed(self._failures)],
            "events": sorted(self._events, key=lambda event: -int(event["at_ms"])),
        }

    def _node(self, name: str) -> dict[str, Any]:
        found = next((node for node in self._nodes if node.name == name), None)
        return {
            "name": name,
            "status": found.status if found else "Unknown",
            "why": found.why if found else "",
            "answered": self._well[name],
            "failed": self._failed[name],
        }

    def _node_names(self) -> list[str]:
        return sorted({*self.targets.values(), *(node.name for node in self._nodes)})

    def _second(self, number: int) -> _Second:
        """Records come in the order in which they ended."""
        while not self._seconds or self._seconds[-1].number < number:
            # A second in which nothing ended is one too; after a long silence only what is shown.
            last = self._seconds[-1].number if self._seconds else number - 1
            self._seconds.append(_Second(max(last + 1, number - HISTORY_S)))
        return self._seconds[-1]

    def _forget_pods(self) -> None:
        there = {pod.name for pod in self._pods}
        for name in [name for name in self._pods_answered if name not in there]:
            del self._pods_answered[name]
