"""Parts of the pod range: unique and kept, whatever happens to nodes, leaders and the store."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from bayplan.model.network import ClusterNetwork
from manager.founding import NetworkChoice
from manager.store import keys, records
from tests.simulation.cluster import Cluster, deployment

pytestmark = [pytest.mark.virtual_time, pytest.mark.timeout(120)]


def subnets(cluster: Cluster) -> dict[str, str]:
    """By node, as the store has them."""
    found = [records.decode_node(item.value) for item in cluster.etcd.items(keys.NODES)]
    return {facts.name: facts.subnet for facts in found}


def told(cluster: Cluster) -> dict[str, str]:
    """By node, as the leader would tell it."""
    leader = cluster.leader
    assert leader is not None
    assert leader.manager is not None
    assert leader.manager.leadership is not None
    state = leader.manager.leadership.state
    return {name: entry.facts.subnet for name, entry in state.nodes.items()}


def network(cluster: Cluster) -> ClusterNetwork | None:
    found = cluster.etcd.get(keys.NETWORK)
    return records.decode_network(found.value) if found is not None else None


async def remove(cluster: Cluster, name: str) -> None:
    await cluster.nodes[name].kill()
    await asyncio.sleep(15)
    await cluster.client.update_node(name, lost=True)
    await cluster.client.update_node(name, remove=True)


class TestSubnets:
    @pytest.mark.parametrize("seed", range(4))
    async def test_are_unique_and_kept_while_nodes_and_leaders_come_and_go(
        self, cluster: Cluster, seed: int
    ) -> None:
        chance = random.Random(seed)
        kept = subnets(cluster)
        assert len(set(kept.values())) == 5
        for _ in range(6):
            name = chance.choice(sorted(cluster.nodes))
            match chance.choice(["reboot", "rejoin", "leader"]):
                case "reboot":
                    await cluster.nodes[name].kill()
                    await asyncio.sleep(chance.uniform(0, 15))
                    cluster.nodes[name].boot()
                case "rejoin":
                    await remove(cluster, name)
                    kept.pop(name)
                    cluster.nodes[name].boot()
                case "leader":
                    victim = cluster.leader
                    assert victim is not None
                    await cluster.change_leader()
                    victim.start()
            await cluster.until(
                lambda: "" not in subnets(cluster).values() and len(subnets(cluster)) == 5, within_s=30
            )
            now = subnets(cluster)
            assert len(set(now.values())) == 5
            assert kept.items() <= now.items()
            kept = now

        await cluster.until(lambda: cluster.leader is not None, within_s=20)
        assert told(cluster) == subnets(cluster)

    async def test_of_a_store_from_before_are_given_when_its_network_is_founded(
        self, cluster: Cluster
    ) -> None:
        """No pod is touched by it."""
        await cluster.client.apply([deployment(replicas=5)])
        await cluster.until_running("web", 5, within_s=10)
        before = cluster.container_ids("web")
        for manager in cluster.managers.values():
            await manager.kill()
        forget_networks(cluster)
        for manager in cluster.managers.values():
            manager.start()
        await cluster.until(
            lambda: network(cluster) is not None and "" not in subnets(cluster).values(), within_s=30
        )

        assert network(cluster) == ClusterNetwork()
        assert len(set(subnets(cluster).values())) == 5
        meta = cluster.etcd.get(keys.META)
        assert meta is not None
        assert records.decode_meta(meta.value).format_version == records.FORMAT_VERSION
        await cluster.stays(lambda: cluster.container_ids("web") == before, for_s=30)

    async def test_that_pods_live_in_are_kept_when_a_wiped_store_is_adopted(self, cluster: Cluster) -> None:
        """The store does not know them any more, but pods' addresses tell."""
        # One that left and came back has another part than those who come to an empty store would get.
        await remove(cluster, "n1")
        cluster.nodes["n1"].boot()
        await cluster.until(lambda: "n1" in subnets(cluster), within_s=20)
        living = subnets(cluster)
        assert living["n1"] == "10.42.5.0/24"
        await asyncio.sleep(5)
        await cluster.client.apply([deployment(replicas=5)])
        await cluster.until_running("web", 5, within_s=10)
        assert cluster.running("web")["n1"] == 1
        cluster.etcd.wipe()
        await asyncio.sleep(15)
        await cluster.client.adopt()
        await cluster.until(lambda: len(subnets(cluster)) == 5, within_s=20)

        assert network(cluster) == ClusterNetwork()
        assert subnets(cluster) == living

    async def test_are_as_many_as_the_range_has(self, tmp_path: Path) -> None:
        choice = NetworkChoice(pod_range="10.42.0.0/22", node_prefix=24)
        async with Cluster(tmp_path, managers=1, nodes=4, pods_network=choice) as cluster:
            assert sorted(subnets(cluster).values()) == [f"10.42.{part}.0/24" for part in range(4)]
            gone = subnets(cluster)["n2"]
            await remove(cluster, "n2")
            cluster.nodes["n2"].boot()
            await cluster.until(lambda: len(subnets(cluster)) == 4, within_s=30)

            assert subnets(cluster)["n2"] == gone


def forget_networks(cluster: Cluster) -> None:
    """As a manager from before wrote it."""
    cluster.etcd.delete(keys.NETWORK)
    meta = cluster.etcd.get(keys.META)
    assert meta is not None
    before = replace(records.decode_meta(meta.value), format_version=2)
    cluster.etcd.put(keys.META, records.encode_meta(before))
    for item in cluster.etcd.items(keys.NODES):
        facts = records.decode_json(item.value)
        for key in ("subnet", "publish_addresses", "wireguard_key"):
            del facts[key]
        cluster.etcd.put(item.key, records.encode_json(facts))
