"""What to do next with one container of a pod. Pure: no clock, no engine, no journal.

The runner calls `observe`, then `next_step`, does the one step, and asks again: so every
decision is made from the engine's whole present, whatever happened while the last step ran,
and someone else's `docker kill`, `rm -f`, `pause` or `start` is answered by the same lines
as our own doings.

A container's line is its attempts, oldest first. What binds the lines of one pod is in pod_steps.py.

Restart policy is the agent's. A container is never started twice: a restart is a new container
with the next attempt in its name and label, so the old one keeps its log, and a crash between
any two steps leaves something that the next listing shows.

A container that a probe or its postStart hook has condemned is stopped like one that is not wanted any
more, first its preStop hook, then SIGTERM; then it has ended, and the restart policy decides as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from agent.pod_memory import GONE, REFUSED, START_ERROR, ContainerMemory, Ending
from agent.probes.judgement import Health, same_run
from agent.probes.model import Hooks, Probes
from agent.runtime.port import LABEL_ATTEMPT, LABEL_SANDBOX, Container, ContainerState
from bayplan.model.placements import Want
from bayplan.model.states import PodState

# Design §6: back-off 1 s doubling to 60 s, reset after 60 s up.
BACKOFF_MIN_S = 1.0
BACKOFF_MAX_S = 60.0
BACKOFF_RESET_S = 60.0
# Mending a network takes a second; a full subnet a minute, and asking costs nothing.
NETWORK_RETRY_S = 1.0
# As kubelet: however long the preStop hook took, so much is left to obey SIGTERM.
GRACE_LEFT_MIN_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """Whose network a container is to share, as it runs now."""

    container_id: str
    run: str  # Tells runs apart: one that somebody has restarted has another network.


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What the container should be."""

    # None: nobody has said yet; it was found running and is left alone.
    want: Want | None
    restart_policy: str = "Always"
    grace_s: float = 30.0
    refused: str = ""  # Why this agent can never run it.
    held: str = ""  # Why it may not be started before a manager was heard.
    probes: Probes = field(default_factory=Probes)
    hooks: Hooks = field(default_factory=Hooks)
    needs_sandbox: bool = False
    sandbox: Sandbox | None = None  # None: it needs none, or there is none yet.

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
class RunPreStop:
    """The hook before SIGTERM. Its time is part of the grace."""

    container: Container
    grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """SIGTERM, then SIGKILL after what is left of the grace."""

    container: Container
    grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """It was made but never started, and never will be: no attempt was made."""

    container: Container


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """It has come to its end for good."""

    state: PodState
    reason: str
    message: str


Step = Idle | EnsureImage | Create | Start | CountEnd | Unpause | RunPreStop | Stop | Remove | Finish


def attempt_of(container: Container) -> int:
    """0 where the label is missing or no number: then it counts as the first."""
    text = container.labels.get(LABEL_ATTEMPT, "0")
    return int(text) if text.isdecimal() else 0


def in_order(containers: Sequence[Container]) -> tuple[Container, ...]:
    """Oldest attempt first."""
    return tuple(sorted(containers, key=lambda each: (attempt_of(each), each.created_s, each.id)))


def observe(memory: ContainerMemory, containers: Sequence[Container]) -> ContainerMemory:
    """Take over what the engine shows. `containers` are the line's own, in order."""
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
            health=health_of(newest, memory) or Health(container_id=newest.id, started_s=newest.started_s),
        )
    if newest.state is ContainerState.CREATED:
        return replace(memory, state=max(memory.state, PodState.CREATED))
    return memory


def next_step(
    desired: Desired, memory: ContainerMemory, containers: Sequence[Container], *, now_s: float
) -> Step:
    """The one thing to do now.

    Args:
        desired: what the leader wants.
        memory: after `observe` of the same containers.
        containers: the whole line on the engine, in order, running or not.
        now_s: monotonic.
    """
    if desired.want is None:
        return Idle()
    end = _end_wanted(desired, memory)
    if end is not None:
        return _end_what_lives(containers, desired, memory) or end
    newest = newest_of(memory, containers)
    # An older attempt that lives was started by somebody else: it runs once.
    return (
        _end_what_lives([each for each in containers if each is not newest], desired, memory)
        or _end_what_is_broken(newest, desired, memory)
        or _tend(newest, desired, memory)
        or _make(desired, memory, now_s)
    )


def newest_of(memory: ContainerMemory, containers: Sequence[Container]) -> Container | None:
    """The container of the present attempt, if there is one. `containers` are in order."""
    return containers[-1] if containers and attempt_of(containers[-1]) == memory.attempt else None


def health_of(container: Container, memory: ContainerMemory) -> Health | None:
    """What is known of this container as it runs now."""
    health = memory.health
    return health if health is not None and same_run(health, container.id, container.started_s) else None


def run_of(container: Container) -> str:
    """Names this run of a sandbox; empty while it does not run, or the engine cannot say since when."""
    if container.state is not ContainerState.RUNNING or not container.started_s:
        return ""
    return f"{attempt_of(container)}.{round(container.started_s * 1000)}"


def sandbox_of(container: Container) -> str:
    """The run that it was made for; empty: none."""
    return container.labels.get(LABEL_SANDBOX, "")


