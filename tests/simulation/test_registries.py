"""Registries that want a password: nodes pull with what the store has, and with what it has changed to."""

from __future__ import annotations

import asyncio

import pytest

from agent.runtime.port import Credential
from agent.runtime.simulated_images import Program
from tests.simulation.cluster import Cluster, deployment

pytestmark = [pytest.mark.virtual_time, pytest.mark.timeout(120)]

REGISTRY = "reg.example:5000"


def locked(cluster: Cluster, *, password: str) -> None:
    """The registry takes this password and no other."""
    cluster.registry.accounts[REGISTRY] = Credential(registry=REGISTRY, username="me", password=password)


class TestPassword:
    async def test_opens_the_registry_to_every_node_and_a_changed_one_too(self, cluster: Cluster) -> None:
        """No agent connects anew meanwhile."""
        for tag in ("1", "2"):
            cluster.registry.push(f"{REGISTRY}/shop:{tag}", Program())
        locked(cluster, password="first")
        await cluster.client.set_registry(REGISTRY, username="me", password="first")
        await cluster.client.apply([deployment(replicas=5, image=f"{REGISTRY}/shop:1")])
        await cluster.until_running("web", 5, within_s=10)

        locked(cluster, password="second")
        await cluster.client.set_registry(REGISTRY, username="me", password="second")
        await cluster.client.apply([deployment("api", replicas=5, image=f"{REGISTRY}/shop:2")])

        await cluster.until_running("api", 5, within_s=10)
        assert set(cluster.running("api")) == set(cluster.nodes)

    async def test_that_came_late_lets_waiting_pods_start(self, cluster: Cluster) -> None:
        """They are in their back-off; a new leader in between makes no difference."""
        cluster.registry.push(f"{REGISTRY}/shop:1", Program())
        locked(cluster, password="first")
        await cluster.client.apply([deployment(replicas=3, image=f"{REGISTRY}/shop:1")])
        await asyncio.sleep(5)
        assert {pod.reason for pod in await cluster.client.pods()} <= {"ErrImagePull", "ImagePullBackOff"}

        await cluster.client.set_registry(REGISTRY, username="me", password="first")
        await cluster.change_leader()

        await cluster.until_running("web", 3, within_s=60)
        assert [each.username for each in await cluster.client.registries()] == ["me"]
