"""etcd that is down, slow, loses replies, or comes back with the past; and junk that is put into it."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from bayplan.client.errors import BayplanError, ForbiddenStateError, UnavailableError
from bayplan.v1 import agent_link_pb2 as pb
from bayplan.v1.agent_link_pb2_grpc import AgentLinkStub
from manager.planning.requirements import requirements_of
from manager.store import keys
from tests.fakes.network import FakeTransport
from tests.simulation.cluster import Cluster, Node, deployment

pytestmark = [pytest.mark.virtual_time, pytest.mark.timeout(120)]


async def web(cluster: Cluster, replicas: int = 10) -> set[str]:
    """Apply it and wait; returns its container ids."""
    await cluster.client.apply([deployment(replicas=replicas)])
    await cluster.until_running("web", replicas, within_s=10)
    await asyncio.sleep(5)
    return cluster.container_ids("web")


async def until_written(cluster: Cluster, replicas: int, *, within_s: float) -> float:
    """Repeat a user's write until it is done; returns how long it took."""
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    while True:
        try:
            await cluster.client.scale("Deployment", "web", replicas)
        except UnavailableError:
            assert loop.time() - begun_s < within_s
            await asyncio.sleep(0.1)
        else:
            return loop.time() - begun_s


class TestEtcdDown:
    @pytest.mark.parametrize("fault", ["killed", "frozen"])
    async def test_for_half_a_minute_touches_no_container(self, cluster: Cluster, fault: str) -> None:
        before = await web(cluster)
        etcd = cluster.etcd
        break_it, mend_it = {
            "killed": (etcd.kill, etcd.restart),
            "frozen": (etcd.pause, etcd.resume),
        }[fault]

        break_it()
        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=5)
        with pytest.raises(UnavailableError) as raised:
            await cluster.client.scale("Deployment", "web", 12)
        assert "etcd" in str(raised.value)
        with pytest.raises(UnavailableError):
            await cluster.client.pods()
        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=10)
        mend_it()
        loop = asyncio.get_running_loop()
        mended_s = loop.time()
        await until_written(cluster, 13, within_s=5)
        await cluster.until_running("web", 13, within_s=10)

        assert loop.time() - mended_s <= 5
        assert before < cluster.container_ids("web")
        await cluster.stays(cluster.is_settled, for_s=30)

    async def test_while_a_node_dies(self, cluster: Cluster) -> None:
        """Nothing can be committed, so nothing is replaced; afterwards it is."""
        await web(cluster)

        cluster.etcd.kill()
        await asyncio.sleep(3)
        await cluster.nodes["n2"].kill()
        await cluster.stays(lambda: cluster.running("web").total() == 8, for_s=20)
        cluster.etcd.restart()

        await cluster.until_running("web", 10, within_s=20)

    async def test_before_the_managers_start(self, cluster: Cluster) -> None:
        before = await web(cluster)
        for manager in cluster.managers.values():
            await manager.kill()
        cluster.etcd.kill()

        for manager in cluster.managers.values():
            manager.start()
        await asyncio.sleep(10)
        cluster.etcd.restart()

        await cluster.until(lambda: cluster.leader is not None, within_s=20)
        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=20)

    async def test_out_of_space_is_said_and_heals(self, cluster: Cluster) -> None:
        before = await web(cluster)

        cluster.etcd.is_full = True
        await cluster.nodes["n2"].kill()
        await asyncio.sleep(10)
        with pytest.raises(BayplanError) as raised:
            await cluster.client.scale("Deployment", "web", 12)
        assert "space" in str(raised.value)
        assert cluster.running("web").total() == 8
        cluster.etcd.is_full = False

        await cluster.until_running("web", 10, within_s=15)
        assert len(before & cluster.container_ids("web")) == 8


class TestLostReplies:
    @pytest.mark.parametrize("seed", range(5))
    async def test_nothing_is_placed_twice(self, cluster: Cluster, seed: int) -> None:
        chance = random.Random(seed)
        for step in range(8):
            cluster.etcd.drop_next_reply()
            replicas = chance.randrange(1, 20)
            document = deployment(replicas=replicas, version=str(chance.randrange(3)))
            try:
                await cluster.client.apply([document])
            except UnavailableError:
                await cluster.client.apply([document])
            await asyncio.sleep(chance.uniform(0, 5))
            if step == 4:
                await cluster.nodes["n1"].kill()
            if step == 6:
                cluster.nodes["n1"].boot()

        await cluster.until(cluster.is_settled, within_s=90)
        await cluster.stays(cluster.is_settled, for_s=10)


