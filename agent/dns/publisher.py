"""Tells the name server: writes the zone file whenever what is in it has changed."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import structlog

from agent.dns.tables_to_zone import ZoneLines, is_known
from agent.dns.zone_file import FILE_NAME, write_zone
from agent.network.table import NetworkTable
from agent.traffic.table import TrafficTable

log = structlog.get_logger(__name__)

# Changes come in bursts: the first is written at once, what follows within this time together.
WRITE_EVERY_S = 0.05
RETRY_S = 1.0
# Somebody may have deleted it.
LOOK_EVERY_S = 5.0


class ZonePublisher:
    """One per agent."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / FILE_NAME
        self._lines = ZoneLines()
        self._tables = (NetworkTable(), TrafficTable())
        self._changed = asyncio.Event()

    def use(self, network: NetworkTable, traffic: TrafficTable) -> None:
        """From now on it is to be so. Returns at once; `run` writes it."""
        self._tables = (network, traffic)
        self._changed.set()

    async def run(self) -> None:
        """Write until cancelled. The file stays: names go on without the agent."""
        written: list[str] = []
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._changed.wait()
            self._changed.clear()
            lines = self._wanted(written)
            if lines and (lines != written or not self._path.exists()):
                try:
                    write_zone(self._path, lines)
                except OSError as error:
                    # Names stay as they were; with the disk, or the directory, back they catch up.
                    log.warning("zone.not_written", file=str(self._path), error=str(error))
                    self._changed.set()
                    await asyncio.sleep(RETRY_S)
                    continue
                written = lines
            await asyncio.sleep(WRITE_EVERY_S)

    def _wanted(self, written: list[str]) -> list[str]:
        """Empty: leave what is there."""
        network, traffic = self._tables
        if not written and not is_known(traffic) and self._path.exists():
            # Of the agent before this one, which knew: better than a file that knows nothing.
            return []
        return self._lines.of(network, traffic)
