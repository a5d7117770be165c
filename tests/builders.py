"""Views in a line: every builder names only what matters to the test, the rest is healthy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bayplan.model.names import PodId
from bayplan.model.nodes import Amounts, NodeState, Taint
from bayplan.model.placements import Cause, Want
from bayplan.model.states import PodState
from manager.planning.changes import PendingPod
from manager.planning.situation import has_ended
from manager.planning.view import (
    ClusterView,
    HostPort,
    NodeView,
    PodView,
    Requirements,
    Toleration,
    WorkloadView,
)

GIB = 2**30
NOW_S = 1000.0

RUN, HANDOVER, STOP, LOST = Want.RUN, Want.HANDOVER, Want.STOP, Want.LOST


def asks(
    cpu: float = 0.0,
    memory_gib: float = 0.0,
    *,
    selector: Mapping[str, str] | None = None,
    tolerations: Sequence[Toleration] = (),
    host_ports: Sequence[HostPort] = (),
) -> Requirements:
    """Requirements of one pod."""
    return Requirements(
        requests=Amounts(cpu_millis=round(cpu * 1000), memory_bytes=round(memory_gib * GIB), pods=1),
        node_selector=tuple(sorted((selector or {}).items())),
        tolerations=tuple(tolerations),
        host_ports=tuple(host_ports),
    )


def a_node(
    name: str = "n1",
    *,
    cpu: float = 4.0,
    memory_gib: float = 8.0,
    pods: int = 110,
    state: NodeState = NodeState.READY,
    taints: Sequence[Taint] = (),
    **more: Any,
) -> NodeView:
    """A ready node of 4 cores and 8 GiB."""
    capacity = Amounts(cpu_millis=round(cpu * 1000), memory_bytes=round(memory_gib * GIB), pods=pods)
    return NodeView(name=name, state=state, capacity=capacity, taints=tuple(taints), **more)


def down(name: str = "n1", **more: Any) -> NodeView:
    """A dead node."""
    return a_node(name, state=NodeState.DOWN, **{"why": "silent for 2.1 s", **more})


def a_pod(
    slot: int = 0,
    incarnation: int = 1,
    *,
    node: str = "n1",
    want: Want = RUN,
    state: PodState | None = PodState.RUNNING,
    ready: bool | None = True,
    revision: str = "r1",
    uid: str = "u-web",
    **more: Any,
) -> PodView:
    """A ready pod of web on n1; one that is not running is not ready either."""
    if state is None:
        ready = None
    elif state is not PodState.RUNNING:
        ready = False
    return PodView(
        id=PodId(uid, slot, incarnation),
        node=node,
        revision=revision,
        want=want,
        cause=Cause.CREATED,
        state=state,
        ready=ready,
        **more,
    )


def a_failed_pod(slot: int = 0, incarnation: int = 1, **more: Any) -> PodView:
    """A pod whose agent gave up just now."""
    return a_pod(
        slot, incarnation, state=PodState.FAILED, **{"message": "exit 127", "ended_s": NOW_S, **more}
    )


def web(
    *pods: PodView,
    replicas: int = 1,
    revision: str = "r1",
    requirements: Requirements | None = None,
    uid: str = "u-web",
    name: str = "web",
    **more: Any,
) -> WorkloadView:
    """A Deployment whose every revision asks for the same."""
    used = {revision, *(pod.revision for pod in pods)}
    return WorkloadView(
        uid=uid,
        kind="Deployment",
        namespace="shop",
        name=name,
        replicas=replicas,
        revision=revision,
        requirements=dict.fromkeys(sorted(used), requirements or asks()),
        pods=pods,
        **more,
    )


def a_cluster(
    *nodes: NodeView,
    workloads: Sequence[WorkloadView] = (),
    reserved: Mapping[str, Amounts] | None = None,
    now_s: float = NOW_S,
) -> ClusterView:
    """These nodes, with what the workloads' placements book on them, unless `reserved` is given."""
    booked: dict[str, Amounts] = {}
    for workload in workloads:
        for pod in workload.pods:
            if not has_ended(pod):
                requests = workload.requirements[pod.revision].requests
                booked[pod.node] = booked.get(pod.node, Amounts()) + requests
    return ClusterView(
        now_s=now_s,
        nodes={node.name: node for node in nodes},
        reserved=dict(reserved) if reserved is not None else booked,
    )


def some_pending(
    count: int = 1,
    requirements: Requirements | None = None,
    *,
    uid: str = "u-web",
    workload: str = "shop/web",
    **more: Any,
) -> list[PendingPod]:
    """Pending pods of slots 0 … count-1."""
    pod = PendingPod(
        workload_uid=uid,
        workload=workload,
        slot=0,
        revision="r1",
        requirements=requirements or asks(),
        cause=Cause.CREATED,
        reason="Deployment web wants it",
    )
    return [replace(pod, slot=slot, **more) for slot in range(count)]
