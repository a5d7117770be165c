"""One pod, looked after by one coroutine: look, decide (next_step), do, report, wait.

It is woken by what the leader says, by hints and listings of the engine, and by timers. Every
call to the engine has a deadline, and no runner waits for another, so that one hung call, one
bad image or one document that makes this code raise harms one pod.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import assert_never

import structlog

from agent import next_step as steps
from agent.engine import Engine
from agent.images import Images
from agent.journal import Journal
from agent.next_step import PodDesired
from agent.outputs import closed_after
from agent.pod_memory import COMPLETED, ERROR, OOM_KILLED, START_ERROR, Ending, PodMemory
from agent.pod_spec import PodSpec, PodSpecError, parse_pod_spec
from agent.pod_status import LAST_LOG_LINES_MAX_BYTES, to_status
from agent.runtime import port
from agent.runtime.port import (
    Container,
    ContainerGoneError,
    ContainerSpec,
    ContainerState,
    CreateError,
    EngineError,
    EngineUnavailableError,
    ImageError,
    Runtime,
    StartError,
)
from agent.status_board import StatusBoard
from bayplan.model.placements import Want
from bayplan.model.states import PodState
from bayplan.v1 import agent_link_pb2 as pb

log = structlog.get_logger(__name__)

# While the engine does not answer: soon at first (it may only restart), then less often.
ENGINE_RETRY_MIN_S = 0.5
ENGINE_RETRY_MAX_S = 5.0
# After an error that only a bug of ours can cause.
BUG_RETRY_S = 5.0
LOG_TAIL_LINES = 20
LOG_TAIL_TIMEOUT_S = 2.0
HOSTNAME_MAX = 63
_UNKNOWN_SPEC = PodSpec(containers=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """What every runner works with."""

    node: str
    runtime: Runtime
    engine: Engine
    images: Images
    board: StatusBoard
    journal: Journal
    wall_s: Callable[[], float]


class PodRunner:
    """Lives until its pod is forgotten. Cancelled, it leaves the container running."""

    def __init__(
        self, assignment: pb.Assignment, memory: PodMemory, bench: Workbench, *, held: str = ""
    ) -> None:
        self._bench = bench
        self._memory = memory
        self._changed = asyncio.Event()
        self._pull: asyncio.Timeout | None = None
        self._is_forgotten = False
        self._engine_retry_s = 0.0
        self.uid = assignment.uid
        self.assign(assignment, held=held)

    @property
    def memory(self) -> PodMemory:
        return self._memory

    def assign(self, assignment: pb.Assignment, *, held: str = "") -> None:
        """The leader says what it wants of the pod. Its template never changes."""
        self.assignment = assignment
        refused = ""
        self._spec = _UNKNOWN_SPEC
        want = Want(assignment.want) if assignment.want else None
        if assignment.template_json:
            try:
                self._spec = parse_pod_spec(assignment.template_json)
            except PodSpecError as error:
                refused = str(error)
        elif want is not None:
            refused = "its template is missing"
        self._desired = PodDesired(
            want=want,
            restart_policy=self._spec.restart_policy,
            grace_s=self._spec.grace_s,
            refused=refused,
            held=held,
        )
        self._is_forgotten = False
        if not self._desired.is_to_run and self._pull is not None and not self._pull.expired():
            self._pull.reschedule(asyncio.get_running_loop().time())
        self.wake()

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

    def report(self) -> None:
        """Publish the status as it is at this moment."""
        engine = self._bench.engine
        if not engine.is_known.is_set():
            self._publish(None)
            return
        containers = engine.of(self.uid)
        self._remember(steps.observe(self._memory, containers))
        self._publish(containers)

    async def run(self) -> None:
        """Look after the pod until it is forgotten."""
        with structlog.contextvars.bound_contextvars(pod=self.assignment.name, uid=self.uid):
            try:
                self._publish(None)
                await self._bench.engine.is_known.wait()
                while await self._turn():
                    pass
            except asyncio.CancelledError:
                # The agent is stopping, not the pod: the next agent adopts the container.
                log.debug("pod.left_running")
                raise

    async def _turn(self) -> bool:
        """Look, decide, do one thing. False: nothing is left to look after."""
        self._changed.clear()
        now_s = asyncio.get_running_loop().time()
        containers = self._bench.engine.of(self.uid)
        self._remember(steps.observe(self._memory, containers))
        self._publish(containers)
        step = steps.next_step(self._desired, self._memory, containers, now_s=now_s)
        if isinstance(step, steps.Idle):
            if self._is_forgotten:
                return False
            await self._wait(step.until_s)
            return True
        try:
            await self._do(step)
            self._engine_retry_s = 0.0
        except EngineUnavailableError as error:
            self._bench.engine.failed(error, since_s=now_s)
            await self._retry_later(error)
        except EngineError as error:
            self._bench.engine.list_soon()
            await self._retry_later(error)
        except Exception as error:
            # A bug of ours, met by this pod: it must not end the agent and all its other pods.
            log.exception("pod.not_looked_after")
            self._explain("AgentError", f"{type(error).__name__}: {error}")
            await asyncio.sleep(BUG_RETRY_S)
        return True

    async def _wait(self, until_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until_s):
                await self._changed.wait()

    async def _retry_later(self, error: EngineError) -> None:
        log.warning("pod.step_failed", error=str(error))
        self._engine_retry_s = min(max(self._engine_retry_s * 2, ENGINE_RETRY_MIN_S), ENGINE_RETRY_MAX_S)
        await asyncio.sleep(self._engine_retry_s)

    # Doing

    async def _do(self, step: steps.Step) -> None:
        match step:
            case steps.EnsureImage():
                await self._ensure_image()
            case steps.Create():
                await self._create(step.attempt)
            case steps.Start():
                await self._start(step.container)
            case steps.CountEnd():
                await self._count_end(step.container)
            case steps.Unpause():
                log.warning("container.unpaused", container=step.container.name)
                await self._on_existing(step.container, self._bench.runtime.unpause(step.container.id))
            case steps.Stop():
                await self._stop(step)
            case steps.Remove():
                await self._bench.runtime.remove(step.container.id)
                self._bench.engine.note_removed(step.container.id)
            case steps.Finish():
                self._remember(steps.finish(self._memory, step))
                log.info("pod.finished", state=step.state.name, reason=step.reason, message=step.message)
            case steps.Idle():
                pass
            case _ as never:
                assert_never(never)

    async def _ensure_image(self) -> None:
        template = self._spec.containers[0]
        self._reach(PodState.PULLING)
        try:
            # The leader may change its mind while a pull takes its minutes.
            async with asyncio.timeout(None) as self._pull:
                image = await self._bench.images.resolve(
                    workload_uid=self.assignment.workload_uid,
                    revision=self.assignment.revision,
                    image=template.image,
                    policy=template.pull_policy,
                )
        except TimeoutError:
            return
        except ImageError as error:
            now_s = asyncio.get_running_loop().time()
            self._remember(
                steps.count_pull_failure(self._memory, reason=error.reason, message=str(error), now_s=now_s)
            )
            log.warning("image.not_pulled", image=template.image, error=str(error))
            return
        finally:
            self._pull = None
        self._remember(
            replace(
                self._memory,
                image=image.reference,
                image_digest=image.digest,
                pull_backoff_s=0.0,
                reason="" if not self._memory.is_ended else self._memory.reason,
                message="" if not self._memory.is_ended else self._memory.message,
            )
        )

    async def _create(self, attempt: int) -> None:
        try:
            container = await self._bench.runtime.create(self._container_spec(attempt))
        except CreateError as error:
            finish = steps.Finish(state=PodState.FAILED, reason="Refused", message=str(error))
            self._remember(steps.finish(self._memory, finish))
            log.warning("container.refused", error=str(error))
            return
        except ImageError:
            # It was removed since it was resolved: look again.
            self._remember(replace(self._memory, image=""))
            raise
        log.info("container.created", container=container.name)
        self._bench.engine.note(container)

    async def _start(self, container: Container) -> None:
        self._reach(PodState.STARTING)
        try:
            await self._bench.runtime.start(container.id)
        except StartError as error:
            self._end(
                Ending(
                    attempt=steps.attempt_of(container),
                    code=error.exit_code,
                    reason=START_ERROR,
                    message=str(error),
                    finished_s=self._bench.wall_s(),
                    container_id=container.id,
                )
            )
            return
        except ContainerGoneError:
            self._bench.engine.note_removed(container.id)
            return
        started = await self._bench.engine.look(container.id)
        if started is not None and started.state is ContainerState.RUNNING:
            log.info("container.started", container=container.name, attempt=steps.attempt_of(container))

    async def _count_end(self, container: Container | None) -> None:
        if container is None:
            # A listing that came too early must not cost a restart: what it missed shows up in the next.
            await self._bench.engine.list()
            there = self._bench.engine.of(self.uid)
            if there and steps.attempt_of(there[-1]) >= self._memory.attempt:
                return
            self._end(steps.gone(self._memory, noticed_s=self._bench.wall_s()))
            return
        is_error = container.exit_code != 0 or container.oom_killed
        tail, last_words = await self._log_tail(container) if is_error else ("", "")
        self._end(
            Ending(
                attempt=steps.attempt_of(container),
                code=container.exit_code,
                reason=OOM_KILLED if container.oom_killed else ERROR if is_error else COMPLETED,
                message=container.error,
                started_s=container.started_s,
                finished_s=container.finished_s,
                container_id=container.id,
                last_log_lines=tail,
                last_words=last_words,
            )
        )

    async def _stop(self, step: steps.Stop) -> None:
        log.info("container.stopping", container=step.container.name, grace_s=step.grace_s)
        await self._on_existing(
            step.container, self._bench.runtime.stop(step.container.id, grace_s=step.grace_s)
        )

    async def _on_existing(self, container: Container, call: Awaitable[None]) -> None:
        with contextlib.suppress(ContainerGoneError):
            await call
        await self._bench.engine.look(container.id)

    async def _log_tail(self, container: Container) -> tuple[str, str]:
        """The last lines and the last words, for people who ask why; empty if the engine has none to give."""
        tail = b""
        ends = {False: b"", True: b""}  # By whether it is stderr.
        with contextlib.suppress(EngineError, TimeoutError):
            outputs = self._bench.runtime.logs(
                container.id, follow=False, tail=LOG_TAIL_LINES, since_s=0.0, timestamps=False
            )
            async with asyncio.timeout(LOG_TAIL_TIMEOUT_S), closed_after(outputs):
                async for output in outputs:
                    tail = (tail + output.data)[-LAST_LOG_LINES_MAX_BYTES:]
                    end = ends[output.is_stderr] + output.data
                    ends[output.is_stderr] = end[-LAST_LOG_LINES_MAX_BYTES:]
        last = (ends[True].strip() or ends[False].strip()).rpartition(b"\n")[2]
        return tail.decode(errors="replace"), last.decode(errors="replace").strip()

    def _container_spec(self, attempt: int) -> ContainerSpec:
        template, assignment = self._spec.containers[0], self.assignment
        labels = {
            port.LABEL_CLUSTER: self._bench.journal.facts.label_cluster,
            port.LABEL_NODE: self._bench.node,
            port.LABEL_POD: assignment.uid,
            port.LABEL_POD_NAME: assignment.name,
            port.LABEL_NAMESPACE: assignment.namespace,
            port.LABEL_WORKLOAD: f"{assignment.workload_kind}/{assignment.workload}",
            port.LABEL_CONTAINER: template.name,
            port.LABEL_REVISION: assignment.revision,
            port.LABEL_EPOCH: str(self._bench.journal.facts.fence.revision),
            port.LABEL_ATTEMPT: str(attempt),
        }
        return ContainerSpec(
            name=f"bay-{assignment.name}-{template.name}-{attempt}",
            image=self._memory.image,
            labels=labels,
            command=template.command,
            args=template.args,
            env=template.env,
            working_dir=template.working_dir,
            hostname=assignment.name[:HOSTNAME_MAX],
            cpu_request_millis=template.cpu_request_millis,
            cpu_limit_millis=template.cpu_limit_millis,
            memory_limit_bytes=template.memory_limit_bytes,
        )

    # Remembering and telling

    def _end(self, ending: Ending) -> None:
        now_s = asyncio.get_running_loop().time()
        self._remember(steps.count_end(self._desired, self._memory, ending, now_s=now_s))
        log.info("container.ended", attempt=ending.attempt, why=ending.text, reason=self._memory.reason)

    def _reach(self, state: PodState) -> None:
        self._remember(replace(self._memory, state=max(self._memory.state, state)))
        self._publish(self._bench.engine.of(self.uid))

    def _explain(self, reason: str, message: str) -> None:
        self._remember(replace(self._memory, reason=reason, message=message))

    def _remember(self, memory: PodMemory) -> None:
        if memory != self._memory:
            self._memory = memory
            self._bench.journal.facts.memories[self.uid] = memory
            self._bench.journal.touch()

    def _publish(self, containers: tuple[Container, ...] | None) -> None:
        template = self._spec.containers[0] if self._spec.containers else None
        self._bench.board.publish(
            to_status(
                self.uid,
                self._desired,
                self._memory,
                containers,
                container_name=template.name if template else "",
                image=template.image if template else "",
                monotonic_s=asyncio.get_running_loop().time(),
                wall_s=self._bench.wall_s(),
            )
        )
