"""Has every node try every other over the pods' network, because somebody asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from bayplan.v1 import agent_link_pb2 as wire
from manager.dispatcher.session import NodeSession
from manager.dispatcher.spoken import spoken

ANSWER_S = 10.0
# Listed in one answer, some 2 MiB of it; the rest is counted.
PATHS_MAX = 20_000
# Of one node; with so few peers that it lists them all, it has fewer.
_PATHS_PER_NODE_MAX = 500
# Of one node, when it says how many more there are: five ways to each of more nodes than there can be.
_COUNT_MAX = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedNetwork:
    """What all nodes found."""

    paths: list[wire.NetworkPath]  # By pair.
    silent: list[str]  # Nodes that did not answer in time.
    healthy: int  # Ways that work, beside those in `paths`.
    failed: int  # Ways that do not, likewise.


@dataclass(slots=True)
class _Round:
    waiting: set[str]
    paths: list[wire.NetworkPath] = field(default_factory=list)
    healthy: int = 0
    failed: int = 0
    is_over: asyncio.Event = field(default_factory=asyncio.Event)


class NetworkChecks:
    """Rounds of questions that are under way, by number."""

    def __init__(self, sessions: Mapping[str, NodeSession]) -> None:
        self._sessions = sessions
        self._rounds: dict[int, _Round] = {}
        self._request = 0

    async def check(self, nodes: Iterable[str]) -> CheckedNetwork:
        """Ask `nodes`. Takes 10 s at most."""
        self._request += 1
        request = self._request
        asked = {node: self._sessions[node] for node in nodes if node in self._sessions}
        silent = {node for node in nodes if node not in asked}
        asking = self._rounds[request] = _Round(set(asked))
        try:
            for session in asked.values():
                question = wire.NetworkCheck(request=request)
                session.send(wire.ManagerMessage(network_check=question))
            if asked:
                async with asyncio.timeout(ANSWER_S):
                    await asking.is_over.wait()
        except TimeoutError:
            pass  # Who is still waited for is silent.
        finally:
            del self._rounds[request]
        paths = sorted(asking.paths, key=lambda path: (getattr(path, "from"), path.to, path.what))
        return CheckedNetwork(
            paths=paths,
            silent=sorted(silent | asking.waiting),
            healthy=asking.healthy,
            failed=asking.failed,
        )

    def answered(self, node: str, result: wire.NetworkCheckResult) -> None:
        """What a node found; it speaks for itself alone."""
        asking = self._rounds.get(result.request)
        if asking is None or node not in asking.waiting:
            return
        asking.waiting.discard(node)
        asking.healthy += min(max(0, result.healthy), _COUNT_MAX)
        asking.failed += min(max(0, result.failed), _COUNT_MAX)
        for path in islice(result.paths, _PATHS_PER_NODE_MAX):
            if getattr(path, "from") != node:
                continue
            if len(asking.paths) < PATHS_MAX:
                path.detail = spoken(path.detail)
                asking.paths.append(path)
            elif path.ok:
                asking.healthy += 1
            else:
                asking.failed += 1
        if not asking.waiting:
            asking.is_over.set()
