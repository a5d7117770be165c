"""Leaders that die, freeze or lose etcd: containers do not notice, and one leader's word counts."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from agent.runtime.port import Output
from agent.runtime.simulated_images import Program
from bayplan.client import Client
from bayplan.client.errors import UnavailableError
from manager.store import keys
from tests.fakes.network import FakeTransport
from tests.simulation.cluster import Cluster, ManagerProcess, deployment

pytestmark = [pytest.mark.virtual_time, pytest.mark.timeout(120)]


async def web(cluster: Cluster, replicas: int = 10) -> set[str]:
    """Apply it and wait; returns its container ids."""
    await cluster.client.apply([deployment(replicas=replicas)])
    await cluster.until_running("web", replicas, within_s=10)
    await asyncio.sleep(5)
    return cluster.container_ids("web")


def leader_of(cluster: Cluster) -> ManagerProcess:
    leader = cluster.leader
    assert leader is not None
    return leader


def user_elsewhere(cluster: Cluster) -> Client:
    """A user of the managers that do not lead: what the leader's connection to etcd suffers is not theirs."""
    others = [f"{name}:7400" for name in cluster.managers if name != leader_of(cluster).name]
    return Client(others, transport=FakeTransport(cluster.network, "user"))


def written_by(cluster: Cluster) -> dict[str, int]:
    """What leaders wrote: key and revision."""
    return {
        item.key: item.mod_revision
        for prefix in (keys.PLACEMENTS, keys.REVISIONS, keys.COMMIT)
        for item in cluster.etcd.items(prefix)
    }


def has_pods(cluster: Cluster, pods: int) -> bool:
    return cluster.running("web").total() >= pods


class TestLeaderKilled:
    async def test_another_answers_a_write_within_a_second(self, cluster: Cluster) -> None:
        before = await web(cluster)
        loop = asyncio.get_running_loop()
        begun_s = loop.time()

        await leader_of(cluster).kill()
        await cluster.client.scale("Deployment", "web", 11)
        await cluster.until(lambda: cluster.leader is not None, within_s=5)
        led_s = loop.time() - begun_s
        await cluster.until_running("web", 11, within_s=15)

        assert led_s <= 1
        assert before < cluster.container_ids("web")

    async def test_a_new_pod_runs_within_two_seconds(self, cluster: Cluster) -> None:
        await web(cluster)
        loop = asyncio.get_running_loop()
        begun_s = loop.time()

        await leader_of(cluster).kill()
        await cluster.client.scale("Deployment", "web", 11)
        await cluster.until_running("web", 11, within_s=15)

        assert loop.time() - begun_s <= 2

    async def test_nothing_restarts(self, cluster: Cluster) -> None:
        before = await web(cluster)

        await cluster.change_leader()

        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=30)
        assert all(pod.ready for pod in await cluster.client.pods())
        assert cluster.client.mark.complete

    async def test_again_and_again(self, cluster: Cluster) -> None:
        """Each comes back before the next is killed; at most one is deposed in 30 s, others wait for the lease."""
        before = await web(cluster)

        for _ in range(5):
            victim = leader_of(cluster)
            assert await cluster.change_leader() <= 4.5
            victim.start()
            await asyncio.sleep(4)

        assert cluster.container_ids("web") == before

    async def test_in_the_middle_of_a_large_deploy(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=200, cpu="10m")])
        for pods in (20, 90, 150):
            await cluster.until(partial(has_pods, cluster, pods), within_s=30)
            victim = leader_of(cluster)
            await cluster.change_leader()
            victim.start()

        await cluster.until_running("web", 200, within_s=30)
        await cluster.stays(cluster.is_settled, for_s=10)

    async def test_while_a_template_is_rolled_out(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=8, version="1")])
        await cluster.until_running("web", 8, within_s=5)
        (old,) = cluster.revisions("web")

        async with cluster.watcher.bounds("web", least=8, most=10):
            await cluster.client.apply([deployment(replicas=8, version="2")])
            await cluster.until(lambda: len(cluster.revisions("web")) == 2, within_s=10)
            await cluster.change_leader()
            await cluster.until(
                lambda: old not in cluster.revisions("web") and cluster.is_settled(), within_s=60
            )

    async def test_while_a_workload_is_deleted(self, cluster: Cluster) -> None:
        cluster.registry.push("docker.io/library/slow:1", Program(stop_s=3.0))
        await cluster.client.apply([deployment(replicas=6, image="slow:1")])
        await cluster.until_running("web", 6, within_s=5)

        await cluster.client.delete("Deployment", "web")
        await asyncio.sleep(0.5)
        await cluster.change_leader()

        await cluster.until(lambda: not cluster.desired(), within_s=15, what="no document")
        assert cluster.running("web").total() == 0
        assert not cluster.etcd.items(keys.PLACEMENTS)

    async def test_while_nodes_drain(self, cluster: Cluster) -> None:
        await web(cluster)

        async with cluster.watcher.bounds("web", least=10, most=14):
            await cluster.client.update_node("n2", drain=True)
            await cluster.change_leader()
            await cluster.until(lambda: not cluster.running("web")["n2"], within_s=30)
        await cluster.until(cluster.is_settled, within_s=5)


