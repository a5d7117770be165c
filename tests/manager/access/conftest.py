from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.store import FakeEtcd
from tests.manager.access.host import Host
from tests.manager.access.world import Clock, Desk, a_desk


@pytest.fixture
def server() -> FakeEtcd:
    return FakeEtcd()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def desk(server: FakeEtcd, clock: Clock) -> Desk:
    """Of a manager that has just founded the cluster."""
    return await a_desk(server, clock)


@pytest.fixture
def host(server: FakeEtcd, clock: Clock, tmp_path: Path) -> Host:
    return Host(server, clock, tmp_path / "m1")
