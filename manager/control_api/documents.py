"""Users' documents: compare-and-swap on the store, by whichever manager is asked.

A stale write gets a conflict, never a merge. Reads are linearizable, so an answer from here
is never older than one that was given before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bayplan.resources.document import Resource, parse_json
from bayplan.resources.endpoints import IGNORED, Endpoints
from bayplan.resources.kinds import find_kind
from bayplan.resources.problems import DocumentError
from bayplan.resources.secret import hidden, wrong_with_change
from bayplan.resources.service import Service
from bayplan.v1 import control_pb2 as api
from manager.errors import RefusedError
from manager.store import keys, records
from manager.store.port import Compare, DeleteKey, Field, Store
from manager.store.swap import ConflictError, retried, swap


class NotFoundError(Exception):
    """No such document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A document in the store."""

    place: tuple[str, str, str]
    stored: records.StoredDocument
    version: int


class Documents:
    """Reads and writes users' documents."""

    def __init__(self, store: Store, *, wall_s: Callable[[], float], new_uid: Callable[[], str]) -> None:
        self._store = store
        self._wall_s = wall_s
        self._new_uid = new_uid

    async def find(self, place: tuple[str, str, str]) -> Found | None:
        """One document as it stands now."""
        item = await self._store.get(_key(place))
        if item is None:
            return None
        return Found(place=place, stored=records.decode_document(item.value), version=item.mod_revision)

    async def list_all(self, kind: str, namespace: str) -> tuple[list[Found], int]:
        """Documents of a kind (empty: all) in a namespace (empty: all), and the store's revision."""
        listing = await self._store.list(keys.resources_of(kind) if kind else keys.RESOURCES)
        found: list[Found] = []
        for item in listing.items:
            place = keys.parse_resource(item.key)
            if place is None or (namespace and place[1] != namespace):
                continue
            try:
                stored = records.decode_document(item.value)
            except records.DamagedRecordError:
                continue  # The leader warns of it.
            found.append(Found(place=place, stored=stored, version=item.mod_revision))
        return found, listing.revision

    # -- writing -------------------------------------------------------------------------------

    async def apply(
        self, resource: Resource, warnings: tuple[str, ...], *, expected_version: int, dry_run: bool
    ) -> api.Applied:
        """Create or change one document. Raises ConflictError, RefusedError, StoreError."""
        place = place_of(resource)
        document = resource.to_json_dict()

        async def attempt() -> api.Applied | None:
            found = await self.find(place)
            _check_expected(place, found, expected_version)
            if found is not None and found.stored.deleting:
                raise RefusedError(
                    f"{_words(place)} is still being deleted: its last pods are stopping; try again in a moment"
                )
            if found is not None and place[0] == "Secret":
                wrong = wrong_with_change(found.stored.document, document)
                if wrong:
                    raise RefusedError(f"{_words(place)} {wrong}")
            result, stored = self._next(found, document)
            version: int | None = found.version if found is not None else 0
            if result != "unchanged" and not dry_run:
                version = await self._swap(place, found, stored)
            if version is None:
                return None
            return api.Applied(
                kind=place[0],
                namespace=place[1],
                name=place[2],
                result=result,
                version=version,
                warnings=warnings,
                generation=stored.generation,
            )

        applied = await retried(_words(place), attempt)
        applied.warnings.extend(await self._ignored_endpoints(resource))
        return applied

    async def _ignored_endpoints(self, resource: Resource) -> list[str]:
        """A warning of Endpoints that mean nothing, whichever of the two documents comes later."""
        _, namespace, name = place_of(resource)
        is_service = isinstance(resource, Service) and bool(resource.spec.selector)
        if not is_service and not isinstance(resource, Endpoints):
            return []
        try:
            other = await self.find(("Endpoints" if is_service else "Service", namespace, name))
        except records.DamagedRecordError:
            return []  # The leader warns of it.
        if other is None or not (is_service or (other.stored.document.get("spec") or {}).get("selector")):
            return []
        return [f"Endpoints {namespace}/{name} {IGNORED}"]

    def _next(self, found: Found | None, document: dict[str, Any]) -> tuple[str, records.StoredDocument]:
        if found is None:
            return "created", records.StoredDocument(
                uid=self._new_uid(),
                generation=1,
                created_ms=int(self._wall_s() * 1000),
                deleting=False,
                document=document,
            )
        if found.stored.document == document:
            return "unchanged", found.stored
        is_new = _content(found.stored.document) != _content(document)
        generation = found.stored.generation + is_new
        return "configured", replace(found.stored, generation=generation, document=document)

    async def _swap(
        self, place: tuple[str, str, str], found: Found | None, stored: records.StoredDocument
    ) -> int | None:
        """The new version, or None when another client was faster."""
        value = records.encode_document(stored)
        return await swap(self._store, keys.resource(*place), value, version=found.version if found else 0)

    async def remove(self, place: tuple[str, str, str], expected_version: int) -> Found:
        """Delete a document that has no pods, at once. Raises NotFoundError, ConflictError."""

        async def attempt() -> Found | None:
            found = await self._existing(place, expected_version)
            guard = Compare(key=_key(place), field=Field.MOD_REVISION, to=found.version)
            result = await self._store.txn([guard], [DeleteKey(key=_key(place))])
            return replace(found, version=result.revision) if result.succeeded else None

        return await retried(_words(place), attempt)

    async def change(
        self,
        place: tuple[str, str, str],
        edit: Callable[[records.StoredDocument], records.StoredDocument],
        *,
        expected_version: int = 0,
    ) -> tuple[Found, records.StoredDocument, int]:
        """Edit one document; returns (before, after, version). Raises NotFoundError, ConflictError."""

        async def attempt() -> tuple[Found, records.StoredDocument, int] | None:
            found = await self._existing(place, expected_version)
            stored = edit(found.stored)
            if stored == found.stored:
                return found, stored, found.version
            version = await self._swap(place, found, stored)
            return None if version is None else (found, stored, version)

        return await retried(_words(place), attempt)

    async def _existing(self, place: tuple[str, str, str], expected_version: int) -> Found:
        found = await self.find(place)
        if found is None:
            raise NotFoundError(f"{_words(place)} does not exist")
        _check_expected(place, found, expected_version)
        return found