class TestReads:
    async def test_never_go_back_in_time(self, cluster: Cluster) -> None:
        """Whatever was acknowledged is in the next answer, whoever gives it."""
        await cluster.client.apply([deployment(replicas=1)])
        for replicas in (3, 5, 2):
            await cluster.client.scale("Deployment", "web", replicas)
            victim = leader_of(cluster)
            await victim.kill()
            before = cluster.client.mark

            document = await cluster.client.get("Deployment", "web")

            assert document.body["spec"]["replicas"] == replicas
            assert cluster.client.mark.revision >= before.revision
            await cluster.until(lambda: cluster.leader is not None, within_s=5)
            victim.start()
            await asyncio.sleep(1)

    async def test_say_that_they_are_not_complete_while_the_leader_learns(self, cluster: Cluster) -> None:
        await web(cluster)
        await cluster.nodes["n3"].kill_agent()

        await cluster.change_leader()
        await cluster.client.nodes()

        assert not cluster.client.mark.complete


class TestWhatANewLeaderDoesNotKnow:
    async def test_which_nodes_live_is_not_judged_before_the_grace(self, cluster: Cluster) -> None:
        """A node dies together with the leader: it is replaced, but not in the first ten seconds."""
        await web(cluster)

        await cluster.nodes["n2"].kill()
        await cluster.change_leader()

        await cluster.stays(lambda: cluster.running("web").total() == 8, for_s=8, what="no replacement")
        took_s = await cluster.until_running("web", 10, within_s=15)
        assert took_s <= 10

    async def test_pods_of_an_agent_that_is_slow_to_come_back_are_left_alone(self, cluster: Cluster) -> None:
        before = await web(cluster)

        await cluster.nodes["n2"].kill_agent()
        await cluster.change_leader()
        await asyncio.sleep(1)
        pods = await cluster.client.pods(node="n2")
        assert {pod.status for pod in pods} == {"Unknown"}
        assert not any(pod.ready for pod in pods)
        assert not cluster.client.mark.complete
        assert "n2" in cluster.client.mark.notice
        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=60)
        cluster.nodes["n2"].start_agent()
        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=10)

        assert all(pod.ready for pod in await cluster.client.pods())

    async def test_a_rollout_counts_no_unknown_pod(self, cluster: Cluster) -> None:
        """The leader dies in a rollout while one agent is away: no step is made on its pods."""
        await cluster.client.apply([deployment(replicas=5, version="1")])
        await cluster.until_running("web", 5, within_s=5)
        on_n2 = {found.id for found in cluster.containers("web")} & set(cluster.nodes["n2"].engine.containers)

        await cluster.nodes["n2"].kill_agent()
        await cluster.client.apply([deployment(replicas=5, version="2")])
        await cluster.change_leader()
        await cluster.stays(lambda: on_n2 <= cluster.container_ids("web"), for_s=30)
        cluster.nodes["n2"].start_agent()

        await cluster.until(
            lambda: len(cluster.revisions("web")) == 1 and cluster.is_settled(),
            within_s=60,
            what="rolled out",
        )
        assert not on_n2 & cluster.container_ids("web")

    async def test_exits_are_not_counted_twice(self, cluster: Cluster) -> None:
        """A pod in a crash loop goes on with its back-off as if nothing had happened."""
        cluster.registry.push("docker.io/library/ends:1", Program(runs_s=0.5, exit_code=3))
        await cluster.client.apply([deployment(replicas=1, image="ends:1")])
        await asyncio.sleep(20)
        (before,) = await cluster.client.pods()

        await cluster.change_leader()
        await asyncio.sleep(1)
        (after,) = await cluster.client.pods()

        assert after.uid == before.uid
        assert after.restarts - before.restarts <= 1

    async def test_what_was_not_committed_was_not_sent(self, cluster: Cluster) -> None:
        """The leader dies while etcd keeps its commit: no container was started for it."""
        await web(cluster, 3)
        leader = leader_of(cluster)

        cluster.etcd.cut(leader.etcd_client)
        async with user_elsewhere(cluster) as user:
            for name in cluster.nodes:
                await user.update_node(name, set_labels={"a": "b"})
            await user.scale("Deployment", "web", 12)
        await cluster.stays(lambda: cluster.running("web").total() == 3, for_s=1.5)
        await leader.kill()

        await cluster.until_running("web", 12, within_s=15)
        await cluster.stays(cluster.is_settled, for_s=10)

    async def test_a_commit_whose_reply_was_lost_is_not_done_twice(self, cluster: Cluster) -> None:
        """It was done, the leader died before it knew: the next one tells the agents of it."""
        leader = leader_of(cluster)
        async with user_elsewhere(cluster) as user:
            cluster.etcd.drop_next_reply(leader.etcd_client)
            await user.apply([deployment(replicas=10)])
        await asyncio.sleep(1)
        assert cluster.running("web").total() == 0
        placed = cluster.etcd.items(keys.PLACEMENTS)

        await leader.kill()
        await cluster.until_running("web", 10, within_s=15)

        assert placed
        assert cluster.etcd.items(keys.PLACEMENTS) == placed


