"""What HAProxy reads: written whole, checked by HAProxy itself, and swapped by one rename.

Everything lies below the run directory, a tmpfs: certificates' keys must not stay on a disk. After a
reboot the agent writes it again from the tables that it keeps.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import shutil
from collections.abc import Iterable
from pathlib import Path

from agent.traffic.haproxy_config import Configuration, pem_of
from agent.traffic.places import CONFIGURATION
from bayplan.v1 import agent_link_pb2 as pb

USER = "haproxy"
_CHECK_S = 60.0
_WORDS_MAX = 600


class HaproxyFiles:
    """Below one directory. Blocking, but for the checks: call it from a thread."""

    def __init__(self, directory: Path, *, binary: str) -> None:
        self.directory = directory
        self.configuration = directory / CONFIGURATION
        self._binary = binary
        self._checked: dict[str, str] = {}  # Certificates, by digest: why not; empty: usable.

    def prepare(self) -> None:
        """Raises OSError."""
        # Its workers write to the log's socket here as another user, and read nothing.
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o711)

    def write_frame(self, wanted: Configuration) -> Path:
        """Maps, certificates, and the configuration beside the one in force. Raises OSError."""
        frame = self.directory / wanted.digest
        frame.mkdir(mode=0o700, exist_ok=True)
        for name, content in wanted.files.items():
            # Not again: HAProxy may be starting from it just now.
            if not _holds(frame / name, content):
                _write(frame / name, content)
        beside = self.directory / f"{CONFIGURATION}.new"
        _write(beside, wanted.text.encode())
        return beside

    def swap(self) -> None:
        """What was written last is in force for whoever reads next. Raises OSError."""
        (self.directory / f"{CONFIGURATION}.new").replace(self.configuration)

    def forget_frames(self, kept: Iterable[str]) -> None:
        """Remove the directories of all other frames."""
        names = set(kept)
        for each in self.directory.iterdir():
            if each.is_dir() and each.name not in names:
                shutil.rmtree(each, ignore_errors=True)

    async def refusal(self, path: Path) -> str:
        """HAProxy's words against this configuration; empty: it takes it."""
        try:
            process = await asyncio.create_subprocess_exec(
                self._binary,
                "-c",
                "-f",
                str(path),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            return f"{self._binary} cannot be run: {error.strerror}"
        try:
            async with asyncio.timeout(_CHECK_S):
                _, words = await process.communicate()
        except BaseException as error:
            process.kill()
            await process.wait()
            if isinstance(error, TimeoutError):
                return f"{self._binary} -c did not end within {_CHECK_S:.0f} s"
            raise
        return "" if process.returncode == 0 else _in_short(words.decode(errors="replace"))

    async def unusable(self, certificates: Iterable[pb.IngressCertificate]) -> dict[str, str]:
        """By name, why HAProxy does not take it. Each alone: one bad secret harms no other."""
        found, seen = {}, {}
        for certificate in certificates:
            pem = pem_of(certificate)
            digest = hashlib.sha256(pem).hexdigest()
            if digest not in self._checked:
                self._checked[digest] = await self._refusal_of_pem(pem)
            seen[digest] = self._checked[digest]
            if seen[digest]:
                found[certificate.name] = seen[digest]
        self._checked = seen
        return found

    async def _refusal_of_pem(self, pem: bytes) -> str:
        try_pem, try_configuration = self.directory / "try.pem", self.directory / "try.cfg"
        _write(try_pem, pem)
        _write(
            try_configuration,
            f"defaults\n mode http\n timeout client 1s\nfrontend try\n bind unix@{self.directory}/try.sock ssl crt {try_pem}\n".encode(),
        )
        try:
            return (await self.refusal(try_configuration)).replace(str(try_pem), "it")
        finally:
            try_pem.unlink()
            try_configuration.unlink()


def haproxy_user() -> str:
    """The user that the distribution made for it; empty: there is none, or we may not change to it."""
    try:
        return pwd.getpwnam(USER).pw_name if os.geteuid() == 0 else ""
    except KeyError:
        return ""


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _in_short(words: str) -> str:
    """Its alerts, without time and process id."""
    alerts = [line.partition(" : ")[2] for line in words.splitlines() if line.startswith("[ALERT]")]
    return " · ".join(alerts or words.splitlines())[:_WORDS_MAX] or "it gave no reason"
