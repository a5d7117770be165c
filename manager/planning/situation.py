"""What a stage looks at: the slots of one workload, with the changes of earlier stages applied.

Each stage sees what the ones before it decided, so no stage repeats another's rule: a pod
that `restarts` has stopped is no longer a candidate for `handover`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bayplan.model.nodes import NodeState
from bayplan.model.placements import Want
from bayplan.model.states import PodState
from manager.planning.changes import SetWant
from manager.planning.view import ClusterView, PodView, WorkloadView

_ENDED = (PodState.SUCCEEDED, PodState.FAILED, PodState.STOPPED)


def has_ended(pod: PodView) -> bool:
    """Whether its agent saw it end. LOST is a verdict, not an observation: such a pod may still run."""
    return pod.state in _ENDED


def is_over(pod: PodView) -> bool:
    """Whether it certainly runs nowhere: it ended, or its node does not have it."""
    return pod.is_gone or has_ended(pod)


def running(pods: Iterable[PodView]) -> PodView | None:
    """The pod of a slot that is wanted to run; there is at most one."""
    for pod in pods:
        if pod.want is Want.RUN:
            return pod
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One workload at one moment of planning."""

    workload: WorkloadView
    cluster: ClusterView
    # Ascending by slot; the pods of a slot by incarnation, oldest first. Slots without pods are left out.
    slots: Mapping[int, tuple[PodView, ...]]

    @classmethod
    def at_start(cls, workload: WorkloadView, cluster: ClusterView) -> Situation:
        """Before any stage."""
        slots: dict[int, tuple[PodView, ...]] = {}
        for pod in sorted(workload.pods, key=lambda pod: (pod.id.slot, pod.id.incarnation)):
            slots[pod.id.slot] = (*slots.get(pod.id.slot, ()), pod)
        return cls(workload=workload, cluster=cluster, slots=slots)

    def after(self, changes: Iterable[SetWant]) -> Situation:
        """The situation once `changes` are made. The last one of a pod counts."""
        wants = {change.pod: change.want for change in changes}
        if not wants:
            return self
        slots = dict(self.slots)
        for slot in {pod.slot for pod in wants}:
            slots[slot] = tuple(
                replace(pod, want=wants[pod.id]) if pod.id in wants else pod for pod in slots[slot]
            )
        return replace(self, slots=slots)

    def wants_slot(self, slot: int) -> bool:
        """Whether the user wants a pod in this slot."""
        return not self.workload.deleting and slot < self.workload.replicas

    def readiness(self, pod: PodView) -> bool | None:
        """Whether a pod serves, as far as is known now: what a silent node last said counts for nothing."""
        node = self.cluster.nodes.get(pod.node)
        return pod.ready if node is not None and node.state is NodeState.READY else None
