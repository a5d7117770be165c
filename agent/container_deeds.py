"""Does what was decided for one container of a pod, and remembers what came of it.

What is to be done was decided from one look at the engine (pod_steps.py); whatever happened since shows in the next look.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, assert_never

import structlog

from agent import next_step as steps
from agent.container_spec import Origin, to_container_spec, to_sandbox_spec
from agent.last_words import last_words
from agent.network.port import Attachment, NetworkError
from agent.next_step import Desired, Sandbox
from agent.pod_memory import (
    COMPLETED,
    ERROR,
    OOM_KILLED,
    REFUSED,
    START_ERROR,
    UNHEALTHY,
    ContainerMemory,
    Ending,
)
from agent.pod_spec import PodSpec, parse_pod_spec
from agent.pod_steps import name_of
from agent.probes.judgement import Health, resumed
from agent.probes.pre_stop import run_pre_stop
from agent.probes.watch import Orders, Watch
from agent.runtime.port import (
    SANDBOX,
    AddressTakenError,
    Container,
    ContainerGoneError,
    ContainerSpec,
    ContainerState,
    CreateError,
    EngineError,
    EngineUnavailableError,
    ImageError,
    StartError,
)
from agent.traffic.environment import service_variables
from agent.workbench import Workbench
from bayplan.model.states import PodState
from bayplan.v1 import agent_link_pb2 as pb

log = structlog.get_logger(__name__)

# While the engine does not answer: soon at first (it may only restart), then less often.
ENGINE_RETRY_MIN_S = 0.5
ENGINE_RETRY_MAX_S = 5.0
# After an error that only a bug of ours can cause.
BUG_RETRY_S = 5.0


class Pod(Protocol):
    """What deeds need of the pod that they are done for."""

    uid: str
    assignment: pb.Assignment

    @property
    def spec(self) -> PodSpec: ...

    def desired_of(self, name: str) -> Desired:
        """What the container should be, from what is known at this moment."""
        ...

    def memory_of(self, name: str) -> ContainerMemory: ...

    def remember(self, name: str, memory: ContainerMemory) -> None: ...

    def publish(self) -> None:
        """Tell how the pod is at this moment."""
        ...

    def wake(self) -> None:
        """Decide again."""
        ...

    async def until_changed(self) -> None:
        """Until something may have changed."""
        ...


class ContainerDeeds:
    """One per container of a pod, the sandbox's too. One deed at a time."""

    def __init__(self, name: str, pod: Pod, bench: Workbench, tasks: asyncio.TaskGroup) -> None:
        self._name = name
        self._pod = pod
        self._bench = bench
        self._pull: asyncio.Timeout | None = None
        self._watch = Watch(bench.prober, tell=self._told, wall_s=bench.wall_s, tasks=tasks)
        self._started = ""  # The container that this process has started.
        self._engine_retry_s = 0.0

    async def do(self, step: steps.Step) -> None:
        """Do it. A failure is told and waited after."""
        began_s = asyncio.get_running_loop().time()
        try:
            await self._do(step)
            self._engine_retry_s = 0.0
        except EngineUnavailableError as error:
            self._bench.engine.failed(error, since_s=began_s)
            await self._retry_later(error)
        except EngineError as error:
            self._bench.engine.list_soon()
            await self._retry_later(error)
        except Exception as error:
            # A bug of ours, met by this pod: it must not end the agent and all its other pods.
            log.exception("pod.not_looked_after")
            self._remember(
                replace(self._memory, reason="AgentError", message=f"{type(error).__name__}: {error}")
            )
            await asyncio.sleep(BUG_RETRY_S)

    def give_up_pull(self) -> None:
        """It is not wanted any more: a pull may take minutes."""
        if self._pull is not None and not self._pull.expired():
            self._pull.reschedule(asyncio.get_running_loop().time())

    def watch_over(self, container: Container | None) -> None:
        """Have this container watched, and no other."""
        health = self._memory.health
        if container is None or health is None:
            self._watch.end()
            return
        if not self._watch.is_of(health):
            health = resumed(health)
            self._remember(replace(self._memory, health=health))
            desired = self._pod.desired_of(self._name)
            orders = Orders(
                probes=desired.probes,
                hooks=desired.hooks,
                chance=None if container.id == self._started else self._bench.chance,
            )
            self._watch.begin(container, health, orders)
        self._watch.see(container)

    def _told(self, health: Health) -> None:
        """By the watch: something has changed. It is heard at once, whatever is being done."""
        if self._memory.health is None or not self._watch.is_of(self._memory.health):
            return  # Another run has begun.
        self._remember(replace(self._memory, health=health))
        self._pod.publish()
        self._pod.wake()

    @property
    def _memory(self) -> ContainerMemory:
        return self._pod.memory_of(self._name)

    def _remember(self, memory: ContainerMemory) -> None:
        self._pod.remember(self._name, memory)

    def _reach(self, state: PodState) -> None:
        self._remember(replace(self._memory, state=max(self._memory.state, state)))
        self._pod.publish()

    def _end(self, ending: Ending) -> None:
        now_s = asyncio.get_running_loop().time()
        desired = self._pod.desired_of(self._name)
        self._remember(steps.count_end(desired, self._memory, ending, now_s=now_s))
        log.info(
            "container.ended",
            container=self._name or "sandbox",
            attempt=ending.attempt,
            why=ending.text,
            reason=self._memory.reason,
        )

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
            case steps.Unpause() | steps.RunPreStop() | steps.Stop() | steps.Remove():
                await self._do_to(step)
            case steps.Finish():
                self._remember(steps.finish(self._memory, step))
            case steps.Idle():
                pass
            case _ as never:
                assert_never(never)

    async def _do_to(self, step: steps.Unpause | steps.RunPreStop | steps.Stop | steps.Remove) -> None:
        container = step.container
        match step:
            case steps.Unpause():
                log.warning("container.unpaused", container=container.name)
                await self._on_existing(container, self._bench.runtime.unpause(container.id))
            case steps.RunPreStop():
                await self._run_pre_stop(step)
            case steps.Stop():
                log.info("container.stopping", container=container.name, grace_s=step.grace_s)
                stop = self._bench.runtime.stop(container.id, grace_s=step.grace_s)
                await self._on_existing(container, stop)
            case steps.Remove():
                await self._bench.runtime.remove(container.id)
                self._bench.engine.note_removed(container.id)
                self._remember(steps.unmade(self._memory, container))

    async def _ensure_image(self) -> None:
        self._reach(PodState.PULLING)
        try:
            # The leader may change its mind while a pull takes its minutes.
            async with asyncio.timeout(None) as self._pull:
                reference, digest = await self._resolve()
        except TimeoutError:
            return
        except ImageError as error:
            now_s = asyncio.get_running_loop().time()
            self._remember(
                steps.count_pull_failure(self._memory, reason=error.reason, message=str(error), now_s=now_s)
            )
            log.warning("image.not_pulled", container=self._name or "sandbox", error=str(error))
            self._bench.metrics.image_failed()
            return
        finally:
            self._pull = None
        self._remember(
            replace(
                self._memory,
                image=reference,
                image_digest=digest,
                pull_backoff_s=0.0,
                reason="" if not self._memory.is_ended else self._memory.reason,
                message="" if not self._memory.is_ended else self._memory.message,
            )
        )

    async def _resolve(self) -> tuple[str, str]:
        """What to run, and its digest."""
        if self._name == SANDBOX:
            return await self._sandbox_image(), ""
        template = self._pod.spec.named(self._name)
        assert template is not None, "what is not in the template is not to run"
        image = await self._bench.images.resolve(
            workload_uid=self._pod.assignment.workload_uid,
            revision=self._pod.assignment.revision,
            image=template.image,
            policy=template.pull_policy,
        )
        return image.reference, image.digest

    async def _sandbox_image(self) -> str:
        try:
            return (await self._bench.runtime.ensure_sandbox_image())[0]
        except EngineUnavailableError:
            raise
        except EngineError as error:
            raise ImageError(str(error), reason="SandboxNotReady") from error

    async def _create(self, attempt: int) -> None:
        sandbox = self._pod.desired_of(self._name).sandbox
        try:
            attachment, resolv_conf = await self._connection()
        except NetworkError as error:
            now_s = asyncio.get_running_loop().time()
            self._remember(steps.wait_for_network(self._memory, str(error), now_s=now_s))
            log.warning("pod.not_connected", error=str(error))
            return
        try:
            spec = await self._spec(attempt, attachment, resolv_conf, sandbox)
            container = await self._bench.runtime.create(spec)
        except CreateError as error:
            finish = steps.Finish(state=PodState.FAILED, reason=REFUSED, message=str(error))
            self._remember(steps.finish(self._memory, finish))
            log.warning("container.refused", error=str(error))
            return
        except ImageError:
            # It was removed since it was resolved: look again.
            self._remember(replace(self._memory, image=""))
            raise
        log.info("container.created", container=container.name)
        if attempt:
            self._bench.metrics.container_restarted()
        self._bench.engine.note(container)

    async def _connection(self) -> tuple[Attachment | None, Path | None]:
        """How it is connected (None: on the host's network), and whom it asks for names (None: as the host)."""
        network, namespace, spec = self._bench.network, self._pod.assignment.namespace, self._pod.spec
        if spec.host_network:
            return None, await network.resolv_conf(namespace) if spec.asks_here else None
        attachment = await network.attach(self._pod.uid, namespace)
        return attachment, attachment.resolv_conf if spec.asks_here else None

    async def _spec(
        self,
        attempt: int,
        attachment: Attachment | None,
        resolv_conf: Path | None,
        sandbox: Sandbox | None,
    ) -> ContainerSpec:
        facts, assignment = self._bench.journal.facts, self._pod.assignment
        origin = Origin(
            assignment=assignment,
            node=self._bench.node,
            cluster=facts.label_cluster,
            epoch=facts.fence.revision,
        )
        if self._name == SANDBOX:
            assert attachment is not None, "on the host's network nobody needs a sandbox"
            image, command = await self._bench.runtime.ensure_sandbox_image()
            return to_sandbox_spec(
                origin, self._pod.spec, attempt=attempt, image=image, command=command, attachment=attachment
            )
        variables = {}
        if self._pod.spec.enable_service_links:
            variables = service_variables(self._bench.tables.traffic, assignment.namespace)
        # Read again: its own variables and words may refer to those of services.
        spec = parse_pod_spec(assignment.template_json, variables)
        template = spec.named(self._name)
        assert template is not None, "what is not in the template is not to run"
        return to_container_spec(
            origin,
            spec,
            template,
            attempt=attempt,
            image=self._memory.image,
            attachment=attachment,
            resolv_conf=resolv_conf,
            sandbox=sandbox,
        )

    async def _start(self, container: Container) -> None:
        self._reach(PodState.STARTING)
        # Before it is: the engine's hint may be quicker than its answer.
        self._started = container.id
        try:
            await self._bench.runtime.start(container.id)
        except StartError as error:
            if await self._has_lost_sandbox():
                return
            if isinstance(error, AddressTakenError):
                # The next attempt gets another one: whoever has this may keep it for ever.
                self._bench.network.release(self._pod.uid)
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

    async def _has_lost_sandbox(self) -> bool:
        """Whether that is why it could not be started: then nothing is wrong with it."""
        desired = self._pod.desired_of(self._name)
        if not desired.needs_sandbox or desired.sandbox is None:
            return desired.needs_sandbox
        shown = await self._bench.engine.look(desired.sandbox.container_id)
        return shown is None or steps.run_of(shown) != desired.sandbox.run

    async def _count_end(self, container: Container | None) -> None:
        if container is None:
            # A listing that came too early must not cost a restart: what it missed shows up in the next.
            await self._bench.engine.list()
            if any(steps.attempt_of(each) >= self._memory.attempt for each in self._line()):
                return
            self._end(steps.gone(self._memory, noticed_s=self._bench.wall_s()))
            return
        health = steps.health_of(container, self._memory)
        broken = health.broken if health is not None else ""
        is_error = container.exit_code != 0 or container.oom_killed
        tail, last = await last_words(self._bench.runtime, container.id) if is_error or broken else ("", "")
        reason = UNHEALTHY if broken else ERROR if is_error else COMPLETED
        self._end(
            Ending(
                attempt=steps.attempt_of(container),
                code=container.exit_code,
                reason=OOM_KILLED if container.oom_killed else reason,
                message=container.error or broken,
                started_s=container.started_s,
                finished_s=container.finished_s,
                container_id=container.id,
                last_log_lines=tail,
                last_words=last,
            )
        )

    async def _run_pre_stop(self, step: steps.RunPreStop) -> None:
        desired = self._pod.desired_of(self._name)
        hook, health = desired.hooks.pre_stop, steps.health_of(step.container, self._memory)
        assert hook is not None
        assert health is not None
        if health.pre_stop_began_s:
            # The agent ended meanwhile. As in Kubernetes, a hook may run twice, but not never.
            log.warning("pre_stop.repeated", container=step.container.name)
        self._remember(replace(self._memory, health=replace(health, pre_stop_began_s=self._bench.wall_s())))
        log.info("pre_stop.begun", container=step.container.name, grace_s=step.grace_s)
        began_s = asyncio.get_running_loop().time()
        failure = await run_pre_stop(
            self._bench.prober,
            step.container,
            hook,
            grace_s=step.grace_s,
            until_ended=self._until_ended(step.container),
        )
        if failure:
            log.warning("pre_stop.failed", container=step.container.name, why=failure)
        ended = replace(
            health,
            is_pre_stopped=True,
            pre_stop_took_s=asyncio.get_running_loop().time() - began_s,
            pre_stop_failure=failure,
        )
        self._remember(replace(self._memory, health=ended))
        # On disk before SIGTERM, or an agent that ends in between would run the hook again.
        with contextlib.suppress(OSError):
            await self._bench.journal.save()

    async def _until_ended(self, container: Container) -> None:
        living = (ContainerState.RUNNING, ContainerState.PAUSED)
        while any(each.id == container.id and each.state in living for each in self._line()):
            await self._pod.until_changed()

    def _line(self) -> list[Container]:
        return [each for each in self._bench.engine.of(self._pod.uid) if name_of(each) == self._name]

    async def _on_existing(self, container: Container, call: Awaitable[None]) -> None:
        with contextlib.suppress(ContainerGoneError):
            await call
        await self._bench.engine.look(container.id)