class TestStoreFromThePast:
    async def test_stops_and_starts_nothing_and_says_so(self, cluster: Cluster) -> None:
        await web(cluster, 5)
        backup = cluster.etcd.snapshot()
        await cluster.client.scale("Deployment", "web", 8)
        await cluster.until_running("web", 8, within_s=5)
        await cluster.client.apply([deployment("late", replicas=3)])
        await cluster.until_running("late", 3, within_s=5)
        before = cluster.container_ids()

        cluster.etcd.restore(backup)

        await cluster.stays(lambda: cluster.container_ids() == before, for_s=60)
        await cluster.client.pods()
        assert "bay adopt" in cluster.client.mark.notice
        assert "accept-restore" in cluster.client.mark.notice
        assert not cluster.client.mark.complete

    async def test_adopted_keeps_what_runs(self, cluster: Cluster) -> None:
        await web(cluster, 5)
        backup = cluster.etcd.snapshot()
        await cluster.client.scale("Deployment", "web", 8)
        await cluster.until_running("web", 8, within_s=5)
        await cluster.client.apply([deployment("late", replicas=12)])
        await cluster.until_running("late", 12, within_s=5)
        before = cluster.container_ids()
        cluster.etcd.restore(backup)
        await asyncio.sleep(15)

        adopted = await cluster.client.adopt()
        await cluster.stays(lambda: cluster.container_ids() == before, for_s=60)

        assert adopted.pods == 20
        assert len(await cluster.client.pods()) == 20
        assert cluster.client.mark.notice == ""
        await cluster.client.scale("Deployment", "web", 10)
        await cluster.until_running("web", 10, within_s=10)
        await cluster.client.scale("Deployment", "late", 1)
        await cluster.until_running("late", 1, within_s=10)
        await cluster.stays(cluster.is_settled, for_s=5)

    async def test_accepted_makes_the_store_right(self, cluster: Cluster) -> None:
        first = await web(cluster, 5)
        backup = cluster.etcd.snapshot()
        await cluster.client.scale("Deployment", "web", 8)
        await cluster.until_running("web", 8, within_s=5)
        await cluster.client.apply([deployment("late", replicas=3)])
        await cluster.until_running("late", 3, within_s=5)
        cluster.etcd.restore(backup)
        await asyncio.sleep(15)

        await cluster.client.accept_restore()

        await cluster.until(
            lambda: cluster.running("late").total() == 0 and cluster.running("web").total() == 5, within_s=20
        )
        assert cluster.container_ids() == first
        await cluster.client.scale("Deployment", "web", 7)
        await cluster.until_running("web", 7, within_s=10)
        await cluster.client.pods()
        assert cluster.client.mark.notice == ""

    async def test_wiped_and_adopted_makes_the_documents_again(self, cluster: Cluster) -> None:
        await web(cluster, 7)
        await cluster.client.apply([deployment("other", replicas=3, version="2")])
        await cluster.until_running("other", 3, within_s=5)
        before = cluster.container_ids()

        cluster.etcd.wipe()
        await cluster.stays(lambda: cluster.container_ids() == before, for_s=30)
        dry = await cluster.client.adopt(dry_run=True)
        adopted = await cluster.client.adopt()
        await cluster.stays(lambda: cluster.container_ids() == before, for_s=60)

        assert dry.pods == adopted.pods == 10
        assert sorted(adopted.documents) == ["Deployment/default/other", "Deployment/default/web"]
        assert (await cluster.client.get("Deployment", "web")).body["spec"]["replicas"] == 7
        await cluster.client.delete("Deployment", "other")
        await cluster.until_running("other", 0, within_s=10)
        await cluster.stays(cluster.is_settled, for_s=5)

    async def test_adopted_while_a_node_is_away(self, cluster: Cluster) -> None:
        """The node that was left behind is told of the adopted cluster; what it alone ran is made elsewhere."""
        await web(cluster, 10)
        cluster.etcd.wipe()
        await cluster.nodes["n2"].kill()
        await asyncio.sleep(15)

        adopted = await cluster.client.adopt(without=["n2"])
        await asyncio.sleep(5)
        cluster.nodes["n2"].boot()

        assert adopted.pods == 8
        await cluster.until(cluster.is_settled, within_s=30)
        await cluster.stays(cluster.is_settled, for_s=10)

    async def test_is_not_adopted_before_every_node_was_heard(self, cluster: Cluster) -> None:
        """The store is empty: the agents name the nodes, also after their restart."""
        await web(cluster, 10)
        before = cluster.container_ids()
        agents = [node for node in cluster.nodes.values() if node.name != "n4"]
        for node in cluster.nodes.values():
            await node.kill_agent()
        cluster.etcd.wipe()
        for node in agents:
            node.start_agent()
        await asyncio.sleep(15)

        with pytest.raises(ForbiddenStateError, match="nodes not heard of yet: n4"):
            await cluster.client.adopt()
        assert (await cluster.client.adopt(dry_run=True)).unheard == ("n4",)
        cluster.nodes["n4"].start_agent()
        await asyncio.sleep(5)
        adopted = await cluster.client.adopt()

        assert adopted.pods == 10
        await cluster.stays(lambda: cluster.container_ids() == before, for_s=60)

    async def test_restored_while_the_managers_are_down(self, cluster: Cluster) -> None:
        await web(cluster, 5)
        backup = cluster.etcd.snapshot()
        await cluster.client.scale("Deployment", "web", 8)
        await cluster.until_running("web", 8, within_s=5)
        before = cluster.container_ids()
        for manager in cluster.managers.values():
            await manager.kill()

        cluster.etcd.restore(backup)
        for manager in cluster.managers.values():
            manager.start()

        await cluster.stays(lambda: cluster.container_ids() == before, for_s=60)
        await cluster.client.adopt()
        await cluster.stays(lambda: cluster.container_ids() == before, for_s=30)

    async def test_survives_a_leader_change_while_nobody_has_decided(self, cluster: Cluster) -> None:
        await web(cluster, 5)
        backup = cluster.etcd.snapshot()
        await cluster.client.scale("Deployment", "web", 8)
        await cluster.until_running("web", 8, within_s=5)
        before = cluster.container_ids()
        cluster.etcd.restore(backup)
        await asyncio.sleep(15)

        await cluster.change_leader()
        await cluster.stays(lambda: cluster.container_ids() == before, for_s=30)
        assert (await cluster.client.adopt()).pods == 8
        await cluster.stays(lambda: cluster.container_ids() == before, for_s=30)


