"""What stands in etcd's values: documents and facts as JSON, placements packed.

A chunk is all placements of 64 neighbouring slots of one workload, in one key: 13 bytes and
15 for each placement. (A key per placement costs etcd gigabytes of history an hour.)
A value that cannot be read raises DamagedRecordError: it must harm only itself.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bayplan.model.names import PodId
from bayplan.model.network import ClusterNetwork
from bayplan.model.nodes import NodeFacts, NodeIntent
from bayplan.model.placements import Cause, Placement, Want
from bayplan.model.services import Allocation, Cursor

T = TypeVar("T")

FORMAT_VERSION = 3  # 2: what users write is sealed (manager/store/sealed.py). 3: the pods' network.
"""Of everything under keys.ROOT. A manager refuses a store with another one, unless it can be upgraded."""
FORMAT_VERSIONS_UPGRADED = (2,)
"""What the leader upgrades in place (manager/leader.py). From then on no older manager leads: it would write
nodes without their subnets."""

CHUNK_SLOTS = 64

_CHUNK_FORMAT = 1
# Format, checksum of what follows, next incarnation, number of placements.
_HEADER = struct.Struct("<BIII")
_CHECKED_FROM = 5
# Slot within the chunk, want, cause, incarnation, node number, revision.
_PLACEMENT = struct.Struct("<BBBIII")


class DamagedRecordError(Exception):
    """A value that we did not write, or that was changed. The message says how it is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What the store is. Written once, and by `bay admin accept-restore`."""

    format_version: int
    cluster_id: str
    incarnation: str  # Random; another value means another history.
    # Store identities that an operator has declared to be superseded by this one.
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """A user's document. Its version is the key's mod-revision."""

    uid: str
    generation: int  # Counts changes of what the user wrote.
    created_ms: int
    deleting: bool
    document: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The placements of slots chunk * 64 … chunk * 64 + 63 of one workload."""

    # Only grows while the key exists, so that no incarnation is ever given twice.
    next_incarnation: int
    placements: tuple[Placement, ...]


_META = TypeAdapter(Meta)
_DOCUMENT = TypeAdapter(StoredDocument)
_NODE = TypeAdapter(NodeFacts)
_INTENT = TypeAdapter(NodeIntent)
_NETWORK = TypeAdapter(ClusterNetwork)
_ALLOCATION = TypeAdapter(Allocation)
_CURSOR = TypeAdapter(Cursor)


def chunk_of(slot: int) -> int:
    """Number of the chunk that holds `slot`."""
    return slot // CHUNK_SLOTS


def encode_chunk(chunk: Chunk, node_numbers: Mapping[str, int]) -> bytes:
    """Pack a chunk, whose placements are all of one workload and chunk. The order does not matter.

    Raises KeyError on a node without a number, struct.error on a number that does not fit 32 bits.
    """
    placements = sorted(chunk.placements, key=lambda placement: placement.pod)
    assert len({(p.pod.workload_uid, chunk_of(p.pod.slot)) for p in placements}) <= 1
    body = b"".join(
        _PLACEMENT.pack(
            placement.pod.slot % CHUNK_SLOTS,
            placement.want,
            placement.cause,
            placement.pod.incarnation,
            node_numbers[placement.node],
            int(placement.revision, 16),
        )
        for placement in placements
    )
    header = _HEADER.pack(_CHUNK_FORMAT, 0, chunk.next_incarnation, len(placements))
    checksum = zlib.crc32(body, zlib.crc32(header[_CHECKED_FROM:]))
    return _HEADER.pack(_CHUNK_FORMAT, checksum, chunk.next_incarnation, len(placements)) + body