class TestLeaderFrozen:
    async def test_for_ten_seconds_writes_nothing_afterwards(self, cluster: Cluster) -> None:
        before = await web(cluster)
        old = leader_of(cluster)

        old.freeze()
        await cluster.until(lambda: leader_of(cluster) is not old, within_s=6, what="another leader")
        await cluster.client.scale("Deployment", "web", 12)
        await cluster.until_running("web", 12, within_s=15)
        await asyncio.sleep(4)
        written = written_by(cluster)
        old.thaw()
        await asyncio.sleep(5)

        assert written_by(cluster) == written
        assert before < cluster.container_ids("web")
        assert not old.is_leading
        assert cluster.is_settled()

    async def test_in_the_middle_of_a_deploy(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=200, cpu="10m")])
        await cluster.until(lambda: cluster.running("web").total() >= 50, within_s=10)
        old = leader_of(cluster)

        old.freeze()
        await asyncio.sleep(10)
        old.thaw()

        await cluster.until_running("web", 200, within_s=30)
        await cluster.stays(cluster.is_settled, for_s=10)

    async def test_cut_from_etcd_alone_stops_commanding_within_three_seconds(self, cluster: Cluster) -> None:
        before = await web(cluster)
        old = leader_of(cluster)

        cluster.etcd.cut(old.etcd_client)
        await asyncio.sleep(3)

        assert not old.is_commanding
        await cluster.until(lambda: leader_of(cluster) is not old, within_s=4, what="another leader")
        await cluster.client.scale("Deployment", "web", 12)
        await cluster.until_running("web", 12, within_s=15)
        cluster.etcd.heal(old.etcd_client)
        await cluster.stays(lambda: before < cluster.container_ids("web"), for_s=10)

    async def test_cut_from_agents_and_managers_alone_loses_the_lead(self, cluster: Cluster) -> None:
        """It reaches etcd, but nobody hears it."""
        before = await web(cluster)
        old = leader_of(cluster)

        cluster.network.isolate(old.name)
        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=15)

        assert leader_of(cluster) is not old
        await cluster.client.scale("Deployment", "web", 12)
        await cluster.until_running("web", 12, within_s=15)
        cluster.network.heal(old.name)
        await cluster.stays(cluster.is_settled, for_s=10)


