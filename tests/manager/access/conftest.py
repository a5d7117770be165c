from __future__ import annotations

import pytest

from tests.fakes.store import FakeEtcd
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
