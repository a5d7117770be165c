"""How starts, failovers and first answers are timed: the same way for Bayplan, Swarm and the bare engine.

Nobody is asked how fast it was. Starts are what the nodes' own engines book as each container's
start; failovers end when every replacement has answered TCP; answers are counted when they arrive.
Clocks start before the order, or the fault, is given, so that the command that gives it counts too.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from agent.runtime.container_config import to_seconds
from bench.answers import AnswerWatch
from deploy.local_cluster import NODES
from deploy.shell import StepError
from tests.e2e.cluster import APP_IMAGE, Cluster, eventually
from tests.e2e.watch import ContainerWatch, Seen

MEMORY_LIMIT_MIB = 32
# As the nodes' engines know what Bayplan's manifest calls by its bare name.
IMAGE_ON_NODES = f"registry:5000/{APP_IMAGE}"
# The nodes are probed for pods of a failover: so many on the node that dies.
PODS_PER_NODE = 10
START_TIMEOUT_S = 180
FAILOVER_TIMEOUT_S = 180  # Swarm needs 20 s; a slow machine more.
GONE_TIMEOUT_S = 120
ATTEMPT_EVERY_S = 0.05
ATTEMPTS_AT_ONCE_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """The cluster that is measured, and how often and how much."""

    cluster: Cluster
    runs: int
    replicas: int
    idle_s: float

    @property
    def pods_per_node(self) -> int:
        """On the node that fails; fewer than usual only in a trial with few replicas."""
        return min(PODS_PER_NODE, self.replicas)

    @property
    def failover_replicas(self) -> int:
        return self.pods_per_node * len(NODES)

    def wait_until_empty(self) -> None:
        """No node runs a container of anything that is measured here."""
        eventually(
            lambda: all(self.cluster.local.pods(node) == [] for node in NODES),
            within_s=GONE_TIMEOUT_S,
            otherwise=self.cluster.report,
        )


def time_start(rig: Rig, workload: str, count: int, order: Callable[[], None]) -> float:
    """Seconds from the order to the latest start among `count` running containers."""
    with rig.cluster.watched() as watch:
        # Engines book starts by the wall clock, which all containers of a machine share.
        ordered_s = time.time()
        order()
        running = until_running(watch, workload, count)
    return max(started_s(rig, one) for one in running) - ordered_s


def until_running(watch: ContainerWatch, workload: str, count: int) -> list[Seen]:
    """The workload's containers, once exactly so many run."""

    def look() -> list[Seen] | None:
        running = watch.now().of(workload)
        return running if len(running) == count else None

    return eventually(look, within_s=START_TIMEOUT_S, otherwise=watch.timeline)


def started_s(rig: Rig, container: Seen) -> float:
    """When the container's own engine started it, in seconds since the Unix epoch."""
    found = rig.cluster.local.engine(container.node, f"/containers/{container.id}/json")
    return to_seconds(found["State"]["StartedAt"])


def time_failover(rig: Rig, workload: str, victim: str, hurt: Callable[[], object]) -> float:
    """Seconds from the fault to the TCP answer of the last replacement, all running on the other nodes.

    The workload must run already, `rig.pods_per_node` of its pods on the victim. Raises StepError
    when they are spread otherwise: then it would be another measurement.
    """
    survivors = [node for node in NODES if node != victim]
    local = rig.cluster.local
    with rig.cluster.watched() as watch, AnswerWatch(local, workload, survivors) as answers:
        before = until_running(watch, workload, rig.failover_replicas)
        lost = sum(one.node == victim for one in before)
        if lost != rig.pods_per_node:
            raise StepError(f"{victim} runs {lost} of {len(before)} pods, not {rig.pods_per_node}")
        old = {one.id for one in before if one.node != victim}
        eventually(lambda: old <= answers.first_s().keys(), within_s=START_TIMEOUT_S)

        hurt_s = time.monotonic()
        hurt()

        def replaced() -> set[str] | None:
            running = {one.id for one in watch.now().of(workload) if one.node != victim}
            whole = len(running) == rig.failover_replicas and running <= answers.first_s().keys()
            return running - old if whole else None

        new = eventually(replaced, within_s=FAILOVER_TIMEOUT_S, otherwise=watch.timeline)
        return max(answers.first_s()[container] for container in new) - hurt_s


async def time_first_answer(
    hurt: Callable[[], object], attempts: Sequence[Callable[[], Awaitable[bool]]]
) -> float:
    """Seconds from the fault to the end of the first attempt that succeeds.

    An attempt begins every 50 ms, `attempts` in turn, whether earlier ones have ended or not: one
    that hangs at a server which still waits for the dead leader must not hide another's answer.
    """
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[float] = loop.create_future()

    async def attempt_once(attempt: Callable[[], Awaitable[bool]]) -> None:
        if await attempt() and not answered.done():
            answered.set_result(loop.time())

    try:
        async with asyncio.timeout(FAILOVER_TIMEOUT_S), asyncio.TaskGroup() as group:
            hurt_s = loop.time()
            fault = group.create_task(asyncio.to_thread(hurt), name="fault")
            begun: set[asyncio.Task[None]] = set()
            for attempt in itertools.cycle(attempts):
                begun = {task for task in begun if not task.done()}
                if len(begun) < ATTEMPTS_AT_ONCE_MAX:
                    begun.add(group.create_task(attempt_once(attempt)))
                await asyncio.wait([answered], timeout=ATTEMPT_EVERY_S)
                if answered.done():
                    break
            await fault
            for task in begun:
                task.cancel()
    except TimeoutError as error:
        raise StepError(f"no answer within {FAILOVER_TIMEOUT_S} s after the fault") from error
    return answered.result() - hurt_s
