"""The key-value store as managers see it: what of etcd's v3 API they use, and nothing else.

etcd (manager/store/etcd.py) and the fake on virtual time (tests/fakes/store.py) pass one
contract suite (tests/contracts/store.py).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValue:
    """A key as it stood at some revision."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Every key under a prefix at one revision, in the order of keys."""

    items: tuple[KeyValue, ...]
    revision: int


class Field(Enum):
    """What of a key a transaction compares (for equality)."""

    CREATE_REVISION = "create_revision"  # 0: the key does not exist.
    MOD_REVISION = "mod_revision"  # 0: the key does not exist.
    VALUE = "value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """A guard of a transaction: `key`'s `field` equals `to`."""

    key: str
    field: Field
    to: int | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Set a key, on a lease if given."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteKey:
    """Delete a key; a missing one is no error."""

    key: str


Operation = Put | DeleteKey


@dataclass(frozen=True, slots=True, kw_only=True)
class TxnResult:
    """Outcome of a transaction: whether all compares held, and the store's revision after it."""

    succeeded: bool
    revision: int
    # With a failed transaction: the compared keys as they stand (missing keys are left out).
    found: dict[str, KeyValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """One change of a watched key; `value` None: deleted."""

    key: str
    value: bytes | None
    mod_revision: int
    create_revision: int = 0
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchBatch:
    """Whole revisions only: everything up to `revision` has been delivered. `changes` may be empty."""

    changes: tuple[KeyChange, ...]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """Health of the store, for alarms."""

    version: str  # e.g. "3.4.23"
    # Need not change when a snapshot is restored: etcd derives it from its flags. `Meta.incarnation` tells.
    cluster_id: int
    db_bytes: int
    quota_bytes: int  # 0: unknown.
    alarms: tuple[str, ...]  # e.g. ("NOSPACE",)


class StoreError(Exception):
    """Base. The message says which endpoint and what was tried."""


class StoreUnavailableError(StoreError):
    """Nothing was done, or (reads) try again: no endpoint answered in time."""


class UnknownOutcomeError(StoreError):
    """A write may or may not have happened: repeat the same guarded transaction until it is decided."""


class CompactedError(StoreError):
    """The revision asked for is compacted: list again. `revision` is the oldest that is left."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"compacted up to revision {revision}")
        self.revision = revision


class StoreReplacedError(CompactedError):
    """The store is younger than the revision asked for: wiped, or restored from a backup. List again."""

    def __init__(self, revision: int, *, expected: int) -> None:
        Exception.__init__(self, f"the store is at revision {revision}, but had reached {expected} before")
        self.revision = revision


class StoreVersionError(StoreError):
    """An etcd version that is too old, or known to lose data."""


class StoreFullError(StoreError):
    """etcd is out of quota (NOSPACE); the message names the command that cures it."""


class LeaseGoneError(StoreError):
    """The lease expired or was revoked."""


class Lease(Protocol):
    """A granted lease. One keep-alive stream serves all leases of a store."""

    @property
    def id(self) -> int: ...

    @property
    def answered_at_s(self) -> float:
        """Loop time at which the last *answered* keep-alive was sent: the lease lives at least until this + TTL."""
        ...

    @property
    def is_gone(self) -> bool:
        """etcd said that the lease does not exist any more."""
        ...

    async def wait_gone(self) -> None:
        """Return when etcd says that the lease is gone (never merely because it does not answer)."""
        ...


class Store(Protocol):
    """All methods have deadlines of a few seconds; every error is a StoreError."""

    async def get(self, key: str) -> KeyValue | None:
        """Linearizable read of one key."""
        ...

    async def list(self, prefix: str) -> Listing:
        """Every key that starts with `prefix`, in pages, all at one revision."""
        ...

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        """If all compares hold, do all operations (each key at most once). UnknownOutcomeError when no answer came."""
        ...

    def watch(self, prefix: str, *, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        """Every change from `from_revision` on, in order, each exactly once, across reconnects, for ever.

        Raises CompactedError when the next revision is gone: list again. Close it with aclose();
        a cancelled `anext` ends it too.
        """
        ...

    async def grant_lease(self, ttl_s: int, *, keep_alive: bool = True) -> Lease:
        """A new lease, kept alive (sent every second, or every TTL/3 if that is less) until `release` or close.

        With `keep_alive` false nobody renews it: what is put on it expires after `ttl_s`.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Stop keeping `lease` alive and revoke it; best effort, returns within a second."""
        ...

    async def revoke(self, lease_id: int) -> None:
        """Revoke a lease by id, also somebody else's; a lease that is gone already is no error."""
        ...

    async def compact(self, revision: int) -> None: ...

    async def status(self) -> StoreStatus: ...

    async def aclose(self) -> None: ...
