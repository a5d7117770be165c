"""Looking into a template, which is JSON that nobody here has checked. Pure.

Every reader gives the field's value, or what stands for "not said" where the field is missing or null,
and otherwise raises PodSpecError with the field's path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# No time in a template is longer: a number beyond it is a slip, and would overflow timers.
SECONDS_MAX = 86_400 * 7
PORT_MAX = 65535


class PodSpecError(ValueError):
    """The template cannot be run here, whatever the engine says. The message names the field."""


def mapping(value: Any, path: str) -> Mapping[str, Any]:
    """Empty if not said."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise PodSpecError(f"{path}: is not a mapping")
    return value


def sequence(value: Any, path: str) -> list[Any]:
    """Empty if not said."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise PodSpecError(f"{path}: is not a list")
    return value


def text(value: Any, path: str) -> str:
    """Empty if not said."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PodSpecError(f"{path}: is not a text")
    if "\0" in value:
        raise PodSpecError(f"{path}: has a NUL in it")
    return value


def flag(value: Any, path: str, *, default: bool) -> bool:
    """`default` if not said."""
    if value is None:
        return default
    if not isinstance(value, bool):
        raise PodSpecError(f"{path}: {value!r} is neither true nor false")
    return value


def seconds(value: Any, path: str) -> float | None:
    """None if not said."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= SECONDS_MAX:
        raise PodSpecError(f"{path}: {value!r} is not a number of seconds")
    return float(value)


def count(value: Any, path: str, *, default: int) -> int:
    """At least 1. 0 is "not said", as in Kubernetes."""
    if value is None or (value == 0 and not isinstance(value, bool)):
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise PodSpecError(f"{path}: {value!r} is not a number of times")
    return value


def port_number(value: Any, path: str) -> int:
    """Must be said."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= PORT_MAX:
        raise PodSpecError(f"{path}: {value!r} is not a port")
    return value