async def any_history(cluster: Cluster, chance: random.Random, steps: int) -> None:
    """Users write, leaders change."""
    for _ in range(steps):
        if chance.random() < 0.3:
            victim = cluster.leader
            assert victim is not None
            await cluster.change_leader()
            victim.start()
        else:
            document = deployment(
                chance.choice(("a", "b", "c")),
                replicas=chance.randrange(1, 9),
                version=str(chance.randrange(2)),
            )
            await cluster.client.apply([document])
        await asyncio.sleep(chance.uniform(0, 10))


class TestAnyStoreFromThePast:
    @pytest.mark.parametrize("seed", range(10))
    async def test_stops_nothing_until_somebody_decides(self, cluster: Cluster, seed: int) -> None:
        """Whatever happened before the backup, after it, and since the store was put back."""
        chance = random.Random(seed)
        await cluster.client.apply([deployment("a", replicas=4)])
        await any_history(cluster, chance, chance.randrange(6))
        backup = cluster.etcd.snapshot()
        await any_history(cluster, chance, chance.randrange(1, 8))
        await cluster.client.apply([deployment("late", replicas=2)])
        await cluster.until_steady(within_s=60)
        before = cluster.container_ids()

        cluster.etcd.restore(backup)
        await cluster.stays(lambda: cluster.container_ids() == before, for_s=chance.uniform(0, 20))
        if chance.random() < 0.5:
            await cluster.change_leader()
        if chance.random() < 0.5:
            await cluster.nodes["n2"].kill_agent()
            await asyncio.sleep(chance.uniform(0, 20))
            cluster.nodes["n2"].start_agent()
        await cluster.stays(lambda: cluster.container_ids() == before, for_s=30)
        await cluster.client.adopt()
        await cluster.stays(lambda: cluster.container_ids() == before, for_s=60)

        await cluster.client.apply([deployment("late", replicas=3)])
        await cluster.until_steady(within_s=30)
        assert before < cluster.container_ids()