def _check_expected(place: tuple[str, str, str], found: Found | None, expected_version: int) -> None:
    if expected_version > 0 and (found is None or found.version != expected_version):
        now = "does not exist" if found is None else f"is at version {found.version}"
        raise ConflictError(
            f"{_words(place)} {now}, not at version {expected_version}: read it again and repeat the change"
        )
    if expected_version < 0 and found is not None:
        raise ConflictError(f"{_words(place)} exists already")


def _content(document: Mapping[str, Any]) -> dict[str, Any]:
    """What counts as another generation when it changes: the spec, or a secret's data. Labels move no pod."""
    return {key: value for key, value in document.items() if key not in ("apiVersion", "kind", "metadata")}


def _words(place: tuple[str, str, str]) -> str:
    return f"{place[0]} {place[1]}/{place[2]}"


def _key(place: tuple[str, str, str]) -> str:
    """Raises NotFoundError for what cannot be a name."""
    try:
        return keys.resource(*place)
    except ValueError:
        raise NotFoundError(f"there is no {place[0]} {place[1][:80]!r}/{place[2][:80]!r}") from None


def place_of(resource: Resource) -> tuple[str, str, str]:
    """(kind, namespace, name)."""
    return resource.kind, resource.metadata.namespace, resource.metadata.name


def parse_all(texts: Mapping[int, str]) -> tuple[dict[int, Any], list[tuple[int, str, str]]]:
    """Parse every document of a request: (parsed by position, problems as (position, path, message))."""
    parsed: dict[int, Any] = {}
    problems: list[tuple[int, str, str]] = []
    for position, text in texts.items():
        try:
            parsed[position] = parse_json(text)
        except DocumentError as error:
            problems.extend((position, problem.path, problem.message) for problem in error.problems)
    return parsed, problems


def to_api(found: Found, status: Mapping[str, Any], *, show_secrets: bool) -> api.Document:
    """As it travels to users; a secret without its values, unless they were asked for."""
    document = found.stored.document
    if found.place[0] == "Secret" and not show_secrets:
        document = hidden(document)
    return api.Document(
        kind=found.place[0],
        namespace=found.place[1],
        name=found.place[2],
        json=json.dumps(document),
        status_json=json.dumps(status) if status else "",
        version=found.version,
        uid=found.stored.uid,
        created_ms=found.stored.created_ms,
        generation=found.stored.generation,
        deleting=found.stored.deleting,
    )


def kind_named(word: str) -> str:
    """The kind that `word` means: name, plural or short name. Raises NotFoundError."""
    kind = find_kind(word)
    if kind is None:
        raise NotFoundError(f"there is no kind {word[:80]!r}")
    return kind.name
