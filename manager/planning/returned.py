"""Pods that were counted lost and whose node is back: which copy of the slot stays.

The copy that serves stays. An old pod that is ready is worth more than a replacement that is still
starting; once the replacement is ready, the old one goes. While either is unknown nothing is decided.
"""

from __future__ import annotations

from collections.abc import Iterator

from bayplan.model.names import pod_name
from bayplan.model.nodes import NodeState
from bayplan.model.placements import Want
from bayplan.model.states import PodState
from manager.planning.changes import SetWant
from manager.planning.due import due
from manager.planning.situation import Situation, is_over, running
from manager.planning.view import PodView


def plan_returned(situation: Situation) -> list[SetWant]:
    """Decide for each slot with a returned pod which copy stays."""
    changes: list[SetWant] = []
    for pods in situation.slots.values():
        back = [pod for pod in pods if pod.want is Want.LOST and _is_back(situation, pod)]
        if back:
            changes.extend(_which_stays(situation, pods, back))
    return changes


def _is_back(situation: Situation, pod: PodView) -> bool:
    node = situation.cluster.nodes.get(pod.node)
    seen = pod.state not in (None, PodState.LOST)
    return node is not None and node.state is NodeState.READY and seen and not is_over(pod)


def _which_stays(situation: Situation, pods: tuple[PodView, ...], back: list[PodView]) -> Iterator[SetWant]:
    name = situation.workload.name
    stays = running(pods)
    has_handover = any(pod.want is Want.HANDOVER for pod in pods)
    for pod in sorted(back, key=lambda pod: (not pod.ready, -pod.id.incarnation)):
        returned = f"node {pod.node} is back"
        if stays is None:
            yield SetWant(pod=pod.id, want=Want.RUN, reason=f"{returned}, and no replacement was placed")
            stays = pod
        elif None in (situation.readiness(stays), pod.ready):
            continue
        elif not pod.ready or situation.readiness(stays):
            yield SetWant(
                pod=pod.id,
                want=Want.STOP,
                reason=f"{returned}, but {pod_name(name, stays.id)} on {stays.node} has replaced it",
            )
        elif due(situation, pod) is not None and not has_handover:
            # It would be handed over again at once: let it serve until the replacement is ready.
            yield SetWant(
                pod=pod.id,
                want=Want.HANDOVER,
                reason=f"{returned}; it serves until {pod_name(name, stays.id)} is ready",
            )
            has_handover = True
        else:
            yield SetWant(
                pod=stays.id,
                want=Want.STOP,
                reason=f"cancelled: {returned} with {pod_name(name, pod.id)} still ready",
            )
            yield SetWant(
                pod=pod.id, want=Want.RUN, reason=f"{returned}, and its replacement was not ready yet"
            )
            stays = pod
