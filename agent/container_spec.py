"""A container of one attempt, and a pod's sandbox, as the engine is to make them. Pure.

Labels tell whoever looks at the engine, ours or a person, what a container is; a lost journal is rebuilt from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.network.port import Attachment
from agent.next_step import Sandbox
from agent.pod_spec import ContainerTemplate, PodSpec
from agent.runtime import port
from agent.runtime.port import SANDBOX, ContainerSpec, Mount
from bayplan.v1 import agent_link_pb2 as pb

HOSTNAME_MAX = 63
RESOLV_CONF = "/etc/resolv.conf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whose containers they are, for their labels."""

    assignment: pb.Assignment
    node: str  # This one.
    cluster: str  # That containers of this node are labelled with.
    epoch: int  # Create-revision of the key of the leader that ordered it.


def to_container_spec(
    origin: Origin,
    spec: PodSpec,
    template: ContainerTemplate,
    *,
    attempt: int,
    image: str,
    attachment: Attachment | None,
    resolv_conf: Path | None,
    sandbox: Sandbox | None,
) -> ContainerSpec:
    """Describe a container of the template.

    Args:
        origin: of its labels.
        spec: the pod's template.
        template: its own part of it.
        attempt: 0, 1, 2 …: restarts in place.
        image: what to run, as the engine resolved it.
        attachment: of the pod to the pods' network; None: it is on the host's own.
        resolv_conf: to be mounted over the engine's; None: that stays.
        sandbox: whose network it shares; None: it is connected itself.
    """
    labels = _labels(origin, template.name, attempt)
    if sandbox is not None:
        labels[port.LABEL_SANDBOX] = sandbox.run
    return ContainerSpec(
        name=f"bay-{origin.assignment.name}-{template.name}-{attempt}",
        image=image,
        labels=labels,
        command=template.command,
        args=template.args,
        env=template.env,
        working_dir=template.working_dir,
        hostname=_hostname(origin, spec) if attachment is not None and sandbox is None else "",
        cpu_request_millis=template.cpu_request_millis,
        cpu_limit_millis=template.cpu_limit_millis,
        memory_limit_bytes=template.memory_limit_bytes,
        network=""
        if sandbox is not None
        else attachment.network
        if attachment is not None
        else port.HOST_NETWORK,
        address=attachment.address if attachment is not None and sandbox is None else "",
        joins=sandbox.container_id if sandbox is not None else "",
        # What is mounted over a file is no part of the network: each container has it anew.
        mounts=_mounts(resolv_conf) if resolv_conf is not None else (),
    )


def to_sandbox_spec(
    origin: Origin,
    spec: PodSpec,
    *,
    attempt: int,
    image: str,
    command: tuple[str, ...],
    attachment: Attachment,
) -> ContainerSpec:
    """Describe the container that owns a pod's network. No container of a template can have its name: it has a dot."""
    return ContainerSpec(
        name=f"bay-{origin.assignment.name}.sandbox-{attempt}",
        image=image,
        labels=_labels(origin, SANDBOX, attempt),
        command=command,
        hostname=_hostname(origin, spec),
        network=attachment.network,
        address=attachment.address,
        mounts=_mounts(attachment.resolv_conf),
        is_sandbox=True,
    )


def _labels(origin: Origin, name: str, attempt: int) -> dict[str, str]:
    assignment = origin.assignment
    return {
        port.LABEL_CLUSTER: origin.cluster,
        port.LABEL_NODE: origin.node,
        port.LABEL_POD: assignment.uid,
        port.LABEL_POD_NAME: assignment.name,
        port.LABEL_NAMESPACE: assignment.namespace,
        port.LABEL_WORKLOAD: f"{assignment.workload_kind}/{assignment.workload}",
        port.LABEL_CONTAINER: name,
        port.LABEL_REVISION: assignment.revision,
        port.LABEL_EPOCH: str(origin.epoch),
        port.LABEL_ATTEMPT: str(attempt),
    }


def _hostname(origin: Origin, spec: PodSpec) -> str:
    return (spec.hostname or origin.assignment.name)[:HOSTNAME_MAX]


def _mounts(resolv_conf: Path) -> tuple[Mount, ...]:
    return (Mount(source=str(resolv_conf), target=RESOLV_CONF),)
