"""Records that are done with: their pod runs nowhere, so their room is free.

Only an agent's word, or the node's removal, ends a record: until then its capacity and address stay
booked. The newest record of an empty slot stays until a successor is placed, because it says why
the slot is empty and where not to go again; an ended pod books nothing.
"""

from __future__ import annotations

from bayplan.model.placements import Want
from manager.planning.changes import RemovePlacement, RemoveWorkload
from manager.planning.restarts import how_it_ended
from manager.planning.situation import Situation, is_over, running
from manager.planning.view import PodView


def plan_reap(situation: Situation) -> list[RemovePlacement | RemoveWorkload]:
    """Remove what is over; of a deleted workload at last the document."""
    workload = situation.workload
    changes: list[RemovePlacement | RemoveWorkload] = []
    for slot, pods in situation.slots.items():
        is_filled = running(pods) is not None
        for pod in pods:
            if pod.want not in (Want.STOP, Want.LOST):
                continue
            reason = _why_done(situation, pod)
            # A gone pod is booked until its record goes: its successor may need that very room.
            explains = situation.wants_slot(slot) and not is_filled and pod is pods[-1] and not pod.is_gone
            if reason and not explains:
                changes.append(RemovePlacement(pod=pod.id, reason=reason))
    if workload.deleting and len(changes) == len(workload.pods):
        changes.append(
            RemoveWorkload(
                workload_uid=workload.uid, reason=f"{workload.kind} {workload.name}: no pod is left"
            )
        )
    return changes


def _why_done(situation: Situation, pod: PodView) -> str:
    if pod.node not in situation.cluster.nodes:
        return f"node {pod.node} was removed"
    return how_it_ended(pod) if is_over(pod) else ""
