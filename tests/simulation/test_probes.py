"""Probes in a whole cluster: what is not ready is waited for, told, and never replaced for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.runtime.simulated_engine import Command
from agent.runtime.simulated_images import Program
from bayplan.cli.columns import POD
from tests.simulation.cluster import Cluster, deployment

pytestmark = [pytest.mark.virtual_time, pytest.mark.timeout(120)]

READINESS = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
LIVENESS = {"httpGet": {"path": "/live", "port": 8080}, "periodSeconds": 1}


def probed(
    *, replicas: int = 3, image: str = "app:1", readiness: dict[str, Any] | None = None, **probes: Any
) -> dict[str, Any]:
    """A deployment with a readiness probe, and others."""
    document = deployment(replicas=replicas, image=image)
    container = document["spec"]["template"]["spec"]["containers"][0]
    container |= {"readinessProbe": readiness or READINESS, **probes}
    return document


async def is_ready(cluster: Cluster, replicas: int, *, within_s: float) -> float:
    """Wait until so many pods are ready; returns how long it took."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while sum(pod.ready for pod in await cluster.client.pods()) != replicas:
        assert loop.time() - began_s < within_s, [pod.why for pod in await cluster.client.pods()]
        await asyncio.sleep(0.05)
    return loop.time() - began_s


def fail_probes(cluster: Cluster, container_id: str, words: str = "connection refused") -> None:
    for node in cluster.nodes.values():
        if container_id in node.engine.containers:
            node.engine.fail_probes(container_id, words)


class TestUnready:
    async def test_is_told_and_not_replaced(self, cluster: Cluster) -> None:
        cluster.registry.push("docker.io/library/never:1", Program(serves_after_s=1e9))
        await cluster.client.apply([probed(image="never:1")])
        await cluster.until_running("web", 3, within_s=5)
        before = cluster.container_ids("web")

        await asyncio.sleep(1800)

        assert cluster.container_ids("web") == before
        pods = await cluster.client.pods()
        assert {POD.row(pod)[1:3] for pod in pods} == {("0/1", "Running")}
        assert {pod.why for pod in pods} == {"readiness probe failed: connection refused at :8080"}
        assert (await cluster.client.get("Deployment", "web")).status["readyReplicas"] == 0

    async def test_one_that_turns_bad_is_an_event_and_comes_back(self, cluster: Cluster) -> None:
        await cluster.client.apply([probed()])
        await cluster.client.wait_ready("Deployment", "web", timeout_s=30)
        before = cluster.container_ids("web")
        (bad, *_) = sorted(before)

        fail_probes(cluster, bad, "HTTP 503")
        took_s = await is_ready(cluster, 2, within_s=10)
        await asyncio.sleep(60)
        for node in cluster.nodes.values():
            if bad in node.engine.containers:
                node.engine.heal_probes(bad)
        await is_ready(cluster, 3, within_s=2)

        assert took_s < 3.2
        assert cluster.container_ids("web") == before
        events = [(event.reason, event.message) for event in await cluster.client.events()]
        assert events.count(("PodUnready", "readiness probe failed: HTTP 503 at :8080")) == 1

    async def test_is_not_ready_while_it_starts(self, cluster: Cluster) -> None:
        cluster.registry.push("docker.io/library/slow:1", Program(serves_after_s=20.0))
        await cluster.client.apply([probed(image="slow:1")])

        took_s = await is_ready(cluster, 3, within_s=60)

        assert 20 < took_s < 22
        reasons = [event.reason for event in await cluster.client.events()]
        assert reasons.count("PodReady") == 3
        assert "PodFailed" not in reasons
        assert "PodUnready" not in reasons


