"""Random faults on whole clusters. `BAYPLAN_SEEDS=500` runs that many seeds, `BAYPLAN_SEED=7` that one."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from manager.founding import NetworkChoice
from tests.simulation.chaos import Chaos
from tests.simulation.cluster import Cluster
from tests.virtual_time import run_virtual

pytestmark = pytest.mark.timeout(120)

# Five addresses for up to seven services: now and then there is none.
SERVICE_RANGE = "10.96.0.0/29"


def seeds() -> list[int]:
    """Those that the environment asks for."""
    one = os.environ.get("BAYPLAN_SEED")
    return [int(one)] if one else list(range(int(os.environ.get("BAYPLAN_SEEDS", "20"))))


async def live(data: Path, seed: int) -> list[str]:
    """One cluster's minute of faults; returns everything that could be seen of it."""
    chance = random.Random(f"latency {seed}")
    cluster = Cluster(data, pods_network=NetworkChoice(service_range=SERVICE_RANGE))
    cluster.network.latency_s = chance.choice([0.0002, 0.001, 0.01, 0.03])
    cluster.etcd.latency_s = chance.choice([0.0005, 0.002, 0.02])
    async with cluster:
        chaos = Chaos(cluster, seed)
        try:
            await chaos.run()
        finally:
            # Shown when the test fails.
            print(*chaos.story, sep="\n")  # noqa: T201
        found = cluster.desired_by_name()
        for name, replicas in chaos.acknowledged.items():
            assert found.get(name, 0) == replicas, f"an acknowledged write of {name} is lost"
        # A deleted document waits until its pods are reported gone.
        await asyncio.sleep(5)
        return [*chaos.story, *cluster.watcher.trace]


class TestChaos:
    @pytest.mark.parametrize("seed", seeds())
    def test_heals_and_never_breaks_what_must_hold(self, tmp_path: Path, seed: int) -> None:
        run_virtual(live(tmp_path, seed))

    def test_the_same_seed_gives_the_same_history(self, tmp_path: Path) -> None:
        first = run_virtual(live(tmp_path / "first", 3))
        second = run_virtual(live(tmp_path / "second", 3))

        assert len(first) > 50
        assert first == second
