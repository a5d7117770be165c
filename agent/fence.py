"""Whom the agent obeys. Pure.

An agent remembers the highest epoch whose assignments it has obeyed. Anything lower, of the same
store, comes from a leader that was replaced without knowing it. Another store is another history:
the managers send assignments under it only after an operator has decided, so they are obeyed then.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """What was obeyed last. `store` is empty on a new node."""

    store: str = ""
    revision: int = 0  # Create-revision of the leader's key.
    commit_sequence: int = 0  # Of the last assignments.


class Standing(Enum):
    """How a leader's epoch compares with the fence."""

    CURRENT = "current"
    # Either a replaced leader, or a store from the past whose leader knows it and wants our report.
    PAST = "past"
    # Another history.
    OTHER_STORE = "other store"


def standing(fence: Fence, *, store: str, revision: int) -> Standing:
    """Judge an epoch."""
    if not fence.store:
        return Standing.CURRENT
    if store != fence.store:
        return Standing.OTHER_STORE
    if revision < fence.revision:
        return Standing.PAST
    return Standing.CURRENT


def may_obey(fence: Fence, *, store: str, revision: int) -> bool:
    """Whether assignments under this epoch are obeyed."""
    return bool(store) and not (store == fence.store and revision < fence.revision)