class TestDamage:
    async def test_junk_keys_only_warn(self, cluster: Cluster) -> None:
        before = await web(cluster, 5)

        for key in (
            "resources/Deployment",
            "resources/Deployment/default/../x",
            "placements/x",
            "nodes/",
            "what",
        ):
            cluster.etcd.put(keys.ROOT + key, b"\xff junk")
        await cluster.change_leader()
        await cluster.client.scale("Deployment", "web", 6)

        await cluster.until_running("web", 6, within_s=15)
        assert before < cluster.container_ids("web")

    async def test_an_unreadable_document_harms_only_itself(self, cluster: Cluster) -> None:
        before = await web(cluster, 5)
        await cluster.client.apply([deployment("other", replicas=2)])
        await cluster.until_running("other", 2, within_s=5)

        cluster.etcd.put(keys.resource("Deployment", "default", "other"), b"{ broken")
        await cluster.change_leader()
        await asyncio.sleep(15)
        await cluster.client.scale("Deployment", "web", 8)
        await cluster.until_running("web", 8, within_s=10)

        assert before < cluster.container_ids("web")
        assert cluster.running("other").total() == 2

    async def test_a_document_that_planning_fails_on_is_quarantined(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def poisoned(template: dict[str, object]) -> object:
            if "poison" in json.dumps(template):
                raise ZeroDivisionError("poison")
            return requirements_of(template)

        monkeypatch.setattr("manager.cluster_state.requirements_of", poisoned)
        await cluster.client.apply([deployment("bad", version="poison"), deployment("good", replicas=3)])

        await cluster.until_running("good", 3, within_s=5)
        assert cluster.running("bad").total() == 0
        pods = await cluster.client.pods(workload="bad")
        assert all("ZeroDivisionError: poison" in pod.why for pod in pods)
        assert any(event.reason == "Quarantined" for event in await cluster.client.events())
        monkeypatch.undo()
        await cluster.client.scale("Deployment", "bad", 2)
        await cluster.until_running("bad", 2, within_s=5)


async def greet(cluster: Cluster, hello: pb.Hello) -> pb.ManagerMessage:
    """Say Hello to the leader as an agent; returns its answer."""
    leader = cluster.leader
    assert leader is not None
    transport = FakeTransport(cluster.network, "visitor")
    channel = transport.channel(f"{leader.name}:7400")
    call = AgentLinkStub(channel).Connect()
    await call.write(pb.AgentMessage(hello=hello))
    answer = await call.read()
    call.cancel()
    await channel.close()
    transport.kill()
    assert isinstance(answer, pb.ManagerMessage)
    return answer


class TestStrangers:
    async def test_a_second_agent_of_one_node_is_refused(self, cluster: Cluster) -> None:
        before = await web(cluster, 5)
        twin = Node(cluster, "n1")
        twin.use_data(cluster.data / "twin")

        twin.start_agent()
        await asyncio.sleep(20)
        await twin.kill_agent()

        assert cluster.container_ids("web") == before
        assert twin.running() == []
        (node,) = await cluster.client.nodes("n1")
        assert node.status == "Ready"

    @pytest.mark.parametrize("version", ["0.3.0", "1.1.0", "x"])
    async def test_an_agent_of_another_age_is_refused_in_words(self, cluster: Cluster, version: str) -> None:
        answer = await greet(cluster, pb.Hello(node="n9", address="n9", version=version, session="s"))

        assert answer.refusal.final
        assert version in answer.refusal.reason

    @pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
    async def test_one_minor_version_apart_is_welcome(self, cluster: Cluster, version: str) -> None:
        answer = await greet(cluster, pb.Hello(node="n9", address="n9", version=version, session="s"))

        assert answer.WhichOneof("kind") == "welcome"

    async def test_an_agent_of_another_cluster_is_refused(self, cluster: Cluster) -> None:
        answer = await greet(cluster, pb.Hello(node="n9", version="0.1.0", session="s", cluster="other"))

        assert answer.refusal.final
        assert "belongs to cluster other" in answer.refusal.reason
