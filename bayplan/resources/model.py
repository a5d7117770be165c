"""The base of every part of a document: frozen, Kubernetes' spelling, nothing ignored.

Each part collects everything that is wrong with it, its own unknown fields and its parts'
problems alike, so that one run of `bay apply` shows all that has to be changed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

from bayplan.resources.messages import describe, message_of
from bayplan.resources.problems import Loc, Problem, quote

_PROBLEMS = "problems"

# Finding the nearest name costs up to a millisecond; somebody who mistyped more needs no more hints.
_SUGGESTIONS_MAX = 20


@dataclass(slots=True)
class Reading:
    """One document being read: parse_document hands it in as pydantic's context.

    With it, only Kubernetes' names count; without it, a program is building parts by Python's names.
    """

    warnings: list[str] = field(default_factory=list)
    suggestions_left: int = _SUGGESTIONS_MAX


class Part(BaseModel):
    """A mapping of a document."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )

    # Fields that Kubernetes has here and Bayplan has not yet.
    not_yet: ClassVar[frozenset[str]] = frozenset()
    # Fields that Kubernetes has here and Bayplan will not have, with what to do instead.
    refused: ClassVar[Mapping[str, str]] = {}
    # Fields that change nothing by their nature, with the reason; they are left out with a warning.
    harmless: ClassVar[Mapping[str, str]] = {}

    def problems(self) -> Iterator[Problem]:
        """What is wrong between this part's fields, each of which is right by itself."""
        yield from ()

    def to_json_dict(self) -> dict[str, Any]:
        """The part as JSON data, canonical: what equals its default is left out.

        Equal meanings give equal data, and a field that a later version adds changes nothing
        in what is stored (nor any template's hash) while nobody uses it.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    @model_validator(mode="wrap")
    @classmethod
    def _collect_problems(
        cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        if not isinstance(data, Mapping):
            return handler(data)
        known, found = cls._known_fields(data, cast("Reading | None", info.context))
        part: Self | None = None
        try:
            part = handler(known)
        except ValidationError as error:
            found += problems_from(error)
        else:
            found += part.problems()
        if part is None or found:
            raise refusal(found)
        return part

    @classmethod
    def _known_fields(
        cls, data: Mapping[Any, Any], reading: Reading | None
    ) -> tuple[dict[str, Any], list[Problem]]:
        names = {field.alias or name for name, field in cls.model_fields.items()}
        unsupported = {**dict.fromkeys(cls.not_yet, "not supported yet"), **cls.refused}
        accepted = names if reading is not None else names | cls.model_fields.keys()
        reading = reading or Reading()
        # An empty value in YAML is null and means, as in Kubernetes, that it is not set.
        known = {key: value for key, value in data.items() if key in accepted and value is not None}
        found: list[Problem] = []
        for key, value in data.items():
            if key in accepted:
                continue
            if not isinstance(key, str):
                found.append(Problem((), f"a field's name must be text, not {describe(key)}"))
            elif key in cls.harmless:
                reading.warnings.append(f"{key} is left out: {cls.harmless[key]}")
            elif key not in unsupported:
                found.append(Problem((key,), _unknown(key, names | unsupported.keys(), reading)))
            elif value in (None, {}, []):
                reading.warnings.append(f"{key} is left out: it is empty, and not supported")
            else:
                found.append(Problem((key,), unsupported[key]))
        return known, found


def refusal(problems: Iterable[Problem]) -> PydanticCustomError:
    """What a validator raises to say more than one thing, each at its own place below it."""
    return PydanticCustomError(_PROBLEMS, "{problems}", {_PROBLEMS: list(problems)})


def warn(context: object, warning: str) -> None:
    """What a validator says that refuses nothing; `context` is that of its ValidationInfo."""
    if isinstance(context, Reading):
        context.warnings.append(warning)


def problems_from(error: ValidationError) -> list[Problem]:
    """Every problem that pydantic and the parts found, in words."""
    return [problem for details in error.errors() for problem in _problems_of(details)]


def _problems_of(details: ErrorDetails) -> list[Problem]:
    loc: Loc = details["loc"]
    if details["type"] == _PROBLEMS:
        inner: list[Problem] = details["ctx"][_PROBLEMS]
        return [Problem((*loc, *problem.loc), problem.message) for problem in inner]
    if details["type"] == "too_short" and details["input"]:
        return []  # It is only short of items that are right; what is wrong with them is said.
    if loc and loc[-1] == "[key]":
        loc = loc[:-1]
    return [Problem(loc, message_of(details))]


def _unknown(key: str, names: set[str], reading: Reading) -> str:
    # Long keys are no typos, and comparing them costs time.
    if len(key) <= 64 and reading.suggestions_left:
        reading.suggestions_left -= 1
        folded = {name.lower(): name for name in names}
        near = difflib.get_close_matches(key.lower(), folded, n=1, cutoff=0.7)
        if near:
            return f"unknown field, did you mean {quote(folded[near[0]])}?"
    return "unknown field"
