"""Compare-and-swap on the store: what several clients write at once is lost by none of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from manager.store.port import Compare, Field, Operation, Put, Store, UnknownOutcomeError

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
    return await swap_all(store, [Put(key=key, value=value)], versions={key: version})


async def swap_all(
    store: Store, operations: Sequence[Operation], *, versions: Mapping[str, int]
) -> int | None:
    """Do all, if each key of `versions` is at its version (0: absent). The store's revision, or None.

    Every key of `operations` must be one of `versions`. Raises StoreError.
    """
    guards = [Compare(key=key, field=Field.MOD_REVISION, to=to) for key, to in versions.items()]
    try:
        result = await store.txn(guards, operations)
    except UnknownOutcomeError:
        # It may have been done: then the values stand there, and the guards fail.
        result = await store.txn(guards, operations)
        if not result.succeeded:
            found = {key: item.value for key, item in result.found.items()}
            wanted = {each.key: each.value if isinstance(each, Put) else None for each in operations}
            if all(found.get(key) == value for key, value in wanted.items()):
                stand = [result.found[key].mod_revision for key in wanted if key in result.found]
                return max(stand, default=result.revision)
    return result.revision if result.succeeded else None
