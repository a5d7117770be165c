"""How values look: ages, amounts, tables, and text that may come from an attacker.

Names, messages and labels were written by somebody else: what a terminal would obey is shown
as an escape instead. Logs and the output of `exec` are passed through as they are.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Mapping, Sequence

_GAP = "   "

# Control, format (bidirectional overrides, zero width), line and paragraph separators, surrogates.
_UNPRINTABLE = {"Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"}

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400


def clean(text: str) -> str:
    """`text` on one line, with everything that would steer a terminal written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNPRINTABLE
        else character
        for character in text
    )


def now_ms() -> int:
    """Wall time, for ages."""
    return int(time.time() * 1000)


def age(since_ms: int, *, now: int | None = None) -> str:
    """How long ago, as kubectl says it: 5s, 3m20s, 5h12m, 5d3h. `<unknown>` for 0."""
    if not since_ms:
        return "<unknown>"
    return duration(((now_ms() if now is None else now) - since_ms) // 1000)


def duration(seconds: int) -> str:
    """A length of time in at most two units, the finer the shorter it is."""
    seconds = max(seconds, 0)
    steps = (
        # (below, unit, finer unit; 0: none)
        (2 * _MINUTE, 1, 0),
        (10 * _MINUTE, _MINUTE, 1),
        (3 * _HOUR, _MINUTE, 0),
        (8 * _HOUR, _HOUR, _MINUTE),
        (2 * _DAY, _HOUR, 0),
        (8 * _DAY, _DAY, _HOUR),
        (2 * _YEAR, _DAY, 0),
        (8 * _YEAR, _YEAR, _DAY),
    )
    names = {1: "s", _MINUTE: "m", _HOUR: "h", _DAY: "d", _YEAR: "y"}
    unit, finer = next(((unit, finer) for below, unit, finer in steps if seconds < below), (_YEAR, 0))
    text = f"{seconds // unit}{names[unit]}"
    rest = seconds % unit // finer if finer else 0
    return f"{text}{rest}{names[finer]}" if rest else text


def timestamp(at_ms: int) -> str | None:
    """RFC 3339 in UTC, as Kubernetes writes it; None for 0."""
    if not at_ms:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_ms / 1000))


def cpu(millis: int) -> str:
    """Processor time as `top` shows it: 12m."""
    return f"{millis}m"


def memory(amount_bytes: int) -> str:
    """Memory as `top` shows it: 34Mi."""
    return f"{amount_bytes >> 20}Mi"


def percent(part: int, whole: int) -> str:
    """`part` of `whole`; `<unknown>` if there is no whole."""
    return f"{100 * part // whole}%" if whole else "<unknown>"


def pairs(values: Mapping[str, str]) -> str:
    """`a=1,b=2`; `<none>` if there are none."""
    return ",".join(f"{key}={value}" for key, value in sorted(values.items())) or "<none>"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, with_headers: bool = True) -> list[str]:
    """Lines of columns, three spaces apart, no blanks at their ends."""
    return Table(headers, rows).lines(with_headers=with_headers)


class Table:
    """Columns as wide as the first rows need; later rows of a watch keep to them."""

    def __init__(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._headers = headers
        self._rows = [[clean(cell) for cell in row] for row in rows]
        self._widths = [max(map(len, column)) for column in zip(headers, *self._rows, strict=True)]

    def lines(self, *, with_headers: bool = True) -> list[str]:
        return [self._line(row) for row in ([self._headers] if with_headers else []) + self._rows]

    def later(self, row: Sequence[str]) -> str:
        return self._line([clean(cell) for cell in row])

    def _line(self, row: Sequence[str]) -> str:
        return _GAP.join(cell.ljust(width) for cell, width in zip(row, self._widths, strict=True)).rstrip()
