"""Which node each pending pod gets.

Identical pods are placed as one batch, so cost grows with distinct templates, not with pods. A
workload's pods are spread evenly over the nodes that fit; between equals the node whose most used
resource is least booked wins, then the name. So the outcome is the same whatever order the pods,
the nodes or the dictionaries come in. Room is booked as it is given away: nothing is promised twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bayplan.model.nodes import Amounts
from manager.planning.changes import PendingPod, PlacePod, Unplaced
from manager.planning.node_table import IntArray, Mask, NodeTable
from manager.planning.reasons import why_nowhere
from manager.planning.view import ClusterView, Requirements


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Where pending pods go, and why the others go nowhere."""

    placed: tuple[PlacePod, ...] = ()
    unplaced: tuple[Unplaced, ...] = ()
    wake_at_s: float = 0.0  # When the first back-off ends, on the clock of `now_s`; 0: there is none.


def schedule(
    pending: Sequence[PendingPod],
    cluster: ClusterView,
    booked_by_changes: Mapping[str, Amounts] | None = None,
    *,
    running_on: Mapping[str, Mapping[str, int]] | None = None,
) -> Schedule:
    """Place what fits.

    Args:
        pending: at most one pod per slot.
        cluster: all nodes, and what is booked on them.
        booked_by_changes: by node, what changes of the same pass book more than that (or less: negative).
        running_on: by workload uid, then by node: pods that run there, to spread against.
    """
    if not pending:
        return Schedule()
    waiting = [pod for pod in pending if pod.not_before_s > cluster.now_s]
    table = NodeTable(cluster, booked_by_changes or {})
    placed: list[PlacePod] = []
    unplaced = [Unplaced(workload_uid=pod.workload_uid, slot=pod.slot, reason=pod.reason) for pod in waiting]
    reasons: dict[tuple[Requirements, int], str] = {}
    for batch in _batches(pod for pod in pending if pod.not_before_s <= cluster.now_s):
        on_nodes = (running_on or {}).get(batch[0].workload_uid, {})
        first = len(placed)
        placed.extend(_place(table, batch, _use(table, on_nodes, placed_now=placed, batch=batch)))
        rest = batch[len(placed) - first :]
        if rest:
            key = (rest[0].requirements, table.version)
            if key not in reasons:
                reasons[key] = why_nowhere(table, rest[0].requirements)
            unplaced.extend(
                Unplaced(workload_uid=pod.workload_uid, slot=pod.slot, reason=reasons[key]) for pod in rest
            )
    return Schedule(
        placed=tuple(placed),
        unplaced=tuple(unplaced),
        wake_at_s=min((pod.not_before_s for pod in waiting), default=0.0),
    )


def fill_to_level(use: IntArray, room: IntArray, count: int) -> IntArray:
    """Spread `count` equal pods so that the fullest chosen node is as empty as can be.

    Args:
        use: pods of this workload already on each node, shape (nodes,), >= 0.
        room: pods that still fit on each node, shape (nodes,), >= 0.
        count: pods to place, >= 0.

    Returns:
        Pods to add on each node, shape (nodes,); sums to min(count, room.sum()). Where not all nodes
        of the last level get one, the first rows do: order rows by preference.

    Source: water-filling by binary search over the level, O(nodes · log count).
    """
    room = np.minimum(room, count)
    if int(room.sum()) <= count:
        return room
    # The highest level that all pods can be filled up to; the level above would take more than `count`.
    low, high = 0, int(use.max()) + count
    while low < high:
        level = (low + high + 1) // 2
        if int(_added(use, room, level).sum()) <= count:
            low = level
        else:
            high = level - 1
    added = _added(use, room, low)
    rises = np.flatnonzero(_added(use, room, low + 1) > added)
    added[rises[: count - int(added.sum())]] += 1
    return added


def _added(use: IntArray, room: IntArray, level: int) -> IntArray:
    return np.clip(level - use, 0, room)