def to_watch(desired: Desired, memory: ContainerMemory, containers: Sequence[Container]) -> Container | None:
    """The container whose probes are to run now. `memory` is after `observe` of the same containers."""
    newest = newest_of(memory, containers)
    if newest is None or newest.state is not ContainerState.RUNNING:
        return None
    if not desired.is_to_run or memory.state.is_terminal or desired.refused:
        return None
    health = health_of(newest, memory)
    return newest if health is not None and not health.broken else None


def count_end(desired: Desired, memory: ContainerMemory, ending: Ending, *, now_s: float) -> ContainerMemory:
    """It ended: restart it after a back-off, or it has come to its end for good."""
    # The image is looked up again before a restart: someone may have removed it meanwhile.
    memory = replace(memory, is_ended=True, ending=ending, image="", health=None)
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


def count_pull_failure(
    memory: ContainerMemory, *, reason: str, message: str, now_s: float
) -> ContainerMemory:
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


def wait_for_network(memory: ContainerMemory, message: str, *, now_s: float) -> ContainerMemory:
    """The pod cannot be connected now: say why, and try again soon."""
    return replace(memory, reason="NetworkNotReady", message=message, not_before_s=now_s + NETWORK_RETRY_S)


def unmade(memory: ContainerMemory, container: Container) -> ContainerMemory:
    """A container that never ran was removed: the attempt is still to be made."""
    if attempt_of(container) != memory.attempt or memory.is_ended:
        return memory
    return replace(memory, attempt=memory.attempt - 1, is_ended=memory.attempt > 0)


def finish(memory: ContainerMemory, step: Finish) -> ContainerMemory:
    """It has come to its end; an earlier end is kept."""
    if memory.state.is_terminal:
        return memory
    return replace(memory, state=step.state, reason=step.reason, message=step.message)


def gone(memory: ContainerMemory, *, noticed_s: float) -> Ending:
    """The end of a container that somebody removed, noticed at `noticed_s` (Unix epoch)."""
    return Ending(
        attempt=memory.attempt,
        code=-1,
        reason=GONE,
        message="the container was removed by someone else",
        started_s=memory.started_s,
        finished_s=noticed_s,
    )


def _end_wanted(desired: Desired, memory: ContainerMemory) -> Step | None:
    """What is left to do once nothing of it runs; None: it is to run."""
    if memory.state.is_terminal:
        return Idle()
    if not desired.is_to_run:
        failure = memory.health.pre_stop_failure if memory.health is not None else ""
        return Finish(state=PodState.STOPPED, reason="Stopped", message=failure)
    if desired.refused:
        return Finish(state=PodState.FAILED, reason=REFUSED, message=desired.refused)
    return None


def _tend(newest: Container | None, desired: Desired, memory: ContainerMemory) -> Step | None:
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
        return _begin(newest, desired)
    return CountEnd(container=newest)


def _begin(made: Container, desired: Desired) -> Step:
    if desired.needs_sandbox and desired.sandbox is None:
        return Idle()
    if desired.sandbox is not None and sandbox_of(made) != desired.sandbox.run:
        return Remove(container=made)  # It can only join the one that it was made for.
    return Start(container=made)


def _make(desired: Desired, memory: ContainerMemory, now_s: float) -> Step:
    """Towards the next container."""
    if desired.held:
        return Idle()
    if now_s < memory.not_before_s:
        return Idle(until_s=memory.not_before_s)
    if not memory.image:
        return EnsureImage()
    if desired.needs_sandbox and desired.sandbox is None:
        return Idle()
    return Create(attempt=memory.attempt + 1)


def _end_what_is_broken(newest: Container | None, desired: Desired, memory: ContainerMemory) -> Step | None:
    health = health_of(newest, memory) if newest is not None else None
    if newest is None or health is None or not health.broken:
        return None
    return _end(
        newest, desired.grace_s if health.broken_grace_s is None else health.broken_grace_s, desired, memory
    )


def _end_what_lives(
    containers: Sequence[Container], desired: Desired, memory: ContainerMemory
) -> Step | None:
    for container in containers:
        step = _end(container, desired.grace_s, desired, memory)
        if step is not None:
            return step
    if not desired.is_to_run:
        for container in containers:
            if container.state is ContainerState.CREATED:
                return Remove(container=container)
    return None


def _end(container: Container, grace_s: float, desired: Desired, memory: ContainerMemory) -> Step | None:
    """The next step towards the end of one container; None: it does not live."""
    if container.state is ContainerState.PAUSED:
        # A frozen process can neither run a hook nor obey SIGTERM.
        return Unpause(container=container)
    if container.state is not ContainerState.RUNNING:
        return None
    health = health_of(container, memory)
    if health is not None and health.is_pre_stopped:
        grace_s = max(GRACE_LEFT_MIN_S, grace_s - health.pre_stop_took_s)
    elif health is not None and desired.hooks.pre_stop is not None and grace_s > 0:
        return RunPreStop(container=container, grace_s=grace_s)
    return Stop(container=container, grace_s=grace_s)


def _doubled(backoff_s: float) -> float:
    return min(backoff_s * 2, BACKOFF_MAX_S)
