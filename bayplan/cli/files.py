"""Manifests from files and standard input, and where in them the problems are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bayplan.cli.failures import CommandError
from bayplan.cli.run import note
from bayplan.cli.text import clean

if TYPE_CHECKING:
    from bayplan.client import Problem
    from bayplan.manifests.manifest import Manifest


def read(sources: Sequence[str], *, namespace: str | None, check: bool = True) -> list[Manifest]:
    """Every document of `sources`, checked as the manager will check it.

    Args:
        sources: files, directories, "-".
        namespace: of documents that name none; None: "default".
        check: False where only kinds and names matter.

    Raises: CommandError with each problem at its file:line:column.
    """
    from bayplan.manifests.errors import ManifestError
    from bayplan.manifests.manifest import check_manifests
    from bayplan.manifests.read import read_manifests

    if not sources:
        raise CommandError("name what to apply: -f FILE, -f DIRECTORY or -f -", exit_code=2)
    if "-" in sources and sys.stdin.isatty():
        note("reading from the terminal; end with Ctrl-D")
    try:
        manifests = read_manifests(sources)
        if namespace is not None:
            for manifest in manifests:
                _put_into(manifest, namespace)
        if check:
            check_manifests(manifests)
    except ManifestError as error:
        raise CommandError(_all_cleaned(str(error))) from error
    if not manifests:
        raise CommandError(f"there are no documents in {clean(', '.join(sources))}")
    return manifests


def _put_into(manifest: Manifest, namespace: str) -> None:
    metadata = manifest.document.get("metadata")
    if not isinstance(metadata, dict):
        return  # The check says what is wrong with it.
    own = metadata.setdefault("namespace", namespace)
    if own != namespace:
        where = manifest.locate_path("metadata.namespace", f"is not {namespace}, which -n asks for")
        raise CommandError(_all_cleaned(str(where)))


def located(manifests: Sequence[Manifest], problems: Sequence[Problem]) -> str:
    """What a manager found wrong, at its places in the files."""
    lines = []
    for problem in problems:
        if 0 <= problem.document < len(manifests):
            lines.append(str(manifests[problem.document].locate_path(problem.path, problem.message)))
        else:
            lines.append(f"{problem.path}: {problem.message}")
    return _all_cleaned("\n".join(lines))


def _all_cleaned(text: str) -> str:
    return "\n".join(clean(line) for line in text.split("\n"))
