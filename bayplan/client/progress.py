"""Whether a workload is as it was applied, how far it is, and what holds it up.

Looks again and again at the document's status and its pods, rather than at events: whatever was
missed meanwhile does not matter. A slot is failing from when it is first seen so until its pod has been
ready for a while: a crashing container that happens to run for the moment does not clear it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from bayplan.client.errors import NotFoundError, NotReadyError, UnavailableError
from bayplan.client.types import Document, Pod

# A failure that lasts this long is reported; shorter ones cure themselves: a registry's hiccup,
# a node that is just being replaced.
FAILING_S = 15.0
# All pods must stay ready this long, so that one which dies in its first second is not called ready.
STABLE_S = 2.0
# One that has failed before must prove more: it may crash again after a few seconds of running.
CALM_S = 10.0
_LOOK_EVERY_S = 0.3

# Kinds that make pods which are meant to stay.
WAITED_KINDS = frozenset({"Deployment"})

_FAILING_STATUSES = frozenset({"CrashLoop", "Failed"})
# Reasons that are no failure of the pod: nobody knows how it is.
_NOT_KNOWN = frozenset({"Unknown", "Terminating"})


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
    if pod.reason and pod.reason not in _NOT_KNOWN and pod.status not in {"Running", "Stopping", "Unknown"}:
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
    memory = _Memory()
    last = Progress(target=target)
    while True:
        try:
            document = await source.get(target.kind, target.name, namespace=target.namespace)
            if document.name != target.name or document.deleting:
                raise NotFoundError(f"{target.kind} {target.name} was deleted meanwhile")
            pods = await source.pods(
                namespace=target.namespace, workload_kind=target.kind, workload=target.name
            )
        except UnavailableError as error:
            memory.reached_since = None
            yield replace(last, is_reached=False, note=str(error).splitlines()[0].rstrip(":"))
        else:
            last = memory.judge(progress_of(target, document, pods), loop.time())
            yield last
        await asyncio.sleep(_LOOK_EVERY_S)


@dataclass(slots=True)
class _Memory:
    """Since when things are as they are. Slots stand for their pods, which may be replaced meanwhile."""

    failing_since: dict[int, float] = field(default_factory=dict)
    ready_since: dict[int, tuple[float, int]] = field(default_factory=dict)  # (when, restarts until then)
    reached_since: float | None = None

    def judge(self, progress: Progress, now: float) -> Progress:
        """`progress` with what one look cannot tell."""
        for pod in progress.pods:
            if not pod.current:
                continue
            since, restarts = self.ready_since.get(pod.slot, (now, -1))
            if not pod.ready:
                self.ready_since.pop(pod.slot, None)
            elif restarts != pod.restarts:
                self.ready_since[pod.slot] = (now, pod.restarts)
            elif pod.restarts == 0 or now - since >= CALM_S:
                # One that never restarted was only slow: it waited for room, or for its image.
                self.failing_since.pop(pod.slot, None)
        for failing in progress.failing:
            self.failing_since.setdefault(failing.pod.slot, now)
        slots = {pod.slot for pod in progress.pods}
        self.failing_since = {slot: since for slot, since in self.failing_since.items() if slot in slots}

        if not progress.is_reached:
            self.reached_since = None
        elif self.reached_since is None:
            self.reached_since = now
        newest = max((since for since, _ in self.ready_since.values()), default=now - STABLE_S)
        return replace(
            progress,
            is_done=self.reached_since is not None
            and now - max(self.reached_since, newest) >= STABLE_S
            and not self.failing_since,
            failing=tuple(
                replace(failing, for_s=now - self.failing_since[failing.pod.slot])
                for failing in progress.failing
            ),
        )


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
