"""A proxy for simulations: it does everything after a while, and remembers what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from agent.network.table import NetworkTable
from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as pb

APPLIES_AFTER_S = 0.15


class SimulatedProxy:
    """See `Proxy` in agent/traffic/port.py. The tests set what it cannot know: requests and problems."""

    def __init__(self, *, applies_after_s: float = APPLIES_AFTER_S) -> None:
        self.on_applied: Callable[[], None] = lambda: None
        self.applies_after_s = applies_after_s
        self.requests_last_s = 0.0  # Endpoints that are left out still have requests for so long.
        self.is_stuck = False  # It is told, and nothing comes of it.
        self.network = NetworkTable()  # In force.
        self.traffic = TrafficTable()
        self.uses: list[pb.ServiceUse] = []  # What it says the next time.
        self._draining: frozenset[str] = frozenset()
        self._problems: tuple[pb.PortProblem, ...] = ()
        self._told = self.network, self.traffic
        self._news = asyncio.Event()

    def use(self, network: NetworkTable, traffic: TrafficTable) -> None:
        """See `Proxy`."""
        self._told = network, traffic
        self._news.set()

    def applied(self) -> pb.TrafficApplied:
        """See `Proxy`."""
        return pb.TrafficApplied(
            version=self.traffic.version, draining=sorted(self._draining), problems=self._problems
        )

    def service_use(self) -> list[pb.ServiceUse]:
        """See `Proxy`."""
        uses, self.uses = self.uses, []
        return uses

    def problem(self) -> str:
        """See `Proxy`."""
        return ""

    async def run(self) -> None:
        """See `Proxy`."""
        while True:
            await self._news.wait()
            self._news.clear()
            await asyncio.sleep(self.applies_after_s)
            if self.is_stuck:
                continue
            if (self.network, self.traffic) != self._told:
                before = self._all_endpoints()
                self.network, self.traffic = self._told
                self._let_drain(before - self._all_endpoints())
                self.on_applied()

    def _let_drain(self, left: frozenset[str]) -> None:
        if left and self.requests_last_s:
            self._draining |= left
            end = partial(self._end_requests, left)
            asyncio.get_running_loop().call_later(self.requests_last_s, end)

    def _end_requests(self, endpoints: frozenset[str]) -> None:
        self.drain(self._draining - endpoints)

    def _all_endpoints(self) -> frozenset[str]:
        return frozenset(each for known in self.traffic.endpoints.values() for each in known)

    def drain(self, endpoints: Iterable[str]) -> None:
        """From now on these still have requests."""
        self._draining = frozenset(endpoints)
        self.on_applied()

    def fail_ports(self, problems: Iterable[pb.PortProblem]) -> None:
        """From now on these ports cannot be had."""
        self._problems = tuple(problems)
        self.on_applied()

    def unstick(self) -> None:
        """Do what it was told meanwhile."""
        self.is_stuck = False
        self._news.set()

    def endpoints(self, service: str) -> set[str]:
        """Ids that requests to `namespace/name` may reach now."""
        known = self.traffic.services.get(service)
        return {
            each.id
            for each in self.traffic.endpoints.get(service, {}).values()
            if known is not None and (each.ready or known.publish_not_ready)
        }
