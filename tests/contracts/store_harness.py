"""The server under a store's contract suite with its faults, and what the suite does over and over."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import pytest

from manager.store.port import KeyChange, Put, Store, StoreUnavailableError, UnknownOutcomeError, WatchBatch

_numbers = itertools.count(1)


class StoreHarness(Protocol):
    """A server with clients, and its faults."""

    async def client(self, name: str) -> Store:
        """A client with a connection of its own."""
        ...

    async def kill(self) -> None: ...

    async def restart(self) -> None: ...

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def wipe(self) -> None:
        """Kill it, delete its data, start it."""
        ...

    async def cut(self, name: str) -> None: ...

    async def heal(self, name: str) -> None: ...

    def losing_reply(self, name: str) -> AbstractAsyncContextManager[None]:
        """The write within is done, but its reply is lost."""
        ...


@pytest.fixture
def prefix() -> str:
    """A place of its own for each test: the real server is shared."""
    return f"/contract/{next(_numbers)}/"


async def put(store: Store, key: str, value: bytes, lease: int = 0) -> int:
    return (await store.txn((), (Put(key=key, value=value, lease=lease),))).revision


async def put_until_done(store: Store, key: str, value: bytes) -> int:
    """For when the server has just come back."""
    while True:
        try:
            return await put(store, key, value)
        except (StoreUnavailableError, UnknownOutcomeError):
            await asyncio.sleep(0.1)


async def take(watch: AsyncGenerator[WatchBatch, None], count: int) -> list[KeyChange]:
    """The next `count` changes."""
    changes: list[KeyChange] = []
    while len(changes) < count:
        async with asyncio.timeout(30):
            changes.extend((await anext(watch)).changes)
    return changes