def decode_chunk(workload_uid: str, index: int, value: bytes, node_names: Mapping[int, str]) -> Chunk:
    """The inverse of `encode_chunk`; placements come in the order of (slot, incarnation).

    Raises DamagedRecordError, also for a node number that is not in `node_names`.
    """
    try:
        chunk_format, checksum, next_incarnation, count = _HEADER.unpack_from(value)
        if chunk_format != _CHUNK_FORMAT:
            raise DamagedRecordError(f"placements have format {chunk_format}, not {_CHUNK_FORMAT}")
        if len(value) != _HEADER.size + count * _PLACEMENT.size:
            raise DamagedRecordError(f"{len(value)} bytes do not hold {count} placements")
        if zlib.crc32(value[_CHECKED_FROM:]) != checksum:
            raise DamagedRecordError("placements do not fit their checksum")
        placements = tuple(
            Placement(
                pod=PodId(workload_uid, index * CHUNK_SLOTS + offset, incarnation),
                node=node_names[node],
                revision=f"{revision:08x}",
                want=Want(want),
                cause=Cause(cause),
            )
            for offset, want, cause, incarnation, node, revision in _PLACEMENT.iter_unpack(
                value[_HEADER.size :]
            )
        )
    except struct.error as error:
        raise DamagedRecordError(f"{len(value)} bytes are too few for placements") from error
    except KeyError as error:
        raise DamagedRecordError(f"a placement is on node number {error}, which does not exist") from error
    except ValueError as error:
        raise DamagedRecordError("a placement's want or cause is not known") from error
    return Chunk(next_incarnation=next_incarnation, placements=placements)


def encode_meta(meta: Meta) -> bytes:
    """JSON."""
    return _META.dump_json(meta)


def decode_meta(value: bytes) -> Meta:
    """Raises DamagedRecordError."""
    return decoded(_META, value)


def encode_document(stored: StoredDocument) -> bytes:
    """JSON."""
    return _DOCUMENT.dump_json(stored)


def decode_document(value: bytes) -> StoredDocument:
    """Raises DamagedRecordError. The document inside is not looked at."""
    return decoded(_DOCUMENT, value)


def encode_node(facts: NodeFacts) -> bytes:
    """JSON."""
    return _NODE.dump_json(facts)


def decode_node(value: bytes) -> NodeFacts:
    """Raises DamagedRecordError."""
    return decoded(_NODE, value)


def encode_node_intent(intent: NodeIntent) -> bytes:
    """JSON."""
    return _INTENT.dump_json(intent)


def decode_node_intent(value: bytes) -> NodeIntent:
    """Raises DamagedRecordError."""
    return decoded(_INTENT, value)


def encode_network(network: ClusterNetwork) -> bytes:
    """JSON."""
    return _NETWORK.dump_json(network)


def decode_network(value: bytes) -> ClusterNetwork:
    """Raises DamagedRecordError."""
    return decoded(_NETWORK, value)


def encode_allocation(allocation: Allocation) -> bytes:
    """JSON."""
    return _ALLOCATION.dump_json(allocation)


def decode_allocation(value: bytes) -> Allocation:
    """Raises DamagedRecordError."""
    return decoded(_ALLOCATION, value)


def encode_cursor(cursor: Cursor) -> bytes:
    """JSON."""
    return _CURSOR.dump_json(cursor)


def decode_cursor(value: bytes) -> Cursor:
    """Raises DamagedRecordError."""
    return decoded(_CURSOR, value)


def encode_json(content: Mapping[str, Any]) -> bytes:
    """Any other object: pod templates, decisions. The same content gives the same bytes."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def decode_json(value: bytes) -> dict[str, Any]:
    """The inverse of `encode_json`. Raises DamagedRecordError."""
    try:
        content = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise DamagedRecordError("not JSON") from error
    if not isinstance(content, dict):
        raise DamagedRecordError("not a JSON object")
    return content


def decoded(adapter: TypeAdapter[T], value: bytes) -> T:
    """JSON as `adapter` reads it. Raises DamagedRecordError."""
    # Unknown fields are ignored: a newer manager may have written them during an upgrade.
    try:
        return adapter.validate_json(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise DamagedRecordError(f"{where}: {first['msg']}") from error
