"""Contexts: which clusters this user knows, where their managers are, and which one is meant.

One file for people to read, `~/.config/bayplan/config.yaml`, and beside it one directory of
credentials a context. Changes hold a lock and replace the file, so that two programs that log in
at the same time do not lose each other's context.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bayplan.client.errors import ContextError
from bayplan.identity.credentials import (
    Credentials,
    CredentialsError,
    OwnIdentity,
    load_credentials,
    save_credentials,
    write_private,
)
from bayplan.identity.names import is_identity_name

CONFIG_VARIABLE = "BAYPLAN_CONFIG"
CONTEXT_VARIABLE = "BAYPLAN_CONTEXT"

NOT_LOGGED_IN = (
    "no cluster is known here: log in with `bay login HOST:PORT --token ...` (an admin makes one with"
    " `bay user create`), or on a manager's host run `bay init`"
)

# Whoever holds the lock only reads and writes two small files.
LOCK_WAIT_S = 5.0
_LOCK_LOOK_EVERY_S = 0.02

_KEYS = ("current-context", "contexts")
_CONTEXT_KEYS = ("managers", "cluster", "user", "role")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One cluster, as one of its users sees it."""

    name: str
    managers: tuple[str, ...]  # "host:port"
    cluster: str  # Its id.
    user: str
    role: str = ""  # As it was at the last login; for people alone.


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the file says."""

    current: str = ""
    contexts: Mapping[str, Context] = field(default_factory=dict)

    def with_context(self, context: Context) -> Config:
        """Added or replaced, and current."""
        return Config(current=context.name, contexts={**self.contexts, context.name: context})


# Where it stands


def config_file(environ: Mapping[str, str] | None = None) -> Path:
    """`BAYPLAN_CONFIG`, else bayplan/config.yaml in `XDG_CONFIG_HOME`, else in ~/.config. Raises ContextError.

    Credentials are kept beside it: two files in one directory would share those of contexts of one name.
    """
    environ = os.environ if environ is None else environ
    if given := environ.get(CONFIG_VARIABLE):
        return Path(given).absolute()
    home = environ.get("XDG_CONFIG_HOME", "")
    if Path(home).is_absolute():  # Others are to be ignored, says the XDG Base Directory Specification.
        return Path(home) / "bayplan/config.yaml"
    try:
        return Path.home() / ".config/bayplan/config.yaml"
    except RuntimeError as error:
        raise ContextError(
            f"there is no home directory: set HOME, or name the file with {CONFIG_VARIABLE}"
        ) from error


def credentials_directory(file: Path, context: str) -> Path:
    """Where the key and the certificates of a context are."""
    return all_credentials(file) / context


def all_credentials(file: Path) -> Path:
    """Where those of every context are."""
    return file.parent / "credentials"


def own_identity(file: Path, context: Context) -> OwnIdentity:
    """Who we are in a context. Raises ContextError."""
    directory = credentials_directory(file, context.name)
    again = f"log in again: `bay login {','.join(context.managers)} --token ... --context {context.name}`"
    try:
        credentials = load_credentials(directory)
    except CredentialsError as error:
        raise ContextError(f"{error}; {again}") from error
    if credentials is None:
        raise ContextError(f'context "{context.name}" has no credentials in {directory}: {again}')
    if credentials.identity.cluster != context.cluster:
        raise ContextError(
            f'context "{context.name}" is of cluster {context.cluster}, but its credentials are of'
            f" {credentials.identity.cluster}: {again}"
        )
    return OwnIdentity(credentials)


# Reading


def read_config(file: Path) -> Config:
    """An empty one where there is no file. Raises ContextError with file and line."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise ContextError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ContextError(f"{file} is not UTF-8 text") from error
    import yaml

    try:
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ContextError(f"{file}:{line}: is no YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ContextError(f"{file}:1: is no YAML: {str(error).splitlines()[0]}") from error
    return _Reader(file).config(node)


class _Reader:
    """YAML's nodes as values: they know their lines."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def config(self, node: Any) -> Config:
        if node is None:
            return Config()
        values = self._mapping(node, "the file", _KEYS)
        contexts = {}
        if "contexts" in values and not _is_empty(values["contexts"]):
            for name, inner in self._mapping(values["contexts"], "contexts").items():
                contexts[name] = self._context(name, inner)
        current = values.get("current-context")
        return Config(
            current="" if current is None or _is_empty(current) else self._text(current, "current-context"),
            contexts=contexts,
        )

    def _context(self, name: str, node: Any) -> Context:
        if not is_identity_name(name):
            raise self._error(node, _no_name(name))
        place = f"contexts.{name}"
        values = self._mapping(node, place, _CONTEXT_KEYS)
        for key in ("managers", "cluster", "user"):
            if key not in values:
                raise self._error(node, f"{place} has no {key}")
        managers = values["managers"]
        if managers.id != "sequence" or not managers.value:
            raise self._error(managers, f"{place}.managers must be a list of addresses, host:port")
        return Context(
            name=name,
            managers=tuple(self._text(each, f"{place}.managers") for each in managers.value),
            cluster=self._text(values["cluster"], f"{place}.cluster"),
            user=self._text(values["user"], f"{place}.user"),
            role=self._text(values["role"], f"{place}.role") if "role" in values else "",
        )

    def _mapping(self, node: Any, place: str, known: Sequence[str] = ()) -> dict[str, Any]:
        if node.id != "mapping":
            raise self._error(node, f"{place} must consist of `key: value`")
        values: dict[str, Any] = {}
        for key_node, value in node.value:
            key = self._text(key_node, "a key")
            if key in values:
                raise self._error(key_node, f'"{key}" stands here twice')
            if known and key not in known:
                raise self._error(key_node, f'unknown key "{key}"{_near(key, known)}')
            values[key] = value
        return values

    def _text(self, node: Any, place: str) -> str:
        # Every scalar is text here: an id of digits alone is no number.
        if node.id != "scalar" or not node.value:
            raise self._error(node, f"{place} must be text")
        return str(node.value)

    def _error(self, node: Any, words: str) -> ContextError:
        return ContextError(f"{self._file}:{node.start_mark.line + 1}: {words}")


def _is_empty(node: Any) -> bool:
    return bool(node.id == "scalar" and node.value in {"", "~", "null"}) or not node.value


def _no_name(name: str) -> str:
    return f"{name[:80]!r} is no name of a context: letters, digits, '-', '_' and '.', at most 63, a letter or digit first"


def _near(word: str, known: Sequence[str]) -> str:
    import difflib  # Only who mistypes waits for it.

    near = difflib.get_close_matches(word, known, n=1)
    return f". Did you mean {near[0]}?" if near else f". Known are {', '.join(sorted(known))}."


# Choosing


def choose(config: Config, name: str | None, environ: Mapping[str, str] | None = None) -> Context:
    """The context called `name`, else BAYPLAN_CONTEXT, else the current one. Raises ContextError."""
    environ = os.environ if environ is None else environ
    wanted = name or environ.get(CONTEXT_VARIABLE) or config.current
    if wanted:
        return named(config, wanted)
    if not config.contexts:
        raise ContextError(NOT_LOGGED_IN)
    raise ContextError(
        f"no context is chosen: use one with `bay config use-context NAME`, or --context."
        f" Known are {', '.join(sorted(config.contexts))}."
    )


def named(config: Config, name: str) -> Context:
    """Raises ContextError."""
    if name in config.contexts:
        return config.contexts[name]
    if not config.contexts:
        raise ContextError(f'there is no context "{name[:80]}": {NOT_LOGGED_IN}')
    raise ContextError(f'there is no context "{name[:80]}"{_near(name, list(config.contexts))}')


# Changing


def check_name(name: str) -> None:
    """Raises ContextError where no context may be called so."""
    if not is_identity_name(name):
        raise ContextError(_no_name(name))


def prepare(file: Path) -> Config:
    """What the file says, once it is sure that it can be changed. Raises ContextError."""
    with locked(file):
        return read_config(file)


def use(file: Path, name: str) -> None:
    """Make a context the current one. Raises ContextError."""
    with locked(file):
        config = read_config(file)
        _write(file, replace(config, current=named(config, name).name))


def save_login(file: Path, credentials: Credentials, name_it: Callable[[Config], Context]) -> Context:
    """Add or replace a context and its credentials, and make it current. Raises ContextError.

    Args:
        file: the configuration.
        credentials: of the context.
        name_it: makes the context, once nobody else can change the file.
    """
    with locked(file):
        config = read_config(file)
        context = name_it(config)
        check_name(context.name)
        # Credentials first: a context without would be an error, credentials without one are none.
        save_credentials(credentials_directory(file, context.name), credentials)
        _write(file, config.with_context(context))
    return context


def delete(file: Path, name: str) -> bool:
    """Remove a context and its credentials; whether it was the current one. Raises ContextError."""
    with locked(file):
        config = read_config(file)
        named(config, name)
        was_current = config.current == name
        kept = {each: context for each, context in config.contexts.items() if each != name}
        _write(file, Config(current="" if was_current else config.current, contexts=kept))
        directory = credentials_directory(file, name)
        if directory.exists():
            shutil.rmtree(directory)
    return was_current


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Nobody else changes `file` or credentials beside it. Turns OSError into ContextError."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(file.with_name(f".{file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(lock, file)
            yield
        finally:
            os.close(lock)
    except OSError as error:
        raise ContextError(f"cannot change {error.filename or file}: {error.strerror}") from error


def _lock(lock: int, file: Path) -> None:
    deadline = time.monotonic() + LOCK_WAIT_S
    while not try_lock(lock):
        if time.monotonic() > deadline:
            raise ContextError(f"another program holds the lock of {file}: try again")
        time.sleep(_LOCK_LOOK_EVERY_S)


def try_lock(lock: int) -> bool:
    """Take the lock of an open file, if nobody has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(file: Path, config: Config) -> None:
    import yaml

    value = {
        "current-context": config.current,
        "contexts": {
            name: {
                "managers": list(context.managers),
                "cluster": context.cluster,
                "user": context.user,
                **({"role": context.role} if context.role else {}),
            }
            for name, context in config.contexts.items()
        },
    }
    write_private(file, yaml.safe_dump(value, sort_keys=False).encode())
