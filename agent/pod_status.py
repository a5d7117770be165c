"""From what the agent knows of a pod to the status it reports. Pure.

A status never claims what is not so: before the engine was looked at once, the state is
unknown; ready means that all its containers run now, and that their probes say so. Where
one of several is the reason that the pod is not ready, the message begins with its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.next_step import Desired, attempt_of, health_of
from agent.pod_memory import UNHEALTHY, ContainerMemory, Ending, PodMemory
from agent.pod_steps import Lines, PodDesired, desired_of
from agent.probes.judgement import is_ready, why_unready
from agent.runtime.port import SANDBOX, Container, ContainerState
from bayplan.model.states import UNREADY, PodState
from bayplan.v1 import agent_link_pb2 as pb

LAST_LOG_LINES_MAX_BYTES = 2048
_SANDBOX_NAME = "the pod's sandbox"  # For people.


def to_status(
    uid: str,
    desired: PodDesired,
    memory: PodMemory,
    lines: Lines | None,
    *,
    monotonic_s: float,
    wall_s: float,
) -> pb.PodStatus:
    """Build the wire's status.

    Args:
        uid: of the pod.
        desired: what the leader wants.
        memory: what the agent remembers of it.
        lines: the pod's own containers; None: the engine has not been seen yet.
        monotonic_s: now, on the clock of each `not_before_s`.
        wall_s: now, since the Unix epoch.
    """
    status = pb.PodStatus(uid=uid)
    if lines is None:
        if not memory.state.is_terminal:
            status.reason = "Unknown"
            status.message = "the container engine has not answered yet"
            return status
        lines = dict.fromkeys(memory.containers, ())
    parts = [
        _Part.of(name, desired_of(name, desired, memory, lines), memory.of(name), line)
        for name, line in lines.items()
    ]
    status.MergeFrom(pb.PodStatus(state=f"POD_STATE_{memory.state.name}"))
    status.ready = all(part.serves for part in parts) and (desired.want is None or desired.is_to_run)
    status.started_ms = _ms(min((each.started_s for each in memory.own if each.started_s), default=0.0))
    if not memory.state.is_terminal and not desired.is_to_run and desired.want is not None:
        status.reason = "Terminating"
        status.message = _said(parts, [(part, part.pre_stop_failure) for part in parts])
    elif not status.ready:
        status.reason, status.message = _why(desired, memory, parts)
    waits = [part.memory.not_before_s for part in parts if not part.is_running and not part.is_over]
    if desired.is_to_run and max(waits, default=0.0) > monotonic_s:
        next_s = min(each for each in waits if each > monotonic_s)
        # To the second: the same moment, computed from two clocks again and again, must look the same.
        status.next_restart_ms = round(wall_s + next_s - monotonic_s) * 1000
    status.address = next((part.newest.address for part in parts if part.newest and part.newest.address), "")
    status.containers.extend(
        _container(part, desired) for part in parts if part.name != SANDBOX and part.memory.attempt >= 0
    )
    return status


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What is to be told of one container."""

    name: str
    memory: ContainerMemory
    newest: Container | None
    serves: bool
    reason: str  # Why it does not, one word; empty: nothing is wrong with it, or it waits for others.
    message: str
    pre_stop_failure: str

    @classmethod
    def of(cls, name: str, desired: Desired, memory: ContainerMemory, line: Sequence[Container]) -> _Part:
        newest = line[-1] if line else None
        is_running = newest is not None and newest.state is ContainerState.RUNNING
        health = health_of(newest, memory) if newest is not None else None
        is_over = memory.state.is_terminal
        serves = is_running and not is_over and is_ready(desired.probes, desired.hooks, health)
        reason, message = "", ""
        if not is_running or is_over:
            reason, message = memory.reason, memory.message
        elif not serves:
            reason = UNHEALTHY if health is not None and health.broken else UNREADY
            message = why_unready(desired.probes, desired.hooks, health)
        return cls(
            name=name,
            memory=memory,
            newest=newest,
            serves=serves,
            reason=reason,
            message=message,
            pre_stop_failure=health.pre_stop_failure if health is not None else "",
        )

    @property
    def is_running(self) -> bool:
        return self.newest is not None and self.newest.state is ContainerState.RUNNING

    @property
    def is_over(self) -> bool:
        return self.memory.state.is_terminal


def _why(desired: PodDesired, memory: PodMemory, parts: Sequence[_Part]) -> tuple[str, str]:
    """Why a pod is not ready: (reason, message)."""
    own = [part for part in parts if part.name != SANDBOX]
    if memory.state.is_terminal:
        # The first of those that made it so.
        part = next(part for part in own if part.memory.state is memory.state)
        return part.reason, _said(parts, [(part, part.message)])
    # What does not run says more than what runs and does not serve; the sandbox keeps all others from running.
    for part in sorted(parts, key=lambda each: each.is_running):
        if part.memory.state is PodState.SUCCEEDED:
            return UNREADY, _said(parts, [(part, "has completed")])
        if part.reason:
            return part.reason, _said(parts, [(part, part.message)])
    return "", desired.held


def _said(parts: Sequence[_Part], words: Sequence[tuple[_Part, str]]) -> str:
    """Words about parts; of several, with their names."""
    names = {part.name: f"{part.name or _SANDBOX_NAME}: " if len(parts) > 1 else "" for part in parts}
    return "; ".join(f"{names[part.name]}{each}" for part, each in words if each)


def _container(part: _Part, desired: PodDesired) -> pb.ContainerStatus:
    memory, newest = part.memory, part.newest
    template = desired.spec.named(part.name)
    status = pb.ContainerStatus(
        name=part.name,
        image=template.image if template is not None else "",
        image_digest=memory.image_digest,
        restarts=memory.attempt,
        ready=part.serves,
        reason=part.reason,
        message=part.message,
    )
    if newest is not None and attempt_of(newest) == memory.attempt:
        status.container_id = newest.id
        status.running = newest.state is ContainerState.RUNNING
        status.started_ms = _ms(newest.started_s)
    if memory.ending is not None:
        status.last_exit.CopyFrom(_exit(memory.ending))
    return status


def _exit(ending: Ending) -> pb.Exit:
    return pb.Exit(
        code=ending.code,
        reason=ending.reason,
        message=ending.message,
        started_ms=_ms(ending.started_s),
        finished_ms=_ms(ending.finished_s),
        container_id=ending.container_id,
        last_log_lines=ending.last_log_lines,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
