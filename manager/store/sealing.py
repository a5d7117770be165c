"""How values are encrypted: the one module with the cryptography of the store.

Two layers. The **cluster key** never reaches the store: managers hold it in a file, or get it from
an operator's command. It wraps the **data keys** in the keyring record; they seal the values. So a
new cluster key costs one small record, and a copy of etcd's data says nothing without the key.

A sealed value is AES-256-GCM: header (format, data key, nonce), then ciphertext and tag. The name
of the key in etcd is authenticated with it: a ciphertext cannot be moved to another key, nor be
declared to be of another data key or format. What this cannot notice is an older value of the same
key put back by somebody who may write to etcd; who may do that must be guarded there.

Sealing or opening 1 KiB takes 3.5 µs, 64 KiB 12 µs (cryptography 50 on one core with AES instructions);
a value grows by 33 bytes. Nonces are random: NIST SP 800-38D (8.3) allows 2^32 of them for a data key,
which is 13 years of ten values a second.

But for the randomness everything up to the last section is pure; that reads and writes the cluster key.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import shlex
import signal
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from manager.store.port import StoreError
from manager.store.records import DamagedRecordError, decode_json, encode_json

KEY_BYTES = 32  # AES-256.
COMMAND_TIMEOUT_S = 10.0

_NONCE_BYTES = 12  # What GCM is made for (NIST SP 800-38D, 5.2.1.1).
# No JSON begins with it, in any of Unicode's encodings, nor does a chunk of placements.
_FORMAT = 0xB1
_HEADER = struct.Struct("<B4s12s")
_KEYRING_FORMAT = 1
_TEXT_PREFIX = "bayplan-cluster-key-1:"


DAMAGED_MARK = bytes([_FORMAT])
"""What begins with it is damaged to every decoder of records, whatever follows."""


class ClusterKeyError(Exception):
    """There is no usable cluster key; the message says what to do about it."""


class WrongClusterKeyError(StoreError):
    """The keyring is wrapped by a cluster key that this manager does not have."""

    def __init__(self, *, of_store: str, of_manager: str) -> None:
        super().__init__(
            f"the store was encrypted under cluster key {of_store}, this manager has {of_manager}: give it"
            " the cluster.key of a manager that works, or point it at the etcd of its own cluster"
        )
        self.of_store = of_store
        self.of_manager = of_manager


class UnsealError(DamagedRecordError):
    """A value that cannot be opened: not sealed, changed, moved here, or of an unknown data key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterKey:
    """What wraps the data keys. Never stored in etcd, never logged."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise ClusterKeyError(f"a cluster key has {KEY_BYTES} bytes, this one {len(self.secret)}")

    @classmethod
    def generate(cls) -> ClusterKey:
        """A new random one."""
        return cls(secret=os.urandom(KEY_BYTES))

    @classmethod
    def from_text(cls, text: str) -> ClusterKey:
        """The inverse of `to_text`; white space around it is passed over. Raises ClusterKeyError."""
        line = text.strip()
        if not line.startswith(_TEXT_PREFIX):
            raise ClusterKeyError(f"a cluster key is one line that begins with {_TEXT_PREFIX}")
        try:
            secret = base64.b64decode(line.removeprefix(_TEXT_PREFIX), validate=True)
        except ValueError as error:  # binascii.Error, and characters beyond ASCII.
            raise ClusterKeyError(f"what follows {_TEXT_PREFIX} is not base64") from error
        return cls(secret=secret)

    def to_text(self) -> str:
        """One line without its end, for a file."""
        return _TEXT_PREFIX + base64.b64encode(self.secret).decode()

    @property
    def id(self) -> str:
        """Names the key without giving it away."""
        return hashlib.sha256(self.secret).hexdigest()[:16]


# -- data keys and the keyring ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The data keys. Written by the manager that founds the store, and by whoever rotates them."""

    cluster_key_id: str  # Wraps all of them.
    primary: str  # Id of the one that seals; the others only open.
    data_keys: Mapping[str, bytes] = field(repr=False)  # By id, 8 hex characters; oldest first.

    def rotated(self, cluster_key: ClusterKey) -> Keyring:
        """The same with another primary, wrapped by `cluster_key`."""
        key_id, secret = _new_data_key(self.data_keys)
        return Keyring(
            cluster_key_id=cluster_key.id, primary=key_id, data_keys={**self.data_keys, key_id: secret}
        )

    def settled(self) -> Keyring:
        """The same without what is not the primary."""
        return replace(self, data_keys={self.primary: self.data_keys[self.primary]})

    def remembering(self, older: Mapping[str, bytes]) -> Keyring:
        """The same that opens also what was sealed by `older` data keys."""
        return replace(self, data_keys={**older, **self.data_keys})


