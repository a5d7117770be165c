"""What is wrong with a document: where, and in words that say what to do.

A problem travels from the manager to the CLI as its path and message; the CLI finds the
line in the file by the path. Paths and quoted values are plain printable ASCII whatever
the document held, so that no terminal and no web page is fooled by them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

Loc = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]{0,62}")
_STEP = re.compile(
    r'(?:^|\.)(?P<key>[A-Za-z_$][A-Za-z0-9_$-]*)|\[(?P<index>[0-9]{1,9})\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]'
)

_QUOTED_MAX = 80


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `loc` are the keys and indexes from the document's root to it."""

    loc: Loc
    message: str

    @property
    def path(self) -> str:
        """The field as people write it: `spec.template.spec.containers[0].image`; the root is empty."""
        return path_of(self.loc)

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.loc else self.message


class DocumentError(ValueError):
    """A document is refused; `problems` are all that was found, in the order of the document."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))


def path_of(loc: Loc) -> str:
    """The text of a location: plain keys after dots, indexes and other keys in brackets."""
    path = ""
    for step in loc:
        if isinstance(step, int):
            path += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            path += f".{step}" if path else step
        else:
            path += f"[{_ascii(step)}]"
    return path


def loc_of(path: str) -> Loc:
    """The inverse of `path_of`. Raises ValueError on text that is no path."""
    loc: list[str | int] = []
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None or match.end() == position:
            raise ValueError(f"{quote(path)} is not a path of a field")
        if match["key"] is not None:
            loc.append(match["key"])
        elif match["index"] is not None:
            loc.append(int(match["index"]))
        else:
            loc.append(str(json.loads(match["quoted"])))
        position = match.end()
    return tuple(loc)


def quote(text: str) -> str:
    """`text` in double quotes, printable ASCII, cut at 80 characters."""
    if len(text) > _QUOTED_MAX:
        text = text[: _QUOTED_MAX - 3] + "..."
    return _ascii(text)


def _ascii(text: str) -> str:
    # DEL is the one control character that JSON lets through.
    return json.dumps(text).replace("\x7f", "\\u007f")
