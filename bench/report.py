"""The figures of a benchmark: what each is compared with, as JSON and as a table.

Every benchmark writes `{key: {value, worst, unit, compared_with, ratio}}`, so that one program
reads them all. A figure without its comparison says little about the machine it was taken on:
first choice is another figure of the same run, then what was measured beside it, then the aim.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEADINGS = ("figure", "median", "worst", "unit", "compared with", "its value", "ratio", "aim")
_RIGHT_ALIGNED = {"median", "worst", "its value", "ratio"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What a key means."""

    key: str
    title: str
    unit: str
    aim: float | None = None  # At most this, in `unit`.
    aim_min: float | None = None  # At least this, in `unit`.
    aim_ratio: float | None = None  # At most this many times what it is compared with.
    compared_with: str = ""  # Key of another figure of the same run.


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a figure stands beside: a figure's key or a few words, and its value in the figure's unit."""

    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A figure's result. `beside`: what was measured with it, for want of a figure to compare it with."""

    value: float
    worst: float
    beside: Comparison | None = None
    note: str = ""  # What a reader of the figure must know of this run.

    @classmethod
    def of_runs(
        cls,
        values: Sequence[float],
        *,
        beside: Comparison | None = None,
        note: str = "",
        more_is_better: bool = False,
    ) -> Measured:
        """Median and worst of several runs; there is at least one."""
        worst = min(values) if more_is_better else max(values)
        return cls(value=statistics.median(values), worst=worst, beside=beside, note=note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run of a benchmark. `measured` may lack figures that were not asked for, or failed."""

    title: str
    circumstances: tuple[str, ...]  # Machine, date, counts: a line each.
    figures: tuple[Figure, ...]
    measured: Mapping[str, Measured]

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Key → value, worst, unit, compared_with, ratio; the last two are None where there is nothing to compare."""
        return {figure.key: self._to_json(figure) for figure in self._present()}

    def write(self, path: Path) -> None:
        """Replace `path` by the JSON form."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n")

    def to_text(self) -> str:
        """For a terminal."""
        rows = [HEADINGS, *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
        lines = ["  ".join(self._cells(row, widths)).rstrip() for row in rows]
        return "\n".join([self.title, *self.circumstances, "", *lines, *self._notes("")])

    def to_markdown(self) -> str:
        """For docs/performance.md."""
        rule = ["---:" if heading in _RIGHT_ALIGNED else "---" for heading in HEADINGS]
        table = [f"| {' | '.join(row)} |" for row in (HEADINGS, rule, *self._rows())]
        circumstances = [f"- {line}" for line in self.circumstances]
        return "\n".join([f"## {self.title}", "", *circumstances, "", *table, *self._notes("- ")])

    def _present(self) -> list[Figure]:
        return [figure for figure in self.figures if figure.key in self.measured]

    def _comparison(self, figure: Figure) -> Comparison | None:
        if other := self.measured.get(figure.compared_with):
            return Comparison(name=figure.compared_with, value=other.value)
        if beside := self.measured[figure.key].beside:
            return beside
        aim = figure.aim_min if figure.aim is None else figure.aim
        return None if aim is None else Comparison(name="aim", value=aim)

    def _to_json(self, figure: Figure) -> dict[str, Any]:
        measured, comparison = self.measured[figure.key], self._comparison(figure)
        ratio = _ratio(measured, comparison)
        return {
            "value": round(measured.value, 3),
            "worst": round(measured.worst, 3),
            "unit": figure.unit,
            "compared_with": comparison.name if comparison else None,
            "ratio": None if ratio is None else round(ratio, 3),
        }

    def _rows(self) -> list[tuple[str, ...]]:
        return [self._row(figure) for figure in self._present()]

    def _row(self, figure: Figure) -> tuple[str, ...]:
        measured, comparison = self.measured[figure.key], self._comparison(figure)
        ratio = _ratio(measured, comparison)
        return (
            f"{figure.title} ({figure.key})",
            f"{measured.value:.2f}",
            f"{measured.worst:.2f}",
            figure.unit,
            comparison.name if comparison else "",
            f"{comparison.value:.2f}" if comparison else "",
            "" if ratio is None else f"{ratio:.2f}",
            self._aim(figure, measured, comparison),
        )

    @staticmethod
    def _aim(figure: Figure, measured: Measured, comparison: Comparison | None) -> str:
        if figure.aim is not None:
            return f"≤ {figure.aim:g} {figure.unit}: {_verdict(measured.value <= figure.aim)}"
        if figure.aim_min is not None:
            return f"≥ {figure.aim_min:g} {figure.unit}: {_verdict(measured.value >= figure.aim_min)}"
        ratio = _ratio(measured, comparison)
        is_judged = comparison is not None and comparison.name == figure.compared_with
        if figure.aim_ratio is not None and is_judged and ratio is not None:
            return f"≤ {figure.aim_ratio:g} times: {_verdict(ratio <= figure.aim_ratio)}"
        return ""

    def _notes(self, bullet: str) -> list[str]:
        notes = [(figure.key, self.measured[figure.key].note) for figure in self._present()]
        lines = [f"{bullet}{key}: {note}" for key, note in notes if note]
        return ["", *lines] if lines else []

    @staticmethod
    def _cells(row: Sequence[str], widths: Sequence[int]) -> list[str]:
        return [
            cell.rjust(width) if heading in _RIGHT_ALIGNED else cell.ljust(width)
            for heading, cell, width in zip(HEADINGS, row, widths, strict=True)
        ]


def _ratio(measured: Measured, comparison: Comparison | None) -> float | None:
    """None where there is nothing to compare with, or it is nothing, as an aim of no failures is."""
    return measured.value / comparison.value if comparison and comparison.value else None


def _verdict(reached: bool) -> str:  # noqa: FBT001 - one argument, named by the function
    return "reached" if reached else "missed"
