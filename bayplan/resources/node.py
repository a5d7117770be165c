"""What users want of a node. The control API writes it; it is never applied from a manifest."""

from __future__ import annotations

from typing import Literal, Self

from bayplan.model.nodes import NodeIntent
from bayplan.model.nodes import Taint as NodeTaint
from bayplan.resources.metadata import Document, NodeMetadata
from bayplan.resources.model import Part
from bayplan.resources.syntax import Boolean, LabelKey, LabelValue, Text


class Taint(Part):
    """Keeps pods away that do not tolerate it."""

    key: LabelKey
    value: LabelValue = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class NodeSpec(Part):
    """Availability of a node."""

    unschedulable: Boolean = False
    drain: Boolean = False
    taints: tuple[Taint, ...] = ()
    lost_boot_id: Text = ""  # The boot id that an operator has sworn to be dead.


class Node(Document):
    """A host, as users want it used. Labels here come on top of those that its agent reports."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["Node"] = "Node"
    metadata: NodeMetadata
    spec: NodeSpec = NodeSpec()

    @classmethod
    def from_intent(cls, name: str, intent: NodeIntent) -> Self:
        """The document that says `intent`. Raises pydantic's ValidationError on labels or taints out of shape."""
        return cls(
            metadata=NodeMetadata(name=name, labels=intent.labels),
            spec=NodeSpec(
                unschedulable=intent.unschedulable,
                drain=intent.drain,
                taints=tuple(Taint(key=t.key, value=t.value, effect=t.effect) for t in sorted(intent.taints)),
                lost_boot_id=intent.lost_boot_id,
            ),
        )

    def to_intent(self) -> NodeIntent:
        """What planning and the control loop read."""
        return NodeIntent(
            unschedulable=self.spec.unschedulable,
            drain=self.spec.drain,
            labels=dict(self.metadata.labels),
            taints=tuple(NodeTaint(key=t.key, value=t.value, effect=t.effect) for t in self.spec.taints),
            lost_boot_id=self.spec.lost_boot_id,
        )
