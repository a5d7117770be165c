"""Ports that nodes could not bind for a service, as their agents say: told once, and kept while they last."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from bayplan.model.services import INGRESS
from bayplan.v1 import agent_link_pb2 as wire
from manager.dispatcher.spoken import spoken
from manager.events import EventLog

# An agent that lists more than these is wrong; what is kept must have a limit.
_PROBLEMS_MAX = 1000
# Told one by one, each time that an agent speaks; the rest as a number: others' events must stay in the log.
_TOLD_MAX = 20

_Where = tuple[str, str, int]  # Service, address and port; without an address it is not about that port.


class PortProblems:
    """By node."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._found: dict[str, dict[_Where, str]] = {}

    def note(self, node: str, problems: Iterable[wire.PortProblem]) -> None:
        """What a node's agent says now: all that there are."""
        before = self._found.get(node, {})
        now = {
            (spoken(each.service), spoken(each.address), each.port): spoken(each.message)
            for each in islice(problems, _PROBLEMS_MAX)
        }
        self._found[node] = now
        news = [where for where, message in now.items() if before.get(where) != message]
        for where in news[:_TOLD_MAX]:
            self._tell("PortTaken" if where[1] else "ProxyProblem", where, _words(node, where, now[where]))
        ended = [where for where in sorted(before.keys() - now.keys()) if where[1]]
        for where in ended[:_TOLD_MAX]:
            port = f"port {where[2]} of {node} ({where[1]})"
            self._tell("PortFree", where, f"{port} could be had after all, or is not asked for any more")
        more = len(news[_TOLD_MAX:]) + len(ended[_TOLD_MAX:])
        if more:
            message = f"{more} more ports could not be had, or could after all: its agent's log names them"
            self._events.add("ProxyProblem", message, obj=f"Node/{node}", source=node)

    def forget(self, node: str) -> None:
        """It is no node any more."""
        self._found.pop(node, None)

    def problem_of(self, service: str, node: str) -> str:
        """Why a node does not publish a service, in words; empty if it does, or has not said.

        Args:
            service: "namespace/name".
            node: its name.
        """
        found = self._found.get(node, {})
        return "; ".join(
            f"port {port} {_verb(message)}" if address else message
            for (key, address, port), message in found.items()
            if key == service
        )

    def is_taken(self, service: str, node: str, address: str, port: int) -> bool:
        """Whether a node could not bind one port of a service at one of its addresses."""
        return (service, address, port) in self._found.get(node, {})

    def _tell(self, reason: str, where: _Where, message: str) -> None:
        namespace, _, name = where[0].partition("/")
        if where[0] == INGRESS:
            self._events.add(reason, message, obj="Cluster/ingress")
            return
        # What is said of a port at no address is said of a certificate, which is named as its secret is.
        kind = "Secret" if where[2] and not where[1] else "Service"
        self._events.add(reason, message, obj=f"{kind}/{name}", namespace=namespace)


def _words(node: str, where: _Where, message: str) -> str:
    _, address, port = where
    return f"port {port} of {node} ({address}) {_verb(message)}" if address else f"{node}: {message}"


def _verb(message: str) -> str:
    """Agents say "taken by nginx (pid 812)", or a sentence of their own."""
    return f"is {message}" if message.startswith("taken") else f"is not published: {message}"
