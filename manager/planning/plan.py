"""The whole plan: the stages for each workload, then one scheduling over everything pending.

`plan` is all there is to it. Who must survive a workload that makes a stage raise calls the two
halves: `plan_workload` for each, and `join` over those that came through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bayplan.model.nodes import Amounts
from bayplan.model.placements import Want
from manager.planning.changes import Change, PendingPod, Plan, RemovePlacement, SetWant
from manager.planning.handover import plan_handover
from manager.planning.lost import plan_lost
from manager.planning.reap import plan_reap
from manager.planning.replicas import plan_missing, plan_surplus
from manager.planning.restarts import plan_restarts
from manager.planning.returned import plan_returned
from manager.planning.scheduler import schedule
from manager.planning.situation import Situation, has_ended
from manager.planning.view import ClusterView, WorkloadView

# What is wanted of the pods that exist. Each stage sees what those before it decided.
STAGES: tuple[Callable[[Situation], list[SetWant]], ...] = (
    plan_surplus,
    plan_restarts,
    plan_lost,
    plan_returned,
    plan_handover,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadPlan:
    """The outcome of the stages for one workload."""

    uid: str
    changes: tuple[Change, ...]
    pending: tuple[PendingPod, ...]
    # By node: what `changes` book more (or, negative, less) than `ClusterView.reserved` says.
    booked_by_changes: Mapping[str, Amounts] = field(default_factory=dict)
    # Pods of this workload wanted to run, by node: what the scheduler spreads against.
    running_on: Mapping[str, int] = field(default_factory=dict)


def plan(workloads: Sequence[WorkloadView], cluster: ClusterView) -> Plan:
    """What should change, in an order of which every prefix is legal.

    Args:
        workloads: those that may need a change; each with all its pods.
        cluster: all nodes, and what all placements of all workloads book.

    Raises:
        Whatever a malformed view makes a stage raise, e.g. KeyError for a revision without requirements.
    """
    return join([plan_workload(workload, cluster) for workload in workloads], cluster)


def plan_workload(workload: WorkloadView, cluster: ClusterView) -> WorkloadPlan:
    """The stages for one workload, without scheduling what they leave pending."""
    situation = Situation.at_start(workload, cluster)
    changes: list[Change] = []
    for stage in STAGES:
        wants = stage(situation)
        changes.extend(wants)
        situation = situation.after(wants)
    pending = plan_missing(situation)
    reaped = plan_reap(situation)
    return WorkloadPlan(
        uid=workload.uid,
        changes=(*changes, *reaped),
        pending=tuple(pending),
        booked_by_changes=_freed(workload, reaped),
        running_on=_running_on(situation) if pending else {},
    )


def join(plans: Sequence[WorkloadPlan], cluster: ClusterView) -> Plan:
    """One plan of several: everything pending is scheduled together, after all other changes."""
    booked: dict[str, Amounts] = {}
    for each in plans:
        for node, amounts in each.booked_by_changes.items():
            booked[node] = booked.get(node, Amounts()) + amounts
    scheduled = schedule(
        [pod for each in plans for pod in each.pending],
        cluster,
        booked_by_changes=booked,
        running_on={each.uid: each.running_on for each in plans},
    )
    return Plan(
        changes=(*(change for each in plans for change in each.changes), *scheduled.placed),
        unplaced=scheduled.unplaced,
        wake_at_s=scheduled.wake_at_s,
    )


def _freed(workload: WorkloadView, reaped: Sequence[Change]) -> dict[str, Amounts]:
    """Removed records that were booked until now: ended ones were not."""
    removed = {change.pod for change in reaped if isinstance(change, RemovePlacement)}
    freed: dict[str, Amounts] = {}
    for pod in workload.pods if removed else ():
        requirements = workload.requirements.get(pod.revision)
        # An unknown template is left booked for this pass: that is safe, and its record goes anyway.
        if pod.id in removed and requirements is not None and not has_ended(pod):
            requests = requirements.requests
            freed[pod.node] = freed.get(pod.node, Amounts()) + Amounts(
                cpu_millis=-requests.cpu_millis,
                memory_bytes=-requests.memory_bytes,
                pods=-requests.pods,
            )
    return freed


def _running_on(situation: Situation) -> dict[str, int]:
    nodes: dict[str, int] = {}
    for pods in situation.slots.values():
        for pod in pods:
            if pod.want is Want.RUN:
                nodes[pod.node] = nodes.get(pod.node, 0) + 1
    return nodes
