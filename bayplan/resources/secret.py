"""Secrets: small values that few may read. Stored; pods cannot use them yet.

Whatever is wrong with one is said without its values: people paste these messages into chats and
build logs. So the two fields that hold values are checked here by hand, and not by pydantic,
which would quote what it was given.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from bayplan.resources.metadata import Document, Metadata
from bayplan.resources.model import refusal
from bayplan.resources.problems import Problem
from bayplan.resources.syntax import Boolean, Text

DATA_MAX_BYTES = 2**20
"""Of all values together, decoded: Kubernetes' limit (MaxSecretSize)."""

HIDDEN_ANNOTATION = "bayplan.io/hidden"
"""Its value names the field whose values were left out for somebody who did not ask for them."""

_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")

# What Kubernetes demands of its own types: all of these keys.
_KEYS_OF_TYPE: Mapping[str, tuple[str, ...]] = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def _from_base64(value: str) -> str:
    # Line ends are let through, as in Kubernetes: `base64` breaks lines, and YAML keeps them.
    try:
        decoded = base64.b64decode(re.sub(r"[\r\n]", "", value), validate=True)
    except ValueError:  # binascii.Error, and what is not ASCII.
        raise ValueError("is not base64: put plain text under stringData") from None
    # One spelling, so that equal values are equal documents.
    return base64.b64encode(decoded).decode()


def _from_text(value: str) -> str:
    try:
        return base64.b64encode(value.encode()).decode()
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode") from None


def _encoded(convert: Callable[[str], str]) -> Callable[[object], dict[str, str]]:
    """A check of one of the fields: its keys, and its values by `convert`, which makes base64 of them."""

    def check(pairs: object) -> dict[str, str]:
        if not isinstance(pairs, Mapping):
            raise ValueError("must be a mapping of keys to values")  # noqa: TRY004 - pydantic's words need it
        found: list[Problem] = []
        encoded: dict[str, str] = {}
        for key, value in pairs.items():
            problem = _wrong_with_key(key)
            if not problem:
                try:
                    encoded[key] = convert(_as_text(value))
                except ValueError as error:
                    problem = str(error)
            if problem:
                found.append(Problem((key,) if isinstance(key, str) else (), problem))
        if found:
            raise refusal(found)
        return dict(sorted(encoded.items()))

    return check


def _wrong_with_key(key: object) -> str:
    if not isinstance(key, str):
        return "a key must be text: put it in quotes"
    if not _KEY.fullmatch(key) or key == "." or key.startswith(".."):
        return "is not a key of a secret: letters, digits, '-', '_' and '.', at most 253"
    return ""


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        raise ValueError("must be text: put it in quotes")  # noqa: TRY004 - one kind of error for all
    raise ValueError("must be text")


Encoded = Annotated[dict[str, str], BeforeValidator(_encoded(_from_base64))]
EncodedText = Annotated[dict[str, str], BeforeValidator(_encoded(_from_text))]


class Secret(Document):
    """Values under keys. What a manifest says in `stringData` is in `data` once it is read, and wins there."""

    not_yet: ClassVar[frozenset[str]] = frozenset()

    api_version: Literal["v1"] = "v1"
    kind: Literal["Secret"] = "Secret"
    metadata: Metadata
    type: Text = "Opaque"
    data: Encoded = Field(default_factory=dict, repr=False)  # base64
    string_data: EncodedText = Field(default_factory=dict, repr=False)  # base64 here; text in a manifest.
    immutable: Boolean = False

    def problems(self) -> Iterator[Problem]:
        if HIDDEN_ANNOTATION in self.metadata.annotations:
            # It would overwrite the values with nothing.
            words = "this is a secret whose values were hidden: get it with --show-secrets"
            yield Problem(("metadata", "annotations", HIDDEN_ANNOTATION), words)
            return
        yield from super().problems()
        merged = {**self.data, **self.string_data}
        size = sum(len(binascii.a2b_base64(value)) for value in merged.values())
        if size > DATA_MAX_BYTES:
            words = f"has {-(-size // 1024)} KiB of data; a secret may have {DATA_MAX_BYTES // 1024} KiB"
            yield Problem(("data",), words)
        for key in _KEYS_OF_TYPE.get(self.type, ()):
            if key not in merged:
                yield Problem(("data",), f"must have the key {key}, as the type says")

    def warnings(self) -> Iterator[str]:
        yield "secrets are stored, but pods cannot use them yet"

    @model_validator(mode="after")
    def _merge(self) -> Self:
        if self.string_data:
            # The model is frozen for everybody else; nobody has seen it yet.
            merged = {**self.data, **self.string_data}
            object.__setattr__(self, "data", dict(sorted(merged.items())))
            object.__setattr__(self, "string_data", {})
        return self


def wrong_with_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Why a stored secret may not become another one, as the rest of a sentence that begins with it; "" if it may."""
    if before.get("type") != after.get("type"):
        return "has another type, which cannot change: delete it and create it again"
    if not before.get("immutable"):
        return ""
    if before.get("data") != after.get("data") or not after.get("immutable"):
        return "is immutable: delete it and create it again"
    return ""


def hidden(document: Mapping[str, Any]) -> dict[str, Any]:
    """A secret's document as those see it who did not ask for its values, or may not read them."""
    data = document.get("data")
    metadata = dict(document.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    # kubectl keeps a copy of what was applied there, values and all.
    annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
    metadata["annotations"] = {**annotations, HIDDEN_ANNOTATION: "data"}
    return {
        **{key: value for key, value in document.items() if key != "data"},
        "metadata": metadata,
        "data": dict.fromkeys(data if isinstance(data, Mapping) else (), ""),
    }
