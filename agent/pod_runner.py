"""One pod, looked after by one coroutine: look, decide (pod_steps.py), have it done, report, wait.

It is woken by what the leader says, by hints and listings of the engine, by timers, and by its own deeds when they are
done. Each container of the pod has at most one deed under way, in a task of its own: so a pull that takes minutes holds up
no other container's restart, and all are stopped at once. Every call to the engine has a deadline, and no runner waits
for another, so that one hung call, one bad image or one document that makes this code raise harms one pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence

import structlog

from agent.container_deeds import ContainerDeeds
from agent.next_step import Desired, Idle, Step, to_watch
from agent.pod_memory import ContainerMemory, PodMemory
from agent.pod_spec import PodSpec, parse_pod_spec
from agent.pod_status import to_status
from agent.pod_steps import Lines, PodDesired, desired_of, is_over, lines_of, next_steps, observe_pod
from agent.template_fields import PodSpecError
from agent.workbench import Workbench
from bayplan.model.placements import Want
from bayplan.model.policy import asked_of_host
from bayplan.v1 import agent_link_pb2 as pb

log = structlog.get_logger(__name__)

_UNKNOWN_SPEC = PodSpec(containers=())


class PodRunner:
    """Lives until its pod is forgotten. Cancelled, it leaves the containers running."""

    def __init__(
        self, assignment: pb.Assignment, memory: PodMemory, bench: Workbench, *, held: str = ""
    ) -> None:
        self._bench = bench
        self._memory = memory
        self._changed = asyncio.Event()  # Another one after each change, so that several can wait.
        self._deeds: dict[str, ContainerDeeds] = {}
        self._doing: set[str] = set()  # Containers with a deed under way.
        self._is_forgotten = False
        self.uid = assignment.uid
        self.assign(assignment, held=held)

    @property
    def spec(self) -> PodSpec:
        return self._desired.spec

    def assign(self, assignment: pb.Assignment, *, held: str = "") -> None:
        """The leader says what it wants of the pod. Its template never changes."""
        self.assignment = assignment
        refused = ""
        spec = _UNKNOWN_SPEC
        want = Want(assignment.want) if assignment.want else None
        if assignment.template_json:
            try:
                spec = parse_pod_spec(assignment.template_json)
            except PodSpecError as error:
                refused = str(error)
            # A policy is for pods to come: one that was let in stays, whatever is sent again.
            if not refused and not assignment.privileged and not self._was_made:
                asked = asked_of_host(json.loads(assignment.template_json))
                refused = _against_policy(asked, assignment.namespace) if asked else ""
        elif want is not None:
            refused = "its template is missing"
        self._desired = PodDesired(want=want, spec=spec, refused=refused, held=held)
        self._is_forgotten = False
        if not self._desired.is_to_run:
            for deeds in self._deeds.values():
                deeds.give_up_pull()
        self.wake()

    @property
    def _was_made(self) -> bool:
        """Whether there ever was a container of it."""
        return any(each.attempt >= 0 for each in self._memory.own)

    def forget(self) -> None:
        """The pod is no longer ours: stop what runs of it, then `run` returns."""
        gone = pb.Assignment()
        gone.CopyFrom(self.assignment)
        gone.want = pb.WANT_STOP
        self.assign(gone)
        self._is_forgotten = True

    def wake(self) -> None:
        """Something may have changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def until_changed(self) -> None:
        """Until something may have changed."""
        await self._changed.wait()

    def report(self) -> None:
        """Publish the status as it is at this moment."""
        if self._bench.engine.is_known.is_set():
            self._look()
        self.publish()

    async def run(self) -> None:
        """Look after the pod until it is forgotten."""
        with structlog.contextvars.bound_contextvars(pod=self.assignment.name, uid=self.uid):
            try:
                self.publish()
                await self._bench.engine.is_known.wait()
                async with asyncio.TaskGroup() as tasks:
                    while await self._turn(tasks):
                        pass
                    for deeds in self._deeds.values():
                        deeds.watch_over(None)
            except asyncio.CancelledError:
                # The agent is stopping, not the pod: the next agent adopts the containers.
                log.debug("pod.left_running")
                raise

    async def _turn(self, tasks: asyncio.TaskGroup) -> bool:
        """Look, decide, have it done. False: nothing is left to look after."""
        changed = self._changed
        lines = self._look()
        for name, line in lines.items():
            if name not in self._deeds:
                self._deeds[name] = ContainerDeeds(name, self, self._bench, tasks)
            if name not in self._doing:
                # What its deed, a preStop hook say, knows of its health is told when that is done.
                desired = desired_of(name, self._desired, self._memory, lines)
                self._deeds[name].watch_over(to_watch(desired, self._memory.of(name), line))
        self._publish(lines)
        now_s = asyncio.get_running_loop().time()
        steps = next_steps(self._desired, self._memory, lines, now_s=now_s)
        if self._is_forgotten and not self._doing and is_over(self._memory, steps):
            return False
        for name, step in steps.items():
            if name not in self._doing and not isinstance(step, Idle):
                self._doing.add(name)
                tasks.create_task(self._do(name, step), name=f"{self.assignment.name}/{name}")
        await _wait(changed, steps)
        return True

    def _look(self) -> Lines:
        lines = self._lines()
        self._remember_all(observe_pod(self._desired, self._memory, lines))
        return lines

    async def _do(self, name: str, step: Step) -> None:
        try:
            await self._deeds[name].do(step)
        finally:
            self._doing.discard(name)
            self.wake()

    # What deeds ask for

    def desired_of(self, name: str) -> Desired:
        """What one of its containers should be, from what is known at this moment."""
        return desired_of(name, self._desired, self._memory, self._lines())

    def memory_of(self, name: str) -> ContainerMemory:
        return self._memory.of(name)

    def remember(self, name: str, memory: ContainerMemory) -> None:
        """Of what came of a deed."""
        self._remember_all(self._memory.but(name, memory))

    def publish(self) -> None:
        """Tell how the pod is at this moment."""
        is_known = self._bench.engine.is_known.is_set()
        self._publish(self._lines() if is_known else None)

    def _lines(self) -> Lines:
        return lines_of(
            self.spec, self._memory, self._bench.engine.of(self.uid), host_address=self._bench.address
        )

    def _publish(self, lines: Lines | None) -> None:
        self._bench.board.publish(
            to_status(
                self.uid,
                self._desired,
                self._memory,
                lines,
                monotonic_s=asyncio.get_running_loop().time(),
                wall_s=self._bench.wall_s(),
            )
        )

    def _remember_all(self, memory: PodMemory) -> None:
        if memory == self._memory:
            return
        before, self._memory = self._memory.state, memory
        self._bench.journal.facts.memories[self.uid] = memory
        self._bench.journal.touch()
        if memory.state.is_terminal and not before.is_terminal:
            log.info("pod.finished", state=memory.state.name)


async def _wait(changed: asyncio.Event, steps: Mapping[str, Step]) -> None:
    """Until something has changed, or a time that was set has come."""
    times = [step.until_s for step in steps.values() if isinstance(step, Idle) and step.until_s is not None]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(min(times, default=None)):
            await changed.wait()


def _against_policy(asked: Sequence[str], namespace: str) -> str:
    return f"{', '.join(asked)}: namespace {namespace} has the policy baseline, which refuses this"
