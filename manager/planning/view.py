"""What planning sees: one workload, and the nodes it may use, at one moment.

Frozen, without clock, store or Docker, so that a test states a situation in five lines.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bayplan.model.names import PodId
from bayplan.model.nodes import Amounts, NodeState, Taint
from bayplan.model.placements import Cause, Want
from bayplan.model.states import PodState


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """Lets a pod onto nodes with matching taints. An empty key with Exists matches every taint."""

    key: str = ""
    operator: str = "Equal"  # or Exists
    value: str = ""
    effect: str = ""  # Empty: every effect.

    def tolerates(self, taint: Taint) -> bool:
        """Kubernetes' rule."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.operator == "Exists":
            return self.key in ("", taint.key)
        return self.key == taint.key and self.value == taint.value


HostPort = tuple[int, str]
"""A port of the node itself, and TCP or UDP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What one pod of a revision needs of a node. Hashable: equal requirements are placed as one batch."""

    requests: Amounts
    node_selector: tuple[tuple[str, str], ...] = ()  # Sorted.
    host_ports: tuple[HostPort, ...] = ()  # Sorted. No two pods with one of them fit on a node.
    tolerations: tuple[Toleration, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """One placement with what is known of its pod and its node."""

    id: PodId
    node: str
    revision: str
    want: Want
    cause: Cause
    # None: unknown, because its node has not reported to this leader. Unknown is neither ready nor failed.
    state: PodState | None
    ready: bool | None
    # The node has reported and does not have the pod, and was told of it: it is gone, its record may go.
    is_gone: bool = False
    message: str = ""  # The agent's reason for a failure.
    ended_s: float = 0.0  # When it became terminal, on the clock of `now_s`; 0 if it is not.


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A node as planning sees it."""

    name: str
    state: NodeState
    why: str = ""  # The verdict in words, e.g. "silent for 2.1 s, 3 witnesses cannot reach it".
    drain: bool = False
    unschedulable: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    capacity: Amounts = field(default_factory=Amounts)
    # Why it takes no new pods although it is Ready, e.g. "disk 93 % full"; empty if it does.
    refuses: str = ""
    # Replacing pods of this node is held back (brake, or another agent-lost node is first): why; empty if not.
    held: str = ""

    @property
    def takes_pods(self) -> bool:
        """Whether the scheduler may place pods here, taints and room apart."""
        return self.state is NodeState.READY and not (self.drain or self.unschedulable or self.refuses)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadView:
    """One workload with all its placements."""

    uid: str
    kind: str
    namespace: str
    name: str
    replicas: int
    revision: str  # Hash of the template that new pods get.
    requirements: dict[str, Requirements]  # By revision, for every revision in use.
    pods: tuple[PodView, ...]
    deleting: bool = False
    # How often the user wrote the document: what is missing in the first was created, later scaled up.
    generation: int = 1
    # By slot: failed attempts in a row, the newest one included, and when it ended: (count, ended_s).
    failures: dict[int, tuple[int, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """All nodes, and what is already booked on them."""

    now_s: float  # Monotonic.
    nodes: dict[str, NodeView]
    # Booked by every placement of every workload whose record is kept, terminal ones apart.
    reserved: dict[str, Amounts] = field(default_factory=dict)
    # Ports of nodes that pods use, by node; nodes without any may be left out.
    host_ports: dict[str, frozenset[HostPort]] = field(default_factory=dict)
    # How many pods of dead nodes one plan may count lost: replacing is rationed after a mass failure. None: any.
    losses_max: int | None = None
