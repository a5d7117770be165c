"""Pods, nodes and workloads as users see them: the state of the cluster in the API's words.

Never claims what is not so: what no agent has said is "Unknown".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bayplan.model.names import PodId
from bayplan.model.nodes import NodeState
from bayplan.model.placements import Placement, Want
from bayplan.model.states import UNREADY, PodState
from bayplan.resources.pods import template_hash
from bayplan.resources.workloads import Deployment
from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from manager.cluster_state import ClusterState, StoredResource
from manager.control_loop import Nodes

_STATE_WORDS = {
    PodState.ASSIGNED: "Assigned",
    PodState.PULLING: "Pulling",
    PodState.CREATED: "Created",
    PodState.STARTING: "Starting",
    PodState.RUNNING: "Running",
    PodState.SUCCEEDED: "Succeeded",
    PodState.FAILED: "Failed",
    PodState.STOPPED: "Stopped",
    PodState.LOST: "Lost",
}


def pod_of(state: ClusterState, nodes: Nodes, placement: Placement) -> api.Pod:
    """A placed pod with what is known of it now."""
    pod = placement.pod
    kind, namespace, workload = state.workload_name(pod.workload_uid)
    detail = state.status(placement)
    entry = state.nodes.get(placement.node)
    text = state.template_text(pod.workload_uid, placement.revision)
    node_state, node_why, _ = nodes.node_state(placement.node)
    is_known = entry is not None and entry.has_reported
    status, why = _status(placement, detail, node_state, node_why, is_known=is_known)
    why = why or nodes.why_running(pod)
    shown = api.Pod(
        uid=str(pod),
        name=state.pod_name(pod),
        namespace=namespace,
        workload_kind=kind,
        workload=workload,
        workload_uid=pod.workload_uid,
        slot=pod.slot,
        incarnation=pod.incarnation,
        revision=placement.revision,
        want=int(placement.want),  # type: ignore[arg-type]  # values are equal by design
        node=placement.node,
        status=status,
        ready=detail is not None and detail.ready and _is_heard(node_state),
        why=why,
        detail=detail,
        labels=_labels(text),
        current=placement.want is Want.RUN,
        template_json=text,
        created_ms=state.attempts.created_ms(pod),
    )
    if entry is not None and str(pod) in entry.usage:
        shown.usage.CopyFrom(entry.usage[str(pod)])
    return shown


def _is_heard(node_state: NodeState) -> bool:
    return node_state in (NodeState.READY, NodeState.SUSPECT, NodeState.RESTARTING, NodeState.AGENT_LOST)


def _labels(template_text: str) -> dict[str, str]:
    labels: dict[str, str] = json.loads(template_text).get("metadata", {}).get("labels", {})
    return labels


def _status(
    placement: Placement,
    detail: wire.PodStatus | None,
    node_state: NodeState,
    node_why: str,
    *,
    is_known: bool,
) -> tuple[str, str]:
    """(STATUS, WHY) in the words of `bay ps`."""
    if placement.want is Want.LOST:
        return "Lost", f"node {placement.node} is down: {node_why}" if node_why else "its node went down"
    if node_state in (NodeState.DOWN, NodeState.UNKNOWN) or (detail is None and not is_known):
        return "Unknown", f"node {placement.node}: {node_why}"
    if detail is None:
        return ("Stopping", "") if placement.want is Want.STOP else ("Assigned", "")
    found = PodState(detail.state)
    words = _STATE_WORDS[found]
    why = detail.message
    if placement.want is Want.STOP and not found.is_terminal:
        words, why = "Stopping", ""
    elif detail.reason and not detail.ready and detail.reason != UNREADY:
        words = detail.reason if not found.is_terminal else words
    if node_state is not NodeState.READY:
        why = f"node {placement.node} is {node_state}: {node_why}" + (f"; {why}" if why else "")
    return words, why


def pending_of(state: ClusterState, uid: str, unplaced: Mapping[int, str], note: str) -> Iterator[api.Pod]:
    """Slots of a workload that want a pod and have none placed."""
    place = state.workloads.get(uid)
    if place is None:
        return
    entry = state.resources[place]
    assert isinstance(entry.resource, Deployment)
    if entry.stored.deleting:
        return
    taken = {
        placement.pod.slot
        for placement in state.placements.get(uid, {}).values()
        if placement.want is Want.RUN
    }
    revision = template_hash(entry.resource.spec.template)
    text = state.template_text(uid, revision)
    labels = _labels(text)
    for slot in range(entry.resource.spec.replicas):
        if slot in taken:
            continue
        pod = PodId(uid, slot, state.upcoming_incarnation(uid, slot))
        yield api.Pod(
            uid=str(pod),
            name=state.pod_name(pod),
            namespace=place[1],
            workload_kind=place[0],
            workload=place[2],
            workload_uid=uid,
            slot=slot,
            incarnation=pod.incarnation,
            revision=revision,
            want=wire.WANT_RUN,
            status="Pending",
            why=unplaced.get(slot, note),
            labels=labels,
            current=True,
            template_json=text,
        )


def deployment_status(entry: StoredResource, pods: Iterable[api.Pod]) -> dict[str, Any]:
    """A Deployment's status in Kubernetes' shape."""
    assert isinstance(entry.resource, Deployment)
    revision = template_hash(entry.resource.spec.template)
    current = [pod for pod in pods if pod.want not in (wire.WANT_STOP, wire.WANT_LOST)]
    placed = [pod for pod in current if pod.node]
    ready = [pod for pod in placed if pod.ready]
    updated = [pod for pod in placed if pod.revision == revision]
    status: dict[str, Any] = {
        "observedGeneration": entry.stored.generation,
        "replicas": len(placed),
        "readyReplicas": len(ready),
        "updatedReplicas": len(updated),
        "availableReplicas": len(ready),
        "unavailableReplicas": max(0, entry.resource.spec.replicas - len(ready)),
        "updatedReadyReplicas": sum(pod.ready for pod in updated),
    }
    return status


def node_of(state: ClusterState, nodes: Nodes, name: str) -> api.Node:
    """A node with what is booked and used on it."""
    entry = state.nodes[name]
    node_state, why, held = nodes.node_state(name)
    reserved = state.reserved[name]
    return api.Node(
        name=name,
        status=str(node_state),
        why="; ".join(part for part in (why, held, entry.refuses) if part),
        unschedulable=entry.intent.unschedulable,
        drain=entry.intent.drain,
        labels=entry.labels,
        taints=[
            api.Taint(key=taint.key, value=taint.value, effect=taint.effect) for taint in entry.intent.taints
        ],
        address=entry.facts.address,
        version=entry.facts.version,
        engine=entry.facts.engine,
        capacity=wire.Amounts(
            cpu_millis=entry.facts.capacity.cpu_millis,
            memory_bytes=entry.facts.capacity.memory_bytes,
            pods=entry.facts.capacity.pods,
        ),
        reserved=wire.Amounts(
            cpu_millis=reserved.cpu_millis, memory_bytes=reserved.memory_bytes, pods=reserved.pods
        ),
        used=entry.used,
        pods=len(state.by_node[name]),
        joined_ms=entry.facts.joined_ms,
        boot_id=entry.facts.boot_id,
        condition=entry.condition,
    )
