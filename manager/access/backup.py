"""A copy of roots and identities on each manager's own disk, encrypted under the cluster key.

A store that was wiped gets its CA back from it, so that nobody has to join again; a store that was
restored from a backup learns from it who was revoked since.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydantic import TypeAdapter

from bayplan.identity.credentials import write_private
from manager.access.records import CaRecord, IdentityRecord
from manager.store.records import DamagedRecordError, decoded
from manager.store.sealing import ClusterKey, Keyring, seal, unseal

log = structlog.get_logger(__name__)

FILE = "identities.sealed"
_DATA_KEY = "00000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What was known last."""

    ca: CaRecord | None = None
    identities: tuple[IdentityRecord, ...] = ()


_BACKUP: TypeAdapter[Any] = TypeAdapter(Backup)


def write_backup(directory: Path, backup: Backup, key: ClusterKey) -> None:
    """Atomically. Raises OSError."""
    write_private(directory / FILE, seal(FILE, _BACKUP.dump_json(backup), _ring(key)))


def read_backup(directory: Path, known: list[ClusterKey]) -> Backup:
    """Empty where there is none, or none that can be read: the store then has to do without. Raises OSError."""
    try:
        sealed = (directory / FILE).read_bytes()
    except FileNotFoundError:
        return Backup()
    for key in known:
        try:
            found: Backup = decoded(_BACKUP, unseal(FILE, sealed, _ring(key)))
        except DamagedRecordError as error:
            log.warning("identities_copy.not_read", file=str(directory / FILE), key=key.id, error=str(error))
        else:
            return found
    return Backup()


def _ring(key: ClusterKey) -> Keyring:
    return Keyring(cluster_key_id=key.id, primary=_DATA_KEY, data_keys={_DATA_KEY: key.secret})