def new_keyring(cluster_key: ClusterKey) -> Keyring:
    """For a store that has none."""
    return Keyring(cluster_key_id=cluster_key.id, primary="", data_keys={}).rotated(cluster_key)


def _new_data_key(taken: Mapping[str, bytes]) -> tuple[str, bytes]:
    while (key_id := os.urandom(4).hex()) in taken:
        pass
    return key_id, os.urandom(KEY_BYTES)


def encode_keyring(ring: Keyring, cluster_key: ClusterKey) -> bytes:
    """JSON with every data key wrapped by `cluster_key`, whose id the keyring bears."""
    assert ring.cluster_key_id == cluster_key.id
    assert ring.primary in ring.data_keys
    wrapped = {
        key_id: base64.b64encode(_wrap(secret, key_id, cluster_key)).decode()
        for key_id, secret in ring.data_keys.items()
    }
    return encode_json(
        {
            "format": _KEYRING_FORMAT,
            "cluster_key": ring.cluster_key_id,
            "primary": ring.primary,
            # A list, for the order is the age.
            "data_keys": [[key_id, text] for key_id, text in wrapped.items()],
        }
    )


def decode_keyring(value: bytes, known: Sequence[ClusterKey]) -> Keyring:
    """The inverse of `encode_keyring`, by whichever of the `known` cluster keys it is (at least one).

    Raises WrongClusterKeyError, which names the last of `known`, and DamagedRecordError.
    """
    content = decode_json(value)
    if content.get("format") != _KEYRING_FORMAT:
        raise DamagedRecordError(f"the keyring has format {content.get('format')}, not {_KEYRING_FORMAT}")
    try:
        cluster_key_id, primary = content["cluster_key"], content["primary"]
        wrapped = {key_id: base64.b64decode(text, validate=True) for key_id, text in content["data_keys"]}
        holds_primary = primary in wrapped
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedRecordError("the keyring is not whole") from error
    if not holds_primary:
        raise DamagedRecordError("the keyring does not hold its primary data key")
    cluster_key = next((key for key in known if key.id == cluster_key_id), None)
    if cluster_key is None:
        raise WrongClusterKeyError(of_store=str(cluster_key_id), of_manager=known[-1].id)
    data_keys = {key_id: _unwrap(each, key_id, cluster_key) for key_id, each in wrapped.items()}
    return Keyring(cluster_key_id=cluster_key.id, primary=primary, data_keys=data_keys)


def _wrap(secret: bytes, key_id: str, cluster_key: ClusterKey) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(cluster_key.secret).encrypt(nonce, secret, _wrapping_context(key_id, cluster_key))


def _unwrap(wrapped: bytes, key_id: str, cluster_key: ClusterKey) -> bytes:
    try:
        nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
        context = _wrapping_context(key_id, cluster_key)
        secret = AESGCM(cluster_key.secret).decrypt(nonce, sealed, context)
    except (
        InvalidTag,
        TypeError,
        ValueError,
    ) as error:  # The last two: too short for a nonce; an id that is no hex.
        raise DamagedRecordError(f"data key {key_id} in the keyring was changed") from error
    if len(secret) != KEY_BYTES:
        raise DamagedRecordError(f"data key {key_id} in the keyring has {len(secret)} bytes")
    return secret


