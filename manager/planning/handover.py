"""Handing slots over to new pods: drained nodes, NoExecute taints, new revisions.

The old pod runs until the new one is ready, so a handover never costs capacity; if no node has room
for the new one, the old one simply runs on. A few slots at a time, so that a bad revision shows
itself on few pods. A slot counts until its old pod has ended, or its node is known to be down: a workload never
runs more pods than its slots and those few.
"""

from __future__ import annotations

from bayplan.model.names import pod_name
from bayplan.model.placements import Want
from manager.planning.changes import SetWant
from manager.planning.due import due
from manager.planning.lost import why_lost
from manager.planning.situation import Situation, is_over, running
from manager.planning.view import PodView


def plan_handover(situation: Situation) -> list[SetWant]:
    """Finish, cancel and start handovers."""
    changes: list[SetWant] = []
    in_flight = 0
    candidates: list[PodView] = []
    for pods in situation.slots.values():
        old = [pod for pod in pods if pod.want is Want.HANDOVER]
        current = running(pods)
        if old and not (current and situation.readiness(current)):
            steps = _go_on(situation, old[-1], current)
            changes.extend(steps)
            in_flight += not any(step.want is Want.RUN for step in steps)
            continue
        is_leaving = any(_is_leaving(situation, pod) for pod in pods)
        in_flight += is_leaving
        if current is None:
            continue
        changes.extend(
            SetWant(
                pod=pod.id,
                want=Want.STOP,
                reason=f"{pod_name(situation.workload.name, current.id)} on {current.node} is ready",
            )
            for pod in old
        )
        # Unknown pods wait: they are neither broken nor serving.
        if (
            not is_leaving
            and situation.readiness(current) is not None
            and due(situation, current) is not None
        ):
            candidates.append(current)
    return changes + _start(situation, candidates, in_flight)


def _start(situation: Situation, candidates: list[PodView], in_flight: int) -> list[SetWant]:
    """Broken pods first: replacing them costs no capacity."""
    budget = max(0, max(1, situation.workload.replicas // 4) - in_flight)
    chosen = sorted(candidates, key=lambda pod: (situation.readiness(pod) is True, pod.id.slot))[:budget]
    changes = []
    for pod in chosen:
        why = due(situation, pod)
        assert why is not None
        changes.append(SetWant(pod=pod.id, want=Want.HANDOVER, reason=why.reason))
    return changes


def _is_leaving(situation: Situation, pod: PodView) -> bool:
    """Whether it may still run although its slot has no use for it."""
    if pod.want not in (Want.HANDOVER, Want.STOP):
        return False
    return not is_over(pod) and not why_lost(situation.cluster, pod.node)


def _go_on(situation: Situation, old: PodView, current: PodView | None) -> list[SetWant]:
    """One slot whose replacement (`current`) is not known to be ready, or not placed."""
    if due(situation, old) is None:
        return _cancel(situation, old, current)
    if current is not None and situation.readiness(current) is False:
        outdated = due(situation, current)
        if outdated is not None:
            # Nobody relies on it yet: replace it and leave the old pod alone.
            return [SetWant(pod=current.id, want=Want.STOP, reason=outdated.reason)]
    return []


def _cancel(situation: Situation, old: PodView, current: PodView | None) -> list[SetWant]:
    """The reason has vanished (undrained, changed back): the old pod stays."""
    back = SetWant(pod=old.id, want=Want.RUN, reason="the reason to replace it has gone")
    if current is None:
        return [back]
    if None in (situation.readiness(current), situation.readiness(old)):
        return []
    name = pod_name(situation.workload.name, old.id)
    return [SetWant(pod=current.id, want=Want.STOP, reason=f"cancelled: {name} may stay after all"), back]
