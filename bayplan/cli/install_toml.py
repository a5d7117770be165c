"""A daemon's settings file: change keys of it, and leave alone what else the operator wrote there.

The file is flat (bayplan.settings refuses tables), so a change is one line. What is written in
another way, a list over several lines, costs the comments: right settings come before kept ones.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping

from bayplan.cli.failures import CommandError

Value = str | int | bool | list[str]
Document = dict[str, Value]

HEADER = """\
# Settings of {program}. A flag is stronger than a variable BAYPLAN_*, a variable stronger than this file.
# What holds, and where it comes from: {program} --print-config
"""


def read_toml(text: str, *, path: str) -> Document:
    """Raises CommandError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CommandError(f"{path} is not TOML: {error}. Correct it, or move it away") from error


def changed_toml(text: str, changes: Mapping[str, Value]) -> str:
    """`text` with `changes` laid over it; the very same text if they change nothing."""
    wanted = {**tomllib.loads(text), **changes}
    lines = text if text.endswith("\n") or not text else f"{text}\n"
    for key, value in changes.items():
        if tomllib.loads(text).get(key) == value:
            continue
        line = f"{key} = {_as_toml(value)}"
        statement = re.compile(rf"^[ \t]*(?:{re.escape(key)}|\"{re.escape(key)}\")[ \t]*=.*$", re.MULTILINE)
        if match := statement.search(lines):
            lines = f"{lines[: match.start()]}{line}{lines[match.end() :]}"
        else:
            lines += f"{line}\n"
    if _holds(lines, wanted):
        return lines
    return "".join(f"{key} = {_as_toml(value)}\n" for key, value in wanted.items())


def changed_keys(before: Mapping[str, Value], after: Mapping[str, Value]) -> list[str]:
    """In words, one a key: `etcd: 10.0.0.1:2379 -> 10.0.0.2:2379`."""
    return [
        f"{key}: {_as_toml(before[key])} -> {_as_toml(value)}"
        if key in before
        else f"{key} = {_as_toml(value)}"
        for key, value in after.items()
        if before.get(key) != value
    ]


def _holds(text: str, wanted: Mapping[str, Value]) -> bool:
    try:
        return tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        return False


def _as_toml(value: Value) -> str:
    """TOML's texts, numbers, booleans and lists are JSON's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
