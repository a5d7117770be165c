"""A manifest: one document with the file and the places it came from.

Managers check documents without knowing files, so the CLI brings what they say back to
lines here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bayplan.manifests.errors import Located, ManifestError
from bayplan.manifests.places import Place, Position
from bayplan.resources.document import Parsed, parse_document
from bayplan.resources.problems import DocumentError, Loc, Problem, loc_of, quote


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One document of a file. `document` is JSON data as it was written, not checked yet."""

    document: dict[str, Any]
    source: str  # The file's name, or "stdin".
    place: Place = field(repr=False)

    @property
    def subject(self) -> str:
        """`Deployment/web` as far as it can be read, for messages; "" if it cannot."""
        kind = self.document.get("kind")
        metadata = self.document.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if not isinstance(kind, str) or not kind.isidentifier() or not kind.isascii():
            return ""
        return f"{kind}/{name if _is_plain(name) else quote(name)}" if isinstance(name, str) else kind

    def position(self, where: Loc | str) -> Position:
        """Line and column, from 1, of a field given as keys and indexes or as a path.

        A field that is missing is where its nearest parent is. A path that makes no sense gives the document's begin.
        """
        if isinstance(where, str):
            try:
                where = loc_of(where)
            except ValueError:
                where = ()
        return self.place.find(where)

    def locate(self, problem: Problem) -> Located:
        """`problem` with its place in the file."""
        return self.locate_path(problem.path, problem.message, loc=problem.loc)

    def locate_path(self, path: str, message: str, *, loc: Loc | None = None) -> Located:
        """What a manager said of the field at `path`, with its place in the file."""
        line, column = self.position(path if loc is None else loc)
        return Located(
            source=self.source, line=line, column=column, subject=self.subject, path=path, message=message
        )


def check_manifests(manifests: Sequence[Manifest]) -> list[Parsed]:
    """Every manifest against every rule of its kind, in order, and none twice.

    Raises ManifestError with all problems of all manifests.
    """
    checked: list[Parsed] = []
    found: list[Located] = []
    first: dict[tuple[str, str, str], Manifest] = {}
    for manifest in manifests:
        try:
            parsed = parse_document(manifest.document)
        except DocumentError as error:
            found += sorted(map(manifest.locate, error.problems), key=lambda one: (one.line, one.column))
            continue
        metadata = parsed.resource.metadata
        key = (parsed.resource.kind, metadata.namespace, metadata.name)
        earlier = first.setdefault(key, manifest)
        if earlier is not manifest:
            line, column = earlier.position(("metadata", "name"))
            words = f"is applied twice: it is at {earlier.source}:{line}:{column} too"
            found.append(manifest.locate(Problem(("metadata", "name"), words)))
        checked.append(parsed)
    if found:
        raise ManifestError(found)
    return checked


def _is_plain(name: str) -> bool:
    return len(name) <= 80 and name.isascii() and name.isprintable() and " " not in name and name != ""
