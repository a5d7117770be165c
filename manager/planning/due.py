"""Whether a pod should be handed over to another: its node is to be emptied, or its template is old."""

from __future__ import annotations

from dataclasses import dataclass

from bayplan.model.placements import Cause
from manager.planning.situation import Situation
from manager.planning.view import PodView


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Why a pod should make room for another."""

    cause: Cause
    reason: str


def due(situation: Situation, pod: PodView) -> Due | None:
    """Why `pod` should be handed over, None if it may stay."""
    workload = situation.workload
    if pod.revision != workload.revision:
        return Due(cause=Cause.NEW_REVISION, reason=f"revision {workload.revision} replaces {pod.revision}")
    node = situation.cluster.nodes.get(pod.node)
    if node is None:
        return None
    if node.drain:
        return Due(cause=Cause.DRAINED, reason=f"node {node.name} is being drained")
    for taint in node.taints:
        if taint.effect == "NoExecute" and not any(
            toleration.tolerates(taint) for toleration in workload.requirements[pod.revision].tolerations
        ):
            text = f"{taint.key}={taint.value}" if taint.value else taint.key
            return Due(cause=Cause.DRAINED, reason=f"node {node.name} is tainted {text}:NoExecute")
    return None
