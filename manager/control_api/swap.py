"""Compare-and-swap on the store: what several clients write at once is lost by none of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from manager.store.port import Compare, Field, Put, Store, UnknownOutcomeError

Done = TypeVar("Done")

_RACES_MAX = 5


class ConflictError(Exception):
    """Somebody else changed it first."""


async def retried(what: str, attempt: Callable[[], Awaitable[Done | None]]) -> Done:
    """The result of the first attempt that no other writer was faster than (None).

    Raises ConflictError, which names `what`, after the fifth.
    """
    for _ in range(_RACES_MAX):
        done = await attempt()
        if done is not None:
            return done
    raise ConflictError(f"{what} is being changed by others all the time; try again")


async def swap(store: Store, key: str, value: bytes, *, version: int) -> int | None:
    """Write `value` if the key is at `version` (0: absent). The new version, or None. Raises StoreError."""
    guard = Compare(key=key, field=Field.MOD_REVISION, to=version)
    try:
        result = await store.txn([guard], [Put(key=key, value=value)])
    except UnknownOutcomeError:
        # It may have been done: then the value stands there, and the guard fails.
        result = await store.txn([guard], [Put(key=key, value=value)])
        if not result.succeeded and key in result.found and result.found[key].value == value:
            return result.found[key].mod_revision
    return result.revision if result.succeeded else None
