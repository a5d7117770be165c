"""Pods on dead nodes: count them lost, so that a replacement may run.

Only a verdict counts: a node that is silent, restarting, unknown or without its agent keeps its
pods. The record of a lost pod stays, because the pod may still run behind a broken link.
"""

from __future__ import annotations

from bayplan.model.nodes import NodeState
from bayplan.model.placements import Want
from manager.planning.changes import SetWant
from manager.planning.situation import Situation
from manager.planning.view import ClusterView


def plan_lost(situation: Situation) -> list[SetWant]:
    """Count pods of dead and of removed nodes as lost."""
    changes: list[SetWant] = []
    for pods in situation.slots.values():
        for pod in pods:
            if len(changes) == situation.cluster.losses_max:
                return changes
            if pod.want not in (Want.RUN, Want.HANDOVER):
                continue
            verdict = why_lost(situation.cluster, pod.node)
            if verdict:
                changes.append(SetWant(pod=pod.id, want=Want.LOST, reason=verdict))
    return changes


def why_lost(cluster: ClusterView, name: str) -> str:
    """Why the pods of a node count as lost, in words; empty if they do not."""
    node = cluster.nodes.get(name)
    if node is None:
        return f"node {name} was removed"
    if node.state is NodeState.DOWN and not node.held:
        return f"node {name} is down: {node.why}" if node.why else f"node {name} is down"
    return ""
