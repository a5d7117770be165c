"""Looks at the engines alone, as a person with `docker ps` on every host would, all the time.

It notes what must never be; the cluster's end fails on it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster


class Watcher:
    """Looks at every engine each 50 ms, and notes what must never be."""

    EVERY_S = 0.05

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.violations: list[str] = []
        self.trace: list[str] = []  # Every container that came or went, and when.
        self._seen: dict[str, str] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._look()
            await asyncio.sleep(self.EVERY_S)

    def _look(self) -> None:
        now_s = asyncio.get_running_loop().time()
        pods = Counter(pod for node in self._cluster.nodes.values() for pod in node.running())
        for pod, count in pods.items():
            if count > 1:
                self.violations.append(f"{now_s:.2f}: {count} live containers of {pod}")
        seen = {
            container.shown.id: f"{node.name} {container.shown.name}"
            for node in self._cluster.nodes.values()
            for container in node.engine.containers.values()
            if container.is_running
        }
        changes = [f"+ {seen[new]}" for new in seen.keys() - self._seen.keys()]
        changes += [f"- {self._seen[gone]}" for gone in self._seen.keys() - seen.keys()]
        self.trace.extend(f"{now_s:.2f} {change}" for change in sorted(changes))
        self._seen = seen
        for node in self._cluster.nodes.values():
            if node.is_foreign_touched:
                self.violations.append(f"{now_s:.2f}: somebody touched the foreign container on {node.name}")

    @contextlib.asynccontextmanager
    async def bounds(self, name: str, *, least: int, most: int) -> AsyncIterator[None]:
        """While inside, the number of running pods of a workload must stay within bounds."""

        async def look() -> None:
            while True:
                count = self._cluster.running(name).total()
                if not least <= count <= most:
                    now_s = asyncio.get_running_loop().time()
                    self.violations.append(f"{now_s:.2f}: {count} pods of {name}, not {least} to {most}")
                await asyncio.sleep(self.EVERY_S)

        task = asyncio.create_task(look(), name="bounds")
        try:
            yield
        finally:
            await ended(task)


async def ended(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait for its end; what it failed with is raised."""
    if task is None:
        return
    task.cancel()
    outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    if isinstance(outcome, Exception):
        raise outcome
