"""Nodes as the leader knows them: what was registered, what the user wants, and whether they live."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

# A node carries this many pods unless it says otherwise: Kubernetes' default.
PODS_PER_NODE = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Resources that a node offers or a pod asks for."""

    cpu_millis: int = 0
    memory_bytes: int = 0
    pods: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            cpu_millis=self.cpu_millis + other.cpu_millis,
            memory_bytes=self.memory_bytes + other.memory_bytes,
            pods=self.pods + other.pods,
        )

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(
            cpu_millis=self.cpu_millis - other.cpu_millis,
            memory_bytes=self.memory_bytes - other.memory_bytes,
            pods=self.pods - other.pods,
        )


TaintEffect = Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Taint:
    """Keeps pods away that do not tolerate it."""

    key: str
    value: str = ""
    effect: TaintEffect = "NoSchedule"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a node's agent registered. Written by the leader, kept in etcd."""

    name: str
    number: int  # Unique in the cluster, never given twice; names the node in packed placements.
    joined_ms: int
    capacity: Amounts
    labels: dict[str, str] = field(default_factory=dict)
    address: str = ""
    witness_port: int = 0
    boot_id: str = ""
    version: str = ""
    engine: str = ""
    subnet: str = (
        ""  # Of its pods, e.g. 10.42.3.0/24; empty until its agent has connected to a leader that gives them.
    )
    publish_addresses: tuple[str, ...] = ()  # Where published ports are bound; empty: `address`.
    wireguard_key: str = ""  # Public.


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIntent:
    """What users want of a node. Written by the control API alone."""

    unschedulable: bool = False
    drain: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    # The boot id that an operator has sworn to be dead; void once the host came back with another.
    lost_boot_id: str = ""


class NodeState(StrEnum):
    """What the leader holds of a node. Only DOWN lets pods be replaced at once."""

    UNKNOWN = "Unknown"  # Not heard of since this leader was elected, and its grace runs.
    READY = "Ready"
    SUSPECT = "Suspect"  # Silent or its stream broke: evidence is being gathered.
    RESTARTING = "Restarting"  # Its agent said Goodbye and announced to be back.
    AGENT_LOST = "AgentLost"  # A witness reached the host: its pods run on.
    DOWN = "Down"
