"""As many slots as the user wants: stop the pods of surplus ones, ask for pods in empty ones.

Slots 0 … replicas-1 are wanted. Scaling down takes the highest first, so that what stays is known
beforehand. Why a slot is empty is read off its newest record, so that a plan that was cut short,
or a new leader, comes to the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from bayplan.model.placements import Cause, Want
from bayplan.model.states import PodState
from manager.planning.changes import PendingPod, SetWant
from manager.planning.due import due
from manager.planning.lost import why_lost
from manager.planning.restarts import how_it_ended
from manager.planning.situation import Situation, is_over, running
from manager.planning.view import PodView

# The agent has already tried again in place for a while: a slot that keeps failing is tried
# elsewhere at once, then ever more slowly, as Kubernetes caps its own back-off (5 minutes).
BACK_OFF_FIRST_S = 1.0
BACK_OFF_MAX_S = 300.0


def plan_surplus(situation: Situation) -> list[SetWant]:
    """Stop every pod in slots nobody wants, highest slot first."""
    workload = situation.workload
    reason = (
        f"{workload.kind} {workload.name} is being deleted"
        if workload.deleting
        else f"scaled down to {workload.replicas}"
    )
    return [
        SetWant(pod=pod.id, want=Want.STOP, reason=reason)
        for slot, pods in sorted(situation.slots.items(), reverse=True)
        if not situation.wants_slot(slot)
        for pod in pods
        if pod.want is not Want.STOP
    ]


def plan_missing(situation: Situation) -> list[PendingPod]:
    """A pending pod for each wanted slot in which no pod is wanted to run."""
    workload = situation.workload
    if workload.deleting:
        return []
    label = f"{workload.namespace}/{workload.name}"
    requirements = workload.requirements[workload.revision]
    pending = []
    for slot in range(workload.replicas):
        pods = situation.slots.get(slot, ())
        if running(pods) is not None:
            continue
        empty = _why_empty(situation, slot, pods)
        pending.append(
            PendingPod(
                workload_uid=workload.uid,
                workload=label,
                slot=slot,
                revision=workload.revision,
                requirements=requirements,
                cause=empty.cause,
                reason=empty.reason,
                avoid=empty.avoid,
                not_before_s=empty.not_before_s,
            )
        )
    return pending


@dataclass(frozen=True, slots=True, kw_only=True)
class _Empty:
    """Why a slot is empty."""

    cause: Cause
    reason: str
    avoid: tuple[str, ...] = ()
    not_before_s: float = 0.0


def _why_empty(situation: Situation, slot: int, pods: tuple[PodView, ...]) -> _Empty:
    if not pods:
        return _never_filled(situation)
    newest = pods[-1]
    if newest.want is Want.LOST:
        verdict = why_lost(situation.cluster, newest.node) or f"node {newest.node} was down"
        return _Empty(cause=Cause.NODE_DOWN, reason=verdict)
    if is_over(newest) and _ended_unasked(situation, slot, newest):
        return _failed(situation, slot, newest)
    for pod in reversed(pods):
        why = due(situation, pod) if pod.want is Want.HANDOVER else None
        if why is not None:
            return _Empty(cause=why.cause, reason=why.reason)
    return _Empty(cause=Cause.SCALED_UP, reason="its slot is wanted again")


def _never_filled(situation: Situation) -> _Empty:
    workload = situation.workload
    if workload.generation > 1 and situation.slots:
        return _Empty(cause=Cause.SCALED_UP, reason=f"scaled up to {workload.replicas}")
    return _Empty(cause=Cause.CREATED, reason=f"{workload.kind} {workload.name} wants {workload.replicas}")


def _ended_unasked(situation: Situation, slot: int, pod: PodView) -> bool:
    """A pod that was told to stop ends as STOPPED; any other end was not asked for."""
    return pod.state is not PodState.STOPPED or slot in situation.workload.failures


def _failed(situation: Situation, slot: int, pod: PodView) -> _Empty:
    workload = situation.workload
    ended = how_it_ended(pod)
    if pod.revision != workload.revision:
        # The user has changed the template since: what failed before says nothing about this one.
        return _Empty(cause=Cause.NEW_REVISION, reason=f"{ended}; revision {workload.revision} replaces it")
    if pod.is_gone:
        return _Empty(cause=Cause.FAILED, reason=ended)
    count, ended_s = workload.failures.get(slot, (1, pod.ended_s))
    # The exponent is bounded, since a count may grow for months.
    delay_s = min(BACK_OFF_MAX_S, BACK_OFF_FIRST_S * 2.0 ** min(max(count, 1) - 1, 16))
    in_a_row = f", {count} times in a row" if count > 1 else ""
    return _Empty(
        cause=Cause.FAILED,
        reason=f"{ended}{in_a_row}; tried again after {delay_s:g} s",
        avoid=(pod.node,),
        not_before_s=ended_s + delay_s,
    )
