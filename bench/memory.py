"""Memory of a process and all it started, as PSS: shared pages count by their share.

RSS would count the interpreter's shared pages once for every process. Read on the host, whose
root sees the containers' processes too.
"""

from __future__ import annotations

import contextlib
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
    root = _root_pid(local, service)
    depth = len(_numbers(root))
    for pid in _tree(root):
        # Pods of the node have namespaces of their own below, with small numbers again.
        if len(numbers := _numbers(pid)) == depth and numbers[-1] == inner:
            return _pss_mib(pid)
    raise StepError(f"the {name} of {node} is no process of this host: measure where the engine runs")


def _root_pid(local: LocalCluster, service: str) -> int:
    found = run([*docker(), "inspect", "--format", "{{.State.Pid}}", local.container(service)])
    return int(found)


def _tree(root: int) -> Iterator[int]:
    """The process and its descendants, itself first."""
    yield root
    # What ends meanwhile has no children any more.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in (PROC / str(root) / "task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))


def _numbers(pid: int) -> list[int]:
    """The process's number in each pid namespace that it is in, the innermost last; empty if it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        status = (PROC / str(pid) / "status").read_text()
        found = re.search(r"^NSpid:\s+(.+)$", status, re.MULTILINE)
        return [int(number) for number in found[1].split()] if found else [pid]
    return []


def _pss_mib(root: int) -> float:
    rollups = [f"{PROC}/{pid}/smaps_rollup" for pid in _tree(root)]
    # `|| true`: engines start programs of a few milliseconds, which may have ended by now.
    said = run(as_root(["sh", "-c", 'cat "$@" 2>/dev/null || true', "sh", *rollups]))
    shares = re.findall(r"^Pss:\s+(\d+) kB", said, re.MULTILINE)
    if not shares:
        raise StepError(f"the memory of process {root} cannot be read: measure where the engine runs")
    return sum(int(kib) for kib in shares) / _KIB_PER_MIB
