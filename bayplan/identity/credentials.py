"""A process's own identity: key, certificates and trusted roots, on disk and in memory.

Two files of mode 0600 in a directory of mode 0700: `identity.pem` (key and certificates: one file,
so that they are replaced together) and `roots.pem`. Lines before the first PEM block repeat what
the certificate says, for programs that start often and need not parse it.
"""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from bayplan.identity.names import Identity, IdentityError, parse_identity

# Early enough that an outage of the managers does no harm, late enough to be rare; spread, so that
# hosts which joined together do not renew together.
RENEW_FROM, RENEW_TO = 0.5, 0.7


class CredentialsError(Exception):
    """The files cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """As one certificate made them."""

    identity: Identity
    issued_s: float
    expires_s: float
    key_pem: bytes = field(repr=False)
    certificates_pem: bytes = field(repr=False)  # The leaf first.
    roots_pem: bytes = field(repr=False)

    def renew_at_s(self, chance: random.Random) -> float:
        """When to ask for the next one: at 50-70 % of its life."""
        life_s = self.expires_s - self.issued_s
        return self.issued_s + life_s * chance.uniform(RENEW_FROM, RENEW_TO)


class OwnIdentity:
    """What a process shows of itself now. `version` grows when it is replaced."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._version = 1
        self._replaced = asyncio.Event()

    @property
    def credentials(self) -> Credentials:
        return self._credentials

    @property
    def version(self) -> int:
        return self._version

    def replace(self, credentials: Credentials) -> None:
        """Connections from now on show the new one; those that stand do not change."""
        self._credentials = credentials
        self._version += 1
        self._replaced.set()
        self._replaced = asyncio.Event()

    async def newer_than(self, version: int) -> None:
        """Wait until it was replaced since `version`."""
        while self._version <= version:
            await self._replaced.wait()


def save_credentials(directory: Path, credentials: Credentials) -> None:
    """Write both files, each atomically. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
    # Roots first: they only grow, or lose one that the new certificate does not need.
    write_private(directory / "roots.pem", credentials.roots_pem)
    header = (
        f"Identity: {credentials.identity}\n"
        f"Issued: {credentials.issued_s:.0f}\n"
        f"Expires: {credentials.expires_s:.0f}\n"
    )
    write_private(
        directory / "identity.pem", header.encode() + credentials.key_pem + credentials.certificates_pem
    )


def load_credentials(directory: Path) -> Credentials | None:
    """None if there are none. Raises CredentialsError."""
    path = directory / "identity.pem"
    try:
        own, roots = path.read_bytes(), (directory / "roots.pem").read_bytes()
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CredentialsError(f"cannot read {path}: {error.strerror}") from error
    if mode & 0o077:
        raise CredentialsError(f"{path} can be read by others (mode {mode:o}): chmod 600 {path}")
    try:
        header, begin, rest = own.partition(b"-----BEGIN ")
        facts = dict(line.split(": ", 1) for line in header.decode().splitlines())
        key, end, certificates = (begin + rest).partition(b"-----END PRIVATE KEY-----\n")
        if not certificates or b"PRIVATE KEY" not in key:
            raise ValueError("no key followed by certificates")  # noqa: TRY301
        return Credentials(
            identity=parse_identity(facts["Identity"]),
            issued_s=float(facts["Issued"]),
            expires_s=float(facts["Expires"]),
            key_pem=key + end,
            certificates_pem=certificates,
            roots_pem=roots,
        )
    except (ValueError, KeyError, IdentityError) as error:
        raise CredentialsError(
            f"{path} is damaged ({error}): remove {directory}, and join again with a new token"
        ) from error


def write_private(path: Path, content: bytes) -> None:
    """Atomically, for the owner alone; on disk when it returns. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
