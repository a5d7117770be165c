"""Nodes as arrays, a row a node: capacity, bookings, and masks for what pods ask of them.

Rows are in the order of names, so that nothing depends on the order of dictionaries. Amounts are
int64: sums of floats would drift, and a reservation must never exceed capacity by a rounding error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bayplan.model.nodes import PODS_PER_NODE, Amounts, Taint
from manager.planning.view import ClusterView, HostPort, NodeView, Requirements, Toleration

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Far above any machine, far below 2**63, so that sums and differences of such amounts never overflow.
_AMOUNT_MAX = 2**60


@dataclass(frozen=True, slots=True)
class Fitting:
    """Which nodes may hold a pod, room apart. Shape of both: (nodes,)."""

    allowed: Mask
    # Carries a PreferNoSchedule taint that the pod does not tolerate: last choice.
    reluctant: Mask


class NodeTable:
    """The nodes of one scheduling pass; placing a pod books it here."""

    def __init__(self, cluster: ClusterView, booked_by_changes: Mapping[str, Amounts]) -> None:
        self.nodes: list[NodeView] = [cluster.nodes[name] for name in sorted(cluster.nodes)]
        self.names = [node.name for node in self.nodes]
        self.row_of = {name: row for row, name in enumerate(self.names)}
        none = Amounts()
        booked = [cluster.reserved.get(name, none) + booked_by_changes.get(name, none) for name in self.names]
        # Columns: millicores, bytes, pods.
        self.capacity = _table([_with_pods(node.capacity) for node in self.nodes])
        self.booked = _table(booked)
        self.takes_pods: Mask = np.array([node.takes_pods for node in self.nodes], dtype=np.bool_)
        self._taints: dict[Taint, Mask] = {}
        for row, node in enumerate(self.nodes):
            for taint in node.taints:
                mask = self._taints.setdefault(taint, np.zeros(len(self.nodes), dtype=np.bool_))
                mask[row] = True
        self._ports: dict[HostPort, Mask] = {}
        for name, ports in cluster.host_ports.items():
            for port in ports:
                self._taken(port)[self.row_of[name]] = True
        self._with_label: dict[tuple[str, str], Mask] = {}
        self._fittings: dict[Requirements, Fitting] = {}
        self._placed = 0

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def version(self) -> int:
        """Grows with each booking: what was computed from bookings is out of date then."""
        return self._placed

    def fitting(self, requirements: Requirements) -> Fitting:
        """Masks of the nodes a pod may go to, cached per distinct requirements."""
        found = self._fittings.get(requirements)
        if found is None:
            reluctant = np.zeros(len(self), dtype=np.bool_)
            for taint, mask in self._taints.items():
                if taint.effect == "PreferNoSchedule" and not _tolerates(requirements.tolerations, taint):
                    reluctant |= mask
            allowed = self.takes_pods & self.selected(requirements) & ~self.tainted(requirements)
            found = self._fittings[requirements] = Fitting(allowed, reluctant)
        return found

    def selected(self, requirements: Requirements) -> Mask:
        """Nodes that match the whole nodeSelector, shape (nodes,)."""
        mask = np.ones(len(self), dtype=np.bool_)
        for label in requirements.node_selector:
            if label not in self._with_label:
                key, value = label
                self._with_label[label] = np.array(
                    [node.labels.get(key) == value for node in self.nodes], dtype=np.bool_
                )
            mask &= self._with_label[label]
        return mask

    def tainted(self, requirements: Requirements) -> Mask:
        """Nodes with a taint that forbids the pod, shape (nodes,)."""
        mask = np.zeros(len(self), dtype=np.bool_)
        for taint, rows in self._taints.items():
            if forbids(requirements.tolerations, taint):
                mask |= rows
        return mask

    def ports_free(self, requirements: Requirements) -> Mask:
        """Nodes on which no pod uses a host port that is asked for, shape (nodes,)."""
        mask = np.ones(len(self), dtype=np.bool_)
        for port in requirements.host_ports:
            mask &= ~self._taken(port)
        return mask

    def _taken(self, port: HostPort) -> Mask:
        return self._ports.setdefault(port, np.zeros(len(self), dtype=np.bool_))

    def free(self) -> IntArray:
        """What is not booked, shape (nodes, 3); negative where a node is overbooked."""
        return self.capacity - self.booked

    def room(self, requirements: Requirements) -> IntArray:
        """How many such pods still fit on each node, shape (nodes,), >= 0.

        What is not asked for does not limit: a pod without a memory request fits on a node whose
        memory is all booked, as in Kubernetes.
        """
        requests = requirements.requests
        free = self.free()
        room = np.full(len(self), _AMOUNT_MAX, dtype=np.int64)
        for column, request in enumerate(_row(_with_pod(requests))):
            if request > 0:
                np.minimum(room, free[:, column] // request, out=room)
        if requirements.host_ports:
            np.minimum(room, self.ports_free(requirements).astype(np.int64), out=room)
        return np.maximum(room, 0)

    def most_used_share(self) -> FloatArray:
        """The booked share of each node's most used resource, shape (nodes,)."""
        shares = self.booked / np.maximum(self.capacity, 1)
        return np.asarray(shares.max(axis=1), dtype=np.float64)

    def book(self, requirements: Requirements, added: IntArray) -> None:
        """Book `added[row]` such pods on each node."""
        requests = requirements.requests
        for port in requirements.host_ports:
            self._taken(port)[added > 0] = True
        self.booked += added[:, np.newaxis] * np.array(_row(_with_pod(requests)), dtype=np.int64)
        self._placed += int(added.sum())


def forbids(tolerations: tuple[Toleration, ...], taint: Taint) -> bool:
    """Whether a taint keeps a pod with these tolerations away for certain."""
    return taint.effect != "PreferNoSchedule" and not _tolerates(tolerations, taint)


def _tolerates(tolerations: tuple[Toleration, ...], taint: Taint) -> bool:
    return any(toleration.tolerates(taint) for toleration in tolerations)


def _with_pods(capacity: Amounts) -> Amounts:
    return capacity if capacity.pods else capacity + Amounts(pods=PODS_PER_NODE)


def _with_pod(requests: Amounts) -> Amounts:
    return requests if requests.pods else requests + Amounts(pods=1)


def _row(amounts: Amounts) -> tuple[int, int, int]:
    """Clamped: a document may ask for any 64-bit amount, and sums of them must not overflow."""
    return (
        max(-_AMOUNT_MAX, min(_AMOUNT_MAX, amounts.cpu_millis)),
        max(-_AMOUNT_MAX, min(_AMOUNT_MAX, amounts.memory_bytes)),
        max(-_AMOUNT_MAX, min(_AMOUNT_MAX, amounts.pods)),
    )


def _table(rows: list[Amounts]) -> IntArray:
    return np.array([_row(amounts) for amounts in rows], dtype=np.int64).reshape(len(rows), 3)
