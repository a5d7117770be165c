"""Pods as their nodes' engines show them, and what is to be seen from inside of them: never by way of Bayplan."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deploy.local_cluster import NODES
from tests.e2e.cluster import Cluster

NET_IMAGE = "e2e-net:1"
NET_APP = Path(__file__).parent / "net-app"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod as its node's engine shows it."""

    node: str
    container: str
    name: str
    address: str


def pods_of(cluster: Cluster, workload: str) -> list[Pod]:
    found = []
    for node in NODES:
        for listed in cluster.local.pods(node) or []:
            if listed["Labels"]["bayplan.io/workload"] != f"Deployment/{workload}":
                continue
            networks = listed["NetworkSettings"]["Networks"].values()
            found.append(
                Pod(
                    node=node,
                    container=listed["Id"],
                    name=listed["Labels"]["bayplan.io/pod-name"],
                    address=next(network["IPAddress"] for network in networks),
                )
            )
    return found


def inside(cluster: Cluster, pod: Pod, script: str) -> str:
    """What a shell in the pod prints."""
    return cluster.local.execute(NODES[pod.node], "docker", "exec", pod.container, "sh", "-c", script)


def asked(cluster: Cluster, pod: Pod, urls: Iterable[str]) -> dict[str, str]:
    """What each answers to the pod, or how it fails."""
    command = ["docker", "exec", pod.container, "python", "/app.py", *urls]
    answers: dict[str, str] = json.loads(cluster.local.execute(NODES[pod.node], *command))
    return answers
