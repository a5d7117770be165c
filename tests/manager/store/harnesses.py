"""The contract's harness on the fake and on real etcd."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from manager.store.etcd import EtcdStore
from manager.store.port import Store
from tests.chaos_proxy import ChaosProxy
from tests.fakes.store import FakeEtcd, FakeStore
from tests.real_etcd import RealEtcd


class FakeHarness:
    """On virtual time."""

    def __init__(self) -> None:
        self.server = FakeEtcd()

    async def client(self, name: str) -> Store:
        return FakeStore(self.server, name)

    async def kill(self) -> None:
        self.server.kill()

    async def restart(self) -> None:
        self.server.restart()

    async def pause(self) -> None:
        self.server.pause()

    async def resume(self) -> None:
        self.server.resume()

    async def wipe(self) -> None:
        self.server.wipe()

    async def cut(self, name: str) -> None:
        self.server.cut(name)

    async def heal(self, name: str) -> None:
        self.server.heal(name)

    @asynccontextmanager
    async def losing_reply(self, name: str) -> AsyncIterator[None]:
        self.server.drop_next_reply(name)
        yield


class EtcdHarness:
    """Each client reaches the one etcd through a proxy of its own."""

    def __init__(self, etcd: RealEtcd) -> None:
        self._etcd = etcd
        self._proxies: dict[str, ChaosProxy] = {}
        self._stores: list[EtcdStore] = []

    async def client(self, name: str) -> Store:
        proxy = ChaosProxy("127.0.0.1", self._etcd.port)
        await proxy.start()
        self._proxies[name] = proxy
        store = EtcdStore([proxy.endpoint])
        self._stores.append(store)
        return store

    async def close(self) -> None:
        for store in self._stores:
            await store.aclose()
        for proxy in self._proxies.values():
            await proxy.stop()

    async def kill(self) -> None:
        self._etcd.kill()

    async def restart(self) -> None:
        await self._etcd.restart()

    async def pause(self) -> None:
        self._etcd.pause()

    async def resume(self) -> None:
        self._etcd.resume()

    async def wipe(self) -> None:
        self._etcd.kill()
        self._etcd.wipe()
        await self._etcd.restart()

    async def cut(self, name: str) -> None:
        self._proxies[name].stall()

    async def heal(self, name: str) -> None:
        self._proxies[name].flow()

    @asynccontextmanager
    async def losing_reply(self, name: str) -> AsyncIterator[None]:
        proxy = self._proxies[name]
        proxy.is_dropping_replies = True
        yield
        proxy.reset()
        proxy.is_dropping_replies = False
