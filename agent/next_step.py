"""What to do next with one pod. Pure: no clock, no engine, no journal.

The runner calls `observe`, then `next_step`, does the one step, and asks again: so every
decision is made from the engine's whole present, whatever happened while the last step ran,
and someone else's `docker kill`, `rm -f`, `pause` or `start` is answered by the same lines
as our own doings.

Restart policy is the agent's. A container is never started twice: a restart is a new container
with the next attempt in its name and label, so the old one keeps its log, and a crash between
any two steps leaves something that the next listing shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.pod_memory import GONE, START_ERROR, Ending, PodMemory
from agent.runtime.port import LABEL_ATTEMPT, Container, ContainerState
from bayplan.model.placements import Want
from bayplan.model.states import PodState

# Design §6: back-off 1 s doubling to 60 s, reset after 60 s up.
BACKOFF_MIN_S = 1.0
BACKOFF_MAX_S = 60.0
BACKOFF_RESET_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PodDesired:
    """What the pod should be."""

    # None: nobody has said yet; it was found running and is left alone.
    want: Want | None
    restart_policy: str = "Always"
    grace_s: float = 30.0
    refused: str = ""  # Why this agent can never run it.
    held: str = ""  # Why it may not be started before a manager was heard.

    @property
    def is_to_run(self) -> bool:
        return self.want in (Want.RUN, Want.HANDOVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Nothing to do before something changes, or `until_s` (monotonic; None: no time set)."""

    until_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureImage:
    """Find out what to run, pulling if need be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Make the container of this attempt."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Start the container that was made."""

    container: Container


@dataclass(frozen=True, slots=True, kw_only=True)
class CountEnd:
    """The newest container ended, or is gone (None): note how, and decide about a restart."""

    container: Container | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpause:
    """Someone has paused it."""

    container: Container


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """SIGTERM, then SIGKILL after the grace."""

    container: Container
    grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """It was made but never started, and never will be."""

    container: Container


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The pod has come to its end."""

    state: PodState
    reason: str
    message: str


Step = Idle | EnsureImage | Create | Start | CountEnd | Unpause | Stop | Remove | Finish


def attempt_of(container: Container) -> int:
    """0 where the label is missing or no number: then it counts as the first."""
    text = container.labels.get(LABEL_ATTEMPT, "0")
    return int(text) if text.isdecimal() else 0


def in_order(containers: Sequence[Container]) -> tuple[Container, ...]:
    """Oldest attempt first."""
    return tuple(sorted(containers, key=lambda each: (attempt_of(each), each.created_s, each.id)))


def observe(memory: PodMemory, containers: Sequence[Container]) -> PodMemory:
    """Take over what the engine shows. `containers` are the pod's own, in order."""
    if memory.state.is_terminal or not containers:
        return memory
    newest = containers[-1]
    attempt = attempt_of(newest)
    if attempt > memory.attempt:
        # Made by an agent that died before it could note it, or found without a journal.
        memory = replace(memory, attempt=attempt, is_ended=False)
    elif attempt < memory.attempt:
        return memory
    if newest.state is ContainerState.RUNNING:
        return replace(
            memory,
            state=max(memory.state, PodState.RUNNING),
            is_ended=False,
            reason="",
            message="",
            started_s=memory.started_s or newest.started_s,
        )
    if newest.state is ContainerState.CREATED:
        return replace(memory, state=max(memory.state, PodState.CREATED))
    return memory


def next_step(
    desired: PodDesired, memory: PodMemory, containers: Sequence[Container], *, now_s: float
) -> Step:
    """The one thing to do now.

    Args:
        desired: what the leader wants.
        memory: after `observe` of the same containers.
        containers: all of this pod's on the engine, in order, running or not.
        now_s: monotonic.
    """
    if desired.want is None:
        return Idle()
    end = _end_wanted(desired, memory)
    if end is not None:
        return _end_what_lives(containers, desired) or end
    newest = containers[-1] if containers and attempt_of(containers[-1]) == memory.attempt else None
    # An older attempt that lives was started by somebody else: the pod runs once.
    return (
        _end_what_lives([each for each in containers if each is not newest], desired)
        or _tend(newest, memory)
        or _make(desired, memory, now_s)
    )


