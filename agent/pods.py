"""All pods of the node: who looks after each, and what happens when assignments come.

Containers of ours that belong to no pod we were told of are left alone and reported, until a
full set of assignments has said what this node is to run; then they are stopped. So a lost
journal, or a store from the past, stops nothing.
"""

from __future__ import annotations

import asyncio

import structlog

from agent.engine import Engine
from agent.journal import forget_pods
from agent.pod_memory import PodMemory
from agent.pod_runner import PodRunner
from agent.pod_spec import PodSpec
from agent.runtime import port
from agent.runtime.port import Container, ContainerState
from agent.workbench import Workbench
from bayplan.model.names import PodId
from bayplan.v1 import agent_link_pb2 as pb

log = structlog.get_logger(__name__)

# Their second run must be decided by who knows whether the first one succeeded.
_NOT_STARTED_FROM_JOURNAL = ("Job",)
_HELD = "the host was restarted: waiting for a manager before a Job is run again"


class Pods:
    """One per agent. `bench.engine` tells it of changes through `changed`."""

    def __init__(self) -> None:
        self._runners: dict[str, PodRunner] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._is_told = False  # A full set of assignments was obeyed by this process.
        self._bench: Workbench | None = None

    @property
    def bench(self) -> Workbench:
        assert self._bench is not None
        return self._bench

    async def run(self, bench: Workbench, *, was_rebooted: bool) -> None:
        """Look after the journal's pods, and those to come, until cancelled."""
        self._bench = bench
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            now_s = asyncio.get_running_loop().time()
            for assignment in list(bench.journal.facts.assignments.values()):
                memory = bench.journal.facts.memories.get(assignment.uid, PodMemory()).resumed(now_s=now_s)
                is_held = was_rebooted and assignment.workload_kind in _NOT_STARTED_FROM_JOURNAL
                self._look_after(assignment, memory, held=_HELD if is_held else "")
            self._find_strays(bench.engine)
            await asyncio.Event().wait()

    def changed(self, pod_uid: str) -> None:
        """The engine shows something new of this pod; "": of any."""
        if self._bench is None:
            return
        runner = self._runners.get(pod_uid)
        if runner is not None:
            runner.wake()
            return
        if not pod_uid:
            for each in self._runners.values():
                each.wake()
        self._find_strays(self._bench.engine)

    def obey(self, assignments: pb.Assignments) -> None:
        """Take over what the leader says. The journal's fence is already on disk."""
        facts = self.bench.journal.facts
        told = {assignment.uid: assignment for assignment in assignments.pods}
        for uid, assignment in told.items():
            facts.assignments[uid] = assignment
            runner = self._runners.get(uid)
            if runner is None:
                self._look_after(assignment, facts.memories.get(uid, PodMemory()))
            else:
                runner.assign(assignment)
        unwanted = [uid for uid in assignments.forget if uid not in told]
        if assignments.full:
            self._is_told = True
            unwanted += [uid for uid in self._runners if uid not in told]
        for uid in unwanted:
            facts.assignments.pop(uid, None)
            if uid in self._runners:
                self._runners[uid].forget()
        self.bench.journal.touch()

    def assignments(self) -> dict[str, pb.Assignment]:
        """What each pod is, by uid, strays included."""
        return {uid: runner.assignment for uid, runner in self._runners.items()}

    def spec_of(self, pod_uid: str) -> PodSpec:
        """Of a pod's template, without containers where it is not known."""
        runner = self._runners.get(pod_uid)
        return runner.spec if runner is not None else PodSpec(containers=())

    def report_all(self) -> None:
        """Bring every status up to what the engine shows now."""
        for runner in self._runners.values():
            runner.report()

    def _look_after(self, assignment: pb.Assignment, memory: PodMemory, *, held: str = "") -> None:
        assert self._tasks is not None
        runner = PodRunner(assignment, memory, self.bench, held=held)
        self._runners[runner.uid] = runner
        self._tasks.create_task(self._run(runner), name=f"pod {assignment.name}")

    async def _run(self, runner: PodRunner) -> None:
        await runner.run()
        # Nothing of it runs any more, and it is not wanted: forget it.
        if self._runners.get(runner.uid) is runner:
            del self._runners[runner.uid]
        forget_pods(self.bench.journal.facts, [runner.uid])
        self.bench.journal.touch()
        self.bench.network.release(runner.uid)
        self.bench.board.drop(runner.uid)
        log.info("pod.forgotten", pod=runner.assignment.name, uid=runner.uid)

    def _find_strays(self, engine: Engine) -> None:
        """Containers that run and belong to no pod we know."""
        if self._tasks is None:
            return
        for container in engine.all():
            uid = container.labels.get(port.LABEL_POD, "")
            if container.state not in (ContainerState.RUNNING, ContainerState.PAUSED) or uid in self._runners:
                continue
            assignment = _from_labels(container)
            log.warning("container.strayed", container=container.name, uid=uid, is_stopped=self._is_told)
            self._look_after(assignment, PodMemory())
            if self._is_told:
                self._runners[uid].forget()


def _from_labels(container: Container) -> pb.Assignment:
    """What a container's labels say of its pod; nobody has said what we want of it."""
    labels = container.labels
    uid = labels.get(port.LABEL_POD, "")
    kind, _, workload = labels.get(port.LABEL_WORKLOAD, "").partition("/")
    assignment = pb.Assignment(
        uid=uid,
        name=labels.get(port.LABEL_POD_NAME, container.name),
        namespace=labels.get(port.LABEL_NAMESPACE, ""),
        workload_kind=kind,
        workload=workload,
        revision=labels.get(port.LABEL_REVISION, ""),
        want=pb.WANT_UNSPECIFIED,
    )
    try:
        pod = PodId.parse(uid)
    except ValueError:
        return assignment
    assignment.workload_uid, assignment.slot, assignment.incarnation = (
        pod.workload_uid,
        pod.slot,
        pod.incarnation,
    )
    return assignment