class TestAllManagersDown:
    async def test_for_a_minute_touches_no_container(self, cluster: Cluster) -> None:
        before = await web(cluster)

        for manager in cluster.managers.values():
            await manager.kill()
        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=60)
        for manager in cluster.managers.values():
            manager.start()

        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=30)
        assert all(pod.ready for pod in await cluster.client.pods())

    async def test_containers_that_end_are_started_again(self, cluster: Cluster) -> None:
        await web(cluster)
        for manager in cluster.managers.values():
            await manager.kill()

        for container in cluster.containers("web")[:3]:
            for node in cluster.nodes.values():
                if container.id in node.engine.containers:
                    node.engine.kill_container(container.id)

        await cluster.until_running("web", 10, within_s=10)

    async def test_a_host_that_reboots_starts_its_pods(self, cluster: Cluster) -> None:
        await web(cluster)
        for manager in cluster.managers.values():
            await manager.kill()

        await cluster.nodes["n2"].kill()
        await asyncio.sleep(5)
        cluster.nodes["n2"].boot()

        await cluster.until_running("web", 10, within_s=15)

    async def test_is_said_in_words(self, cluster: Cluster) -> None:
        for manager in cluster.managers.values():
            await manager.kill()

        with pytest.raises(UnavailableError) as raised:
            await cluster.client.pods()

        assert "m1:7400" in str(raised.value)


class TestMajorityOfTheControlPlane:
    async def test_relays_agents_that_cannot_reach_the_leader(self, cluster: Cluster) -> None:
        before = await web(cluster)
        leader = leader_of(cluster)

        cluster.network.cut("n2", leader.name)
        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=15)

        (node,) = await cluster.client.nodes("n2")
        assert node.status == "Ready"
        assert node.via in set(cluster.managers) - {leader.name}
        await cluster.client.scale("Deployment", "web", 20)
        await cluster.until_running("web", 20, within_s=10)
        assert cluster.running("web")["n2"] == 4

    async def test_logs_of_an_agent_that_is_relayed_come_by_the_same_way(self, cluster: Cluster) -> None:
        """The leader asks for the stream; the agent opens it at the manager that relays."""
        said = b"listening\n"
        cluster.registry.push("docker.io/library/talks:1", Program(output=(Output(data=said),)))
        await cluster.client.apply([deployment(replicas=5, image="talks:1")])
        await cluster.until_running("web", 5, within_s=10)
        cluster.network.cut("n2", leader_of(cluster).name)
        await asyncio.sleep(15)
        (pod, *_) = [each for each in await cluster.client.pods() if each.node == "n2"]
        (node,) = await cluster.client.nodes("n2")
        assert node.via

        output = [each.data async for each in cluster.client.logs(pod.name)]

        assert output == [said]


class TestOneManager:
    async def test_killed_and_started_goes_on(self, tmp_path: Path) -> None:
        async with Cluster(tmp_path, managers=1, nodes=2) as cluster:
            before = await web(cluster, 4)

            await cluster.managers["m1"].kill()
            cluster.managers["m1"].start()
            await cluster.until(lambda: cluster.leader is not None, within_s=5)

            await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=20)
