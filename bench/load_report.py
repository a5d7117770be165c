"""A load's report: JSON lines, written while it runs, read when it is over.

{"load": {…}}                  targets, rate, and when it began
{"second": 12, "well": 301, …} what ended in that second: by target, by pod, how long it took
{"failure": {…}}               each one (bench/load_record.py, Record)
{"mark": "drain", "at_s": …}   what somebody else did, for whoever lays failures beside it
{"summary": {…}}               last; without it the load did not come to its end
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from bench.load_record import FAILURES_KEPT_MAX, Durations, Kind, Record, Summary


class ReportError(Exception):
    """The report is not one of a load that came to its end."""


class Second:
    """What ended in one second."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._well = self._failed = 0
        self._durations = Durations()
        self._targets: Counter[str] = Counter()
        self._pods: Counter[str] = Counter()
        self._nodes: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        if record.failure:
            self._failed += 1
            return
        self._well += 1
        self._targets[record.target] += 1
        self._pods[record.pod] += 1
        self._nodes[record.node] += 1
        if record.kind is not Kind.DOWNLOAD:
            self._durations.add(record.took_s)

    def as_json(self) -> dict[str, Any]:
        return {
            "second": self.number,
            "well": self._well,
            "failed": self._failed,
            "p50_s": self._durations.quantile_s(0.5),
            "p99_s": self._durations.quantile_s(0.99),
            "targets": dict(self._targets),
            "pods": dict(self._pods),
            "nodes": dict(self._nodes),
        }


class ReportWriter:
    """Give it every record as it comes."""

    def __init__(self, file: TextIO, *, targets: Sequence[str], rate: float, began_at: float) -> None:
        self._file = file
        self._second = Second(0)
        self._failures = 0
        self._write({"load": {"targets": [*targets], "rate": rate, "began_at": began_at}})

    def add(self, record: Record) -> None:
        self._turn_to(int(record.ended_s))
        self._second.add(record)
        if record.failure and self._failures < FAILURES_KEPT_MAX:
            self._failures += 1
            self._write({"failure": asdict(record)})

    def mark(self, text: str, at_s: float) -> None:
        self._write({"mark": text, "at_s": at_s})

    def end(self, summary: Summary) -> None:
        self._write(self._second.as_json())
        self._write({"summary": summary.as_json()})

    def _turn_to(self, number: int) -> None:
        if number > self._second.number:
            self._write(self._second.as_json())
            self._second = Second(number)

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        # Whoever reads it while the load runs sees whole lines.
        self._file.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A load that came to its end."""

    began_at: float  # Unix time.
    seconds: tuple[Mapping[str, Any], ...]
    failures: tuple[Record, ...]
    marks: Mapping[str, float]  # What → when; of several with one name the last.
    summary: Mapping[str, Any]

    @property
    def doubts(self) -> list[str]:
        """Why it proves nothing; empty: it does."""
        return list(self.summary["doubts"])

    def text(self) -> str:
        """For messages of assertions: the numbers, the marks, the first failures."""
        numbers = {
            key: self.summary[key]
            for key in ("sent", "failures", "reasons", "p50_s", "p99_s", "lag_max_s", "doubts")
        }
        marks = [f"  {at_s:7.2f} s  {what}" for what, at_s in self.marks.items()]
        failures = [
            f"  {failure.began_s:7.2f}-{failure.ended_s:.2f} s  {failure.kind} {failure.target} {failure.pod}: {failure.failure}"
            for failure in self.failures[:30]
        ]
        return "\n".join([json.dumps(numbers), *marks, *failures])


def read_report(path: Path) -> Report:
    """Raises ReportError."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if not lines or "summary" not in lines[-1]:
        raise ReportError(f"{path} has no summary: the load did not come to its end")
    return Report(
        began_at=lines[0]["load"]["began_at"],
        seconds=tuple(line for line in lines if "second" in line),
        failures=tuple(Record.from_json(line["failure"]) for line in lines if "failure" in line),
        marks={line["mark"]: line["at_s"] for line in lines if "mark" in line},
        summary=lines[-1]["summary"],
    )
