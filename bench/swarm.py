"""Docker Swarm on the same nodes: the engines inside the node containers form a swarm, and leave it again.

Bayplan idles beside it, without pods. Swarm's containers get the same image, network (the default
bridge), memory limit and log options; its service names the image by digest, so that no worker
asks the registry. Swarm's managers live in the engines: to kill its leader is to kill that node.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from agent.runtime.container_config import LOG_OPTIONS
from agent.runtime.port import LABEL_POD, LABEL_WORKLOAD
from bench.bayplan_runs import LEADER_RUN_REPLICAS, kill_command
from bench.measure import (
    ATTEMPTS_AT_ONCE_MAX,
    IMAGE_ON_NODES,
    MEMORY_LIMIT_MIB,
    Rig,
    time_failover,
    time_first_answer,
    time_start,
    until_running,
)
from deploy.local_cluster import NODES, LocalCluster
from deploy.shell import run
from tests.e2e.cluster import eventually
from tests.e2e.documents import GRACE_S

NAME = "bench"
WORKLOAD = f"swarm/{NAME}"
PORT = 2377
FORM_TIMEOUT_S = 60
READY_TIMEOUT_S = 120
PIDS_MAX = 4096
NANOSECONDS = 1_000_000_000
FIRST, *OTHERS = NODES


def time_swarm_start(rig: Rig, count: int) -> float:
    """Seconds from the order to the start of the last of `count` tasks; one manager, all nodes work."""
    with _swarm(rig, managers=1) as swarm:
        return time_start(rig, WORKLOAD, count, lambda: swarm.create_service(count))


def time_swarm_node_failover(rig: Rig, victim: str) -> float:
    """Seconds from the power failure of a worker to the TCP answer of the last replacement."""
    kill = kill_command(rig.cluster.local, NODES[victim])
    with _swarm(rig, managers=1) as swarm:
        swarm.create_service(rig.failover_replicas)
        try:
            return time_failover(rig, WORKLOAD, victim, lambda: run(kill))
        finally:
            rig.cluster.start_node(victim)
            swarm.wait_until_ready()


def time_swarm_leader_failover(rig: Rig) -> float:
    """Seconds from the kill of the leader's node until a survivor has named another leader and taken a write."""
    with _swarm(rig, managers=len(NODES)) as swarm:
        swarm.create_service(LEADER_RUN_REPLICAS)
        with rig.cluster.watched() as watch:
            until_running(watch, WORKLOAD, LEADER_RUN_REPLICAS)
        leader = swarm.leader()
        kill = kill_command(rig.cluster.local, NODES[leader])
        try:
            return asyncio.run(_time_read_and_write(swarm, leader, lambda: run(kill)))
        finally:
            rig.cluster.start_node(leader)
            swarm.wait_until_ready()


async def _time_read_and_write(swarm: Swarm, leader: str, kill: Callable[[], object]) -> float:
    """As for Bayplan: first it must be seen that another leads, then the write counts."""
    loop = asyncio.get_running_loop()
    # A thread for each attempt that may hang.
    with ThreadPoolExecutor(ATTEMPTS_AT_ONCE_MAX) as pool:

        def attempt(node: str) -> bool:
            another_leads = swarm.leader_seen_from(node) not in (leader, None)
            return another_leads and swarm.scale_service(node, LEADER_RUN_REPLICAS + 1)

        def attempt_on(node: str) -> Callable[[], Awaitable[bool]]:
            return lambda: loop.run_in_executor(pool, attempt, node)

        return await time_first_answer(kill, [attempt_on(node) for node in NODES if node != leader])


@contextmanager
def _swarm(rig: Rig, *, managers: int) -> Iterator[Swarm]:
    swarm = Swarm(rig.cluster.local)
    try:
        swarm.form(managers)
        yield swarm
    finally:
        swarm.dissolve()
        rig.wait_until_empty()
        rig.cluster.wait_until_whole()


