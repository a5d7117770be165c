"""What went through the nodes' proxies, per port of a service: counts that agents send now and then, put together.

A node that did not report, or whose proxy's counters restarted, is missing and not zero: it takes no part in
the sums, and what it said is forgotten after a while.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from bayplan.model.latency import merged, quantile_ms
from bayplan.v1 import agent_link_pb2 as wire

# Agents report every 10 s; one late report is no gap.
FORGOTTEN_S = 25.0
# Of one node: an agent that lists more ports is wrong; what is kept must have a limit.
PORTS_MAX = 20_000

_Port = tuple[str, int]  # ("namespace/name", port)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortUse:
    """Of one port of a service, over all nodes that reported."""

    service: str  # namespace/name
    port: int
    requests_per_s: float
    errors_per_s: float
    p50_ms: float  # -1: nothing was counted.
    p99_ms: float
    connections: int


@dataclass(slots=True)
class _Report:
    at_s: float
    by_port: dict[_Port, wire.ServiceUse]


class ServiceUses:
    """The last report of each node."""

    def __init__(self) -> None:
        self._reports: dict[str, _Report] = {}

    def note(self, node: str, uses: Iterable[wire.ServiceUse], now_s: float) -> None:
        """A heartbeat with counts: all that this node has."""
        listed = islice(uses, PORTS_MAX)
        # An agent that reached no manager for minutes tells their mean: that is not what goes through now.
        by_port = {(use.service, use.port): use for use in listed if 0 < use.window_ms <= FORGOTTEN_S * 1000}
        self._reports[node] = _Report(now_s, by_port)

    def forget(self, node: str) -> None:
        """It is no node any more."""
        self._reports.pop(node, None)

    def over_all(self, now_s: float) -> list[PortUse]:
        """Every port that a node reported lately, by name."""
        by_port: dict[_Port, list[wire.ServiceUse]] = {}
        for report in self._reports.values():
            if now_s - report.at_s <= FORGOTTEN_S:
                for port, use in report.by_port.items():
                    by_port.setdefault(port, []).append(use)
        return [_sum(port, uses) for port, uses in sorted(by_port.items())]


def _sum(port: _Port, uses: list[wire.ServiceUse]) -> PortUse:
    # Each node counts over a window of its own: rates add up, counts do not.
    counts = merged(use.latency_counts for use in uses)
    return PortUse(
        service=port[0],
        port=port[1],
        requests_per_s=sum(use.requests * 1000 / use.window_ms for use in uses),
        errors_per_s=sum(use.errors * 1000 / use.window_ms for use in uses),
        p50_ms=quantile_ms(counts, 0.5),
        p99_ms=quantile_ms(counts, 0.99),
        connections=sum(use.connections for use in uses),
    )
