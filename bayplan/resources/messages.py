"""What pydantic found, in words for the author of a manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from bayplan.resources.problems import quote

_TYPE_NAMES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((list, tuple), "a list"),
    (Mapping, "a mapping"),
)


def describe(value: object) -> str:
    """A value as a message names it: `the text "a"`, `the number 3`, `a list`."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 128:
        # Python refuses to print numbers of more than 4300 digits, and nobody wants to read them.
        return "a huge number"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {quote(value)}"
    return next((name for types, name in _TYPE_NAMES if isinstance(value, types)), "something else")


def message_of(details: ErrorDetails) -> str:
    """What is wrong, as the rest of a sentence that begins with the field."""
    say = _MESSAGES.get(details["type"])
    return details["msg"] if say is None else say(details["input"], details.get("ctx", {}))


def _must_be(what: str) -> Callable[[Any, dict[str, Any]], str]:
    return lambda value, _context: f"must be {what}, not {describe(value)}"


def _must_be_text(value: Any, _context: dict[str, Any]) -> str:
    hint = ": put it in quotes" if isinstance(value, bool | int | float) else ""
    return f"must be text, not {describe(value)}{hint}"


def _must_be_one_of(value: Any, context: dict[str, Any]) -> str:
    expected = str(context["expected"]).replace("'", "")
    return f"must be {expected}, not {describe(value)}"


_MESSAGES: dict[str, Callable[[Any, dict[str, Any]], str]] = {
    "missing": lambda _value, _context: "is required",
    "string_type": _must_be_text,
    "int_type": _must_be("a whole number"),
    "int_from_float": _must_be("a whole number"),
    "int_parsing_size": _must_be("a smaller number"),
    "bool_type": _must_be("true or false"),
    "tuple_type": _must_be("a list"),
    "model_type": _must_be("a mapping"),
    "dict_type": _must_be("a mapping"),
    "literal_error": _must_be_one_of,
    "greater_than_equal": lambda value, context: f"must be at least {context['ge']}, not {describe(value)}",
    "less_than_equal": lambda value, context: f"must be at most {context['le']}, not {describe(value)}",
    "too_short": lambda _value, _context: "must not be empty",
    "too_long": lambda _value, context: f"has more than {context['max_length']} items",
    "value_error": lambda _value, context: str(context["error"]),
}
