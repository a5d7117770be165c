"""Handing slots over to new pods: drained nodes, NoExecute taints, new revisions.

The old pod runs until the new one is ready, so a handover never costs capacity; if no node has room
for the new one, the old one simply runs on. A few slots at a time, so that a bad revision shows
itself on few pods. A slot counts until its old pod has ended, or its node is known to be down: else
a workload would run more pods than its slots and those few while old ones take their time to stop.
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
    steps = [step for pods in situation.slots.values() for step in _go_on(situation, pods)]
    return steps + _start(situation.after(steps))


def _go_on(situation: Situation, pods: tuple[PodView, ...]) -> list[SetWant]:
    """One slot; nothing if no handover is under way there, or if it waits."""
    old = [pod for pod in pods if pod.want is Want.HANDOVER]
    if not old:
        return []
    current = running(pods)
    is_ready = None if current is None else situation.readiness(current)
    if current is not None and is_ready:
        reason = f"{pod_name(situation.workload.name, current.id)} on {current.node} is ready"
        return [SetWant(pod=pod.id, want=Want.STOP, reason=reason) for pod in old]
    if due(situation, old[-1]) is None:
        return _cancel(situation, old[-1], current)
    if current is not None and is_ready is False:
        outdated = due(situation, current)
        if outdated is not None:
            # Nobody relies on it yet: replace it and leave the old pod alone.
            return [SetWant(pod=current.id, want=Want.STOP, reason=outdated.reason)]
    return []


def _start(situation: Situation) -> list[SetWant]:
    """Broken pods first: replacing them costs no capacity."""
    in_flight = 0
    candidates: list[tuple[PodView, str]] = []
    for pods in situation.slots.values():
        if any(_is_leaving(situation, pod) for pod in pods):
            in_flight += 1
            continue
        current = running(pods)
        # Unknown pods wait: they are neither broken nor serving.
        if current is None or situation.readiness(current) is None:
            continue
        why = due(situation, current)
        if why is not None:
            candidates.append((current, why.reason))
    candidates.sort(key=lambda each: (situation.readiness(each[0]) is True, each[0].id.slot))
    budget = max(0, max(1, situation.workload.replicas // 4) - in_flight)
    return [SetWant(pod=pod.id, want=Want.HANDOVER, reason=reason) for pod, reason in candidates[:budget]]


def _is_leaving(situation: Situation, pod: PodView) -> bool:
    """Whether it is being replaced, or may still run although its slot has no use for it."""
    if pod.want is Want.STOP:
        return not is_over(pod) and not why_lost(situation.cluster, pod.node)
    return pod.want is Want.HANDOVER


def _cancel(situation: Situation, old: PodView, current: PodView | None) -> list[SetWant]:
    """The reason has vanished (undrained, changed back): the old pod stays."""
    back = SetWant(pod=old.id, want=Want.RUN, reason="the reason to replace it has gone")
    if current is None:
        return [back]
    if None in (situation.readiness(current), situation.readiness(old)):
        return []
    name = pod_name(situation.workload.name, old.id)
    return [SetWant(pod=current.id, want=Want.STOP, reason=f"cancelled: {name} may stay after all"), back]
