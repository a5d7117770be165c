"""Which plain YAML words are numbers, true, false or nothing: JSON's, and no more.

YAML 1.1 reads `no` as false, `010` as 8 and `1:30` as 90; Kubernetes' own reader does some of it.
All of these stay text here. So a text field holds what its author typed, and a number's field
refuses what would be ambiguous instead of guessing.
"""

from __future__ import annotations

import math
import re

_WORDS: dict[str, bool | None] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(
    r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?"
)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|nan)", re.IGNORECASE)

# Longer ones are identifiers that somebody forgot to quote; Python would take quadratic time for them.
_DIGITS_MAX = 40


class ScalarError(ValueError):
    """A plain word that stands for no value that a document can hold."""


def scalar_of(text: str) -> str | float | bool | None:
    """The value of an unquoted word. Raises ScalarError for infinity, NaN and numbers too long to mean one."""
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if not (first.isdigit() or first in "+-."):
        return text
    if _NOT_FINITE.fullmatch(text):
        raise ScalarError("infinity and NaN are no values; put it in quotes if it is text")
    if _FLOAT.fullmatch(text) is None:
        return text
    if len(text) > _DIGITS_MAX:
        raise ScalarError(f"a number of {len(text)} characters; put it in quotes if it is text")
    if _INTEGER.fullmatch(text):
        return int(text)
    number = float(text)
    if not math.isfinite(number):
        raise ScalarError("a number too large for any field; put it in quotes if it is text")
    return number
