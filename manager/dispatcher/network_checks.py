"""Has every node try every other over the pods' network, because somebody asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bayplan.v1 import agent_link_pb2 as wire
from manager.dispatcher.session import NodeSession

ANSWER_S = 10.0


@dataclass(slots=True)
class _Round:
    waiting: set[str]
    paths: list[wire.NetworkPath] = field(default_factory=list)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)


class NetworkChecks:
    """Rounds of questions that are under way, by number."""

    def __init__(self, sessions: Mapping[str, NodeSession]) -> None:
        self._sessions = sessions
        self._rounds: dict[int, _Round] = {}
        self._request = 0

    async def check(self, nodes: Iterable[str]) -> tuple[list[wire.NetworkPath], list[str]]:
        """(What the nodes found, which of `nodes` did not answer in time): 10 s at most."""
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
        return paths, sorted(silent | asking.waiting)

    def answered(self, node: str, result: wire.NetworkCheckResult) -> None:
        """What a node found; it speaks for itself alone."""
        asking = self._rounds.get(result.request)
        if asking is None or node not in asking.waiting:
            return
        asking.waiting.discard(node)
        asking.paths.extend(path for path in result.paths if getattr(path, "from") == node)
        if not asking.waiting:
            asking.is_over.set()
