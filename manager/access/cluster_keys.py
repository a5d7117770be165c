"""The cluster key of this manager: read at start, given by another manager, replaced by a rotation.

It is a file of the data directory, or comes from an operator's command. While a rotation is under
way the next one lies beside it, so that a manager that restarts in between has the right one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from bayplan.v1 import access_pb2 as api
from manager.errors import RefusedError
from manager.store.sealed import SealedStore
from manager.store.sealing import ClusterKey, ClusterKeyError, read_cluster_key, write_cluster_key

log = structlog.get_logger(__name__)

FILE = "cluster.key"
NEXT_FILE = "cluster.key.next"


class ClusterKeys:
    """Of one manager.

    Args:
        directory: of the files; None: the key comes from a command.
        following: the next one, if it had been taken before this manager started.
    """

    def __init__(
        self,
        store: SealedStore,
        key: ClusterKey,
        directory: Path | None,
        *,
        following: ClusterKey | None = None,
    ) -> None:
        self._store = store
        self._directory = directory
        self._known = {each.id: each for each in (key, following) if each is not None}
        self._current = key

    def current(self) -> tuple[bytes, str]:
        """For a manager that joins: the key as text, and its id."""
        self._settle()
        return self._current.to_text().encode(), self._current.id

    async def take(self, text: bytes) -> None:
        """The next key, from another manager. Raises RefusedError."""
        if self._directory is None:
            raise RefusedError("this manager's cluster key comes from a command: change it there")
        try:
            key = ClusterKey.from_text(text.decode())
        except (ClusterKeyError, UnicodeDecodeError) as error:
            raise RefusedError("that is no cluster key") from error
        # The file of the next one may hold what the store is encrypted under by now.
        self._settle()
        await asyncio.to_thread(write_cluster_key, self._directory / NEXT_FILE, key)
        self._known[key.id] = key
        self._store.replace_cluster_key(key)
        log.info("cluster_key.taken", key=key.id)

    async def rotate(self, give: Callable[[api.TakeClusterKeyRequest], Awaitable[None]]) -> tuple[str, int]:
        """A new key for every manager, then everything encrypted anew: the key's id, and how many values.

        Where the key comes from a command, only the data keys are new.
        """
        if self._directory is None:
            return self._current.id, await self._store.rotate(None)
        key = ClusterKey.generate()
        text = key.to_text().encode()
        await give(api.TakeClusterKeyRequest(id=key.id, key=text))
        await self.take(text)
        rewritten = await self._store.rotate(key)
        self._settle()
        return key.id, rewritten

    def _settle(self) -> None:
        """Once the store is encrypted under the next key, it is the current one."""
        used = self._store.cluster_key_id
        if used == self._current.id or used not in self._known:
            return
        self._current = self._known[used]
        if self._directory is not None:
            write_cluster_key(self._directory / FILE, self._current)
            (self._directory / NEXT_FILE).unlink(missing_ok=True)
        log.info("cluster_key.replaced", key=used)

    async def run(self) -> None:
        """Follow what other managers rotate, until cancelled."""
        while True:
            self._settle()
            await asyncio.sleep(1.0)


def read_keys(directory: Path) -> tuple[ClusterKey | None, ClusterKey | None]:
    """The current one and the next one, as far as they are there. Raises ClusterKeyError, OSError."""
    current, following = (
        read_cluster_key(path) if path.exists() else None
        for path in (directory / FILE, directory / NEXT_FILE)
    )
    return current, following
