"""What a plan consists of. Every change carries the reason that reaches log, events, `bay why` and tests."""

from __future__ import annotations

from dataclasses import dataclass

from bayplan.model.names import PodId
from bayplan.model.placements import Cause, Want
from bayplan.model.services import Allocation, Cursor
from manager.planning.view import Requirements


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingPod:
    """A slot that needs a new pod; the scheduler finds its node."""

    workload_uid: str
    workload: str  # namespace/name, for messages.
    slot: int
    revision: str
    requirements: Requirements
    cause: Cause
    reason: str
    # Not on these nodes if another fits: where the slot's last attempt failed.
    avoid: tuple[str, ...] = ()
    # When it may be placed, on the clock of `now_s`: a back-off after failures. 0: now.
    not_before_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacePod:
    """A new placement. The commit gives it the next incarnation of its slot."""

    workload_uid: str
    slot: int
    revision: str
    node: str
    cause: Cause
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetWant:
    """An existing placement is wanted otherwise."""

    pod: PodId
    want: Want
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePlacement:
    """The pod has ended, or its node was removed: the record goes, its room is free."""

    pod: PodId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveWorkload:
    """A document marked as deleting has no placement left: document, revisions and chunks go."""

    workload_uid: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveAllocation:
    """A service has this from now on, in place of what it had."""

    service_uid: str
    allocation: Allocation
    cursor: Cursor
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeAllocation:
    """A service is gone, or needs nothing any more: what it had is free."""

    service_uid: str
    allocation: Allocation  # As it was.
    reason: str


Change = PlacePod | SetWant | RemovePlacement | RemoveWorkload
AllocationChange = GiveAllocation | FreeAllocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaced:
    """A pending pod that fits nowhere now, and why, e.g. "0/3 nodes: 3 lack 4 cpu (most free: n2, 1.6)"."""

    workload_uid: str
    slot: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The outcome of a pass. `changes` may be cut anywhere: every prefix is legal by itself."""

    changes: tuple[Change, ...] = ()
    unplaced: tuple[Unplaced, ...] = ()
    # The earliest time at which the plan of an otherwise unchanged view would differ; 0: never.
    wake_at_s: float = 0.0
