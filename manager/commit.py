"""Commits: the leader's writes, one in flight, each guarded by the leader key.

A transaction compares the leader key's create-revision and the last commit, and puts the
next sequence number there. So an outcome that is unknown can be asked for: the same
transaction is repeated until it is decided, and if it had been done already the commit key
says so. Nothing else is sent before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from manager.history import History, decode_history
from manager.store import keys
from manager.store.port import (
    Compare,
    Field,
    Operation,
    Put,
    Store,
    StoreUnavailableError,
    TxnResult,
    UnknownOutcomeError,
)

log = structlog.get_logger(__name__)

# etcd refuses more than 128 operations in one transaction (its default --max-txn-ops); one puts
# the sequence number, and we keep some room.
OPERATIONS_MAX = 100
# etcd refuses requests over 1.5 MiB (its default --max-request-bytes).
BYTES_MAX = 512 * 1024

_RETRY_S = 0.05


class FencedError(Exception):
    """Somebody else leads, or wrote as the leader: this term is over."""


class Committer:
    """Writes as the leader of one term.

    Args:
        guard: compares the leader key with the one this term holds.
        epoch: create-revision of that key.
        last: value of the commit key when the term began, None if there was none.
    """

    def __init__(self, store: Store, *, guard: Compare, epoch: int, last: bytes | None) -> None:
        self.committed: Callable[[float], None] = lambda _took_s: None  # Told how many seconds each took.
        self._store = store
        self._guard = guard
        self._epoch = epoch
        self._last = last
        self.history = decode_history(last)
        # With the highest number ever tried: none is given twice, whatever became of its commit.
        self._tried = self.history
        # Values of the commit key that tries without a known outcome may have put there.
        self._doubtful: dict[bytes, History] = {}
        self._one_in_flight = asyncio.Lock()

    async def commit(self, operations: Sequence[Operation]) -> int:
        """Do all of `operations` or none; returns the store's revision after them.

        Raises FencedError when this term is over, StoreFullError when etcd is out of quota
        (nothing was done). Waits for as long as the store does not answer: the caller is
        cancelled when the term ends.
        """
        assert len(operations) < OPERATIONS_MAX + 1
        loop = asyncio.get_running_loop()
        async with self._one_in_flight:
            began_s = loop.time()
            history = self._tried = self._tried.next(self._epoch)
            value = history.encode()
            self._doubtful[value] = history
            while True:
                compares = (self._guard, self._is_last())
                result = await self._decided(compares, (*operations, Put(key=keys.COMMIT, value=value)))
                found = result.found.get(keys.COMMIT)
                stands = found.value if found is not None else None
                if result.succeeded or stands == value:
                    # If not just now, then by an earlier try of this very transaction, whose reply was lost.
                    self._last, self.history = value, history
                    self._doubtful.clear()
                    self.committed(loop.time() - began_s)
                    return result.revision
                if stands is None or stands == self._last or stands not in self._doubtful:
                    raise FencedError(
                        f"epoch {self._epoch} may not write any more: another leader was elected"
                    )
                # A commit whose caller gave up was done after all: this one comes after it.
                self._last, self.history = stands, self._doubtful[stands]

    def _is_last(self) -> Compare:
        if self._last is None:
            return Compare(key=keys.COMMIT, field=Field.CREATE_REVISION, to=0)
        return Compare(key=keys.COMMIT, field=Field.VALUE, to=self._last)

    async def _decided(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        while True:
            try:
                return await self._store.txn(compares, operations)
            except (UnknownOutcomeError, StoreUnavailableError) as error:
                log.warning("commit.repeated", error=str(error))
            await asyncio.sleep(_RETRY_S)
