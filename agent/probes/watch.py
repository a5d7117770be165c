"""Watching a container while it runs: its postStart hook, then its probes, until it ends or is to be stopped.

A task for each probe, as each waits for its own time: asleep it costs a few kilobytes, and one that hangs delays no other.
What they find goes to the pod's runner at once, and only when it changes something.

Measured: 250 containers with two HTTP probes, each asked once a second, take a third of a core of a busy two-core machine,
mostly for the kernel's part in 500 connections a second; at the default period of ten seconds it is a tenth of that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from agent.probes.judgement import Health, count, first_tally, first_time, judged, next_time, unasked
from agent.probes.model import Hooks, Probe, Probes, Role
from agent.probes.port import Prober, Result
from agent.runtime.port import Container

log = structlog.get_logger(__name__)

# Kubernetes lets a postStart hook take for ever; here it has most of a working day.
POST_START_MAX_S = 6 * 3600.0
# While the engine cannot be asked to begin it.
POST_START_RETRY_S = 1.0
# After an error that only a bug of ours can cause.
BUG_RETRY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What is to be watched in a run.

    `chance` spreads the first checks of a container that was found running; None: it has just been started.
    """

    probes: Probes
    hooks: Hooks
    chance: random.Random | None


class Watch:
    """One per container of a pod. It watches one run of it, or nothing.

    Args:
        prober: makes checks and hooks.
        tell: is called with each change.
        wall_s: seconds since the Unix epoch.
        tasks: where it runs.
    """

    def __init__(
        self,
        prober: Prober,
        *,
        tell: Callable[[Health], None],
        wall_s: Callable[[], float],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._prober = prober
        self._tell = tell
        self._wall_s = wall_s
        self._tasks = tasks
        self._run: _Run | None = None
        self._task: asyncio.Task[None] | None = None

    def is_of(self, health: Health) -> bool:
        """Whether this is the run that is watched."""
        if self._run is None:
            return False
        mine = self._run.health
        return (mine.container_id, mine.started_s) == (health.container_id, health.started_s)

    def begin(self, container: Container, health: Health, orders: Orders) -> None:
        """Watch this run from now on, and no other. `health` is what is known of it."""
        self.end()
        self._run = _Run(
            container, health, orders=orders, prober=self._prober, tell=self._heard, wall_s=self._wall_s
        )
        self._task = self._tasks.create_task(self._run.watch(), name=f"watch {container.name}")

    def see(self, container: Container) -> None:
        """The engine shows it so now: its address may be another one."""
        if self._run is not None:
            self._run.container = container

    def end(self) -> None:
        """Watch nothing. Nothing is told any more."""
        self._run = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _heard(self, run: _Run) -> None:
        if run is self._run:
            self._tell(run.health)


class _Run:
    """Watches one run."""

    def __init__(
        self,
        container: Container,
        health: Health,
        *,
        orders: Orders,
        prober: Prober,
        tell: Callable[[_Run], None],
        wall_s: Callable[[], float],
    ) -> None:
        self.container = container
        self.health = health
        self._orders = orders
        self._prober = prober
        self._tell = tell
        self._wall_s = wall_s

    async def watch(self) -> None:
        while True:
            try:
                return await self._watch()
            except Exception:
                # A bug of ours, met by this container: it must not end the agent and the watch over all others.
                log.exception("container.not_watched", container=self.container.name)
                await asyncio.sleep(BUG_RETRY_S)

    async def _watch(self) -> None:
        await self._post_start()
        probes = self._orders.probes
        if probes.startup is not None and not self.health.is_started and not self.health.broken:
            await self._probe(Role.STARTUP, probes.startup)
        if self.health.broken:
            return
        async with asyncio.TaskGroup() as tasks:
            if probes.readiness is not None:
                tasks.create_task(self._probe(Role.READINESS, probes.readiness))
            if probes.liveness is not None:
                tasks.create_task(self._probe(Role.LIVENESS, probes.liveness))

    async def _post_start(self) -> None:
        hook = self._orders.hooks.post_start
        if hook is None or self.health.is_post_started:
            return
        if self._orders.chance is not None:
            # Whether it ended, or ran at all, is not known: as in Kubernetes, a hook may run twice but not never.
            log.warning("post_start.repeated", container=self.container.name)
        while True:
            outcome = await self._prober.run_hook(self.container, hook, timeout_s=POST_START_MAX_S)
            if outcome.result is not Result.UNKNOWN:
                break
            log.warning("post_start.not_begun", container=self.container.name, error=outcome.words)
            await asyncio.sleep(POST_START_RETRY_S)
        if outcome.result is Result.FAILURE:
            self._put(replace(self.health, broken=f"postStart hook failed: {outcome.words}"))
        else:
            self._put(replace(self.health, is_post_started=True))

    async def _probe(self, role: Role, probe: Probe) -> None:
        """Until a verdict that ends it: a startup probe's first, a liveness probe's failure."""
        loop = asyncio.get_running_loop()
        tally = first_tally(role, self.health)
        table = first_time(
            role,
            probe,
            self.health,
            age_s=self._wall_s() - self.container.started_s,
            now_s=loop.time(),
            chance=self._orders.chance.random() if self._orders.chance is not None else None,
        )
        while True:
            await asyncio.sleep(table.at_s - loop.time())
            outcome = await self._prober.probe(self.container, probe.check, timeout_s=probe.timeout_s)
            if outcome.result is Result.UNKNOWN:
                # Of the engine's outage others tell; a line for each probe of each pod would bury them.
                log.debug(
                    "probe.not_made", container=self.container.name, probe=role.value, error=outcome.words
                )
                self._put(unasked(self.health, role, outcome.words))
            else:
                tally = count(tally, probe, outcome, is_early=table.is_early)
                self._put(judged(self.health, role, probe, tally))
            if self.health.broken or (role is Role.STARTUP and self.health.is_started):
                return
            table = next_time(table, role, probe, tally, now_s=loop.time())

    def _put(self, health: Health) -> None:
        if health == self.health:
            return
        before, self.health = self.health, health
        if health.broken:
            log.warning("container.condemned", container=self.container.name, why=health.broken)
        elif health.is_ready != before.is_ready:
            log.info(
                "container.judged", container=self.container.name, ready=health.is_ready, why=health.words
            )
        self._tell(self)