def count_end(desired: PodDesired, memory: PodMemory, ending: Ending, *, now_s: float) -> PodMemory:
    """A container ended: restart it after a back-off, or the pod has come to its end."""
    # The image is looked up again before a restart: someone may have removed it meanwhile.
    memory = replace(memory, is_ended=True, ending=ending, image="")
    restarts = desired.restart_policy == "Always" or (
        desired.restart_policy == "OnFailure" and not ending.is_success
    )
    if not restarts:
        state = PodState.SUCCEEDED if ending.is_success else PodState.FAILED
        return replace(memory, state=state, reason=ending.reason, message=ending.text)
    was_up = ending.started_s > 0 and ending.finished_s - ending.started_s >= BACKOFF_RESET_S
    backoff_s = BACKOFF_MIN_S if was_up or not memory.backoff_s else _doubled(memory.backoff_s)
    return replace(
        memory,
        backoff_s=backoff_s,
        not_before_s=now_s + backoff_s,
        reason=START_ERROR if ending.reason == START_ERROR else "CrashLoopBackOff",
        message=ending.text,
    )


def count_pull_failure(memory: PodMemory, *, reason: str, message: str, now_s: float) -> PodMemory:
    """The image cannot be had now: say why, and wait."""
    backoff_s = BACKOFF_MIN_S if not memory.pull_backoff_s else _doubled(memory.pull_backoff_s)
    if reason == "ErrImagePull" and memory.pull_backoff_s:
        reason = "ImagePullBackOff"
    return replace(
        memory,
        reason=reason,
        message=message,
        pull_backoff_s=backoff_s,
        not_before_s=now_s + backoff_s,
    )


def finish(memory: PodMemory, step: Finish) -> PodMemory:
    """The pod has come to its end; an earlier end is kept."""
    if memory.state.is_terminal:
        return memory
    return replace(memory, state=step.state, reason=step.reason, message=step.message)


def gone(memory: PodMemory, *, noticed_s: float) -> Ending:
    """The end of a container that somebody removed, noticed at `noticed_s` (Unix epoch)."""
    return Ending(
        attempt=memory.attempt,
        code=-1,
        reason=GONE,
        message="the container was removed by someone else",
        started_s=memory.started_s,
        finished_s=noticed_s,
    )


def _end_wanted(desired: PodDesired, memory: PodMemory) -> Step | None:
    """What is left to do once nothing of it runs; None: it is to run."""
    if memory.state.is_terminal:
        return Idle()
    if not desired.is_to_run:
        return Finish(state=PodState.STOPPED, reason="Stopped", message="")
    if desired.refused:
        return Finish(state=PodState.FAILED, reason="Refused", message=desired.refused)
    return None


def _tend(newest: Container | None, memory: PodMemory) -> Step | None:
    """For the container of this attempt. None: there was none yet, or it has ended and that was counted."""
    if newest is None:
        is_missing = memory.attempt >= 0 and not memory.is_ended
        return CountEnd(container=None) if is_missing else None
    if newest.state is ContainerState.RUNNING:
        return Idle()
    if newest.state is ContainerState.PAUSED:
        return Unpause(container=newest)
    if memory.is_ended:
        return None
    if newest.state is ContainerState.CREATED:
        return Start(container=newest)
    return CountEnd(container=newest)


def _make(desired: PodDesired, memory: PodMemory, now_s: float) -> Step:
    """Towards the next container."""
    if desired.held:
        return Idle()
    if now_s < memory.not_before_s:
        return Idle(until_s=memory.not_before_s)
    return Create(attempt=memory.attempt + 1) if memory.image else EnsureImage()


def _end_what_lives(containers: Sequence[Container], desired: PodDesired) -> Step | None:
    for container in containers:
        if container.state is ContainerState.PAUSED:
            # A frozen process cannot obey SIGTERM.
            return Unpause(container=container)
        if container.state is ContainerState.RUNNING:
            return Stop(container=container, grace_s=desired.grace_s)
    if not desired.is_to_run:
        for container in containers:
            if container.state is ContainerState.CREATED:
                return Remove(container=container)
    return None


def _doubled(backoff_s: float) -> float:
    return min(backoff_s * 2, BACKOFF_MAX_S)
