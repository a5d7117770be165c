"""What each container of a pod is to do next. Pure: no clock, no engine, no journal.

Each container has a line of attempts, a memory and a back-off of its own (next_step.py), so that one that crashes, or whose
image cannot be had, holds up no other. What binds them is decided here:

- A pod of several containers has a sandbox, a container that owns the network and does nothing else: so each of them may
  end and begin again without the others, or the pod's address, noticing. It runs before them and ends after them.
- When the sandbox has ended, or was restarted by somebody, the network of those that joined it is gone. They are
  condemned, and begin again in its next run, as by kubelet.
- All are told to stop at once, each with the pod's whole grace.
- Once one is stopped for good, or refused, the others end too: half a pod is of no use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agent.next_step import (
    Desired,
    Idle,
    Sandbox,
    Step,
    health_of,
    in_order,
    newest_of,
    next_step,
    observe,
    run_of,
    sandbox_of,
)
from agent.pod_memory import REFUSED, ContainerMemory, PodMemory
from agent.pod_spec import UNNAMED, PodSpec
from agent.runtime.port import LABEL_CONTAINER, SANDBOX, Container, ContainerState
from bayplan.model.placements import Want
from bayplan.model.states import PodState

# It obeys at once.
SANDBOX_GRACE_S = 2.0
SANDBOX_LOST = "the pod's sandbox ended, and its network with it"
_ENDING = "the pod is ending"

Lines = Mapping[str, tuple[Container, ...]]
"""Each container's attempts, oldest first, by its name in the pod; the sandbox's are the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodDesired:
    """What the pod should be."""

    # None: nobody has said yet; it was found running and is left alone.
    want: Want | None
    spec: PodSpec
    refused: str = ""  # Why this agent can never run it.
    held: str = ""  # Why it may not be started before a manager was heard.

    @property
    def is_to_run(self) -> bool:
        return self.want in (Want.RUN, Want.HANDOVER)


def lines_of(
    spec: PodSpec, memory: PodMemory, containers: Sequence[Container], *, host_address: str = ""
) -> Lines:
    """Sort a pod's containers. Those that share the sandbox's network, or the host's, are shown at its address."""
    names = dict.fromkeys([SANDBOX] if spec.has_sandbox else [])
    names |= dict.fromkeys(template.name for template in spec.containers)
    # Of a pod whose template is not known, what is seen and remembered is all there is.
    names |= dict.fromkeys(memory.containers)
    names |= dict.fromkeys(name_of(container) for container in containers)
    ordered = in_order(containers)
    address = host_address
    if not spec.host_network:
        address = next((each.address for each in ordered if name_of(each) == SANDBOX and each.address), "")
    if address:
        ordered = tuple(
            replace(each, address=address) if _is_joined(each, spec) else each for each in ordered
        )
    return {
        name: tuple(each for each in ordered if name_of(each) == name)
        for name in (names if names.keys() - {SANDBOX} else [*names, UNNAMED])
    }


def name_of(container: Container) -> str:
    """Its name within the pod."""
    return container.labels.get(LABEL_CONTAINER, UNNAMED)


def _is_joined(container: Container, spec: PodSpec) -> bool:
    return container.state is ContainerState.RUNNING and (spec.host_network or bool(sandbox_of(container)))


def observe_pod(desired: PodDesired, memory: PodMemory, lines: Lines) -> PodMemory:
    """Take over what the engine shows."""
    seen = PodMemory(containers={name: observe(memory.of(name), line) for name, line in lines.items()})
    if SANDBOX not in lines or not desired.is_to_run:
        return seen
    is_ended, now = seen.of(SANDBOX).is_ended, sandbox_now(seen, lines)
    for name, line in lines.items():
        newest = newest_of(seen.of(name), line)
        # While it is not clear what became of the sandbox, nothing is done to the others.
        if name != SANDBOX and newest is not None and (is_ended or (now and sandbox_of(newest) != now.run)):
            seen = seen.but(name, _condemned(seen.of(name), newest))
    return seen


def sandbox_now(memory: PodMemory, lines: Lines) -> Sandbox | None:
    """The sandbox that runs; None: none does, or it is not known since when."""
    newest = newest_of(memory.of(SANDBOX), lines.get(SANDBOX, ()))
    run = run_of(newest) if newest is not None else ""
    return Sandbox(container_id=newest.id, run=run) if newest is not None and run else None


def desired_of(name: str, desired: PodDesired, memory: PodMemory, lines: Lines) -> Desired:
    """What one of the pod's containers should be."""
    refused = desired.refused or _refusal(memory)
    is_stopped = any(each.state is PodState.STOPPED for each in memory.own)
    want = Want.STOP if is_stopped and desired.is_to_run else desired.want
    if name == SANDBOX:
        is_ending = refused or want not in (Want.RUN, Want.HANDOVER)
        return _of_sandbox(want, memory, held=_ENDING if is_ending else desired.held)
    line = Desired(
        want=want,
        restart_policy=desired.spec.restart_policy,
        grace_s=desired.spec.grace_s,
        refused=refused,
        held=desired.held,
        needs_sandbox=SANDBOX in lines,
        sandbox=sandbox_now(memory, lines),
    )
    template = desired.spec.named(name)
    return line if template is None else replace(line, probes=template.probes, hooks=template.hooks)


def next_steps(desired: PodDesired, memory: PodMemory, lines: Lines, *, now_s: float) -> dict[str, Step]:
    """The one thing to do now with each container.

    Args:
        desired: what the leader wants.
        memory: after `observe_pod` of the same lines.
        lines: what is on the engine, running or not.
        now_s: monotonic.
    """
    return {
        name: next_step(desired_of(name, desired, memory, lines), memory.of(name), line, now_s=now_s)
        for name, line in lines.items()
    }


def is_over(memory: PodMemory, steps: Mapping[str, Step]) -> bool:
    """Whether nothing of the pod runs, nor ever will."""
    return memory.state.is_terminal and all(isinstance(step, Idle) for step in steps.values())


def _of_sandbox(want: Want | None, memory: PodMemory, *, held: str) -> Desired:
    """It is to run until the last of the others has ended, whatever is wanted of them."""
    if want is not None:
        want = Want.STOP if all(each.state.is_terminal for each in memory.own) else Want.RUN
    return Desired(want=want, restart_policy="Always", grace_s=SANDBOX_GRACE_S, held=held)


def _refusal(memory: PodMemory) -> str:
    refusals = (
        each.message for each in memory.own if each.state is PodState.FAILED and each.reason == REFUSED
    )
    return next(refusals, "")


def _condemned(memory: ContainerMemory, newest: Container) -> ContainerMemory:
    health = health_of(newest, memory)
    is_alive = newest.state in (ContainerState.RUNNING, ContainerState.PAUSED)
    if not is_alive or health is None or health.broken:
        return memory
    return replace(memory, health=replace(health, broken=SANDBOX_LOST))
