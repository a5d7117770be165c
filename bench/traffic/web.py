"""The pods that are measured, behind one published service; and who answers there.

They run on the nodes that are asked for, because the others take none meanwhile. bench/traffic/pod is
their image: nginx that answers from memory, for a third of the processor time that the proxy spends.
"""

from __future__ import annotations

import http.client
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.runtime.port import LABEL_WORKLOAD
from deploy.local_cluster import NODES, LocalCluster
from tests.e2e.cluster import Cluster, eventually
from tests.e2e.documents import deployment, service

NAME, IMAGE = "bench-web", "bench-web:1"
WORKLOAD = f"Deployment/{NAME}"
CLIENT = "bench-client"
DIRECTORY = Path(__file__).parent / "pod"
PORT, POD_PORT = 8080, 8080
ANSWER_TIMEOUT_S = 2.0
ALL_ANSWER_TIMEOUT_S = 60.0
# Requests that go round find every pod within a few times as many.
ASKED_PER_POD = 4


@contextmanager
def web(cluster: Cluster, *, replicas: int, nodes: Collection[str] = tuple(NODES)) -> Iterator[None]:
    """So many pods on these nodes meanwhile; all of them answer through every node."""
    others = [node for node in NODES if node not in nodes]
    for node in others:
        cluster.ok("cordon", node)
    try:
        _apply(
            cluster,
            deployment(NAME, replicas=replicas, image=IMAGE),
            service(NAME, ports={"http": (PORT, POD_PORT, "TCP")}, type="LoadBalancer"),
        )
        until_all_answer(cluster, [url_of(cluster.local, node) for node in NODES], pods=replicas)
        yield
    finally:
        cluster.delete_everything()
        for node in others:
            cluster.ok("uncordon", node)


@contextmanager
def client_pod(cluster: Cluster, node: str) -> Iterator[str]:
    """A pod on this node meanwhile, apart from those that answer: a process of it."""
    wanted = deployment(CLIENT, replicas=1, image=IMAGE)
    wanted["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}
    _apply(cluster, wanted)
    try:
        (pod,) = _pods(cluster.local, f"Deployment/{CLIENT}")
        found = cluster.local.execute(
            NODES[node], "docker", "inspect", "--format", "{{.State.Pid}}", pod["Id"]
        )
        yield found.strip()
    finally:
        cluster.delete(wanted)


def _apply(cluster: Cluster, *documents: dict[str, Any]) -> None:
    """With the image that they run."""
    cluster.push_image(DIRECTORY, IMAGE)
    done = cluster.apply(*documents)
    assert done.returncode == 0, done.stdout + done.stderr


def url_of(local: LocalCluster, node: str, port: int = PORT) -> str:
    """Where a node publishes it."""
    return f"http://{local.address(node)}:{port}"


def url_of_vip(cluster: Cluster) -> str:
    """Where it is within the cluster."""
    return f"http://{cluster.vip(NAME)}:{PORT}"


def pod_addresses(local: LocalCluster) -> list[str]:
    """Of those that run, as their own engines say."""
    return [
        next(network["IPAddress"] for network in listed["NetworkSettings"]["Networks"].values())
        for listed in _pods(local, WORKLOAD)
    ]


def _pods(local: LocalCluster, workload: str) -> list[dict[str, Any]]:
    return [
        listed
        for node in NODES
        for listed in local.pods(node) or []
        if listed["Labels"].get(LABEL_WORKLOAD) == workload
    ]


def until_all_answer(cluster: Cluster, urls: Sequence[str], *, pods: int) -> None:
    """Each of the URLs leads to every pod."""

    def all_answer() -> bool:
        try:
            seen = [{who_answers(url) for _ in range(pods * ASKED_PER_POD)} for url in urls]
        except (OSError, http.client.HTTPException):
            return False
        return all(len(names - {""}) == pods for names in seen)

    eventually(all_answer, within_s=ALL_ANSWER_TIMEOUT_S, otherwise=cluster.report)


def who_answers(url: str) -> str:
    """The name of the pod, on a new connection; empty: somebody else. Raises OSError, HTTPException."""
    at = urlsplit(url)
    connection = http.client.HTTPConnection(str(at.hostname), at.port or 80, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        return answer.getheader("X-Pod", "")
    finally:
        connection.close()
