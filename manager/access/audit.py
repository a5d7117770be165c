"""The record of decisions about callers: who, what, allowed or not, why. Only ever appended to.

One JSON object a line in `audit.jsonl`, readable by the manager's user alone; full files are kept
by number, the oldest goes. The same refusal many times within seconds is one line with a count, and
so is what a node does: neither a stranger nor a node that was taken over can push the past out of the files.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import structlog

from bayplan.identity.names import Kind

log = structlog.get_logger(__name__)

FILE_MAX_BYTES = 16 << 20
FILES = 8
SAME_WITHIN_S = 10.0
FLUSH_EVERY_S = 0.2
# Lines that wait for a slow disk; beyond it they are counted, and the count is written.
WAITING_MAX = 20_000
_KNOCKERS_MAX = 1000
_TEXT_MAX = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One decision."""

    at_ms: int
    manager: str
    who: str
    via: str
    address: str
    method: str
    target: str
    allowed: bool
    why: str
    outcome: str
    count: int = 1

    @property
    def sameness(self) -> tuple[str, ...]:
        """Entries that share it are counted: nothing in it is of the caller's choice."""
        return (self.who, self.via, self.address, self.method, self.outcome)

    @property
    def is_counted(self) -> bool:
        """What users were allowed to do, and who was let in, is told each time."""
        return not self.allowed or f"/{Kind.NODE}/" in self.who


class Audit:
    """Of one manager. `add` never waits; `run` writes."""

    def __init__(self, path: Path, *, wall_s: Callable[[], float]) -> None:
        self._path = path
        self._wall_s = wall_s
        self._waiting: deque[Entry] = deque()
        self._left_out = 0
        self._counted: dict[tuple[str, ...], tuple[float, Entry]] = {}
        self._writing = threading.Lock()
        self._flushing = asyncio.Lock()

    def add(self, entry: Entry) -> None:
        """Remember a decision."""
        entry = replace(entry, target=entry.target[:_TEXT_MAX], why=entry.why[:_TEXT_MAX])
        if entry.is_counted:
            known = self._counted.get(entry.sameness)
            if known is not None:
                first_s, counted = known
                self._counted[entry.sameness] = (first_s, replace(entry, count=counted.count + 1))
                return
            # The first is written at once, those that follow with it as a number.
            if len(self._counted) < _KNOCKERS_MAX:
                self._counted[entry.sameness] = (self._wall_s(), replace(entry, count=0))
        self._queue(entry)

    def _queue(self, entry: Entry) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self._left_out += 1
            return
        self._waiting.append(entry)

    async def run(self) -> None:
        """Write what comes, until cancelled; then what is left."""
        try:
            while True:
                await asyncio.sleep(FLUSH_EVERY_S)
                self._count(older_than_s=SAME_WITHIN_S)
                await self._flush()
        finally:
            self._count(older_than_s=0.0)
            self._write(self._take())

    def _count(self, *, older_than_s: float) -> None:
        now_s = self._wall_s()
        for sameness, (first_s, counted) in list(self._counted.items()):
            if now_s - first_s >= older_than_s:
                del self._counted[sameness]
                if counted.count:
                    self._queue(counted)

    async def _flush(self) -> None:
        # In turn: who reads next finds in the files what was already taken to be written.
        async with self._flushing:
            lines = self._take()
            if lines:
                await asyncio.to_thread(self._write, lines)

    def _take(self) -> bytes:
        entries = list(self._waiting)
        self._waiting.clear()
        lines = [json.dumps(asdict(entry), separators=(",", ":")) for entry in entries]
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            log.error("audit.lines_lost", count=left_out)
        return "".join(f"{line}\n" for line in lines).encode()

    def _write(self, lines: bytes) -> None:
        if not lines:
            return
        try:
            # From two threads at once, when the record is read while it is written.
            with self._writing:
                self._make_room(len(lines))
                _append(self._path, lines)
        except OSError as error:
            log.error("audit.not_written", error=str(error), lines=lines.count(b"\n"))  # noqa: TRY400 - says all

    def _make_room(self, more_bytes: int) -> None:
        """Begin another file when this one is full."""
        if not self._path.exists() or self._path.stat().st_size + more_bytes <= FILE_MAX_BYTES:
            return
        for number in range(FILES - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))
        self._numbered(FILES).unlink(missing_ok=True)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    async def read(self, *, since_ms: int, limit: int, denied: bool, who: str) -> list[Entry]:
        """The newest `limit` that fit, oldest first."""
        await self._flush()
        return await asyncio.to_thread(self._read, since_ms, limit, denied, who)

    def _read(self, since_ms: int, limit: int, denied: bool, who: str) -> list[Entry]:  # noqa: FBT001
        found: deque[Entry] = deque(maxlen=limit)
        for path in (*(self._numbered(number) for number in range(FILES - 1, 0, -1)), self._path):
            for entry in _entries(path):
                if entry.at_ms >= since_ms and who in entry.who and not (denied and entry.allowed):
                    found.append(entry)
        return list(found)


def _append(path: Path, lines: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes and os.pread(descriptor, 1, size_bytes - 1) != b"\n":
            # A crash or a full disk cut the last line: it alone is lost.
            lines = b"\n" + lines
        while lines:
            lines = lines[os.write(descriptor, lines) :]
    finally:
        os.close(descriptor)


def _entries(path: Path) -> Iterator[Entry]:
    names = {each.name for each in fields(Entry)}
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    content: dict[str, Any] = json.loads(line)
                    yield Entry(**{name: content[name] for name in names})
                except (ValueError, KeyError, TypeError):
                    log.warning("audit.line_damaged", file=str(path))
    except FileNotFoundError:
        return
