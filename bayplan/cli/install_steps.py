"""What an installation does to a host, as steps that are planned first and done then.

A plan can be shown without being done, and is done again without harm: each step looks whether
the host is so already. Nothing is started here: what runs on a host is its operator's decision.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bayplan.cli.failures import CommandError

ROOT_USER = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemUser:
    """A user that a service runs as, without a home of its own or a shell."""

    name: str
    home: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """One that only `owner` may write to."""

    path: str
    mode: int
    owner: str = ROOT_USER


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFile:
    """A whole file."""

    path: str
    content: str = field(repr=False)
    mode: int
    group: str = ROOT_USER  # The owner is root: a service cannot change what it is told.
    is_secret: bool = False  # Its content is never shown.
    notes: tuple[str, ...] = ()  # What changes in it, in words.


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """A file that is there already, and that `group` is to read beside its owner, and nobody else."""

    path: str
    group: str


Step = SystemUser | Directory | TextFile | Readable


class Accounts(Protocol):
    """Users of this host."""

    def exists(self, name: str) -> bool: ...

    def create(self, user: SystemUser) -> None:
        """Raises CommandError."""
        ...

    def own(self, path: Path, *, owner: str | None, group: str) -> None:
        """Raises CommandError where there is no such user or group. `owner` None: as it is."""
        ...

    def is_owned(self, path: Path, *, owner: str | None, group: str) -> bool: ...


class HostAccounts:
    """Those of the host that we run on; made by useradd."""

    def exists(self, name: str) -> bool:
        try:
            pwd.getpwnam(name)
        except KeyError:
            return False
        return True

    def create(self, user: SystemUser) -> None:
        command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", user.home]
        command += ["--shell", "/usr/sbin/nologin", user.name]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        except FileNotFoundError as error:
            raise CommandError(
                f"there is no useradd here: create the user {user.name} yourself, then repeat this"
            ) from error
        except subprocess.CalledProcessError as error:
            raise CommandError(f"cannot create the user {user.name}: {error.stderr.strip()}") from error

    def own(self, path: Path, *, owner: str | None, group: str) -> None:
        os.chown(path, -1 if owner is None else _uid(owner), _gid(group))

    def is_owned(self, path: Path, *, owner: str | None, group: str) -> bool:
        try:
            found = path.stat()
            return found.st_gid == _gid(group) and (owner is None or found.st_uid == _uid(owner))
        except CommandError:
            return False  # Neither user nor group is there yet.


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where steps are done. Tests have one below a directory, with accounts of their own."""

    root: Path = Path("/")
    accounts: Accounts = field(default_factory=HostAccounts)

    def path(self, absolute: str) -> Path:
        return self.root / absolute.lstrip("/")

    def read(self, absolute: str) -> str | None:
        """None if there is no such file. Raises CommandError."""
        try:
            return self.path(absolute).read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{absolute} cannot be read: {_words(error)}") from error


def is_done(step: Step, host: Host) -> bool:
    """Whether the host is so already. Raises CommandError."""
    match step:
        case SystemUser():
            return host.accounts.exists(step.name)
        case Directory():
            return _is_as(host, step.path, step.mode, owner=step.owner, group=step.owner)
        case TextFile():
            return host.read(step.path) == step.content and _is_as(
                host, step.path, step.mode, owner=ROOT_USER, group=step.group
            )
        case Readable():
            return _is_as(host, step.path, 0o640, owner=None, group=step.group)


def do(step: Step, host: Host) -> None:
    """Make the host so. Raises CommandError."""
    try:
        match step:
            case SystemUser():
                host.accounts.create(step)
            case Directory():
                path = host.path(step.path)
                path.mkdir(parents=True, exist_ok=True)
                host.accounts.own(path, owner=step.owner, group=step.owner)
                path.chmod(step.mode)
            case TextFile():
                _write(step, host)
            case Readable():
                path = host.path(step.path)
                host.accounts.own(path, owner=None, group=step.group)
                path.chmod(0o640)
    except OSError as error:
        raise CommandError(f"{_target(step)}: {_words(error)}") from error


def carry_out(steps: Sequence[Step], host: Host, say: Callable[[str], None], *, dry_run: bool) -> list[Step]:
    """Do what is missing, a line each; what is so already has a line too. Returns the steps that changed something."""
    changed: list[Step] = []
    for step in steps:
        if is_done(step, host):
            say(f"unchanged  {_what(step)}")
            continue
        verb = _verb(step, host)
        if not dry_run:
            do(step, host)
        say(f"{verb:9}  {_what(step)}")
        if isinstance(step, TextFile):
            for note in step.notes:
                say(f"             {note}")
            if dry_run and not step.is_secret and not step.notes:
                for line in step.content.splitlines():
                    say(f"             {line}".rstrip())
        changed.append(step)
    return changed


def _write(step: TextFile, host: Host) -> None:
    path = host.path(step.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Complete, or as it was; and at no moment readable by more than it shall be.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(step.content)
            file.flush()
            os.fsync(file.fileno())
        host.accounts.own(temporary, owner=ROOT_USER, group=step.group)
        temporary.chmod(step.mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_as(host: Host, absolute: str, mode: int, *, owner: str | None, group: str) -> bool:
    path = host.path(absolute)
    try:
        return path.stat().st_mode & 0o7777 == mode and host.accounts.is_owned(path, owner=owner, group=group)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CommandError(f"{absolute} cannot be looked at: {_words(error)}") from error


def _verb(step: Step, host: Host) -> str:
    return "changed" if not isinstance(step, SystemUser) and host.path(step.path).exists() else "created"


def _what(step: Step) -> str:
    match step:
        case SystemUser():
            return f"user {step.name}"
        case Directory():
            return f"{step.path} ({step.owner}, {step.mode:o})"
        case TextFile():
            return f"{step.path} ({ROOT_USER}:{step.group}, {step.mode:o})"
        case Readable():
            return f"{step.path} (readable by {step.group})"


def _target(step: Step) -> str:
    return step.name if isinstance(step, SystemUser) else step.path


def _uid(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError as error:
        raise CommandError(f"there is no user {name} on this host") from error


def _gid(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise CommandError(f"there is no group {name} on this host") from error


def _words(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"
