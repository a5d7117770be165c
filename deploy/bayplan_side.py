"""The demo's app on Bayplan, for deploy/power_cut.py."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from deploy import images
from deploy.local_cluster import MANAGERS, NODES, LocalCluster
from deploy.shell import ROOT, StepError

HERE = ROOT / "deploy/demo_app"
APP, IMAGE = "demo-app", "demo-app:1"
SERVICE_PORT = 8080
REPLICAS = 6  # As its manifest says.
READY_TIMEOUT_S = 90.0
POLL_S = 0.2

T = TypeVar("T")


class BayplanSide:
    """Started if it is not up; left up, with the app on it."""

    name = "Bayplan"
    caveat = ""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster

    def prepare(self) -> None:
        self._cluster.up()
        images.push(HERE, f"{self._cluster.registry}/{IMAGE}")
        until(self._is_whole, "three nodes are Ready and three managers are there", self._report)
        self._bay("apply", "-f", str(HERE / "demo-app.yaml"))
        until(lambda: self.running() == REPLICAS, f"{REPLICAS} pods of {APP} run", self._report)
        until(lambda: all_answer(self.targets().values()), f"{APP} answers on every node", self._report)

    def targets(self) -> Mapping[str, str]:
        return {node: f"http://{self._cluster.address(node)}:{SERVICE_PORT}" for node in NODES}

    def victim(self) -> str:
        counts = {node: self._pods_on(node) for node in NODES}
        return max(sorted(counts), key=lambda node: counts[node])

    def cut(self, node: str) -> None:
        self._cluster.kill(NODES[node])

    def node_states(self) -> Mapping[str, str]:
        rows = [line.split() for line in self._cluster.bay("nodes").stdout.splitlines()]
        return {row[0]: row[1].partition(",")[0] for row in rows if len(row) > 1 and row[0] in NODES}

    def running(self) -> int:
        return sum(self._pods_on(node) for node in NODES)

    def restore(self, node: str) -> None:
        self._cluster.start(NODES[node])
        until(self._is_whole, f"{node} is Ready again", self._report)

    def _pods_on(self, node: str) -> int:
        labels = [container["Labels"] for container in self._cluster.pods(node) or []]
        return sum(label.get("bayplan.io/workload", "").endswith(f"/{APP}") for label in labels)

    def _is_whole(self) -> bool:
        managers = self._cluster.bay("managers").stdout.splitlines()
        ready = [state for state in self.node_states().values() if state == "Ready"]
        return len(ready) == len(NODES) and sum(line.startswith("m") for line in managers) == len(MANAGERS)

    def _bay(self, *words: str) -> None:
        done = self._cluster.bay(*words, timeout_s=READY_TIMEOUT_S)
        if done.returncode != 0:
            raise StepError(
                f"`bay {' '.join(words)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )

    def _report(self) -> str:
        said = self._cluster.bay("ps")
        return f"`bay ps` says:\n{said.stdout}{said.stderr}"


def until(look: Callable[[], T], what: str, otherwise: Callable[[], str] = lambda: "") -> T:
    """The first true answer. Raises StepError when time is up."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if seen := look():
            return seen
        time.sleep(POLL_S)
    raise StepError(f"after {READY_TIMEOUT_S:.0f} s not seen: {what}. {otherwise()}")


def all_answer(urls: Iterable[str]) -> bool:
    """Whether the app answers at each of them."""
    try:
        for url in urls:
            with urllib.request.urlopen(url, timeout=2):
                pass
    except OSError:
        return False
    return True
