"""Nodes that die, fall silent, come back, or are emptied on purpose."""

from __future__ import annotations

import asyncio

import pytest

from agent.runtime.simulated_images import Program
from bayplan.client.errors import ForbiddenStateError
from bayplan.model.nodes import Taint
from tests.simulation.cluster import Cluster, deployment

pytestmark = [pytest.mark.virtual_time, pytest.mark.timeout(120)]

# An image is pulled (0.2 s) and a container started (0.05 s).
START_S = 0.3


async def running_elsewhere(cluster: Cluster, name: str, pods: int, lost: set[str], within_s: float) -> float:
    """Wait until so many pods run on nodes other than `lost`; returns how long it took."""
    return await cluster.until(
        lambda: sum(count for node, count in cluster.running(name).items() if node not in lost) == pods,
        within_s=within_s,
        what=f"{pods} pods of {name} outside {lost}",
    )


async def web(cluster: Cluster, replicas: int = 10) -> set[str]:
    """Apply it and wait; returns its container ids. A minute later witnesses know each other."""
    await cluster.client.apply([deployment(replicas=replicas)])
    await cluster.until_running("web", replicas, within_s=10)
    await asyncio.sleep(5)
    return cluster.container_ids("web")


class TestRenewal:
    async def test_of_every_certificate_at_once_is_no_news(self, cluster: Cluster) -> None:
        """The next stream stands before the last one ends: nobody is suspected, nothing moves."""
        before = await web(cluster)
        news = {(event.reason, event.object) for event in await cluster.client.events()}

        for _ in range(3):
            for node in cluster.nodes.values():
                node.renew_certificate()
            await asyncio.sleep(10)

        after = {(event.reason, event.object) for event in await cluster.client.events()}
        assert after - news == set()
        assert all(node.status == "Ready" for node in await cluster.client.nodes())
        assert cluster.container_ids("web") == before
        # And the streams are new ones, which work.
        await cluster.client.scale("Deployment", "web", 12)
        await cluster.until_running("web", 12, within_s=5)


class TestDeath:
    async def test_of_a_node_moves_its_pods_within_three_seconds(self, cluster: Cluster) -> None:
        before = await web(cluster)

        async with cluster.watcher.bounds("web", least=8, most=10):
            await cluster.nodes["n2"].kill()
            took_s = await running_elsewhere(cluster, "web", 10, {"n2"}, within_s=10)

        assert took_s <= 3 + START_S
        assert len(before & cluster.container_ids("web")) == 8
        (node,) = await cluster.client.nodes("n2")
        assert node.status == "Down"
        assert "witnesses cannot reach it" in node.why

    async def test_of_a_node_does_not_need_the_registry(self, cluster: Cluster) -> None:
        await web(cluster)
        cluster.registry.is_up = False

        await cluster.nodes["n2"].kill()

        assert await running_elsewhere(cluster, "web", 10, {"n2"}, within_s=10) <= 3 + START_S

    async def test_behind_a_cut_link_takes_at_most_four_seconds(self, cluster: Cluster) -> None:
        await web(cluster)

        cluster.network.isolate("n2")

        assert await running_elsewhere(cluster, "web", 10, {"n2"}, within_s=10) <= 4 + START_S

    async def test_explains_itself(self, cluster: Cluster) -> None:
        await web(cluster)
        await cluster.nodes["n2"].kill()
        await running_elsewhere(cluster, "web", 10, {"n2"}, within_s=10)

        moved = [pod for pod in await cluster.client.pods() if pod.incarnation > 1 and pod.want == "Run"]
        explanation = await cluster.client.why(moved[0].name)

        assert any("n2 is down" in decision.message for decision in explanation.decisions)

    async def test_of_two_nodes_at_once_moves_their_pods_as_fast(self, cluster: Cluster) -> None:
        await web(cluster)

        await cluster.nodes["n2"].kill()
        await cluster.nodes["n4"].kill()

        assert await running_elsewhere(cluster, "web", 10, {"n2", "n4"}, within_s=10) <= 3 + START_S

    async def test_of_three_nodes_pulls_the_brake(self, cluster: Cluster) -> None:
        await web(cluster)

        for name in ("n1", "n2", "n3"):
            await cluster.nodes[name].kill()
        await asyncio.sleep(10)
        await cluster.client.pods()
        assert "3 of 5 nodes fell silent" in cluster.client.mark.notice
        await cluster.stays(lambda: cluster.running("web").total() == 4, for_s=48, what="no replacement")
        await cluster.until_running("web", 10, within_s=20)

        assert set(cluster.running("web")) == {"n4", "n5"}

    async def test_of_many_pods_at_once_is_rationed_after_the_brake(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=100, cpu="10m")])
        await cluster.until_running("web", 100, within_s=30)
        await asyncio.sleep(5)
        for name in ("n1", "n2", "n3"):
            await cluster.nodes[name].kill()
        loop = asyncio.get_running_loop()
        await cluster.until(lambda: cluster.running("web").total() > 40, within_s=80)
        begun_s = loop.time()

        await cluster.until_running("web", 100, within_s=20)

        assert loop.time() - begun_s >= 4


