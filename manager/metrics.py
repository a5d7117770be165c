"""What a manager shows Prometheus: whether it leads, and how commits, calls and its own loop go.

Only a leader knows of nodes and pods; from others these are left out, never zero. Nothing is labelled by
what users name: the number of series must not grow with theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# A commit is a write of etcd: milliseconds on a good disk, a second on one that is in trouble.
_COMMIT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
# Heartbeats are answered by the loop; from half a second on nodes look silent.
_LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
LAG_EVERY_S = 0.5
OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderFigures:
    """What the leader alone knows."""

    nodes: Mapping[str, int]  # By status.
    pods: Mapping[str, int]  # By status.
    services: int
    agents: int  # Sessions that stand.
    queues: Mapping[str, int] = field(default_factory=dict)  # Lengths, by name.


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerFigures:
    """How it is now."""

    epoch: int  # Of the leader that it knows; 0: none.
    store_revision: int  # Up to which it has followed the store.
    leader: LeaderFigures | None  # None: it does not lead.


class ManagerMetrics:
    """One per manager, with a registry of its own.

    Args:
        figures: called for each page.
        methods: paths of the methods that there are; calls of anything else are counted together.
    """

    def __init__(self, figures: Callable[[], ManagerFigures], *, methods: Collection[str]) -> None:
        self._methods = frozenset(methods)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._commits = Histogram(
            "bayplan_commit_seconds",
            "From a commit's start to etcd's answer",
            buckets=_COMMIT_BUCKETS_S,
            registry=self._registry,
        )
        self._calls = Counter(
            "bayplan_api_calls", "Calls that ended", ["method", "code"], registry=self._registry
        )
        self._lag = Histogram(
            "bayplan_loop_lag_seconds",
            "How late the event loop was",
            buckets=_LAG_BUCKETS_S,
            registry=self._registry,
        )
        self._registry.register(_Now(figures))

    def committed(self, took_s: float) -> None:
        """A transaction was decided by etcd, either way."""
        self._commits.observe(took_s)

    def called(self, method: str, code: str) -> None:
        """A call has ended.

        Args:
            method: its path, `/bayplan.v1.Control/Apply`.
            code: gRPC's name of the outcome, `OK`.
        """
        self._calls.labels(method if method in self._methods else OTHER, code).inc()

    async def run(self) -> None:
        """Measure the loop until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self._lag.observe(max(0.0, loop.time() - due_s))

    async def page(self) -> bytes:
        """Everything, as text."""
        return generate_latest(self._registry)


class _Now(Collector):
    def __init__(self, figures: Callable[[], ManagerFigures]) -> None:
        self._figures = figures

    def describe(self) -> Iterable[Metric]:
        """Said without looking: the registry asks before there are any."""
        return ()

    def collect(self) -> Iterable[Metric]:
        now = self._figures()
        yield GaugeMetricFamily("bayplan_leader", "This manager leads", now.leader is not None)
        yield GaugeMetricFamily("bayplan_epoch", "Of the leader that it knows", now.epoch)
        yield GaugeMetricFamily("bayplan_store_revision", "Up to which it follows etcd", now.store_revision)
        if now.leader is None:
            return
        yield GaugeMetricFamily("bayplan_services", "Services", now.leader.services)
        yield GaugeMetricFamily("bayplan_agents_connected", "Sessions of agents", now.leader.agents)
        yield _by("bayplan_nodes", "Nodes by status", "status", now.leader.nodes)
        yield _by("bayplan_pods", "Pods by status", "status", now.leader.pods)
        yield _by("bayplan_queue_length", "What waits to be done", "queue", now.leader.queues)


def _by(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
