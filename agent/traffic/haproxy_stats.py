"""HAProxy's counters: what goes through services, and what is still going on at a server. Pure.

Each worker counts from zero. What a new worker of ours has counted since its start belongs to the
window, and so does what an old one goes on counting. A worker that nobody announced, or a counter that
went down, is a restart: what was lost is not known, and the service is left out, for missing is not zero.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.traffic.haproxy_backends import Backend
from bayplan.model.latency import COUNTS, count_into, merged
from bayplan.v1 import agent_link_pb2 as pb

FRONTENDS = 1  # Bits of `show stat`'s second argument.
BACKENDS = 2
SERVERS = 4
_FRONTEND, _BACKEND, _SERVER = "0", "1", "2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of `show stat`."""

    proxy: str
    server: str
    kind: str
    is_http: bool
    open: int  # Sessions: requests, connections, tunnels.
    queued: int
    sessions: int
    errors: int
    status: str = ""  # UP, DOWN, DRAIN, MAINT …; of servers.
    tracked: str = ""  # backend/server, whose check this one follows.
    last_check: str = ""  # What came of it, in words.

    @property
    def is_backend(self) -> bool:
        return self.kind == _BACKEND

    @property
    def is_server(self) -> bool:
        return self.kind == _SERVER

    @property
    def is_frontend(self) -> bool:
        return self.kind == _FRONTEND


def parse_stat(text: str) -> list[Row]:
    """Rows; several answers may follow each other, each with its head."""
    rows: list[Row] = []
    columns: dict[str, int] = {}
    for fields in csv.reader(text.splitlines()):
        if fields and fields[0].startswith("# "):
            columns = {name.removeprefix("# "): index for index, name in enumerate(fields)}
        elif columns and len(fields) >= len(columns) - 1:
            rows.append(_row(fields, columns))
    return rows


def _row(fields: list[str], columns: Mapping[str, int]) -> Row:
    def number(name: str) -> int:
        return int(fields[columns[name]] or 0)

    # HAProxy's own 503 where no pod took the request is among the answers of 5xx.
    is_http = fields[columns["mode"]] == "http"
    return Row(
        proxy=fields[columns["pxname"]],
        server=fields[columns["svname"]],
        kind=fields[columns["type"]],
        is_http=is_http,
        open=number("scur"),
        queued=number("qcur"),
        sessions=number("stot"),
        status=fields[columns["status"]],
        tracked=fields[columns["tracked"]],
        last_check=fields[columns["last_chk"]],
        errors=number("hrsp_5xx") if is_http else number("econ") + number("eresp"),
    )


@dataclass(slots=True)
class _Window:
    requests: int = 0
    errors: int = 0
    latency_counts: list[int] = field(default_factory=list)


class ServiceCounters:
    """Adds up what goes through each backend between two `take`s."""

    def __init__(self) -> None:
        self._seen: dict[int, dict[str, tuple[int, int]]] = {}  # By worker and backend: sessions, errors.
        self._open: dict[int, dict[str, int]] = {}
        self._windows: dict[str, _Window] = {}
        self._restarted: set[str] = set()  # Backends.
        self._is_blind = True  # Nothing was known before the first look.
        self._looked_s = self._began_s = -1.0  # The last look, and the one that the window began with.

    def look(self, worker: int, rows: Iterable[Row], *, is_announced: bool, now_s: float) -> None:
        """What a worker has counted; announced: its counts began within what was looked at before."""
        self._looked_s = now_s
        known = self._seen.get(worker)
        if known is None and not is_announced:
            self._is_blind = True
        seen: dict[str, tuple[int, int]] = {}
        self._open[worker] = {}
        for row in rows:
            if not row.is_backend:
                continue
            seen[row.proxy] = row.sessions, row.errors
            self._open[worker][row.proxy] = row.open
            if known is None and not is_announced:
                continue
            sessions, errors = (known or {}).get(row.proxy, (0, 0))
            if row.sessions < sessions or row.errors < errors:
                self._restarted.add(row.proxy)
                continue
            window = self._windows.setdefault(row.proxy, _Window())
            window.requests += row.sessions - sessions
            window.errors += row.errors - errors
        self._seen[worker] = seen

    def latency(self, backend: str, latency_ms: float) -> None:
        """One sampled request."""
        window = self._windows.setdefault(backend, _Window())
        window.latency_counts = window.latency_counts or [0] * COUNTS
        count_into(window.latency_counts, latency_ms)

    def keep_workers(self, workers: Iterable[int]) -> None:
        """Others have ended."""
        alive = set(workers)
        for gone in self._seen.keys() - alive:
            del self._seen[gone]
            self._open.pop(gone, None)

    def take(self, backends: Iterable[Backend]) -> list[pb.ServiceUse]:
        """What went through by service and port, and begin anew; nothing if nobody has looked since.

        The window is from look to look: those may be half a window before the `take`s.
        """
        if self._looked_s == self._began_s:
            return []
        window_ms = round((self._looked_s - self._began_s) * 1000)
        self._began_s = self._looked_s
        windows, self._windows = self._windows, {}
        restarted, self._restarted = self._restarted, set()
        is_blind, self._is_blind = self._is_blind, False
        if is_blind:
            return []
        uses: dict[tuple[str, int], pb.ServiceUse] = {}
        left_out: set[tuple[str, int]] = set()
        for backend in backends:
            key = backend.service, backend.port
            if backend.name in restarted:
                left_out.add(key)
            use = uses.setdefault(
                key,
                pb.ServiceUse(service=backend.service, port=backend.port, window_ms=window_ms),
            )
            window = windows.get(backend.name, _Window())
            use.requests += window.requests
            use.errors += window.errors
            use.connections += sum(each.get(backend.name, 0) for each in self._open.values())
            if window.latency_counts:
                counts = merged([use.latency_counts, window.latency_counts])
                del use.latency_counts[:]
                use.latency_counts.extend(counts)
        return [use for key, use in uses.items() if key not in left_out]
