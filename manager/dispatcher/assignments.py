"""A committed placement in the words of the wire: what a node is told of one pod."""

from __future__ import annotations

from bayplan.model.placements import Placement, Want
from bayplan.v1 import agent_link_pb2 as wire
from manager.cluster_state import ClusterState


def assignment_of(state: ClusterState, placement: Placement) -> wire.Assignment:
    """All that its agent needs to run it, or to stop it."""
    pod = placement.pod
    kind, namespace, workload = state.workload_name(pod.workload_uid)
    # A pod that was counted lost runs on until it is decided which copy stays.
    want = Want.HANDOVER if placement.want is Want.LOST else placement.want
    return wire.Assignment(
        uid=str(pod),
        name=state.pod_name(pod),
        namespace=namespace,
        workload_kind=kind,
        workload=workload,
        workload_uid=pod.workload_uid,
        slot=pod.slot,
        incarnation=pod.incarnation,
        revision=placement.revision,
        want=int(want),  # type: ignore[arg-type]  # values are equal by design
        template_json=state.template_text(pod.workload_uid, placement.revision),
        privileged=state.policies.get(namespace) == "privileged",
    )