def _wrapping_context(key_id: str, cluster_key: ClusterKey) -> bytes:
    return b"keyring" + bytes.fromhex(key_id) + cluster_key.id.encode()


# -- values -----------------------------------------------------------------------------------------


def seal(key_name: str, value: bytes, ring: Keyring) -> bytes:
    """Encrypt `value`, which is to stand under `key_name`, by the primary data key."""
    key_id, nonce = bytes.fromhex(ring.primary), os.urandom(_NONCE_BYTES)
    cipher = AESGCM(ring.data_keys[ring.primary])
    return _HEADER.pack(_FORMAT, key_id, nonce) + cipher.encrypt(nonce, value, _context(key_id, key_name))


def unseal(key_name: str, value: bytes, ring: Keyring) -> bytes:
    """The inverse of `seal`, by any data key of the ring. Raises UnsealError, for plain text too."""
    sealed_by = data_key_of(value)
    if sealed_by is None:
        raise UnsealError(f"{key_name} is not encrypted: it was not written by a manager")
    secret = ring.data_keys.get(sealed_by)
    if secret is None:
        raise UnsealError(f"{key_name} is encrypted by data key {sealed_by}, which the keyring does not hold")
    _, key_id, nonce = _HEADER.unpack_from(value)
    try:
        return AESGCM(secret).decrypt(nonce, value[_HEADER.size :], _context(key_id, key_name))
    except InvalidTag as error:
        raise UnsealError(f"{key_name} was changed, or moved here from another key") from error


def data_key_of(value: bytes) -> str | None:
    """Id of the data key that the header names; None: it is no sealed value."""
    if len(value) < _HEADER.size or value[0] != _FORMAT:
        return None
    return value[1:5].hex()


def _context(key_id: bytes, key_name: str) -> bytes:
    return bytes([_FORMAT]) + key_id + key_name.encode()


# -- where the cluster key is kept ------------------------------------------------------------------


def read_cluster_key(path: Path) -> ClusterKey:
    """From a file that only its owner may read. Raises ClusterKeyError."""
    try:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterKeyError(f"cannot read the cluster key in {path}: {error}") from error
    # A key that others could read is no secret any more.
    if mode & 0o077:
        raise ClusterKeyError(
            f"{path} has mode {mode:04o}: others than its owner can get at the cluster key: chmod 600 {path}"
        )
    try:
        return ClusterKey.from_text(text)
    except ClusterKeyError as error:
        raise ClusterKeyError(f"{path}: {error}") from error


def write_cluster_key(path: Path, key: ClusterKey) -> None:
    """Into a file that only its owner may read, whole or not at all. Raises ClusterKeyError."""
    beside = path.with_name(path.name + ".new")
    try:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()  # Left by a crash; opening it would keep its mode.
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key.to_text() + "\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ClusterKeyError(f"cannot write the cluster key to {path}: {error}") from error


async def cluster_key_from_command(command: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> ClusterKey:
    """What an operator's command prints, e.g. one that asks a vault. Without a shell. Raises ClusterKeyError."""
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise ClusterKeyError(
            f"the command for the cluster key cannot be read: {error}: {command}"
        ) from error
    if not arguments:
        raise ClusterKeyError("the command for the cluster key is empty")
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # So that it can be ended with all that it started.
        )
    except OSError as error:
        raise ClusterKeyError(f"cannot run {arguments[0]} for the cluster key: {error}") from error
    try:
        async with asyncio.timeout(timeout_s):
            out, complaint = await process.communicate()
    except TimeoutError as error:
        raise ClusterKeyError(f"{arguments[0]} gave no cluster key within {timeout_s:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        said = complaint.decode(errors="replace").strip()[-300:]
        raise ClusterKeyError(f"{arguments[0]} ended with {process.returncode} and no cluster key: {said}")
    try:
        return ClusterKey.from_text(out.decode())
    except (ClusterKeyError, UnicodeDecodeError) as error:
        # Never what it printed: it may be the key with a small mistake.
        raise ClusterKeyError(f"what {arguments[0]} printed is no cluster key") from error
