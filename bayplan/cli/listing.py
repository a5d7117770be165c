"""Tables of what is no document: one way to show them, with `-o` and `-q` as everywhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bayplan.cli.failures import CommandError
from bayplan.cli.run import note, say
from bayplan.cli.text import clean, duration, now_ms, table

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[_Item]):
    """How items of one kind are shown."""

    kind: str  # As in kind/name.
    headers: tuple[str, ...]
    row: Callable[[_Item], tuple[str, ...]]
    name: Callable[[_Item], str]
    shape: Callable[[_Item], dict[str, Any]]


def show(listing: Listing[_Item], items: Sequence[_Item], *, output: str, quiet: bool = False) -> None:
    """Print `items`; that there are none is a note."""
    if output in {"json", "yaml"}:
        say(text_of([listing.shape(item) for item in items], output))
    elif quiet or output == "name":
        for item in items:
            say(clean(listing.name(item) if quiet else f"{listing.kind}/{listing.name(item)}"))
    elif not items:
        note("Nothing found.")
    else:
        for line in table(listing.headers, [listing.row(item) for item in items]):
            say(line)


def text_of(value: object, output: str) -> str:
    """As JSON or YAML."""
    if output == "json":
        return json.dumps(value, indent=4)
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False)).rstrip("\n")


def when(at_ms: int, *, never: str) -> str:
    """`in 3h`, `5m ago`; `never` for 0."""
    if not at_ms:
        return never
    left_s = (at_ms - now_ms()) // 1000
    return f"in {duration(left_s)}" if left_s >= 0 else f"{duration(-left_s)} ago"


def short(identity: str) -> str:
    """`user/alice`, without the cluster."""
    if identity.startswith("spiffe://"):
        return identity.removeprefix("spiffe://").partition("/")[2]
    return identity


def ask_first(question: str, *, yes: bool) -> None:
    """Go on only if somebody at a terminal says so, or said `--yes`. Raises CommandError."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{question.rstrip()} Say --yes if you mean it", exit_code=2)
    note(f"{question.rstrip()} Go on? [y/N]")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CommandError("nothing was changed")