class TestReturn:
    async def test_after_a_minute_cut_off_leaves_one_copy_a_slot(self, cluster: Cluster) -> None:
        await web(cluster)
        cluster.network.isolate("n2")
        await running_elsewhere(cluster, "web", 10, {"n2"}, within_s=10)
        assert cluster.running("web").total() == 12
        await asyncio.sleep(56)

        async with cluster.watcher.bounds("web", least=10, most=12):
            cluster.network.heal("n2")
            took_s = await cluster.until(cluster.is_settled, within_s=20, what="one copy a slot")

        assert took_s <= 10

    async def test_before_its_replacements_are_ready_keeps_the_old_pods(self, cluster: Cluster) -> None:
        """Nowhere else is room, so the node that returns goes on with what it has."""
        await cluster.client.apply([deployment(replicas=5, cpu="3")])
        await cluster.until_running("web", 5, within_s=5)
        await asyncio.sleep(5)
        before = cluster.container_ids("web")

        cluster.network.isolate("n2")
        await asyncio.sleep(20)
        cluster.network.heal("n2")
        await asyncio.sleep(20)

        assert cluster.container_ids("web") == before
        assert {pod.status for pod in await cluster.client.pods()} == {"Running"}

    async def test_after_a_reboot_the_node_is_used_again(self, cluster: Cluster) -> None:
        await web(cluster)
        await cluster.nodes["n2"].kill()
        await running_elsewhere(cluster, "web", 10, {"n2"}, within_s=10)

        cluster.nodes["n2"].boot()
        await asyncio.sleep(10)

        assert cluster.is_settled()
        await cluster.client.scale("Deployment", "web", 15)
        await cluster.until_running("web", 15, within_s=5)
        assert cluster.running("web")["n2"] >= 2

    async def test_after_a_quick_reboot_runs_every_slot_once(self, cluster: Cluster) -> None:
        await web(cluster)

        await cluster.nodes["n2"].kill()
        await asyncio.sleep(1)
        cluster.nodes["n2"].boot()

        await cluster.until(cluster.is_settled, within_s=10, what="one copy a slot")
        await cluster.stays(cluster.is_settled, for_s=10)


class TestAgent:
    @pytest.mark.parametrize("away_s", [1, 60])
    async def test_killed_and_back_touches_no_container(self, cluster: Cluster, away_s: int) -> None:
        before = await web(cluster)

        for name in ("n1", "n2"):
            await cluster.nodes[name].kill_agent()
        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=away_s)
        for name in ("n1", "n2"):
            cluster.nodes[name].start_agent()

        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=15)
        assert all(pod.ready for pod in await cluster.client.pods())

    async def test_gone_on_a_living_host_is_not_death(self, cluster: Cluster) -> None:
        before = await web(cluster)

        await cluster.nodes["n2"].kill_agent()
        await asyncio.sleep(10)
        (node,) = await cluster.client.nodes("n2")
        assert node.status == "AgentLost"
        assert "its pods run on" in node.why

        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=230)

    async def test_gone_for_five_minutes_has_its_pods_replaced(self, cluster: Cluster) -> None:
        await web(cluster)

        await cluster.nodes["n2"].kill_agent()
        await asyncio.sleep(290)

        await running_elsewhere(cluster, "web", 10, {"n2"}, within_s=20)

    async def test_restarted_while_a_pod_is_pulling(self, cluster: Cluster) -> None:
        for node in cluster.nodes.values():
            node.engine.pull_delay_s = 3
        await cluster.client.apply([deployment(replicas=5)])
        await asyncio.sleep(1)

        for node in cluster.nodes.values():
            await node.kill_agent()
            node.start_agent()

        await cluster.until_running("web", 5, within_s=15)
        await cluster.stays(cluster.is_settled, for_s=5)

    async def test_that_lost_its_data_directory_adopts_what_runs(self, cluster: Cluster) -> None:
        before = await web(cluster)
        node = cluster.nodes["n2"]

        await node.kill_agent()
        node.lose_data()
        await asyncio.sleep(1)
        node.start_agent()

        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=15)


