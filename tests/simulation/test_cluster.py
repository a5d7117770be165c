"""The main job on virtual time: apply, lose a node or a leader, heal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.simulation.cluster import Cluster, deployment

pytestmark = [pytest.mark.virtual_time, pytest.mark.timeout(120)]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path) as cluster:
        yield cluster


class TestApply:
    async def test_runs_and_spreads_the_replicas(self, cluster: Cluster) -> None:
        await cluster.client.apply([deployment(replicas=10)])

        await cluster.until_running("web", 10, within_s=5)

        assert cluster.running("web") == {name: 2 for name in cluster.nodes}
