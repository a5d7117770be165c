"""The node's disk, and what is left over on it.

Above 80 % images that we pulled and nobody uses go, oldest first; above 90 % the node takes no
new pods and says why. Finished containers go after a day (leftovers.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import structlog

from agent.engine import Engine
from agent.host import Host
from agent.leftovers import leftovers
from agent.runtime.port import EngineError, Runtime

log = structlog.get_logger(__name__)

EVERY_S = 30.0
PRUNE_ABOVE = 0.80
PRUNE_DOWN_TO = 0.75  # Some room below, so that it is not done again at once.
PRESSURE_ABOVE = 0.90
# A removal each, one after another: more would slow the starts of pods.
REMOVALS_AT_ONCE = 20


class Housekeeping:
    """One per agent.

    Args:
        pods: uids of the pods that are looked after.
        images: references that pods run, or may run again.
    """

    def __init__(
        self,
        runtime: Runtime,
        engine: Engine,
        host: Host,
        *,
        pods: Callable[[], Collection[str]],
        images: Callable[[], frozenset[str]],
        wall_s: Callable[[], float],
    ) -> None:
        self._runtime = runtime
        self._engine = engine
        self._host = host
        self._pods = pods
        self._images = images
        self._wall_s = wall_s
        self._root_dir = ""
        self.disk_pressure = ""  # Why the node takes no new pods, e.g. "disk 93 % full"; empty if it does.

    async def run(self) -> None:
        """Keep house until cancelled."""
        while True:
            try:
                await self._remove_leftovers()
                await self._watch_disk()
            except (EngineError, OSError) as error:
                log.warning("housekeeping.failed", error=str(error))
            await asyncio.sleep(EVERY_S)

    async def _remove_leftovers(self) -> None:
        removable = leftovers(self._engine.all(), self._pods(), now_s=self._wall_s())
        for container in removable[:REMOVALS_AT_ONCE]:
            await self._runtime.remove(container.id)
            self._engine.note_removed(container.id)
            log.info("container.removed", container=container.name)

    async def _watch_disk(self) -> None:
        self._root_dir = self._root_dir or (await self._runtime.info()).root_dir
        total, free = self._host.disk(self._root_dir)
        used = 1 - free / total
        if used > PRUNE_ABOVE:
            target_bytes = int((used - PRUNE_DOWN_TO) * total)
            freed = await self._runtime.prune_images(keep=self._images(), target_bytes=target_bytes)
            log.info("images.pruned", freed_bytes=freed, disk_used=round(used, 3))
            total, free = self._host.disk(self._root_dir)
            used = 1 - free / total
        self.disk_pressure = f"disk {used * 100:.0f} % full" if used > PRESSURE_ABOVE else ""