class TestContainers:
    async def test_killed_behind_our_back_is_started_again(self, cluster: Cluster) -> None:
        before = await web(cluster, 5)
        victim = cluster.containers("web")[0]

        cluster.nodes["n1"].engine.kill_container(victim.id)

        await cluster.until_running("web", 5, within_s=5)
        assert len(before & cluster.container_ids("web")) in (4, 5)

    async def test_removed_behind_our_back_is_made_again(self, cluster: Cluster) -> None:
        await web(cluster, 5)
        victim = cluster.containers("web")[0]

        cluster.nodes["n1"].engine.remove_container(victim.id)

        await cluster.until_running("web", 5, within_s=20)

    async def test_survive_a_hung_engine(self, cluster: Cluster) -> None:
        before = await web(cluster)

        cluster.nodes["n2"].engine.freeze()
        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=40)
        cluster.nodes["n2"].engine.thaw()

        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=20)
        assert all(pod.ready for pod in await cluster.client.pods())


class TestDrain:
    async def test_moves_pods_without_a_gap(self, cluster: Cluster) -> None:
        await web(cluster)

        async with cluster.watcher.bounds("web", least=10, most=12):
            await cluster.client.update_node("n2", drain=True)
            await cluster.until(
                lambda: not cluster.running("web")["n2"] and cluster.is_settled(), within_s=30, what="drained"
            )
            await asyncio.sleep(5)

        assert cluster.running("web").total() == 10

    async def test_of_the_last_possible_node_leaves_the_pods_and_says_why(self, cluster: Cluster) -> None:
        await cluster.client.update_node("n3", set_labels={"disk": "ssd"})
        await cluster.client.apply([deployment(replicas=3, nodeSelector={"disk": "ssd"})])
        await cluster.until_running("web", 3, within_s=5)
        before = cluster.container_ids("web")

        await cluster.client.update_node("n3", drain=True)
        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=60)

        pending = [pod for pod in await cluster.client.pods() if pod.status == "Pending"]
        assert pending
        assert "1 drained" in pending[0].why or "drain" in pending[0].why

        await cluster.client.update_node("n3", drain=False)
        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=10)
        assert len(await cluster.client.pods()) == 3

    async def test_waits_for_slow_programs(self, cluster: Cluster) -> None:
        cluster.registry.push("docker.io/library/slow:1", Program(stop_s=8.0))
        await cluster.client.apply([deployment(replicas=10, image="slow:1")])
        await cluster.until_running("web", 10, within_s=10)

        async with cluster.watcher.bounds("web", least=10, most=14):
            await cluster.client.update_node("n2", drain=True)
            await cluster.until(lambda: not cluster.running("web")["n2"], within_s=60)

        assert cluster.is_settled()

    async def test_cordon_keeps_pods_and_takes_no_new_ones(self, cluster: Cluster) -> None:
        before = await web(cluster, 5)

        await cluster.client.update_node("n2", unschedulable=True)
        await cluster.client.scale("Deployment", "web", 20)
        await cluster.until_running("web", 20, within_s=10)

        assert cluster.running("web")["n2"] == 1
        assert before <= cluster.container_ids("web")

    async def test_no_execute_taint_moves_pods(self, cluster: Cluster) -> None:
        await web(cluster)

        async with cluster.watcher.bounds("web", least=10, most=12):
            taint = Taint(key="gpu", value="", effect="NoExecute")
            await cluster.client.update_node("n4", set_taints=[taint])
            await cluster.until(lambda: not cluster.running("web")["n4"], within_s=30)

        assert cluster.is_settled()


class TestRemove:
    async def test_of_a_living_node_is_refused(self, cluster: Cluster) -> None:
        await web(cluster)

        with pytest.raises(ForbiddenStateError):
            await cluster.client.update_node("n2", remove=True)

    async def test_of_a_dead_node_forgets_it(self, cluster: Cluster) -> None:
        await web(cluster)
        await cluster.nodes["n2"].kill()
        await running_elsewhere(cluster, "web", 10, {"n2"}, within_s=10)

        await cluster.client.update_node("n2", lost=True)
        await cluster.client.update_node("n2", remove=True)
        await asyncio.sleep(2)

        assert [node.name for node in await cluster.client.nodes()] == ["n1", "n3", "n4", "n5"]
        assert len(await cluster.client.pods()) == 10
        assert not [key for key in cluster.stored_keys() if key.endswith("/n2")]

    async def test_lets_it_join_anew(self, cluster: Cluster) -> None:
        """It comes back with containers of pods that were replaced: they are stopped."""
        await web(cluster)
        cluster.network.isolate("n2")
        await running_elsewhere(cluster, "web", 10, {"n2"}, within_s=10)
        await cluster.client.update_node("n2", lost=True)
        await cluster.client.update_node("n2", remove=True)

        cluster.network.heal("n2")

        await cluster.until(cluster.is_settled, within_s=20, what="one copy a slot")
        assert len(await cluster.client.nodes()) == 5
