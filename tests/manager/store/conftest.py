from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.store_harness import prefix
from tests.fakes.store import FakeEtcd
from tests.real_etcd import RealEtcd

__all__ = ["prefix"]


@pytest.fixture(scope="session")
def etcd_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEtcd]:
    etcd = RealEtcd(tmp_path_factory.mktemp("etcd"))
    etcd.start()
    yield etcd
    etcd.kill()


@pytest.fixture
def etcd(etcd_process: RealEtcd) -> Iterator[RealEtcd]:
    """One process for many tests; each leaves it running."""
    yield etcd_process
    etcd_process.ensure_running()


@pytest.fixture
def server() -> FakeEtcd:
    return FakeEtcd()