def _batches(pending: Iterator[PendingPod]) -> list[list[PendingPod]]:
    """Pods that are the same to the scheduler, each batch by slot; in an order of names."""
    batches: dict[tuple[str, str, tuple[str, ...], Requirements], list[PendingPod]] = {}
    last: PendingPod | None = None
    batch: list[PendingPod] = []
    for pod in pending:
        # Most neighbours share their requirements: comparing identity saves hashing them.
        if (
            last is None
            or pod.requirements is not last.requirements
            or pod.workload_uid != last.workload_uid
            or pod.avoid != last.avoid
        ):
            key = (pod.workload, pod.workload_uid, pod.avoid, pod.requirements)
            batch = batches.setdefault(key, [])
        batch.append(pod)
        last = pod
    for each in batches.values():
        each.sort(key=lambda pod: pod.slot)
    # One workload's batches differ in what they avoid; the constrained ones choose first.
    return sorted(
        batches.values(),
        key=lambda pods: (pods[0].workload, pods[0].workload_uid, not pods[0].avoid, pods[0].slot),
    )


def _use(
    table: NodeTable, on_nodes: Mapping[str, int], *, placed_now: list[PlacePod], batch: list[PendingPod]
) -> IntArray:
    """Pods of the batch's workload on each node, those of earlier batches of this pass included."""
    use = np.zeros(len(table), dtype=np.int64)
    for name, number in on_nodes.items():
        if name in table.row_of:
            use[table.row_of[name]] += number
    # Batches of one workload follow each other, so its placements are the last ones.
    for placed in reversed(placed_now):
        if placed.workload_uid != batch[0].workload_uid:
            break
        use[table.row_of[placed.node]] += 1
    return use


def _place(table: NodeTable, batch: list[PendingPod], use: IntArray) -> Iterator[PlacePod]:
    """Place the first pods of a batch, as many as fit."""
    requirements = batch[0].requirements
    fitting = table.fitting(requirements)
    avoided = np.zeros(len(table), dtype=np.bool_)
    avoided[[table.row_of[name] for name in batch[0].avoid if name in table.row_of]] = True
    fits = fitting.allowed & (table.room(requirements) > 0)
    choices = (
        (fits & ~fitting.reluctant & ~avoided, ""),
        (fits & fitting.reluctant & ~avoided, ", where taints ask to be the last choice"),
        (fits & avoided, " again: no other node fits"),
    )
    left = batch
    for mask, remark in choices:
        if left and mask.any():
            rows = _fill(table, requirements, mask, use, len(left))
            names = [table.names[row] for row in rows]
            suffix = _suffix(int(mask.sum()), remark)
            for pod, name in zip(left, names, strict=False):
                yield PlacePod(
                    workload_uid=pod.workload_uid,
                    slot=pod.slot,
                    revision=pod.revision,
                    node=name,
                    cause=pod.cause,
                    reason=pod.reason + suffix,
                )
            left = left[len(names) :]


def _suffix(fitting: int, remark: str) -> str:
    among = "the only node that fits" if fitting == 1 else f"the emptiest of {fitting} nodes that fit"
    return f"; placed on {among}{remark}"


def _fill(table: NodeTable, requirements: Requirements, mask: Mask, use: IntArray, count: int) -> list[int]:
    """Rows for up to `count` pods on the nodes of `mask`, booked. Neighbours are spread first.

    Taking turns matters when the workload shrinks: the highest slots go, and what stays is still even.
    """
    rows = np.flatnonzero(mask)
    # Stable: equals stay in the order of names.
    rows = rows[np.argsort(table.most_used_share()[rows], kind="stable")]
    here = use[rows]
    added = fill_to_level(here, table.room(requirements)[rows], count)
    booked = np.zeros(len(table), dtype=np.int64)
    booked[rows] = added
    table.book(requirements, booked)
    use += booked
    index = np.repeat(np.arange(len(rows)), added)
    turn = np.arange(len(index)) - np.repeat(np.cumsum(added) - added, added)
    order = np.lexsort((index, here[index] + turn))
    return [int(row) for row in rows[index[order]]]
