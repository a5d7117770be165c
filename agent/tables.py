"""What the leader says of the network and of services: folded, kept on disk, and made so by the parts that act on it.

A host that reboots with no manager in reach has both as they were told last.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import structlog

from agent.network import table as network_table
from agent.network.credible import credible
from agent.network.table import NetworkTable
from agent.traffic import table as traffic_table
from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as pb

log = structlog.get_logger(__name__)

# With 20,000 endpoints the file has some megabytes: not once for each of them.
SAVE_EVERY_S = 2.0


class Part(Protocol):
    """One that acts on it: the pods' network, the proxy, the name server's publisher."""

    def use(self, network: NetworkTable, traffic: TrafficTable) -> None:
        """From now on it is to be so. Returns at once."""
        ...

    async def run(self) -> None:
        """Make it so, until cancelled."""
        ...


class Tables:
    """One per agent. Each of `parts` is given both tables whenever one has changed, and run."""

    def __init__(self, directory: Path, parts: Sequence[Part]) -> None:
        self._directory = directory
        self._parts = parts
        self.network = NetworkTable()
        self.traffic = TrafficTable()
        self._saved = (self.network, self.traffic)
        self._changed = asyncio.Event()

    def load(self) -> None:
        """Begin with what was told last."""
        with contextlib.suppress(ValueError):
            self.network = credible(network_table.load(self._directory))
        self.traffic = traffic_table.load(self._directory)
        self._saved = (self.network, self.traffic)
        if self.network.settings is not None:
            self._tell()

    def fold_network(self, message: pb.Network) -> None:
        """Raises ValueError on what cannot be a network; nothing has changed then."""
        self.network = credible(self.network.fold(message))
        self._has_changed()

    def fold_traffic(self, message: pb.Traffic) -> None:
        """Take over what is new."""
        self.traffic = self.traffic.fold(message)
        self._has_changed()

    def forget_version(self) -> None:
        """Another leader numbers its words anew: nothing of it is in force yet."""
        self.traffic = replace(self.traffic, version=0)
        self._tell()

    async def run(self) -> None:
        """Run the parts and save what has changed, until cancelled; a last time then."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._save_for_ever(), name="tables")
            for part in self._parts:
                tasks.create_task(part.run(), name=type(part).__name__)

    async def _save_for_ever(self) -> None:
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                try:
                    await asyncio.to_thread(self._save)
                except OSError as error:
                    # A full disk must not end the agent: what serves goes on.
                    log.warning("tables.not_saved", error=str(error))
                    self._changed.set()
                await asyncio.sleep(SAVE_EVERY_S)
        finally:
            with contextlib.suppress(OSError):
                self._save()

    def _has_changed(self) -> None:
        self._changed.set()
        self._tell()

    def _tell(self) -> None:
        for part in self._parts:
            part.use(self.network, self.traffic)

    def _save(self) -> None:
        network, traffic = self.network, self.traffic
        if network is not self._saved[0]:
            network_table.save(network, self._directory)
        if traffic is not self._saved[1]:
            traffic_table.save(traffic, self._directory)
        self._saved = (network, traffic)
