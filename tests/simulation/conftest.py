"""The cluster as a fixture."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.simulation.cluster import Cluster


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated hosts lose their power, the machine that simulates them does not: no waiting for its disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three managers, five nodes; afterwards nothing that must never be may have been seen."""
    async with Cluster(tmp_path) as cluster:
        yield cluster
