"""Memory of a process and all it started, as PSS: shared pages count by their share.

RSS would count the interpreter's shared pages once for every process. Read on the host, whose
root sees the containers' processes too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from deploy.engine import docker
from deploy.local_cluster import NODES, LocalCluster
from deploy.shell import StepError, as_root, run

_KIB_PER_MIB = 1024
PROC = Path("/proc")


def of_container(local: LocalCluster, service: str) -> float:
    """MiB of everything in a service's container."""
    return _pss_mib(_root_pid(local, service))


def of_node_process(local: LocalCluster, node: str, name: str) -> float:
    """MiB of a process that the node's entry point keeps, "agent" or "engine", and of what it started."""
    service = NODES[node]
    inner = int(local.execute(service, "cat", f"/run/{name}.pid"))
    for pid in _tree(_root_pid(local, service)):
        if _inner_pid(pid) == inner:
            return _pss_mib(pid)
    raise StepError(f"the {name} of {node} is no process of this host: measure where the engine runs")


def _root_pid(local: LocalCluster, service: str) -> int:
    found = run([*docker(), "inspect", "--format", "{{.State.Pid}}", local.container(service)])
    return int(found)


def _tree(root: int) -> Iterator[int]:
    """The process and its descendants, itself first."""
    yield root
    for task in (PROC / str(root) / "task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _tree(int(child))


def _inner_pid(pid: int) -> int:
    """Its number in its own pid namespace."""
    numbers = re.search(r"^NSpid:\s+(.+)$", (PROC / str(pid) / "status").read_text(), re.MULTILINE)
    return int(numbers[1].split()[-1]) if numbers else pid


def _pss_mib(root: int) -> float:
    rollups = [f"{PROC}/{pid}/smaps_rollup" for pid in _tree(root)]
    said = run(as_root(["cat", *rollups]))
    return sum(int(kib) for kib in re.findall(r"^Pss:\s+(\d+) kB", said, re.MULTILINE)) / _KIB_PER_MIB
