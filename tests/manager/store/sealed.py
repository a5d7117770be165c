"""Managers' sealed stores on one etcd in memory, and what it holds of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from manager.store import keys, sealing
from manager.store.port import (
    Store,
)
from manager.store.sealed import SEALED_PREFIXES, SealedStore
from manager.store.sealing import ClusterKey, data_key_of
from tests.contracts.store_harness import put
from tests.fakes.store import FakeEtcd, FakeStore

KEY = ClusterKey.generate()
WEB = keys.resource("Deployment", "default", "web")
SHOP = keys.resource("Deployment", "default", "shop")
NODE = keys.node("n1")


def manager(server: FakeEtcd, name: str = "m1", key: ClusterKey = KEY) -> SealedStore:
    return SealedStore(FakeStore(server, name), key)


async def opened(server: FakeEtcd, name: str = "m1", key: ClusterKey = KEY) -> SealedStore:
    store = manager(server, name, key)
    await store.open()
    return store


async def value_of(store: Store, key: str) -> bytes | None:
    found = await store.get(key)
    return found.value if found is not None else None


async def fill(store: Store, count: int = 3) -> dict[str, bytes]:
    """Some values in each sealed place; returns them all."""
    values = {
        f"{prefix}place/{number}": f"{prefix} {number}".encode()
        for prefix in SEALED_PREFIXES
        for number in range(count)
    }
    for key, value in values.items():
        await put(store, key, value)
    return values


async def read_all(store: Store) -> dict[str, bytes]:
    return {item.key: item.value for prefix in SEALED_PREFIXES for item in (await store.list(prefix)).items}


def data_keys_in_use(server: FakeEtcd) -> set[str | None]:
    return {data_key_of(item.value) for item in server.items() if item.key.startswith(SEALED_PREFIXES)}


def data_keys_in_keyring(server: FakeEtcd, key: ClusterKey) -> list[str]:
    found = server.get(keys.KEYRING)
    assert found is not None
    return list(sealing.decode_keyring(found.value, [key]).data_keys)


@asynccontextmanager
async def following(*stores: SealedStore) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as parts:
        tasks = [parts.create_task(store.watch_keyring()) for store in stores]
        yield
        for task in tasks:
            task.cancel()


async def values_of(store: Store, names: Iterable[str]) -> list[bytes | None]:
    return [await value_of(store, name) for name in names]


class CountingStore(FakeStore):
    """How often the keyring was read."""

    keyring_reads = 0

    async def get(self, key: str):  # type: ignore[no-untyped-def]  # noqa: ANN201 - as in the fake
        self.keyring_reads += key == keys.KEYRING
        return await super().get(key)
