"""Placements: the durable record of which pod belongs on which node, and what we want of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from bayplan.model.names import PodId


class Want(IntEnum):
    """What the leader wants of a placed pod. Values equal those of the wire's `Want`."""

    RUN = 1
    HANDOVER = 2
    """Runs until its replacement, a newer incarnation of the slot, is ready."""
    STOP = 3
    LOST = 4
    """Its node is down: a replacement may run, the record stays until the node reports the pod gone."""


class Cause(IntEnum):
    """Why a pod was made. Stored beside it, so that `bay why` answers after a leader change."""

    CREATED = 1
    SCALED_UP = 2
    NODE_DOWN = 3
    DRAINED = 4
    NEW_REVISION = 5
    FAILED = 6
    ADOPTED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Written by the leader alone. At most one placement of a slot wants RUN."""

    pod: PodId
    node: str
    revision: str  # Template hash, 8 hex digits.
    want: Want
    cause: Cause
