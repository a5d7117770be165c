"""Pods that ended although they are wanted: their agent gave up, or their node no longer has them.

Restarts in place are the agent's; what arrives here is final, so the slot gets a new pod.
The record of the ended one stays until then (see `reap`): it says where the slot failed.
"""

from __future__ import annotations

from bayplan.model.placements import Want
from bayplan.model.states import PodState
from manager.planning.changes import SetWant
from manager.planning.situation import Situation, is_over
from manager.planning.view import PodView


def plan_restarts(situation: Situation) -> list[SetWant]:
    """Stop wanting pods that are over."""
    return [
        SetWant(pod=pod.id, want=Want.STOP, reason=how_it_ended(pod))
        for pods in situation.slots.values()
        for pod in pods
        if pod.want in (Want.RUN, Want.HANDOVER) and is_over(pod)
    ]


def how_it_ended(pod: PodView) -> str:
    """In words, of a pod that is over."""
    cause = f": {pod.message}" if pod.message else ""
    match pod.state:
        case PodState.FAILED:
            return f"failed on {pod.node}{cause}"
        case PodState.SUCCEEDED:
            return f"ended on {pod.node} by itself with exit code 0, but is meant to run for ever"
        case PodState.STOPPED:
            return f"was stopped on {pod.node}{cause}"
        case _:
            return f"node {pod.node} no longer has it"
