"""What the leader says of the network and of services: folded, kept on disk, and made so by the parts that act on it.

A host that reboots with no manager in reach has both as they were told last; an agent that is killed finds the very
last word, and certificates' keys, in the log beside the proxy's configuration.
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
from agent.told_log import ToldLog
from agent.traffic import table as traffic_table
from agent.traffic.table import TrafficTable, joined
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
    """One per agent. Each of `parts` is given both tables whenever one has changed, and run.

    Args:
        directory: of what outlives a reboot.
        run_dir: a tmpfs, of what outlives this process.
    """

    def __init__(self, directory: Path, run_dir: Path, parts: Sequence[Part]) -> None:
        self._directory = directory
        self._log = ToldLog(run_dir)
        self._parts = parts
        self.network = NetworkTable()
        self.traffic = TrafficTable()
        self._saved = (self.network, self.traffic)
        self._changed = asyncio.Event()

    def load(self) -> None:
        """Begin with what was told last."""
        if not self._replay():
            with contextlib.suppress(ValueError):
                self.network = credible(network_table.load(self._directory))
            self.traffic = traffic_table.load(self._directory)
            self._saved = (self.network, self.traffic)
        if self.network.settings is not None:
            self._log.write(self._whole())
            self._has_changed()

    def _replay(self) -> bool:
        """What the agent before this one was told, if it has left that."""
        if not (self._directory / network_table.FILE_NAME).exists():
            return False  # Somebody emptied the data directory: the node is to be another cluster's.
        network, traffic = NetworkTable(), TrafficTable()
        try:
            for message in self._log.read():
                if message.HasField("network"):
                    network = credible(network.fold(message.network))
                else:
                    traffic = traffic.fold(message.traffic)
        except ValueError as error:
            log.warning("told_log.not_used", error=str(error))
            return False
        if network.settings is None:
            return False
        self.network, self.traffic = network, replace(traffic, version=0)
        return True

    def fold_network(self, message: pb.Network) -> None:
        """Raises ValueError on what cannot be a network; nothing has changed then."""
        self.network = credible(self.network.fold(message))
        self._note(pb.ManagerMessage(network=message))
        self._has_changed()

    def fold_traffic(self, message: pb.Traffic) -> None:
        """Take over what is new."""
        word = joined(*self.traffic.begun, message)
        self.traffic = self.traffic.fold(message)
        if message.more:
            return
        self._note(pb.ManagerMessage(traffic=word))
        self._has_changed()

    def forget_version(self) -> None:
        """Another leader numbers its words anew: nothing of it is in force yet."""
        self.traffic = replace(self.traffic, version=0, begun=())
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
                if self._log.is_lost:
                    self._log.write(self._whole())
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

    def _note(self, message: pb.ManagerMessage) -> None:
        # Before anybody acts on it.
        if not self._log.add(message):
            self._log.write(self._whole())

    def _whole(self) -> tuple[pb.ManagerMessage, ...]:
        traffic = self.traffic.to_message()
        traffic.ingress.CopyFrom(self.traffic.ingress)  # With its keys: the log is on no disk.
        return pb.ManagerMessage(network=self.network.to_message()), pb.ManagerMessage(traffic=traffic)

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
