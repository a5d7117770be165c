from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contracts.store import StoreContract
from tests.manager.store.harnesses import EtcdHarness, FakeHarness
from tests.real_etcd import RealEtcd


@pytest.mark.virtual_time
class TestFakeStore(StoreContract):
    @pytest.fixture
    async def harness(self) -> FakeHarness:
        return FakeHarness()


@pytest.mark.etcd
class TestEtcdStore(StoreContract):
    @pytest.fixture
    async def harness(self, etcd: RealEtcd) -> AsyncIterator[EtcdHarness]:
        harness = EtcdHarness(etcd)
        yield harness
        etcd.ensure_running()
        await harness.close()