class TestMoving:
    async def test_a_new_template_that_is_never_ready_leaves_the_old_pods_serving(
        self, cluster: Cluster
    ) -> None:
        await cluster.client.apply([probed(replicas=4)])
        await cluster.client.wait_ready("Deployment", "web", timeout_s=30)
        before = cluster.container_ids("web")
        cluster.registry.push("docker.io/library/never:1", Program(serves_after_s=1e9))

        await cluster.client.apply([probed(replicas=4, image="never:1")])
        await asyncio.sleep(600)

        assert before <= cluster.container_ids("web")
        assert sum(pod.ready for pod in await cluster.client.pods()) == 4

    async def test_a_drain_stops_a_pod_only_when_its_replacement_is_ready(self, cluster: Cluster) -> None:
        cluster.registry.push("docker.io/library/slow:1", Program(serves_after_s=15.0))
        await cluster.client.apply([probed(replicas=5, image="slow:1")])
        await cluster.client.wait_ready("Deployment", "web", timeout_s=60)

        await cluster.client.update_node("n1", drain=True)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 60
        while cluster.running("web")["n1"] and loop.time() < until_s:
            assert sum(pod.ready for pod in await cluster.client.pods()) >= 5
            await asyncio.sleep(0.1)

        assert not cluster.running("web")["n1"]
        assert sum(pod.ready for pod in await cluster.client.pods()) == 5


class TestLiveness:
    async def test_restarts_in_place_and_is_no_failed_attempt(self, cluster: Cluster) -> None:
        await cluster.client.apply([probed(livenessProbe=LIVENESS)])
        await cluster.client.wait_ready("Deployment", "web", timeout_s=30)
        (bad, *good) = sorted(cluster.container_ids("web"))
        before = {pod.uid for pod in await cluster.client.pods()}

        fail_probes(cluster, bad, "HTTP 500")
        await is_ready(cluster, 2, within_s=10)
        await is_ready(cluster, 3, within_s=10)

        assert set(good) < cluster.container_ids("web")
        pods = await cluster.client.pods()
        assert sorted(pod.restarts for pod in pods) == [0, 0, 1]
        assert {pod.uid for pod in pods} == before
        failed = [event.message for event in await cluster.client.events() if event.reason == "PodFailed"]
        assert any("liveness probe failed: HTTP 500 at :8080/live" in message for message in failed)
        leader = cluster.leader
        assert leader is not None
        assert leader.manager is not None
        assert leader.manager.leadership is not None
        assert not any(leader.manager.leadership.state.failures.values())


class TestStopping:
    async def test_a_failed_pre_stop_hook_is_an_event_and_holds_nothing_up(self, cluster: Cluster) -> None:
        for node in cluster.nodes.values():
            node.engine.commands["drain",] = Command(exit_code=9)
        hook = {"preStop": {"exec": {"command": ["drain"]}}}
        await cluster.client.apply([probed(lifecycle=hook)])
        await cluster.client.wait_ready("Deployment", "web", timeout_s=30)

        await cluster.client.scale("Deployment", "web", 2)
        await cluster.until_running("web", 2, within_s=5)
        await asyncio.sleep(1)

        events = [(event.reason, event.message) for event in await cluster.client.events()]
        assert events.count(("PodStopping", "preStop hook failed: exit 9")) == 1


class TestFaultsElsewhere:
    async def test_neither_leaders_nor_agents_that_restart_make_a_pod_unready(self, cluster: Cluster) -> None:
        await cluster.client.apply([probed(replicas=10, livenessProbe=LIVENESS)])
        await cluster.client.wait_ready("Deployment", "web", timeout_s=30)
        await asyncio.sleep(2)
        before = cluster.container_ids("web")

        for node in cluster.nodes.values():
            await node.kill_agent()
            await asyncio.sleep(0.3)
            node.start_agent()
        leader = cluster.leader
        assert leader is not None
        await leader.kill()
        leader.start()
        await cluster.until(lambda: cluster.leader is not None and cluster.leader is not leader, within_s=20)
        await asyncio.sleep(30)

        assert cluster.container_ids("web") == before
        reasons = [event.reason for event in await cluster.client.events()]
        assert "PodUnready" not in reasons
        assert "PodFailed" not in reasons
        assert sum(pod.ready for pod in await cluster.client.pods()) == 10
