"""What planning sees: a frozen picture of one workload, or of all services, made from the leader's memory.

Says what is not known rather than guess: a pod of a node that has not reported in full has no state.
"""

from __future__ import annotations

from collections.abc import Iterator

from bayplan.model.placements import Placement, Want
from bayplan.model.states import PodState
from bayplan.resources.pods import template_hash, template_json
from bayplan.resources.service import Service, ServicePort, ServiceSpec
from bayplan.resources.workloads import Deployment
from manager.cluster_state import ClusterState
from manager.planning.allocations import INGRESS_PORTS, Claim, PortClaim
from manager.planning.view import PodView, WorkloadView

_INGRESS_PORTS = tuple(PortClaim(port=port, is_published=True) for port in INGRESS_PORTS)


def workload_view(state: ClusterState, uid: str) -> WorkloadView | None:
    """The whole of one workload now; None when the store has nothing of it."""
    pods = tuple(_pod_view(state, placement) for placement in state.placements.get(uid, {}).values())
    place = state.workloads.get(uid)
    if place is None:
        if not pods or state.broken:
            # Pods of an unreadable document are left alone, and it cannot be told which those are.
            return None
        # Its document is gone: what is left is stopped.
        return WorkloadView(
            uid=uid, kind="", namespace="", name=uid, replicas=0, revision="",
            requirements={}, pods=pods, deleting=True,
        )  # fmt: skip
    entry = state.resources[place]
    assert isinstance(entry.resource, Deployment)
    template = entry.resource.spec.template
    revision = template_hash(template)
    # Not stored before the first pod of it is placed.
    state.learn_requirements(uid, revision, template_json(template))
    used = {revision} | {pod.revision for pod in pods}
    return WorkloadView(
        uid=uid,
        kind=place[0],
        namespace=place[1],
        name=place[2],
        replicas=entry.resource.spec.replicas,
        revision=revision,
        requirements={used_one: state.requirements(uid, used_one) for used_one in used},
        pods=pods,
        deleting=entry.stored.deleting,
        generation=entry.stored.generation,
        failures=dict(state.failures.get(uid, {})),
    )


def _pod_view(cluster: ClusterState, placement: Placement) -> PodView:
    entry = cluster.nodes.get(placement.node)
    uid = str(placement.pod)
    status = entry.statuses.get(uid) if entry is not None else None
    state: PodState | None = None
    ready: bool | None = None
    is_gone = False
    if status is not None:
        state, ready = PodState(status.state), status.ready
    elif entry is not None and entry.has_reported:
        # It reported in full, and not this pod: it has not begun, or it has nothing of it left.
        state, ready = PodState.ASSIGNED, False
        is_gone = placement.want in (Want.STOP, Want.LOST) and uid not in entry.told
    return PodView(
        id=placement.pod,
        node=placement.node,
        revision=placement.revision,
        want=placement.want,
        cause=placement.cause,
        state=state,
        ready=ready,
        is_gone=is_gone,
        message=status.message if status is not None else "",
        ended_s=cluster.ended_s.get(uid, 0.0),
    )


def service_claims(state: ClusterState) -> Iterator[Claim]:
    """What every Service and Ingress needs to be given."""
    for uid, (kind, namespace, name) in state.services.items():
        entry = state.resources[kind, namespace, name]
        spec = entry.resource.spec if isinstance(entry.resource, Service) else None
        yield Claim(
            uid=uid,
            kind=kind,
            namespace=namespace,
            name=name,
            created_ms=entry.stored.created_ms,
            needs_vip=spec is not None and spec.has_address,
            vip=spec.cluster_ip if spec is not None and spec.has_address else "",
            ports=tuple(_port_claim(spec, port) for port in spec.ports)
            if spec is not None
            else _INGRESS_PORTS,
        )


def _port_claim(spec: ServiceSpec, port: ServicePort) -> PortClaim:
    return PortClaim(
        port=port.port,
        protocol=port.protocol,
        needs_node_port=spec.needs_node_ports or port.node_port is not None,
        node_port=port.node_port or 0,
        is_published=spec.type == "LoadBalancer",
    )
