"""Counts pods' containers from every node's own Docker Engine, all the time.

The witness of the e2e tests: it asks neither Bayplan nor the host's engine, so that "none lost,
none doubled" is not Bayplan's word for it. A round every 200 ms asks all nodes at once.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from agent.runtime.port import LABEL_CONTAINER, LABEL_POD, LABEL_POD_NAME, LABEL_WORKLOAD
from deploy.local_cluster import NODES, LocalCluster

ROUND_S = 0.2


@dataclass(frozen=True, slots=True, order=True)
class Seen:
    """A running container of a pod."""

    node: str
    pod_name: str
    container: str  # Its name within the pod.
    pod: str  # uid: <workload uid>.<slot>.<incarnation>
    workload: str  # kind/name
    id: str

    @classmethod
    def from_engine(cls, node: str, listed: dict[str, Any]) -> Seen:
        labels = listed["Labels"]
        return cls(
            node=node,
            pod_name=labels.get(LABEL_POD_NAME, ""),
            container=labels.get(LABEL_CONTAINER, ""),
            pod=labels[LABEL_POD],
            workload=labels.get(LABEL_WORKLOAD, ""),
            id=listed["Id"],
        )


@dataclass(frozen=True, slots=True)
class Round:
    """What ran at one instant. A node whose engine hangs is counted as last seen; a dead engine runs nothing."""

    at_s: float  # time.monotonic()
    seen: frozenset[Seen]

    def of(self, workload: str) -> list[Seen]:
        return sorted(seen for seen in self.seen if seen.workload == workload)


class ContainerWatch:
    """Records rounds from `start` to `stop`; the questions may be asked at any time."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._rounds: list[Round] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="container-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()
        while not self._rounds:
            time.sleep(0.01)

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    # Questions

    def now(self) -> Round:
        """A round that began after this call."""
        asked_s = time.monotonic()
        while self._rounds[-1].at_s <= asked_s:
            assert self._thread.is_alive(), "the watch has ended"
            time.sleep(0.01)
        return self._rounds[-1]

    def rounds(self, *, since_s: float = 0.0) -> list[Round]:
        return [one for one in self._rounds if one.at_s >= since_s]

    def counts(self, workload: str, *, since_s: float = 0.0) -> tuple[int, int]:
        """Fewest and most containers of the workload in any round."""
        counts = [len(one.of(workload)) for one in self.rounds(since_s=since_s)]
        return min(counts), max(counts)

    def ids(self, workload: str, *, since_s: float = 0.0) -> set[str]:
        """Every container id of the workload that was ever seen."""
        return {seen.id for one in self.rounds(since_s=since_s) for seen in one.of(workload)}

    def doubled(self, *, since_s: float = 0.0) -> list[tuple[float, Seen]]:
        """When and what: containers of one name in one pod (slot and incarnation) that ran twice at once."""
        found = []
        for one in self.rounds(since_s=since_s):
            copies = Counter((seen.pod, seen.container) for seen in one.seen)
            found += [(one.at_s, seen) for seen in sorted(one.seen) if copies[seen.pod, seen.container] > 1]
        return found

    def timeline(self) -> str:
        """Each change of the picture, for messages of failed assertions."""
        lines, before, started_s = [], frozenset[Seen](), self._rounds[0].at_s if self._rounds else 0.0
        for one in self._rounds:
            if one.seen == before:
                continue
            gone = [f"-{seen.pod_name}/{seen.id[:6]}@{seen.node}" for seen in sorted(before - one.seen)]
            come = [f"+{seen.pod_name}/{seen.id[:6]}@{seen.node}" for seen in sorted(one.seen - before)]
            lines.append(f"{one.at_s - started_s:8.2f} s  {len(one.seen):3}  {' '.join(gone + come)}")
            before = one.seen
        return "\n".join(lines)

    # Recording

    def _run(self) -> None:
        last: dict[str, frozenset[Seen]] = {node: frozenset() for node in NODES}
        asked: dict[str, Future[frozenset[Seen] | None]] = {}
        with ThreadPoolExecutor(len(NODES)) as pool:
            while not self._ended.is_set():
                began_s = time.monotonic()
                # An engine that hangs holds up only its own answer.
                asked |= {node: pool.submit(self._look, node) for node in NODES.keys() - asked.keys()}
                wait(asked.values(), timeout=ROUND_S)
                answers = {node: asked.pop(node).result() for node in NODES if asked[node].done()}
                last |= {node: seen for node, seen in answers.items() if seen is not None}
                self._rounds.append(Round(began_s, frozenset().union(*last.values())))
                self._ended.wait(max(0.0, began_s + ROUND_S - time.monotonic()))

    def _look(self, node: str) -> frozenset[Seen] | None:
        listed = self._cluster.pods(node)
        return None if listed is None else frozenset(self._each(node, listed))

    @staticmethod
    def _each(node: str, listed: list[dict[str, Any]]) -> Iterator[Seen]:
        for one in listed:
            yield Seen.from_engine(node, one)
