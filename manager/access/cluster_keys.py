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
_AWAITED_S = 60.0  # What a rotation takes at most from the first manager that takes the key to its use.
_UNDER_WAY = "the cluster key is being replaced: try again in a minute"


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
        # One rotation at a time: there is one file for the next key, and no manager may lose the one in use.
        self._rotating = asyncio.Lock()
        # The next key that was taken last, and when.
        self._taken = (following.id, _loop_s()) if following is not None else None

    def current(self) -> tuple[bytes, str]:
        """For a manager that joins: the key as text, and its id."""
        self._try_to_settle()
        return self._current.to_text().encode(), self._current.id

    async def take(self, text: bytes) -> None:
        """The next key, from another manager. Raises RefusedError, ClusterKeyError."""
        if self._rotating.locked():
            raise RefusedError(_UNDER_WAY)
        await self._take(text)

    async def _take(self, text: bytes) -> None:
        if self._directory is None:
            raise RefusedError("this manager's cluster key comes from a command: change it there")
        try:
            key = ClusterKey.from_text(text.decode())
        except (ClusterKeyError, UnicodeDecodeError) as error:
            raise RefusedError("that is no cluster key") from error
        # The file of the next one may hold what the store is encrypted under by now, or in a moment.
        self._settle()
        if self._is_awaiting(other_than=key.id):
            raise RefusedError(_UNDER_WAY)
        self._taken = (key.id, _loop_s())
        await asyncio.to_thread(write_cluster_key, self._directory / NEXT_FILE, key)
        self._known[key.id] = key
        self._store.replace_cluster_key(key)
        log.info("cluster_key.taken", key=key.id)

    async def rotate(self, give: Callable[[api.TakeClusterKeyRequest], Awaitable[None]]) -> tuple[str, int]:
        """A new key for every manager, then everything encrypted anew: the key's id, and how many values.

        Where the key comes from a command, only the data keys are new.
        Raises RefusedError, ClusterKeyError, StoreError.
        """
        if self._rotating.locked() or self._is_awaiting():
            raise RefusedError(_UNDER_WAY)
        async with self._rotating:
            if self._directory is None:
                return self._current.id, await self._store.rotate(None)
            key = ClusterKey.generate()
            text = key.to_text().encode()
            self._taken = (key.id, _loop_s())
            try:
                await give(api.TakeClusterKeyRequest(id=key.id, key=text))
                await self._take(text)
            except BaseException:
                self._taken = None
                raise
            rewritten = await self._store.rotate(key)
            self._settle()
            return key.id, rewritten

    def _is_awaiting(self, *, other_than: str = "") -> bool:
        """Whether a rotation that another manager began may still make the key that was taken the current one."""
        if self._taken is None:
            return False
        key_id, taken_s = self._taken
        return key_id not in (other_than, self._current.id) and _loop_s() - taken_s < _AWAITED_S

    def check_settled(self) -> None:
        """Raises RefusedError while the key that a joining manager would be given may be replaced."""
        if self._is_awaiting():
            raise RefusedError(_UNDER_WAY)

    def _settle(self) -> None:
        """Once the store is encrypted under the next key, it is the current one."""
        used = self._store.cluster_key_id
        if used == self._current.id or used not in self._known:
            return
        if self._directory is not None:
            write_cluster_key(self._directory / FILE, self._known[used])
            (self._directory / NEXT_FILE).unlink(missing_ok=True)
        self._current = self._known[used]
        log.info("cluster_key.replaced", key=used)

    async def run(self) -> None:
        """Follow what other managers rotate, until cancelled."""
        while True:
            self._try_to_settle()
            await asyncio.sleep(1.0)

    def _try_to_settle(self) -> None:
        try:
            self._settle()
        except (OSError, ClusterKeyError) as error:
            # The key in use lies beside the old one meanwhile.
            log.error("cluster_key.not_written", error=str(error))  # noqa: TRY400 - says all


def _loop_s() -> float:
    return asyncio.get_running_loop().time()


def read_keys(directory: Path) -> tuple[ClusterKey | None, ClusterKey | None]:
    """The current one and the next one, as far as they are there. Raises ClusterKeyError, OSError."""
    current, following = (
        read_cluster_key(path) if path.exists() else None
        for path in (directory / FILE, directory / NEXT_FILE)
    )
    return current, following
