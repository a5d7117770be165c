"""What the rest of the agent asks of the node's proxy.

HAProxy (agent/traffic/proxy.py) and the simulated one (agent/traffic/simulated.py) obey it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agent.network.table import NetworkTable
from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as pb


class Proxy(Protocol):
    """One per agent.

    `on_applied` is called whenever what `applied` says has changed.
    """

    on_applied: Callable[[], None]

    def use(self, network: NetworkTable, traffic: TrafficTable) -> None:
        """From now on it is to be so. Returns at once; `run` does it."""
        ...

    def applied(self) -> pb.TrafficApplied:
        """Up to which version, what still drains, and which ports could not be had."""
        ...

    def service_use(self) -> list[pb.ServiceUse]:
        """What went through since it was asked last. Left out: services whose counters restarted meanwhile."""
        ...

    def problem(self) -> str:
        """Why it is not as it was told to be; empty: it is, or soon will be."""
        ...

    async def run(self) -> None:
        """Make it so, until cancelled. Ending leaves the proxy running."""
        ...
