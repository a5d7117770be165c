"""The cluster as a fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.simulation.cluster import Cluster


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three managers, five nodes; afterwards nothing that must never be may have been seen."""
    async with Cluster(tmp_path) as cluster:
        yield cluster
