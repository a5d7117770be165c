"""A plan's changes as operations on the store: whole chunks, cut where a transaction is full.

Every prefix of a plan is legal by itself, so a plan too large for one transaction is cut
anywhere; what is left is planned anew after the first part is committed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bayplan.model.names import PodId
from bayplan.model.placements import Placement, Want
from bayplan.model.services import Allocation, Cursor
from bayplan.model.states import PodState
from manager.cluster_state import ClusterState
from manager.commit import BYTES_MAX, OPERATIONS_MAX
from manager.planning.changes import (
    AllocationChange,
    Change,
    FreeAllocation,
    GiveAllocation,
    PlacePod,
    RemovePlacement,
    RemoveWorkload,
    SetWant,
)
from manager.store import keys, records
from manager.store.port import DeleteKey, Operation, Put

# A transaction also holds the sequence number, one key of decisions, one that expires and the cursor.
_KEYS_MAX = OPERATIONS_MAX - 4
# One removed workload may take many keys with it; they are cut over several transactions.
_CHUNK_SLOTS = records.CHUNK_SLOTS


@dataclass(slots=True)
class Batch:
    """What one transaction does, and how memory must follow once it is done."""

    operations: list[Operation] = field(default_factory=list)
    put: list[Placement] = field(default_factory=list)
    dropped: list[PodId] = field(default_factory=list)
    dropped_workloads: list[str] = field(default_factory=list)
    next_incarnation: dict[tuple[str, int], int] = field(default_factory=dict)
    # With the template: by the time of the commit the document may ask for another one.
    new_revisions: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    dropped_revisions: list[tuple[str, str]] = field(default_factory=list)
    dropped_chunks: list[tuple[str, int]] = field(default_factory=list)
    allocations: dict[str, Allocation] = field(default_factory=dict)
    dropped_allocations: list[str] = field(default_factory=list)
    cursor: Cursor | None = None  # Where it is to stand then.
    changes: list[tuple[Change | AllocationChange, PodId | None]] = field(default_factory=list)
    nodes_freed: set[str] = field(default_factory=set)
    is_cut: bool = False  # Changes are left over.


class _Builder:
    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._batch = Batch()
        # Placements as they stand, by workload and chunk; those of open chunks were taken out.
        self._stored: dict[str, dict[int, dict[PodId, Placement]]] = {}
        # Chunks as they will stand, by key.
        self._pods: dict[tuple[str, int], dict[PodId, Placement]] = {}
        self._next: dict[tuple[str, int], int] = {}
        self._keys = 0
        self._bytes = 0
        self._removed_keys: list[str] = []

    def _open(self, uid: str, slot: int) -> dict[PodId, Placement]:
        held = uid, slot // _CHUNK_SLOTS
        if held not in self._pods:
            self._pods[held] = self._stored_of(uid).pop(held[1], {})
            self._next[held] = self._state.next_incarnation.get(held, 1)
            self._keys += 1
            self._bytes += 16 * (len(self._pods[held]) + 4)
        return self._pods[held]

    def _stored_of(self, uid: str) -> dict[int, dict[PodId, Placement]]:
        """A workload's placements by chunk: sorted once, not once for each chunk."""
        if uid not in self._stored:
            chunks: dict[int, dict[PodId, Placement]] = {}
            for pod, placement in self._state.placements.get(uid, {}).items():
                chunks.setdefault(pod.slot // _CHUNK_SLOTS, {})[pod] = placement
            self._stored[uid] = chunks
        return self._stored[uid]

    def add(self, change: Change | AllocationChange) -> bool:
        """Fold one change in; False when the transaction is full."""
        if self._keys >= _KEYS_MAX or self._bytes >= BYTES_MAX:
            return False
        match change:
            case PlacePod():
                self._place(change)
            case SetWant():
                pods = self._open(change.pod.workload_uid, change.pod.slot)
                pods[change.pod] = replace(pods[change.pod], want=change.want)
                self._batch.put.append(pods[change.pod])
                self._batch.changes.append((change, change.pod))
            case RemovePlacement():
                pods = self._open(change.pod.workload_uid, change.pod.slot)
                self._batch.nodes_freed.add(pods.pop(change.pod).node)
                self._batch.dropped.append(change.pod)
                self._batch.changes.append((change, change.pod))
            case RemoveWorkload():
                return self._remove_workload(change)
            case GiveAllocation() | FreeAllocation():
                self._allocate(change)
        return True

    def _allocate(self, change: AllocationChange) -> None:
        key = keys.service(change.service_uid)
        if isinstance(change, GiveAllocation):
            value = records.encode_allocation(change.allocation)
            self._batch.operations.append(Put(key=key, value=value))
            self._batch.allocations[change.service_uid] = change.allocation
            self._batch.cursor = change.cursor
            self._bytes += len(value)
        else:
            self._removed_keys.append(key)
            self._batch.dropped_allocations.append(change.service_uid)
        self._keys += 1
        self._batch.changes.append((change, None))

    def _place(self, change: PlacePod) -> None:
        uid = change.workload_uid
        pods = self._open(uid, change.slot)
        held = uid, change.slot // _CHUNK_SLOTS
        pod = PodId(uid, change.slot, self._next[held])
        self._next[held] += 1
        placement = Placement(
            pod=pod, node=change.node, revision=change.revision, want=Want.RUN, cause=change.cause
        )
        pods[pod] = placement
        self._bytes += 16
        self._batch.put.append(placement)
        self._batch.changes.append((change, pod))
        known = (uid, change.revision)
        if known not in self._state.revisions and known not in self._batch.new_revisions:
            template = self._state.template(*known)
            assert template is not None  # Plans use the document's own revision or a stored one.
            value = records.encode_json(template)
            self._batch.operations.append(Put(key=keys.revision(*known), value=value))
            self._batch.new_revisions[known] = dict(template)
            self._keys += 1
            self._bytes += len(value)

    def _remove_workload(self, change: RemoveWorkload) -> bool:
        uid = change.workload_uid
        chunks = [held for held in self._state.next_incarnation if held[0] == uid]
        revisions = [held for held in self._state.revisions if held[0] == uid]
        place = self._state.workloads.get(uid)
        room = _KEYS_MAX - self._keys
        fits = len(chunks) + len(revisions) + 1 <= room
        if not fits:
            if any(held[0] == uid for held in self._pods):
                return False  # Its chunks are written in this very transaction: next time.
            # The document goes last, so that a cut leaves something that is found and finished later.
            chunks = chunks[:room]
            revisions = revisions[: room - len(chunks)]
            self._batch.dropped_chunks.extend(chunks)
            self._batch.dropped_revisions.extend(revisions)
        self._removed_keys.extend(keys.placements(*held) for held in chunks)
        self._removed_keys.extend(keys.revision(*held) for held in revisions)
        self._keys += len(chunks) + len(revisions) + 1
        if fits:
            if place is not None:
                self._removed_keys.append(keys.resource(*place))
            self._batch.dropped_workloads.append(uid)
            self._batch.changes.append((change, None))
        return fits

    def _drop_unused_revisions(self) -> None:
        """Templates go with the last pod that was made by them, unless the document still asks for them."""
        dropped = set(self._batch.dropped)
        kept = {
            (placement.pod.workload_uid, placement.revision) for placement in self._batch.put
        } | self._batch.new_revisions.keys()
        for pod in self._batch.dropped:
            placement = self._state.placements[pod.workload_uid][pod]
            held = pod.workload_uid, placement.revision
            if held in kept or pod.workload_uid in self._batch.dropped_workloads:
                continue
            kept.add(held)  # Looked at.
            if self._keys >= _KEYS_MAX or self._state.uses_revision(*held, without=dropped):
                continue
            self._removed_keys.append(keys.revision(*held))
            self._batch.dropped_revisions.append(held)
            self._keys += 1

    def finish(self) -> Batch:
        """The operations, each key once."""
        self._drop_unused_revisions()
        names = {name: entry.facts.number for name, entry in self._state.nodes.items()}
        for (uid, index), pods in self._pods.items():
            if uid in self._batch.dropped_workloads:
                continue
            chunk = records.Chunk(next_incarnation=self._next[uid, index], placements=tuple(pods.values()))
            self._batch.operations.append(
                Put(key=keys.placements(uid, index), value=records.encode_chunk(chunk, names))
            )
            self._batch.next_incarnation[uid, index] = self._next[uid, index]
        cursor = self._batch.cursor
        if cursor is not None and cursor != self._state.cursor:
            value = records.encode_cursor(cursor)
            self._batch.operations.append(Put(key=keys.ALLOCATION_CURSOR, value=value))
        self._batch.operations.extend(DeleteKey(key=key) for key in self._removed_keys)
        return self._batch


def batch_of(changes: Sequence[Change | AllocationChange], state: ClusterState) -> Batch:
    """As many of `changes` as fit into one transaction, in order."""
    builder = _Builder(state)
    is_cut = False
    for change in changes:
        if not builder.add(change):
            is_cut = True
            break
    batch = builder.finish()
    batch.is_cut = is_cut
    return batch


def fold_in(batch: Batch, state: ClusterState, revision: int) -> None:
    """Let memory follow a batch that was committed at `revision`."""
    for operation in batch.operations:
        if isinstance(operation, Put):
            state.key_revisions[operation.key] = revision
        else:
            state.forget_key(operation.key, revision)
    state.revisions.update(batch.new_revisions)
    state.next_incarnation.update(batch.next_incarnation)
    for placement in batch.put:
        state.put_placement(placement)
    for pod in batch.dropped:
        state.drop_placement(pod)
    _fold_in_allocations(batch, state)
    for held in batch.dropped_chunks:
        state.next_incarnation.pop(held, None)
    for held_revision in batch.dropped_revisions:
        state.drop_revision(*held_revision)
    for uid in batch.dropped_workloads:
        state.drop_workload(uid)
    state.revision = max(state.revision, revision)


def _fold_in_allocations(batch: Batch, state: ClusterState) -> None:
    if batch.allocations or batch.dropped_allocations:
        state.claims_version += 1
    state.allocations.update(batch.allocations)
    for uid in batch.dropped_allocations:
        state.allocations.pop(uid, None)
    state.cursor = batch.cursor or state.cursor
    for uid in (*batch.allocations, *batch.dropped_allocations):
        if uid in state.services:
            state.touched.document(state.services[uid])


def decisions_of(batch: Batch, state: ClusterState, at_ms: int) -> dict[str, Any]:
    """Why: what `bay why` and the events tell of a batch, at most 64 KiB of JSON."""
    entries: list[dict[str, object]] = []
    size = 0
    for change, pod in batch.changes:
        entry = decision_of(change, pod, state)
        size += len(json.dumps(entry))
        if size > 60 * 1024:
            entries.append({"reason": "Truncated", "message": f"{len(batch.changes)} changes in all"})
            break
        entries.append(entry)
    return {"at_ms": at_ms, "decisions": entries}


def decision_of(
    change: Change | AllocationChange, pod: PodId | None, state: ClusterState
) -> dict[str, object]:
    """One change as a decision record: JSON values only."""
    if isinstance(change, GiveAllocation | FreeAllocation):
        return _decision_of_service(change)
    uid = pod.workload_uid if pod is not None else getattr(change, "workload_uid", "")
    kind, namespace, name = state.workload_name(uid)
    entry: dict[str, object] = {
        "workload": f"{kind}/{name}",
        "namespace": namespace,
        "uid": uid,
        "message": change.reason,
    }
    if pod is not None:
        entry |= {"pod": state.pod_name(pod), "slot": pod.slot, "incarnation": pod.incarnation}
    match change:
        case PlacePod():
            entry |= {"reason": "PodPlaced", "node": change.node, "cause": change.cause.name}
        case SetWant():
            entry |= {"reason": _WANT_REASONS[change.want]}
        case RemovePlacement():
            placement = state.placements[change.pod.workload_uid][change.pod]
            status = state.status(placement)
            ended = PodState(status.state).name.capitalize() if status is not None else "Lost"
            why = status.message if status is not None else change.reason
            entry |= {"reason": "PodRemoved", "node": placement.node, "status": ended, "why": why[:500]}
        case RemoveWorkload():
            entry |= {"reason": "Deleted"}
    return entry


def _decision_of_service(change: AllocationChange) -> dict[str, object]:
    kind, _, place = change.allocation.owner.partition(" ")
    namespace, _, name = place.partition("/")
    reason = "AddressFreed"
    if isinstance(change, GiveAllocation):
        reason = "ServiceProblem" if change.allocation.problem else "AddressGiven"
    return {
        "workload": f"{kind}/{name}",
        "namespace": namespace,
        "uid": change.service_uid,
        "message": change.reason,
        "reason": reason,
    }


_WANT_REASONS = {
    Want.RUN: "PodKept",
    Want.HANDOVER: "PodHandover",
    Want.STOP: "PodStopping",
    Want.LOST: "PodLost",
}
