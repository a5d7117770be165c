"""One compose cluster for the session, apart from a demo's; healed and emptied after each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import engine
from deploy.local_cluster import TESTS
from tests.e2e.cluster import Cluster

# Starting a node anew and waiting for it takes seconds, and a fault may last a minute.
TEST_TIMEOUT_S = 240
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S))


@pytest.fixture(scope="session")
def whole_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if shutil.which("docker") is None:
        pytest.fail("no docker on this machine: run `make setup`")
    engine.up()
    cluster = Cluster(TESTS, tmp_path_factory.mktemp("manifests"))
    try:
        cluster.up()
        yield cluster
    finally:
        TESTS.down()


@pytest.fixture
def cluster(whole_cluster: Cluster) -> Iterator[Cluster]:
    yield whole_cluster
    whole_cluster.heal()
