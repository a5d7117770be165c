"""`bay create secret generic`: a secret from words, files and env files, as kubectl makes it.

No value is ever printed, nor quoted when something is wrong with it: a message names the key, the
option's first part, or the file and line.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayplan.cli import kinds
from bayplan.cli.failures import CommandError
from bayplan.cli.run import note, say
from bayplan.cli.text import clean

if TYPE_CHECKING:
    from bayplan.client import Client

# Kubernetes' rule for what such a file sets.
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the values are, as the options name it."""

    literals: Sequence[str] = ()  # KEY=VALUE
    files: Sequence[str] = ()  # PATH or KEY=PATH; a directory's files
    env_files: Sequence[str] = ()


async def secret(
    client: Client, name: str, sources: Sources, *, namespace: str, kind: str, dry_run: bool
) -> None:
    """Create it, and say so; one that exists is left as it is. `kind` is the secret's type; "" for Opaque."""
    document = secret_document(name, sources, namespace=namespace, kind=kind)
    (made,) = await client.apply([document], dry_run=dry_run, expected_version=-1)
    display = kinds.display(made.kind, made.name)
    for warning in made.warnings:
        note(f"warning: {display}: {clean(warning)}")
    say(f"{display} {clean(made.result)}{' (dry run)' if dry_run else ''}")


def secret_document(name: str, sources: Sources, *, namespace: str, kind: str) -> dict[str, Any]:
    """The document, checked. Raises CommandError, OSError."""
    from bayplan.resources.document import parse_document
    from bayplan.resources.problems import DocumentError

    if sources.env_files and (sources.files or sources.literals):
        raise CommandError("--from-env-file excludes --from-file and --from-literal", exit_code=2)
    data: dict[str, str] = {}
    for key, value in _pairs(sources):
        if key in data:
            raise CommandError(f'the key "{clean(key)}" is given twice', exit_code=2)
        data[key] = base64.b64encode(value).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
        **({"type": kind} if kind else {}),
    }
    try:
        return parse_document(document).resource.to_json_dict()
    except DocumentError as error:
        raise CommandError("\n".join(clean(str(problem)) for problem in error.problems)) from error


def _pairs(sources: Sources) -> Iterator[tuple[str, bytes]]:
    for literal in sources.literals:
        key, equals, value = literal.partition("=")
        if not key or not equals:
            raise CommandError("write --from-literal as KEY=VALUE", exit_code=2)
        # What the shell could not read as UTF-8 is passed on as it was.
        yield key, os.fsencode(value)
    for file in sources.files:
        yield from _file_pairs(file)
    for file in sources.env_files:
        yield from _env_pairs(file)


def _file_pairs(source: str) -> Iterator[tuple[str, bytes]]:
    key, equals, rest = source.partition("=")
    if equals and (not key or not rest or "=" in rest):
        raise CommandError("write --from-file as PATH or KEY=PATH, without another =", exit_code=2)
    path = Path(rest if equals else source)
    if path.is_dir():
        if equals:
            raise CommandError(f"{clean(str(path))} is a directory: its files name their own keys")
        # What is no plain file is passed over, as kubectl does: a mounted secret has links for its own use.
        for file in sorted(path.iterdir()):
            if file.is_file() and not file.is_symlink():
                yield file.name, _content(file)
        return
    yield key if equals else path.name, _content(path)


def _content(path: Path) -> bytes:
    from bayplan.resources.secret import DATA_MAX_BYTES

    with path.open("rb") as file:
        # One byte more than allowed is enough to refuse it, however large it is.
        content = file.read(DATA_MAX_BYTES + 1)
    if len(content) > DATA_MAX_BYTES:
        raise CommandError(f"{clean(str(path))} has more than the {DATA_MAX_BYTES // 1024} KiB of a secret")
    return content


def _env_pairs(source: str) -> Iterator[tuple[str, bytes]]:
    """Lines of NAME=VALUE, taken as they are; a NAME alone means the variable of our own environment."""
    try:
        text = _content(Path(source)).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CommandError(f"{clean(source)} is not UTF-8 text") from None
    for number, line in enumerate(re.split(r"\r?\n", text), start=1):
        stripped = line.lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not _VARIABLE.fullmatch(name):
            raise CommandError(f"{clean(source)}:{number}: does not begin with NAME=")
        if not equals:
            found = os.environ.get(name)
            if found is None:
                raise CommandError(f"{clean(source)}:{number}: has no =, and names no variable that is set")
            value = found
        yield name, os.fsencode(value)
