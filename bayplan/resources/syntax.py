"""What texts may look like: Kubernetes' rules for names, labels, ports, environment and images.

Allow-lists throughout: what is not named as good is refused, so control characters, newlines,
NUL and look-alike letters of other alphabets never get into a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Strict

from bayplan.model.names import is_name
from bayplan.resources.model import refusal
from bayplan.resources.problems import Problem, quote

_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_ENV_NAME = re.compile(r"[-._A-Za-z][-._A-Za-z0-9]{0,254}")
_PORT_NAME = re.compile(r"(?!.*--)(?=.*[a-z])[a-z0-9](?:[-a-z0-9]{0,13}[a-z0-9])?")

# The grammar of github.com/distribution/reference: [registry[:port]/]path[:tag][@digest].
_IMAGE = re.compile(
    r"(?:(?:[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?)*(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][-.A-Za-z0-9_]{0,127})?"
    r"(?:@sha256:[0-9a-f]{64})?"
)
_IMAGE_MAX = 512


def _text(value: str) -> str:
    # No process can get a NUL in its arguments or environment, and no store a lone surrogate.
    if "\0" in value:
        raise ValueError("holds a NUL character")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("is not valid Unicode")
    return value


def _name(value: str) -> str:
    if not is_name(value):
        raise ValueError(
            f"{quote(value)} is not a name: lower case letters, digits and '-', at most 63, "
            "starting and ending with a letter or digit"
        )
    return value


def _label_key(value: str) -> str:
    prefix, slash, name = value.rpartition("/")
    prefix_fits = not slash or (len(prefix) <= 253 and _SUBDOMAIN.fullmatch(prefix))
    if not prefix_fits or not _LABEL_NAME.fullmatch(name):
        raise ValueError(
            f"{quote(value)} is not a key: letters, digits, '-', '_' and '.', at most 63, "
            'with a domain and "/" before it if you like'
        )
    return value


def _label_value(value: str) -> str:
    if value and not _LABEL_NAME.fullmatch(value):
        raise ValueError(
            f"{quote(value)} is not a label's value: letters, digits, '-', '_' and '.', at most 63, "
            "starting and ending with a letter or digit"
        )
    return value


def _env_name(value: str) -> str:
    if not _ENV_NAME.fullmatch(value):
        raise ValueError(
            f"{quote(value)} is not the name of a variable: letters, digits, '_', '-' and '.', not starting with a digit"
        )
    return value


def _port_name(value: str) -> str:
    if len(value) > 15 or not _PORT_NAME.fullmatch(value):
        raise ValueError(
            f"{quote(value)} is not the name of a port: lower case letters, digits and single '-', "
            "at most 15, at least one letter"
        )
    return value


def _image(value: str) -> str:
    if len(value) <= _IMAGE_MAX and _IMAGE.fullmatch(value):
        return value
    hint = ""
    if value != value.strip():
        hint = " Remove the spaces around it."
    elif value.startswith(("http://", "https://")):
        hint = " Leave out the scheme."
    elif len(value) <= _IMAGE_MAX and _IMAGE.fullmatch(value.lower()):
        hint = f" Names of images are lower case: did you mean {quote(value.lower())}?"
    raise ValueError(f"{quote(value)} is not the name of an image.{hint}")


def _working_dir(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{quote(value)} is not an absolute path: it must begin with /")
    return _text(value)


def _port_or_name(value: object) -> object:
    if isinstance(value, str):
        if value.isascii() and value.isdigit():
            raise ValueError(f"{quote(value)} is a number in quotes: write {value[:10]}")
        return _port_name(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 65535:
            raise ValueError(f"must be a port, 1 to 65535, not {str(value)[:20]}")
        return value
    raise ValueError("must be the number or the name of a port")


def _checked_pairs(
    key_rule: Callable[[str], str], value_rule: Callable[[str], str]
) -> Callable[[dict[str, str]], dict[str, str]]:
    def check(pairs: dict[str, str]) -> dict[str, str]:
        found: list[Problem] = []
        for key, value in pairs.items():
            for rule, text in ((key_rule, key), (value_rule, value)):
                try:
                    rule(text)
                except ValueError as error:
                    found.append(Problem((key,), str(error)))
        if found:
            raise refusal(found)
        # One order, so that equal documents are equal texts too.
        return dict(sorted(pairs.items()))

    return check


# Strict: 8080 is no text and "3" no number, as in Kubernetes. A silent conversion would hide
# that YAML read something else than its author meant.
Text = Annotated[str, Strict(), AfterValidator(_text)]
Integer = Annotated[int, Strict()]
Boolean = Annotated[bool, Strict()]
Name = Annotated[str, Strict(), AfterValidator(_name)]
LabelKey = Annotated[str, Strict(), AfterValidator(_label_key)]
LabelKeyOrNone = Annotated[str, Strict(), AfterValidator(lambda key: key and _label_key(key))]
LabelValue = Annotated[str, Strict(), AfterValidator(_label_value)]
EnvName = Annotated[str, Strict(), AfterValidator(_env_name)]
PortName = Annotated[str, Strict(), AfterValidator(_port_name)]
Image = Annotated[str, Strict(), AfterValidator(_image)]
WorkingDir = Annotated[str, Strict(), AfterValidator(_working_dir)]
PortOrName = Annotated[int | str, BeforeValidator(_port_or_name)]
Labels = Annotated[
    dict[Annotated[str, Strict()], Annotated[str, Strict()]],
    AfterValidator(_checked_pairs(_label_key, _label_value)),
]
Annotations = Annotated[
    dict[Annotated[str, Strict()], Annotated[str, Strict()]],
    AfterValidator(_checked_pairs(_label_key, _text)),
]
