"""What the rest of the agent asks of the pods' network.

The kernel's (agent/network/linux.py) and the simulated one (agent/network/simulated.py) obey it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.network.table import NetworkTable
from agent.traffic.table import TrafficTable


class NetworkError(Exception):
    """A pod cannot be connected now. The message is for people, e.g. "the subnet 10.42.3.0/24 is full"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """How a pod's first container is connected. The same for every restart of it."""

    network: str  # The engine's name of it.
    address: str
    resolv_conf: Path  # To be mounted over /etc/resolv.conf.


class PodNetwork(Protocol):
    """One per agent."""

    def use(self, network: NetworkTable, traffic: TrafficTable) -> None:
        """From now on it is to be so. Returns at once; `run` does it."""
        ...

    def problem(self) -> str:
        """Why pods cannot be connected; empty: they can."""
        ...

    async def attach(self, pod_uid: str, namespace: str) -> Attachment:
        """Choose an address, or the one that the pod has; it is noted before it is returned. Raises NetworkError."""
        ...

    async def resolv_conf(self, namespace: str) -> Path:
        """The file that leads to this node's name server, to be mounted over /etc/resolv.conf. Raises NetworkError."""
        ...

    def release(self, pod_uid: str) -> None:
        """The pod is gone: its address rests for a minute, then others may have it."""
        ...

    def retain(self, pod_uids: Collection[str]) -> None:
        """These are all pods that this agent knows: what others had is released. For its start."""
        ...

    async def wireguard_public_key(self) -> str:
        """For Hello; empty where there can be none."""
        ...

    async def run(self) -> None:
        """Make it so and keep it so, until cancelled: what others delete is made again. Ending removes nothing."""
        ...
