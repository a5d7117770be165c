"""The nodes' engines without an orchestrator: the same containers, as fast as the engines start them.

They are created with the very body that Bayplan's agent would send, and spread equally, so that
what Bayplan takes longer is Bayplan's own.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

from agent.runtime.container_config import to_create_body
from agent.runtime.port import LABEL_POD, LABEL_WORKLOAD, ContainerSpec
from bench.measure import IMAGE_ON_NODES, MEMORY_LIMIT_MIB, START_TIMEOUT_S, Rig, time_start
from deploy.local_cluster import NODES, LocalCluster

STARTS_AT_ONCE = (1, 4, 8)  # Per engine.
WORKLOAD = "bench/bare"
LABELS = {LABEL_POD: WORKLOAD, LABEL_WORKLOAD: WORKLOAD}
REMOVALS_AT_ONCE = 4


def time_bare_start(rig: Rig, count: int, *, at_once: int) -> float:
    """Seconds until `count` containers run, `at_once` of them started at a time on each engine."""
    try:
        return time_start(rig, WORKLOAD, count, lambda: _start(rig.cluster.local, count, at_once))
    finally:
        _remove(rig.cluster.local)
        rig.wait_until_empty()


def _start(local: LocalCluster, count: int, at_once: int) -> None:
    nodes = list(NODES)
    pools = {node: ThreadPoolExecutor(at_once) for node in nodes}
    try:
        # Container 0 on the first node, 1 on the second, and so on.
        starts = [
            pools[node].submit(_start_one, local, node, number)
            for number, node in ((number, nodes[number % len(nodes)]) for number in range(count))
        ]
        for start in starts:
            start.result()
    finally:
        for pool in pools.values():
            pool.shutdown(cancel_futures=True)


def _start_one(local: LocalCluster, node: str, number: int) -> None:
    spec = ContainerSpec(
        name=f"bare-{number}",
        image=IMAGE_ON_NODES,
        labels=LABELS,
        hostname=f"bare-{number}",
        memory_limit_bytes=MEMORY_LIMIT_MIB * 1024**2,
    )
    made = local.engine(
        node,
        f"/containers/create?name={spec.name}",
        method="POST",
        body=to_create_body(spec, LABELS),
        timeout_s=START_TIMEOUT_S,
    )
    local.engine(node, f"/containers/{made['Id']}/start", method="POST", timeout_s=START_TIMEOUT_S)


def _remove(local: LocalCluster) -> None:
    filters = quote(json.dumps({"label": [f"{LABEL_WORKLOAD}={WORKLOAD}"]}))
    with ThreadPoolExecutor(REMOVALS_AT_ONCE * len(NODES)) as pool:
        removals = [
            pool.submit(
                local.engine,
                node,
                f"/containers/{row['Id']}?force=true&v=true",
                method="DELETE",
                timeout_s=START_TIMEOUT_S,
            )
            for node in NODES
            for row in local.engine(node, f"/containers/json?all=true&filters={filters}")
        ]
    for removal in removals:
        removal.result()
