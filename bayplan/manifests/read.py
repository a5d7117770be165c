"""What `-f` names → manifests: files, directories, standard input, several documents each."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from bayplan.manifests.errors import Located, ManifestError
from bayplan.manifests.manifest import Manifest
from bayplan.manifests.yaml_text import TEXT_MAX_BYTES, YamlDocument, read_yaml
from bayplan.resources.messages import describe

_SUFFIXES = (".yaml", ".yml", ".json")
_FILES_MAX = 1_000
STDIN = "-"


def read_manifests(
    sources: Sequence[str | os.PathLike[str]], *, stdin: BinaryIO | None = None
) -> list[Manifest]:
    """Every document of `sources`, in their order; a directory's files (not its subdirectories') by name.

    Args:
        sources: files, directories, or "-" for standard input.
        stdin: what "-" reads; the process's own by default.
    Raises ManifestError with the problems of all files, never anything else.
    """
    manifests: list[Manifest] = []
    found: list[Located] = []
    for source in sources:
        try:
            for name, text in _texts(os.fspath(source), stdin):
                try:
                    manifests += read_text(text, source=name)
                except ManifestError as error:
                    found += error.problems
        except OSError as error:
            words = error.strerror or str(error)
            found.append(Located(source=str(error.filename or source), message=f"cannot be read: {words}"))
        except ManifestError as error:
            found += error.problems
    if found:
        raise ManifestError(found)
    return manifests


def read_text(text: bytes | str, *, source: str) -> list[Manifest]:
    """Every document of one text; the items of a `kind: List` are documents of their own.

    Raises ManifestError with all problems that reading finds, never anything else.
    """
    manifests: list[Manifest] = []
    found: list[Located] = []
    for document in read_yaml(text, source=source):
        for one in _items_of(document):
            if isinstance(one.data, dict):
                manifests.append(Manifest(document=one.data, source=source, place=one.place))
            else:
                line, column = one.place.at
                message = f"a document must be a mapping, not {describe(one.data)}"
                found.append(Located(source=source, line=line, column=column, message=message))
    if found:
        raise ManifestError(found)
    return manifests


def _texts(source: str, stdin: BinaryIO | None) -> Iterator[tuple[str, bytes]]:
    if source == STDIN:
        yield "stdin", _bounded(stdin or sys.stdin.buffer)
        return
    if "://" in source:
        message = "addresses are not read: download it, or pipe it into `-f -`"
        raise ManifestError([Located(source=source, message=message)])
    path = Path(source)
    for file in _files_in(path) if path.is_dir() else [path]:
        with file.open("rb") as stream:
            yield str(file), _bounded(stream)


def _files_in(directory: Path) -> list[Path]:
    files = sorted(
        file
        for file in directory.iterdir()
        if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and not file.is_dir()
    )
    problem = ""
    if not files:
        problem = f"holds no manifests: no {', '.join('*' + suffix for suffix in _SUFFIXES)}"
    elif len(files) > _FILES_MAX:
        problem = f"holds more than {_FILES_MAX} manifests"
    if problem:
        raise ManifestError([Located(source=str(directory), message=problem)])
    return files


def _bounded(stream: BinaryIO) -> bytes:
    # One byte more than allowed is enough to refuse it, however large it is.
    return stream.read(TEXT_MAX_BYTES + 1)


def _items_of(document: YamlDocument) -> Iterator[YamlDocument]:
    data = document.data
    if not (isinstance(data, dict) and data.get("kind") == "List" and isinstance(data.get("items"), list)):
        yield document
        return
    places = document.place.inside(("items",)).items
    assert places is not None
    for item, place in zip(data["items"], places, strict=True):
        yield YamlDocument(item, place)
