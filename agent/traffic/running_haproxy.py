"""HAProxy as it runs: what it was loaded with, which servers it has, and what it is still busy with.

Nothing here is believed for longer than the worker lives that said it. Another process id, whoever is to
blame, and everything is asked for again: a HAProxy that was killed, restarted, or reloaded by hand is
brought right like one that is only behind.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import structlog

from agent.traffic.endpoint_changes import (
    RunningServer,
    deletion,
    leaving,
    parse_servers,
    plan_changes,
)
from agent.traffic.haproxy_backends import Backend
from agent.traffic.haproxy_config import Configuration
from agent.traffic.haproxy_socket import HaproxySocket, Processes, ProxyAnswerError
from agent.traffic.haproxy_stats import BACKENDS, FRONTENDS, SERVERS, Row, ServiceCounters, parse_stat

log = structlog.get_logger(__name__)

RELOAD_S = 60.0
_RELOAD_POLL_S = 0.05
# A connection that an old worker has accepted may send its first request as late as this (timeout
# http-request and a little), and that worker takes no changes any more: it may choose any of its servers.
UNDECIDED_S = 12.0
# Answers that mean it was done; so does an empty one.
_DONE = frozenset({"", "New server registered.", "Server deleted."})
# Those that have reached a server (state 8): who still tries to connect will try another pod.
_SESSION = re.compile(
    r"^(?P<session>0x[0-9a-f]+): .*\bbe=(?P<backend>\S+) srv=(?P<server>\S+) .*\bscb=\[8,", re.MULTILINE
)
# In words of the system's, which HAProxy repeats: a kernel says it, so the host lives, and its proxy does not.
_REFUSED = "Connection refused"
_DIGEST = re.compile(r"^description: (\w+)$", re.MULTILINE)


class RunningHaproxy:
    """One per proxy. Whatever asks HAProxy may raise ProxyAnswerError; then it is to be looked at again."""

    def __init__(self, master_socket: Path) -> None:
        self._socket = HaproxySocket(master_socket)
        self.counters = ServiceCounters()
        self.processes: Processes | None = None  # None: it does not run, or has not been looked at.
        self.digest = ""  # Of the frame that the worker was loaded with.
        self._loaded: Configuration | None = None  # The same, where it is known.
        self._servers: dict[str, dict[str, RunningServer]] = {}
        self._settled: dict[str, Backend] = {}  # What each backend was brought to.
        self._old: dict[int, _OldWorker] = {}
        self._is_stale = True
        self._is_reloading = False
        self._expected = 0  # The worker that our own reload has made.
        self.are_nodes_known = False  # Whose check has fallen.
        self._dead: set[str] = set()  # nodes/name

    async def look(self, wanted: Configuration) -> None:
        """See what runs, and ask it for everything if that is news."""
        try:
            seen = await self._socket.processes()
        except ProxyAnswerError:
            self.processes = None
            raise
        known, self.processes = self.processes, seen
        if self._is_stale or known is None or known.worker != seen.worker:
            await self._ask_everything(seen.worker, wanted)
        self._old = {pid: old for pid, old in self._old.items() if pid in seen.old_workers}
        now_s = asyncio.get_running_loop().time()
        for pid in seen.old_workers:
            self._old.setdefault(pid, _OldWorker(since_s=now_s, had={}))
        self.counters.keep_workers((seen.worker, *seen.old_workers))

    def forget(self) -> None:
        """Something is not as we thought: ask for all of it the next time."""
        self._is_stale = True

    async def _ask_everything(self, worker: int, wanted: Configuration) -> None:
        said = await self._socket.tell(worker, ["show info"])
        found = _DIGEST.search(said)
        self.digest = found[1] if found else ""
        if self.digest == wanted.digest:
            self._loaded = wanted
        elif self._loaded is not None and self._loaded.digest != self.digest:
            self._loaded = None
        self._servers = parse_servers(await self._socket.tell(worker, ["show servers state"]))
        self._settled = {}
        self._is_stale = False
        log.info("haproxy.seen", worker=worker, frame=self.digest)

    async def bring(self, wanted: Configuration) -> str:
        """Change endpoints. Returns why it cannot be done without a reload; empty: it was done."""
        assert self.processes is not None
        changed = [each for each in wanted.backends.values() if self._may_change(each, wanted)]
        plan = plan_changes(self._servers, changed)
        if plan.commands:
            answers = await self._socket.tell(self.processes.worker, plan.commands)
            refused = [line for line in answers.splitlines() if line.strip() not in _DONE]
            if refused:
                # The file says the same, and a worker that starts from it has nothing to refuse.
                self.forget()
                return f"HAProxy refused a change of endpoints: {refused[0]}"
            self._servers.update({name: dict(after) for name, after in plan.after.items()})
        if not plan.reload_reason:
            self._settled.update((each.name, each) for each in changed)
        return plan.reload_reason

    def _may_change(self, backend: Backend, wanted: Configuration) -> bool:
        if self._settled.get(backend.name) is backend or self._loaded is None:
            return False
        if self.digest == wanted.digest:
            return True
        # It waits for a reload: what the loaded frame has alike is kept right meanwhile.
        loaded = self._loaded.backends.get(backend.name)
        return (
            loaded is not None
            and loaded.frame == backend.frame
            and all(
                not each.node or each.node in self._loaded.place.peers for each in backend.servers.values()
            )
        )

    async def reload(self, wanted: Configuration) -> str:
        """Load the file that is in force. Returns why that failed; empty: a new worker serves."""
        before = await self._socket.processes()
        had = dict(self._servers)
        await self._count(before)
        self._is_reloading = True
        try:
            await self._socket.reload()
            async with asyncio.timeout(RELOAD_S):
                after = await self._reloaded(before)
        except TimeoutError:
            return f"HAProxy did not come back within {RELOAD_S:.0f} s"
        finally:
            self._is_reloading = False
        if after.worker == before.worker:
            return "HAProxy could not load its configuration, though it had accepted it"
        if before.worker in after.old_workers:
            now_s = asyncio.get_running_loop().time()
            self._old[before.worker] = _OldWorker(since_s=now_s, had=had)
        self._expected = after.worker
        self._loaded = wanted
        return ""

    async def _reloaded(self, before: Processes) -> Processes:
        while True:
            await asyncio.sleep(_RELOAD_POLL_S)
            try:
                seen = await self._socket.processes()
            except ProxyAnswerError:
                continue  # The master replaces itself just now.
            if seen.master != before.master or seen.reloads > before.reloads:
                return seen

    async def count(self) -> None:
        """Take over the counters of every worker. Now and then, so that nodes are looked at again too."""
        self.are_nodes_known = False
        assert self.processes is not None
        await self._count(self.processes)

    async def _count(self, processes: Processes) -> None:
        now_s = asyncio.get_running_loop().time()
        for pid in (processes.worker, *processes.old_workers):
            rows = parse_stat(await self._socket.tell(pid, [f"show stat -1 {BACKENDS} -1"]))
            is_announced = self._is_reloading or pid == self._expected
            self.counters.look(pid, rows, is_announced=is_announced, now_s=now_s)

    async def draining(self, wanted: Configuration) -> set[str]:
        """Endpoints that are gone and still have requests; servers of which nothing is left are deleted."""
        assert self.processes is not None
        await self._end_what_hangs(wanted)
        busy = await self._finish(wanted)
        for pid, old in self._old.items():
            busy |= await self._busy_in(pid, old, wanted)
        return busy

    async def _end_what_hangs(self, wanted: Configuration) -> None:
        """What is in flight to a dead node would wait for its answer for hours."""
        assert self.processes is not None
        if self.are_nodes_known and not (self._dead or self._old):
            return
        worker = self.processes.worker
        rows = parse_stat(await self._socket.tell(worker, [f"show stat nodes {SERVERS} -1"]))
        before, is_due = self._dead, not self.are_nodes_known
        self._dead = {
            f"nodes/{row.server}"
            for row in rows
            if row.status.startswith("DOWN") and row.last_check != _REFUSED
        }
        self.are_nodes_known = True
        if self._dead and (is_due or self._dead != before):
            await self._end_sessions(
                worker,
                {
                    (backend.name, server.name)
                    for backend in wanted.backends.values()
                    for server in backend.servers.values()
                    if f"nodes/{server.node}" in self._dead
                },
            )

    async def _finish(self, wanted: Configuration) -> set[str]:
        assert self.processes is not None
        worker = self.processes.worker
        gone = leaving(self._servers, wanted.backends)
        busy: set[str] = set()
        done: list[tuple[str, str]] = []
        for backend, names in gone.items():
            rows = parse_stat(await self._socket.tell(worker, [f"show stat {backend} {SERVERS} -1"]))
            await self._end_sessions(worker, self._lost(backend, rows))
            for row in rows:
                if row.server not in names:
                    continue
                if row.open or row.queued:
                    busy.add(row.server)
                elif not self._servers[backend][row.server].is_ready:
                    done.append((backend, row.server))
        for backend, name in done:
            answer = await self._socket.tell(worker, deletion(backend, name))
            # Refused while something of it is left after all: then once more, the next time.
            if "Server deleted." in answer:
                del self._servers[backend][name]
        return busy

    async def _busy_in(self, pid: int, old: _OldWorker, wanted: Configuration) -> set[str]:
        rows = parse_stat(await self._socket.tell(pid, [f"show stat -1 {FRONTENDS | BACKENDS} -1"]))
        busy: set[str] = set()
        for row in rows:
            if row.is_backend and row.proxy != "nodes" and (row.open or row.queued):
                said = await self._socket.tell(pid, [f"show stat {row.proxy} {SERVERS} -1"])
                servers = [each for each in parse_stat(said) if each.open or each.queued]
                busy |= {each.server for each in servers if not _has(wanted, row.proxy, each.server)}
                await self._end_sessions(pid, self._lost(row.proxy, servers))
        age_s = asyncio.get_running_loop().time() - old.since_s
        if age_s < UNDECIDED_S and _undecided(rows):
            for backend, known in old.had.items():
                busy |= {
                    name for name, one in known.items() if one.is_ready and not _has(wanted, backend, name)
                }
        return busy

    def _lost(self, backend: str, servers: Iterable[Row]) -> set[tuple[str, str]]:
        return {(backend, each.server) for each in servers if each.open and each.tracked in self._dead}

    async def _end_sessions(self, worker: int, servers: set[tuple[str, str]]) -> None:
        """By backend and name."""
        if not servers:
            return
        said = await self._socket.tell(worker, ["show sess"])
        ended = [
            found["session"]
            for found in _SESSION.finditer(said)
            if (found["backend"], found["server"]) in servers
        ]
        await self._socket.tell(worker, [f"shutdown session {session}" for session in ended])
        if ended:
            log.info("haproxy.sessions_ended", worker=worker, count=len(ended), nodes=sorted(self._dead))


class _OldWorker:
    def __init__(self, *, since_s: float, had: Mapping[str, Mapping[str, RunningServer]]) -> None:
        self.since_s = since_s
        self.had = had


def _has(wanted: Configuration, backend: str, server: str) -> bool:
    known = wanted.backends.get(backend)
    return backend == "nodes" or (known is not None and server in known.servers)


def _undecided(rows: list[Row]) -> bool:
    """Whether a client is connected whose request has not reached a backend."""
    connected = sum(row.open for row in rows if row.is_frontend and row.is_http)
    return connected > sum(row.open for row in rows if row.is_backend and row.is_http)
