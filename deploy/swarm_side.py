"""The demo's app on Docker Swarm on the same nodes, for deploy/power_cut.py.

Swarm's routing mesh, which sends a port of every node to tasks on any, is made by the kernel's IPVS. Where the
kernel has none, the tasks' ports are published on their own hosts instead (`mode=host`): a task a node, no
balancing between nodes, and a node without its task answers nobody. What ran is said with the result.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Any

from bench.swarm import FIRST, NANOSECONDS, Swarm
from deploy import images
from deploy.bayplan_side import APP, HERE, IMAGE, REPLICAS, all_answer, until
from deploy.local_cluster import NODES, LocalCluster
from deploy.shell import StepError

PUBLISHED_PORT = 8090  # Beside Bayplan's.
GRACE_S = 30
LABEL = "com.docker.swarm.service.name"
CAVEAT = (
    "This kernel has no IPVS, so Swarm's routing mesh cannot run here. What runs instead: a task on each node with its\n"
    "port published on that host alone. Nothing is balanced between nodes, so this is not what Swarm is with a mesh."
)


class SwarmSide:
    """The nodes of Bayplan's cluster, which idles meanwhile; they leave the swarm at the end."""

    name = "Docker Swarm"

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._swarm = Swarm(cluster)
        self._has_mesh = True
        self.caveat = ""

    def prepare(self) -> None:
        self._cluster.up()
        self._has_mesh = has_ipvs(self._cluster)
        self.caveat = "" if self._has_mesh else CAVEAT
        images.push(HERE, f"{self._cluster.registry}/{IMAGE}")
        # Bayplan's own pods of the app would take the machine's time.
        self._cluster.bay("delete", f"deployment/{APP}", f"service/{APP}")
        self._swarm.form(1)
        for node in NODES:
            self._cluster.execute(NODES[node], "docker", "pull", "--quiet", f"registry:5000/{IMAGE}")
        self._cluster.engine(FIRST, "/services/create", method="POST", body=self._specification())
        wanted = REPLICAS if self._has_mesh else len(NODES)
        until(lambda: self.running() == wanted, f"{wanted} tasks of {APP} run")
        until(lambda: all_answer(self.targets().values()), f"{APP} answers on every node")

    def targets(self) -> Mapping[str, str]:
        return {node: f"http://{self._cluster.address(node)}:{PUBLISHED_PORT}" for node in NODES}

    def victim(self) -> str:
        """Not the one with the manager."""
        return next(node for node in reversed(NODES) if node != FIRST)

    def cut(self, node: str) -> None:
        self._cluster.kill(NODES[node])

    def node_states(self) -> Mapping[str, str]:
        try:
            nodes: list[dict[str, Any]] = self._cluster.engine(FIRST, "/nodes")
        except (OSError, http.client.HTTPException):
            return {}
        return {node["Description"]["Hostname"]: node["Status"]["State"] for node in nodes}

    def running(self) -> int:
        return sum(self._tasks_on(node) for node in NODES)

    def restore(self, node: str) -> None:
        self._cluster.start(NODES[node])
        self._swarm.wait_until_ready()
        self._swarm.dissolve()

    def _tasks_on(self, node: str) -> int:
        try:
            found: list[dict[str, Any]] = self._cluster.engine(node, "/containers/json")
        except (OSError, http.client.HTTPException):
            return 0
        return sum(container["Labels"].get(LABEL) == APP for container in found)

    def _specification(self) -> dict[str, Any]:
        described = self._cluster.engine(FIRST, f"/images/registry:5000/{IMAGE}/json")
        port = {"Protocol": "tcp", "TargetPort": 8080, "PublishedPort": PUBLISHED_PORT}
        if self._has_mesh:
            mode: dict[str, Any] = {"Replicated": {"Replicas": REPLICAS}}
            endpoints = {"Mode": "vip", "Ports": [{**port, "PublishMode": "ingress"}]}
        else:
            mode = {"Global": {}}
            endpoints = {"Mode": "dnsrr", "Ports": [{**port, "PublishMode": "host"}]}
        return {
            "Name": APP,
            "Mode": mode,
            "EndpointSpec": endpoints,
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": described["RepoDigests"][0],
                    "StopGracePeriod": GRACE_S * NANOSECONDS,
                    # Its tasks' names are not its hosts', and the nodes have names of their own to give.
                    "Env": ["NODE_NAME={{.Node.Hostname}}"],
                    "Hostname": "{{.Service.Name}}-{{.Node.Hostname}}-{{.Task.Slot}}",
                },
            },
        }


def has_ipvs(cluster: LocalCluster) -> bool:
    """Whether the nodes' kernel, which is this machine's, balances connections itself."""
    try:
        cluster.execute(NODES[FIRST], "sh", "-c", "test -e /proc/net/ip_vs || modprobe ip_vs 2>/dev/null")
    except StepError:
        return False
    return True
