"""Services in a whole cluster: proxies name who serves, and no pod ends while one of them sends to it.

`TrafficWatcher` looks all the time; that it would see a fault is shown with faults that are put in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.runtime.port import LABEL_POD
from manager.dispatcher import release, service_pods
from manager.founding import NetworkChoice
from manager.store import keys, records
from tests.simulation.cluster import Cluster, deployment, service
from tests.simulation.traffic_watcher import CALM_S, EVERY_S, TrafficWatcher

pytestmark = [pytest.mark.virtual_time, pytest.mark.timeout(120)]


@asynccontextmanager
async def watched(data: Path, **options: Any) -> AsyncIterator[tuple[Cluster, TrafficWatcher]]:
    """A cluster with six pods behind a service, calm for long enough to be judged."""
    async with Cluster(data, **options) as cluster:
        watcher = TrafficWatcher(cluster)
        for node in cluster.nodes.values():
            node.proxy.requests_last_s = 1.0
        async with watcher:
            await asyncio.sleep(5)  # Until every node's network stands.
            await cluster.client.apply([service(), deployment(replicas=6)])
            await cluster.client.wait_ready("Deployment", "web", timeout_s=30)
            await cluster.until(lambda: not watcher.differences(), within_s=2)
            assert len(cluster.running("web")) == 5
            await asyncio.sleep(CALM_S + 20)
            yield cluster, watcher


async def replace_leader(cluster: Cluster) -> None:
    """Kill it, wait for another, and start the dead one again."""
    victim = cluster.leader
    assert victim is not None
    await cluster.change_leader()
    victim.start()


def vips(cluster: Cluster) -> dict[str, str]:
    """By owner, as the store has them."""
    found = [records.decode_allocation(item.value) for item in cluster.etcd.items(keys.SERVICES)]
    return {each.owner.removeprefix("Service default/"): each.vip for each in found}


class TestLeaders:
    async def test_change_without_a_proxy_that_loses_a_pod(self, tmp_path: Path) -> None:
        """Forty times within two minutes, while pods come and go."""
        async with watched(tmp_path) as (cluster, watcher):
            before = vips(cluster)
            for turn in range(40):
                await replace_leader(cluster)
                if turn % 8 == 7:
                    await cluster.client.scale("Deployment", "web", 4 + turn % 5)
                await asyncio.sleep(2)
            await cluster.until_steady(within_s=20)

            assert vips(cluster) == before
            await cluster.until(lambda: not watcher.differences(), within_s=2)

    async def test_may_die_between_a_stop_and_its_release(self, tmp_path: Path) -> None:
        """What the last one waited for, the next one waits for anew."""
        async with watched(tmp_path) as (cluster, watcher):
            for node in cluster.nodes.values():
                node.proxy.requests_last_s = 6.0
            await cluster.client.scale("Deployment", "web", 3)
            await asyncio.sleep(1)
            await replace_leader(cluster)

            # Its successor hears at once what still drains.
            took_s = await cluster.until_running("web", 3, within_s=60)
            assert took_s > 3
            await cluster.until(lambda: not watcher.differences(), within_s=2)

    async def test_tell_no_set_before_they_know_all_of_it(self, tmp_path: Path) -> None:
        """One agent is away while the leader changes: nobody may take its pods out for that."""
        async with watched(tmp_path) as (cluster, watcher):
            await cluster.nodes["n2"].kill_agent()
            await replace_leader(cluster)
            others = [node.proxy for name, node in cluster.nodes.items() if name != "n2"]
            whole = others[0].endpoints("default/web")

            assert len(whole) == 6
            await cluster.stays(
                lambda: all(proxy.endpoints("default/web") == whole for proxy in others), for_s=30
            )
            cluster.nodes["n2"].start_agent()
            await asyncio.sleep(5)
            assert not watcher.differences()


class TestStopping:
    async def test_waits_for_every_proxy(self, tmp_path: Path) -> None:
        async with watched(tmp_path) as (cluster, watcher):
            await cluster.client.scale("Deployment", "web", 2)
            await cluster.until_running("web", 2, within_s=30)
            await asyncio.sleep(EVERY_S)

            assert watcher.stops_judged == 4 * len(cluster.nodes)

    @pytest.mark.parametrize("node", ["n1", "n5"])
    async def test_of_a_drained_nodes_pods_too(self, tmp_path: Path, node: str) -> None:
        async with watched(tmp_path) as (cluster, watcher):
            await cluster.client.update_node(node, drain=True)
            await cluster.until(lambda: not cluster.running("web")[node], within_s=60)
            await asyncio.sleep(EVERY_S)

            assert watcher.stops_judged >= len(cluster.nodes)

    async def test_of_a_pod_that_has_just_become_unready_too(self, tmp_path: Path) -> None:
        """The leader has taken it out, but proxies hear of it only now."""
        async with watched(tmp_path) as (cluster, watcher):
            document = deployment(replicas=6, version="probed")
            probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
            document["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = probe
            await cluster.client.apply([document])
            await cluster.until_steady(within_s=60)
            before = watcher.stops_judged
            pod = next(pod for pod in await cluster.client.pods() if pod.slot == 5)
            engine = cluster.nodes[pod.node].engine
            (container,) = (
                name
                for name, found in engine.containers.items()
                if found.is_running and found.shown.labels.get(LABEL_POD) == pod.uid
            )
            engine.fail_probes(container)
            for _ in range(500):
                if not any(each.ready for each in await cluster.client.pods() if each.uid == pod.uid):
                    break
                await asyncio.sleep(0.005)
            await cluster.client.scale("Deployment", "web", 5)
            await cluster.until_running("web", 5, within_s=30)
            await asyncio.sleep(EVERY_S)

            assert watcher.stops_judged > before


class TestExhaustion:
    async def test_of_addresses_is_told_and_ends_when_one_is_given_back(self, tmp_path: Path) -> None:
        """Those that have one serve on; who has none is not in any proxy."""
        choice = NetworkChoice(service_range="10.96.0.0/29")
        async with watched(tmp_path, pods_network=choice) as (cluster, watcher):
            await cluster.client.apply([service(f"s{number}") for number in range(5)])
            await cluster.until(lambda: len(vips(cluster)) == 6, within_s=5)
            (late,) = [name for name, vip in vips(cluster).items() if not vip]

            document = await cluster.client.get("Service", late)
            assert "10.96.0.0/29 is used up" in document.status["problem"]
            assert [event.reason for event in await cluster.client.events()].count("ServiceProblem") == 1
            assert not watcher.differences()
            assert f"default/{late}" not in cluster.nodes["n1"].proxy.traffic.services

            (given_back,) = {"s0", "s1"} - {late} if late in ("s0", "s1") else {"s0"}
            await cluster.client.delete("Service", given_back)
            await cluster.until(lambda: vips(cluster)[late] != "", within_s=5)
            document = await cluster.client.get("Service", late)
            assert "problem" not in document.status


class TestWatcher:
    """It is believed, for it sees these."""

    @pytest.mark.parametrize(
        ("break_it", "words"),
        [
            pytest.param(
                lambda patch: patch.setattr(release.Departures, "is_waiting", lambda *_: False),
                "was stopped, and the proxy of n",
                id="a stop that waits for nobody",
            ),
            pytest.param(
                lambda patch: patch.setattr(release, "_draining", lambda _: {}),
                "in flight",
                id="a stop that cuts requests",
            ),
            pytest.param(
                lambda patch: patch.setattr(service_pods.ServicePods, "_is_judged_down", lambda *_: True),
                "which serves and is wanted",
                id="a verdict for no reason",
            ),
        ],
    )
    async def test_sees(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        break_it: Callable[[pytest.MonkeyPatch], None],
        words: str,
    ) -> None:
        async def go_on() -> None:
            async with watched(tmp_path) as (cluster, _):
                break_it(monkeypatch)
                await replace_leader(cluster)
                await asyncio.sleep(CALM_S + 10)
                await cluster.client.scale("Deployment", "web", 3)
                await asyncio.sleep(10)

        with pytest.raises(AssertionError, match=words):
            await go_on()
