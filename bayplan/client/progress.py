"""Whether a workload is as it was applied, how far it is, and what holds it up.

Looks again and again at the document's status and its pods, rather than at events: whatever was
missed meanwhile does not matter. A pod is failing from when it is first seen so until it is ready:
a crashing container that happens to run for the moment does not clear it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bayplan.client.errors import NotFoundError, NotReadyError, UnavailableError
from bayplan.client.types import Document, Pod

# A failure that lasts this long is reported; shorter ones cure themselves: a registry's hiccup,
# a node that is just being replaced.
FAILING_S = 15.0
# All pods must stay ready this long, so that one which dies in its first second is not called ready.
STABLE_S = 2.0
_LOOK_EVERY_S = 0.3

# Kinds that make pods which are meant to stay.
WAITED_KINDS = frozenset({"Deployment"})

_FAILING_STATUSES = frozenset({"CrashLoop", "Failed"})


class Source(Protocol):
    """The part of the client that is looked at."""

    async def get(self, kind: str, name: str, *, namespace: str = "default") -> Document: ...

    async def pods(
        self, *, namespace: str = "default", workload_kind: str = "", workload: str = ""
    ) -> tuple[Pod, ...]: ...


@dataclass(frozen=True, slots=True)
class Target:
    """A workload to wait for."""

    kind: str
    namespace: str
    name: str
    generation: int = 0  # At least this one; 0: the present one.


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """A pod that does not come up by itself."""

    pod: Pod
    reason: str  # CrashLoop, ImagePullBackOff, Pending, …
    message: str
    for_s: float = 0.0

    def __str__(self) -> str:
        place = f" on {self.pod.node}" if self.pod.node else ""
        return f"{self.pod.name}{place}: {self.reason}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a workload is."""

    target: Target
    desired: int = 0
    updated: int = 0
    ready: int = 0
    total: int = 0  # Pods that are not over, of any revision.
    is_planned: bool = False  # The leader has seen the applied generation.
    is_reached: bool = False  # Everything is as applied, at this moment.
    is_done: bool = False  # … and has been so for a while.
    failing: tuple[Failing, ...] = ()
    pods: tuple[Pod, ...] = field(default=(), repr=False)
    note: str = ""  # Why nothing newer is known.

    def lasting(self) -> tuple[Failing, ...]:
        """What fails for too long to wait further."""
        return tuple(failing for failing in self.failing if failing.for_s >= FAILING_S)


def progress_of(target: Target, document: Document, pods: Sequence[Pod]) -> Progress:
    """How far a workload is, from one look at it. Pure."""
    generation = max(target.generation, document.generation)
    desired = _count(document.body.get("spec"), "replicas", 1)
    alive = [pod for pod in pods if not pod.is_terminal and pod.want not in {"Stop", "Lost"}]
    updated = _count(document.status, "updatedReplicas", 0)
    ready = sum(pod.ready for pod in alive)
    is_planned = _count(document.status, "observedGeneration", 0) >= generation
    stopping = any(pod.node and not pod.is_terminal and pod.want == "Stop" for pod in pods)
    return Progress(
        target=target,
        desired=desired,
        updated=updated,
        ready=ready,
        total=len(alive),
        is_planned=is_planned,
        is_reached=is_planned and updated == ready == len(alive) == desired and not stopping,
        failing=tuple(failing for pod in pods if (failing := _failing_of(pod)) is not None),
        pods=tuple(pods),
    )


def _count(values: object, key: str, default: int) -> int:
    value = values.get(key, default) if isinstance(values, dict) else default
    return value if isinstance(value, int) else default


def _failing_of(pod: Pod) -> Failing | None:
    if pod.ready or not pod.current or pod.want in {"Stop", "Lost"}:
        return None
    exits = [container.last_exit for container in pod.containers if container.last_exit is not None]
    if pod.status in _FAILING_STATUSES:
        message = pod.why or pod.message or next((f"exit {end.code}" for end in exits), "")
        return Failing(pod=pod, reason=pod.status, message=message)
    if pod.status == "Pending" and not pod.node and pod.why:
        return Failing(pod=pod, reason="Pending", message=pod.why)
    if pod.reason and pod.status not in {"Running", "Stopping"}:
        return Failing(pod=pod, reason=pod.reason, message=pod.message or pod.why)
    if pod.restarts and exits:
        # It runs again for the moment, and is not ready: what ended it is what the user must know.
        return Failing(pod=pod, reason="CrashLoop", message=pod.why or f"exit {exits[-1].code}")
    return None


async def follow(source: Source, target: Target) -> AsyncGenerator[Progress, None]:
    """Progress at each look, without end: the caller decides when to stop.

    A cluster that cannot answer for a while is waited for: `note` says so.

    Raises: NotFoundError: the workload is gone.
    """
    loop = asyncio.get_running_loop()
    failing_since: dict[int, float] = {}  # By slot.
    reached_since: float | None = None
    last = Progress(target=target)
    restarts = 0
    while True:
        try:
            document = await source.get(target.kind, target.name, namespace=target.namespace)
            if document.name != target.name or document.deleting:
                raise NotFoundError(f"{target.kind} {target.name} was deleted meanwhile")
            pods = await source.pods(
                namespace=target.namespace, workload_kind=target.kind, workload=target.name
            )
        except UnavailableError as error:
            reached_since = None
            yield Progress(target=target, desired=last.desired, note=str(error).splitlines()[0].rstrip(":"))
            await asyncio.sleep(_LOOK_EVERY_S)
            continue
        now = loop.time()
        last = progress_of(target, document, pods)

        failing_now = {failing.pod.slot for failing in last.failing}
        unready = {pod.slot for pod in pods if pod.current and not pod.ready}
        failing_since = {slot: since for slot, since in failing_since.items() if slot in unready}
        for slot in failing_now:
            failing_since.setdefault(slot, now)

        restarts_now = sum(pod.restarts for pod in pods)
        if not last.is_reached or restarts_now != restarts:
            reached_since = now if last.is_reached else None
        elif reached_since is None:
            reached_since = now
        restarts = restarts_now
        yield Progress(
            target=target,
            desired=last.desired,
            updated=last.updated,
            ready=last.ready,
            total=last.total,
            is_planned=last.is_planned,
            is_reached=last.is_reached,
            is_done=last.is_reached and reached_since is not None and now - reached_since >= STABLE_S,
            failing=tuple(
                Failing(
                    pod=failing.pod,
                    reason=failing.reason,
                    message=failing.message,
                    for_s=now - failing_since.get(failing.pod.slot, now),
                )
                for failing in last.failing
            ),
            pods=last.pods,
        )
        await asyncio.sleep(_LOOK_EVERY_S)


async def wait_ready(source: Source, target: Target, *, timeout_s: float) -> None:
    """Until `target` is as applied. Raises NotReadyError with the reasons, or NotFoundError."""
    last = Progress(target=target)
    try:
        async with asyncio.timeout(timeout_s):
            async for last in follow(source, target):
                if last.is_done:
                    return
                if last.lasting():
                    break
    except TimeoutError:
        pass
    raise NotReadyError(words_of(last))


def words_of(progress: Progress) -> str:
    """Why a workload is not ready: a line, and one for each of the first pods that fail."""
    target = progress.target
    lines = [f"{target.kind} {target.name} is not ready: {progress.ready} of {progress.desired} pods are"]
    if progress.note:
        lines.append(f"  {progress.note}")
    lines += [f"  {failing}" for failing in progress.failing[:5]]
    if len(progress.failing) > 5:
        lines.append(f"  and {len(progress.failing) - 5} more pods")
    return "\n".join(lines)