class Swarm:
    """The swarm of one cluster's nodes, spoken to through their engines' own API."""

    def __init__(self, local: LocalCluster) -> None:
        self._local = local

    def form(self, managers: int) -> None:
        """All nodes join; that many of them manage. An older swarm is left first."""
        self.dissolve()
        self._post(FIRST, "/swarm/init", self._listening(FIRST))
        tokens = self._local.engine(FIRST, "/swarm")["JoinTokens"]
        for number, node in enumerate(OTHERS, start=2):
            token = tokens["Manager" if number <= managers else "Worker"]
            there = {"RemoteAddrs": [f"{self._local.address(FIRST)}:{PORT}"], "JoinToken": token}
            self._post(node, "/swarm/join", self._listening(node) | there)
        self.wait_until_ready()

    def dissolve(self) -> None:
        """Every node leaves, with all its tasks. No error where there is no swarm."""
        for node in reversed(NODES):
            # Not asked beforehand whether it is in one: without a quorum that question hangs.
            try:
                self._post(node, "/swarm/leave?force=true", None)
            except http.client.HTTPException as error:
                if "not part of a swarm" not in str(error):
                    raise

    def create_service(self, replicas: int) -> None:
        self._post(FIRST, "/services/create", self._specification(replicas))

    def scale_service(self, node: str, replicas: int) -> bool:
        """Order it from the manager on `node`; whether it was answered."""
        try:
            before = self._local.engine(node, f"/services/{NAME}")
            version = before["Version"]["Index"]
            specification = before["Spec"]
            specification["Mode"]["Replicated"]["Replicas"] = replicas
            self._local.engine(
                node, f"/services/{NAME}/update?version={version}", method="POST", body=specification
            )
        except (OSError, http.client.HTTPException):
            return False
        return True

    def leader(self) -> str:
        """The node whose manager leads."""
        return eventually(lambda: self.leader_seen_from(FIRST), within_s=READY_TIMEOUT_S)

    def leader_seen_from(self, node: str) -> str | None:
        """What the manager on `node` says; None when it names nobody or does not answer."""
        leading = [one for one in self._nodes(node) if one.get("ManagerStatus", {}).get("Leader")]
        return leading[0]["Description"]["Hostname"] if leading else None

    def wait_until_ready(self) -> None:
        """Every node is ready in the eyes of a manager, and its engine in its own."""
        eventually(self._is_ready, within_s=READY_TIMEOUT_S, otherwise=lambda: repr(self._nodes(FIRST)))

    def _is_ready(self) -> bool:
        seen = [node["Status"]["State"] for node in self._nodes(FIRST)]
        # A node that died a moment ago may still count as ready.
        return seen == ["ready"] * len(NODES) and all(self._state(node) == "active" for node in NODES)

    def _state(self, node: str) -> str:
        """Of the node's part in a swarm, as its engine says; empty if the engine does not answer."""
        try:
            return str(self._local.engine(node, "/info")["Swarm"]["LocalNodeState"])
        except (OSError, http.client.HTTPException):
            return ""

    def _nodes(self, node: str) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = self._local.engine(node, "/nodes")
        except (OSError, http.client.HTTPException):
            return []
        return found

    def _specification(self, replicas: int) -> dict[str, Any]:
        described = self._local.engine(FIRST, f"/images/{IMAGE_ON_NODES}/json")
        memory = {"MemoryBytes": MEMORY_LIMIT_MIB * 1024**2}
        return {
            "Name": NAME,
            "Mode": {"Replicated": {"Replicas": replicas}},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": described["RepoDigests"][0],
                    "Labels": {LABEL_POD: WORKLOAD, LABEL_WORKLOAD: WORKLOAD},
                    "StopGracePeriod": GRACE_S * NANOSECONDS,
                },
                "Resources": {"Limits": memory | {"Pids": PIDS_MAX}, "Reservations": memory},
                "LogDriver": {"Name": "json-file", "Options": LOG_OPTIONS},
            },
        }

    def _listening(self, node: str) -> dict[str, Any]:
        return {"ListenAddr": f"0.0.0.0:{PORT}", "AdvertiseAddr": f"{self._local.address(node)}:{PORT}"}

    def _post(self, node: str, path: str, body: Any) -> None:
        self._local.engine(node, path, method="POST", body=body, timeout_s=FORM_TIMEOUT_S)
