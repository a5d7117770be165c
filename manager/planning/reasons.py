"""Why a pod fits nowhere, in one line: per reason the number of nodes, with the nearest miss.

Each node is counted once, under its first reason: whether it takes pods at all, then whether the
pod may go there, then what it lacks.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from bayplan.model.nodes import NodeState
from manager.planning.node_table import IntArray, Mask, NodeTable, forbids
from manager.planning.view import NodeView, Requirements

_GIB = 2**30
_MIB = 2**20

_STATES = {
    NodeState.DOWN: "down",
    NodeState.UNKNOWN: "not heard of yet",
    NodeState.SUSPECT: "suspect",
    NodeState.RESTARTING: "restarting",
    NodeState.AGENT_LOST: "without its agent",
}


def why_nowhere(table: NodeTable, requirements: Requirements) -> str:
    """E.g. "0/5 nodes: 3 lack 2 cpu (most free: n2, 1.6), 2 tainted gpu". O(nodes)."""
    if not len(table):
        return "no nodes have joined the cluster"
    allowed = table.fitting(requirements).allowed
    parts = _lacks(table, requirements, allowed)
    selected = table.selected(requirements)
    others: Counter[str] = Counter()
    for row in np.flatnonzero(~allowed):
        node = table.nodes[row]
        others[
            _takes_none(node) or (_taint(node, requirements) if selected[row] else _no_match(requirements))
        ] += 1
    # The most frequent first, equals by text: independent of the order of nodes.
    parts += [_count(number, text) for text, number in sorted(others.items(), key=lambda kv: (-kv[1], kv[0]))]
    return f"0/{len(table)} nodes: {', '.join(parts)}"


def _lacks(table: NodeTable, requirements: Requirements, allowed: Mask) -> list[str]:
    """What the nodes that may hold the pod are short of."""
    requests, free = requirements.requests, table.free()
    left = allowed.copy()
    parts: list[str] = []

    taken = left & ~table.ports_free(requirements)
    left &= ~taken
    if taken.any():
        ports = ", ".join(f"{port}/{protocol}" for port, protocol in requirements.host_ports)
        verb = "has" if _number(taken) == 1 else "have"
        parts.append(f"{_number(taken)} {verb} another pod on port {ports}")
    full = left & (free[:, 2] < max(1, requests.pods))
    left &= ~full
    lacking_cpu = left & (free[:, 0] < requests.cpu_millis) & (requests.cpu_millis > 0)
    left &= ~lacking_cpu
    lacking_memory = left & (free[:, 1] < requests.memory_bytes) & (requests.memory_bytes > 0)

    if lacking_cpu.any():
        best = _most_free(free[:, 0], lacking_cpu)
        nearest = f"(most free: {table.names[best]}, {_cpu(int(free[best, 0]))})"
        parts.append(f"{_number(lacking_cpu)} {_lack(lacking_cpu)} {_cpu(requests.cpu_millis)} cpu {nearest}")
    if lacking_memory.any():
        best = _most_free(free[:, 1], lacking_memory)
        asked, has = _memory(requests.memory_bytes, int(free[best, 1]))
        nearest = f"(most free: {table.names[best]}, {has})"
        parts.append(f"{_number(lacking_memory)} {_lack(lacking_memory)} {asked} memory {nearest}")
    capacities = Counter(int(pods) for pods in table.capacity[full, 2])
    parts += [f"{number} full ({pods} pods)" for pods, number in sorted(capacities.items())]
    return parts


def _takes_none(node: NodeView) -> str:
    """Why the node takes no pods at all; empty if it does."""
    if node.state is not NodeState.READY:
        return _STATES[node.state]
    if node.drain:
        return "draining"
    if node.unschedulable:
        return "cordoned"
    return node.refuses


def _no_match(requirements: Requirements) -> str:
    pairs = ",".join(f"{key}={value}" for key, value in requirements.node_selector)
    return f"do not match nodeSelector {pairs}"


def _taint(node: NodeView, requirements: Requirements) -> str:
    taint = next(taint for taint in node.taints if forbids(requirements.tolerations, taint))
    return f"tainted {taint.key}={taint.value}" if taint.value else f"tainted {taint.key}"


def _count(number: int, text: str) -> str:
    if number == 1 and text.startswith("do not "):
        text = text.replace("do not", "does not", 1)
    return f"{number} {text}"


def _number(mask: Mask) -> int:
    return int(mask.sum())


def _lack(mask: Mask) -> str:
    return "lacks" if _number(mask) == 1 else "lack"


def _most_free(free: IntArray, mask: Mask) -> int:
    """The row with the most free, the first by name among equals."""
    rows = np.flatnonzero(mask)
    return int(rows[np.argmax(free[rows])])


def _cpu(millis: int) -> str:
    return f"{max(0, millis) / 1000:.3f}".rstrip("0").rstrip(".")


def _memory(asked: int, free: int) -> tuple[str, str]:
    """Both in the unit that suits what was asked for; less free never reads as enough."""
    unit, name = (_GIB, "GiB") if asked >= _GIB else (_MIB, "MiB")
    asked_text = f"{asked / unit:.2f}".rstrip("0").rstrip(".")
    tenths = round(max(0, free) / unit, 1)
    if tenths >= asked / unit:
        tenths = max(0, free) * 10 // unit / 10
    return f"{asked_text} {name}", f"{tenths:g} {name}"
