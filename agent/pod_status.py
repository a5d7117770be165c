"""From what the agent knows of a pod to the status it reports. Pure.

A status never claims what is not so: before the engine was looked at once, the state is
unknown; ready means that the container runs now.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.next_step import PodDesired, attempt_of
from agent.pod_memory import Ending, PodMemory
from agent.runtime.port import Container, ContainerState
from bayplan.v1 import agent_link_pb2 as pb

LAST_LOG_LINES_MAX_BYTES = 2048


def to_status(
    uid: str,
    desired: PodDesired,
    memory: PodMemory,
    containers: Sequence[Container] | None,
    *,
    container_name: str,
    image: str,
    monotonic_s: float,
    wall_s: float,
) -> pb.PodStatus:
    """Build the wire's status.

    Args:
        uid: of the pod.
        desired: what the leader wants.
        memory: what the agent remembers of it.
        containers: the pod's own, in order; None: the engine has not been seen yet.
        container_name: of the template's one container; empty if unknown.
        image: as the template names it.
        monotonic_s: now, on the clock of `memory.not_before_s`.
        wall_s: now, since the Unix epoch.
    """
    status = pb.PodStatus(uid=uid)
    if containers is None and not memory.state.is_terminal:
        status.reason = "Unknown"
        status.message = "the container engine has not answered yet"
        return status
    newest = containers[-1] if containers else None
    is_running = newest is not None and newest.state is ContainerState.RUNNING
    status.MergeFrom(pb.PodStatus(state=f"POD_STATE_{memory.state.name}"))
    status.ready = is_running and (desired.want is None or desired.is_to_run)
    status.started_ms = _ms(memory.started_s)
    if not memory.state.is_terminal and not desired.is_to_run and desired.want is not None:
        status.reason = "Terminating"
    elif not is_running or memory.state.is_terminal:
        status.reason = memory.reason
        status.message = memory.message or (desired.held if not memory.reason else "")
    if memory.not_before_s > monotonic_s and desired.is_to_run and not is_running:
        # To the second: the same moment, computed from two clocks again and again, must look the same.
        status.next_restart_ms = round(wall_s + memory.not_before_s - monotonic_s) * 1000
    if newest is not None:
        status.address = newest.address
    if memory.attempt >= 0:
        status.containers.append(_container(memory, newest, name=container_name, image=image))
    return status


def _container(memory: PodMemory, newest: Container | None, *, name: str, image: str) -> pb.ContainerStatus:
    status = pb.ContainerStatus(
        name=name,
        image=image,
        image_digest=memory.image_digest,
        restarts=memory.attempt,
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
