"""How long a pod that is ready waits for its first request through every node's proxy.

The pod has no readiness probe: it is ready when its container runs, which its node's own engine books.
Requests go to the published port of every node all the time, a new one each 10 ms, and the answer says
which pod gave it. Another pod runs already, so that half of the requests find the new one once it is known.
"""

from __future__ import annotations

import http.client
import threading
import time
from types import TracebackType
from typing import Self

from bench.measure import Rig, started_s, until_running
from bench.report import Measured
from bench.traffic.web import NAME, WORKLOAD, url_of, web, who_answers
from deploy.local_cluster import NODES, LocalCluster
from deploy.shell import say
from tests.e2e.cluster import eventually

ASK_EVERY_S = 0.01
SERVED_TIMEOUT_S = 30.0


class FirstAnswers:
    """When each pod first answered through each node, as long as the context is open."""

    def __init__(self, local: LocalCluster) -> None:
        self._local = local
        self._ended = threading.Event()
        self._first_s: dict[tuple[str, str], float] = {}
        self._threads = [
            threading.Thread(target=self._ask, args=[node], name=f"first-answers-{node}") for node in NODES
        ]
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def by_node(self, pod: str) -> dict[str, float] | None:
        """Node → seconds since the Unix epoch; None until every node's proxy has led to the pod."""
        found = {node: at_s for (node, name), at_s in [*self._first_s.items()] if name == pod}
        return found if found.keys() == NODES.keys() else None

    def _ask(self, node: str) -> None:
        url = url_of(self._local, node)
        while not self._ended.is_set():
            due_s = time.monotonic() + ASK_EVERY_S
            try:
                pod = who_answers(url)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{node}: {error!r}")
            else:
                # By the wall clock, as engines book starts; all containers share it.
                self._first_s.setdefault((node, pod), time.time())
            self._ended.wait(max(0.0, due_s - time.monotonic()))


def time_first_requests(rig: Rig) -> dict[str, Measured]:
    """The slowest node of each run."""
    times, failures = [], 0
    with web(rig.cluster, replicas=1):
        for number in range(rig.runs):
            by_node, failed = _time_once(rig)
            failures += failed
            times.append(max(by_node.values()))
            said = ", ".join(f"{node} {seconds:.2f} s" for node, seconds in sorted(by_node.items()))
            say(f"  run {number + 1}: {said}")
    note = f"the slowest of three nodes in each run; {failures} requests failed meanwhile"
    return {"ready_to_served_s": Measured.of_runs(times, note=note)}


def _time_once(rig: Rig) -> tuple[dict[str, float], int]:
    """Seconds by node, and how many requests failed."""
    with rig.cluster.watched() as watch, FirstAnswers(rig.cluster.local) as answers:
        (known,) = until_running(watch, WORKLOAD, 1)
        rig.cluster.ok("scale", f"deployment/{NAME}", "--replicas=2")
        (new,) = [one for one in until_running(watch, WORKLOAD, 2) if one.id != known.id]
        first_s = eventually(
            lambda: answers.by_node(new.pod_name), within_s=SERVED_TIMEOUT_S, otherwise=rig.cluster.report
        )
        ready_s = started_s(rig, new)
        rig.cluster.ok("scale", f"deployment/{NAME}", "--replicas=1")
        until_running(watch, WORKLOAD, 1)
    return {node: at_s - ready_s for node, at_s in first_s.items()}, len(answers.failures)
