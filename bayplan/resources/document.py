"""JSON data → a document that is right in itself, or all that is wrong with it.

The manager and the CLI both ask here, so that a file is refused before anything is sent,
and a program that does not use our CLI is refused all the same.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from bayplan.resources.endpoints import Endpoints
from bayplan.resources.ingress import Ingress
from bayplan.resources.kinds import KINDS, KINDS_NOT_YET, KINDS_REFUSED, Kind
from bayplan.resources.messages import describe
from bayplan.resources.metadata import Document
from bayplan.resources.model import Reading, problems_from
from bayplan.resources.problems import DocumentError, Problem, quote
from bayplan.resources.secret import Secret
from bayplan.resources.service import Service
from bayplan.resources.workloads import Deployment

Resource = Deployment | Service | Endpoints | Ingress | Secret

_MODELS: dict[str, type[Document]] = {
    "Deployment": Deployment,
    "Service": Service,
    "Endpoints": Endpoints,
    "Ingress": Ingress,
    "Secret": Secret,
}

# A store's transaction carries 512 KiB and etcd keeps every version: a document of more is no manifest.
DOCUMENT_MAX_BYTES = 256 * 1024
# Its data has up to 1 MiB, a third more as base64, and etcd takes requests of 1.5 MiB. The rest is for
# keys and metadata, for the store's own fields, and for encryption.
SECRET_MAX_BYTES = 1440 * 1024
# JSON may spell a letter with six (backslash, u, four digits) before its kind is known.
_TEXT_MAX_BYTES = 4 * SECRET_MAX_BYTES

# Each value may be wrong in its own way; this bounds what refusing a hostile document costs a manager.
_VALUES_MAX = 10_000
_PROBLEMS_MAX = 50

_WORDS_FOR_NODE = "nodes are not applied: they join by themselves; use `bay label`, `bay taint`, `bay cordon` or `bay drain`"
_WORDS_FOR_POD = "pods are not applied: write a Deployment, which makes and keeps them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A document with what its author should know although nothing is wrong."""

    resource: Resource
    warnings: tuple[str, ...] = ()


def parse_document(data: object) -> Parsed:
    """Check `data` (JSON data: the mapping of one document) against every rule of its kind.

    `data` is not changed. Raises DocumentError with all problems, never anything else.
    """
    if not isinstance(data, Mapping):
        raise DocumentError([Problem((), f"a document must be a mapping, not {describe(data)}")])
    _refuse_unfit(data)
    kind = _kind_of(data)
    reading = Reading()
    try:
        document = _MODELS[kind.name].model_validate(dict(data), context=reading)
    except ValidationError as error:
        raise DocumentError(_in_order(data, problems_from(error))[:_PROBLEMS_MAX]) from None
    assert isinstance(document, Resource)
    if isinstance(document, Secret):
        # What stood under stringData is a third larger by now.
        _refuse_unfit(document.to_json_dict())
    warnings = (*reading.warnings, *document.warnings())
    return Parsed(resource=document, warnings=warnings[:_PROBLEMS_MAX])


def parse_json(text: str | bytes) -> Parsed:
    """`parse_document` for JSON text, as it comes from the wire or the store."""
    if len(text) > _TEXT_MAX_BYTES:
        raise DocumentError([_too_large(len(text), DOCUMENT_MAX_BYTES)])
    try:
        data = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError:
        raise DocumentError([Problem((), "is nested too deeply")]) from None
    except ValueError as error:
        # UnicodeDecodeError and JSONDecodeError are ValueErrors as well.
        raise DocumentError([Problem((), f"is not JSON: {error}")]) from None
    return parse_document(data)


def _kind_of(data: Mapping[Any, Any]) -> Kind:
    name = data.get("kind")
    if name is None and "services" in data:
        words = "this is a Compose file; Compose comes later, write Kubernetes manifests for now"
        raise DocumentError([Problem(("services",), words)])
    if name is None:
        raise DocumentError([Problem(("kind",), "is required")])
    if not isinstance(name, str):
        raise DocumentError([Problem(("kind",), f"must be text, not {describe(name)}")])
    kind = KINDS.get(name)
    if kind is None:
        raise DocumentError([Problem(("kind",), KINDS_REFUSED.get(name) or _unknown_kind(name))])
    if not kind.is_applied:
        raise DocumentError([Problem(("kind",), _WORDS_FOR_POD if name == "Pod" else _WORDS_FOR_NODE)])
    version = data.get("apiVersion")
    if version != kind.api_version:
        message = f"must be {kind.api_version} for the kind {name}"
        if version is not None:
            message += f", not {quote(version) if isinstance(version, str) else describe(version)}"
        raise DocumentError([Problem(("apiVersion",), message)])
    return kind


def _unknown_kind(name: str) -> str:
    if name in KINDS_NOT_YET:
        return f"{name} is not supported yet"
    applied = [kind.name for kind in KINDS.values() if kind.is_applied]
    near = difflib.get_close_matches(name, [*applied, *KINDS_NOT_YET], n=1) if len(name) <= 64 else []
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(applied)}"
    return f"{quote(name)} is no kind: {hint}"


def _refuse_unfit(data: Mapping[Any, Any]) -> None:
    """Size and JSON's limits first: every later rule may then rely on them."""
    try:
        size = len(json.dumps(data, allow_nan=False, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    except RecursionError:
        raise DocumentError([Problem((), "is nested too deeply")]) from None
    except (TypeError, ValueError) as error:
        raise DocumentError([Problem((), f"is not JSON data: {error}")]) from None
    limit = SECRET_MAX_BYTES if data.get("kind") == "Secret" else DOCUMENT_MAX_BYTES
    if size > limit:
        raise DocumentError([_too_large(size, limit)])
    if _count_values(data, limit=_VALUES_MAX) > _VALUES_MAX:
        raise DocumentError([Problem((), f"has more than {_VALUES_MAX} values")])


def _count_values(data: object, *, limit: int) -> int:
    """How many values there are in `data`; counting ends above `limit`."""
    count, waiting = 0, [data]
    while waiting and count <= limit:
        here = waiting.pop()
        items = list(here.values()) if isinstance(here, Mapping) else here
        if isinstance(items, list | tuple):
            count += len(items)
            waiting.extend(items)
    return count


def _too_large(size: int, limit: int) -> Problem:
    return Problem((), f"has {size // 1024} KiB; a document may have {limit // 1024} KiB")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # set.add gives None, which is the point
        raise ValueError(f"the key {quote(twice)} is there twice")
    return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _in_order(data: Mapping[Any, Any], problems: list[Problem]) -> list[Problem]:
    """As they stand in the document; what is missing comes after what is there."""
    ranks: dict[int, dict[Any, int]] = {}  # By the id of a mapping, which `data` keeps alive.

    def place(problem: Problem) -> tuple[int, ...]:
        places: list[int] = []
        here: Any = data
        for step in problem.loc:
            if isinstance(here, Mapping):
                if id(here) not in ranks:
                    ranks[id(here)] = {key: rank for rank, key in enumerate(here)}
                places.append(ranks[id(here)].get(step, len(here)))
                here = here.get(step)
            elif isinstance(here, list | tuple) and isinstance(step, int) and step < len(here):
                places.append(step)
                here = here[step]
            else:
                break
        return tuple(places)

    return sorted(problems, key=place)


__all__ = [
    "DOCUMENT_MAX_BYTES",
    "Document",
    "DocumentError",
    "Parsed",
    "Problem",
    "Resource",
    "parse_document",
    "parse_json",
]
