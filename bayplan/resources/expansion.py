"""`$(NAME)` in commands, arguments and variables, as Kubernetes expands it.

Manifests rely on it (`args: ["--port=$(PORT)"]`), and no shell does it for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_REFERENCE = re.compile(r"\$\$|\$\(([^()]*)\)")

# Variables may hold others that hold others: without a bound, thirty lines make gigabytes.
# Linux gives a process 2 MiB for all its arguments and variables.
EXPANDED_MAX_CHARACTERS = 2 * 2**20


class ExpansionError(ValueError):
    """Together the expanded texts are larger than any process may get."""


def expand_environment(variables: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names and values with earlier variables filled in; of two with one name the last holds. Raises ExpansionError."""
    environment: dict[str, str] = {}
    room = EXPANDED_MAX_CHARACTERS
    for name, value in variables:
        environment[name] = _expand(value, environment, room)
        room -= len(environment[name])
    return environment


def expand_words(words: Iterable[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """A command or its arguments with `environment` filled in. Raises ExpansionError."""
    expanded: list[str] = []
    room = EXPANDED_MAX_CHARACTERS
    for word in words:
        expanded.append(_expand(word, environment, room))
        room -= len(expanded[-1])
    return tuple(expanded)


def _expand(text: str, environment: Mapping[str, str], room: int) -> str:
    room -= len(text)

    def replace(match: re.Match[str]) -> str:
        nonlocal room
        if match[0] == "$$":
            return "$"
        # What names no variable stays as it is written.
        value = environment.get(match[1], match[0])
        room -= len(value)
        if room < 0:
            raise ExpansionError(f"$(...) unfolds to more than {EXPANDED_MAX_CHARACTERS} characters")
        return value

    return _REFERENCE.sub(replace, text)
