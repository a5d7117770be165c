"""One container's watch, with answers that the test gives, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from agent.probes.command import Commands
from agent.probes.deadline import within
from agent.probes.judgement import Health
from agent.probes.model import Check, Exec, Hook, Hooks, Probe, Probes, TcpConnect
from agent.probes.port import SUCCESS, Outcome, Result
from agent.probes.pre_stop import run_pre_stop
from agent.probes.watch import BUG_RETRY_S, Orders, Watch
from agent.runtime.port import ContainerSpec, Output
from agent.runtime.simulated import SimulatedRuntime
from agent.runtime.simulated_engine import Command, SimulatedEngine
from tests.agent.probes.servers import a_container
from tests.virtual_time import VirtualTimeLoop

pytestmark = pytest.mark.virtual_time

STARTUP, READINESS, LIVENESS = (TcpConnect(port=number) for number in (1, 2, 3))
HOOK = Exec(command=("warm-up",))
REFUSED = Outcome.failure("connection refused")
UNKNOWN = Outcome.unknown("no engine")

Answer = Callable[[float], Outcome]  # By the time since the test's beginning.


def succeed(now_s: float) -> Outcome:
    del now_s
    return SUCCESS


class ScriptedProber:
    """Answers each check as it was told to, and keeps when it was asked."""

    def __init__(self) -> None:
        self.answers: dict[Check | Hook, Answer] = {}
        self.takes_s: dict[Check | Hook, float] = {}
        self.asked: list[tuple[float, Check | Hook]] = []
        self._began_s = asyncio.get_running_loop().time()

    @property
    def now_s(self) -> float:
        return round(asyncio.get_running_loop().time() - self._began_s, 6)

    def times(self, check: Check | Hook) -> list[float]:
        return [at_s for at_s, asked in self.asked if asked == check]

    async def probe(self, container: object, check: Check, *, timeout_s: float) -> Outcome:
        del container, timeout_s
        return await self._answer(check)

    async def run_hook(self, container: object, hook: Hook, *, timeout_s: float) -> Outcome:
        del container, timeout_s
        return await self._answer(hook)

    async def aclose(self) -> None: ...

    async def _answer(self, check: Check | Hook) -> Outcome:
        self.asked.append((self.now_s, check))
        await asyncio.sleep(self.takes_s.get(check, 0.0))
        return self.answers.get(check, succeed)(self.now_s)


class World:
    """A watch, its prober, and what it told and when."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.prober = ScriptedProber()
        self.told: list[tuple[float, Health]] = []
        loop = asyncio.get_running_loop()
        self.container = replace(a_container(), started_s=loop.time())
        self.health = Health(container_id=self.container.id, started_s=self.container.started_s)
        self.watch = Watch(
            self.prober,
            tell=lambda health: self.told.append((self.prober.now_s, health)),
            wall_s=loop.time,
            tasks=tasks,
        )

    def begin(
        self,
        *,
        chance: random.Random | None = None,
        post_start: Hook | None = None,
        health: Health | None = None,
        **probes: Probe,
    ) -> None:
        orders = Orders(probes=Probes(**probes), hooks=Hooks(post_start=post_start), chance=chance)
        self.watch.begin(self.container, health or self.health, orders)

    @property
    def last(self) -> Health:
        return self.told[-1][1]


@contextlib.asynccontextmanager
async def a_world() -> AsyncIterator[World]:
    async with asyncio.TaskGroup() as tasks:
        world = World(tasks)
        yield world
        world.watch.end()


class TestOrder:
    async def test_readiness_and_liveness_wait_for_startup_and_startup_is_not_asked_again(self) -> None:
        async with a_world() as world:
            world.prober.answers[STARTUP] = lambda now_s: SUCCESS if now_s >= 20 else REFUSED
            world.begin(
                startup=Probe(check=STARTUP), readiness=Probe(check=READINESS), liveness=Probe(check=LIVENESS)
            )
            await asyncio.sleep(60)
            assert world.prober.times(STARTUP)[-1] == 20
            # Readiness at once, not a period later.
            assert world.prober.times(READINESS)[0] == world.prober.times(LIVENESS)[0] == 20
            assert [at_s for at_s, health in world.told if health.is_ready] == [20]

    async def test_everything_waits_for_the_post_start_hook(self) -> None:
        async with a_world() as world:
            world.prober.takes_s[HOOK] = 5.0
            world.begin(post_start=HOOK, startup=Probe(check=STARTUP))
            await asyncio.sleep(10)
            assert world.prober.times(STARTUP) == [5]
            assert world.told[0] == (5, replace(world.health, is_post_started=True))

    async def test_a_post_start_hook_that_fails_condemns(self) -> None:
        async with a_world() as world:
            world.prober.answers[HOOK] = lambda _: Outcome.failure('exit 1: "no"')
            world.begin(post_start=HOOK, readiness=Probe(check=READINESS))
            await asyncio.sleep(10)
            assert world.last.broken == 'postStart hook failed: exit 1: "no"'
            assert not world.prober.times(READINESS)

    async def test_one_that_could_not_be_begun_is_begun_when_it_can(self) -> None:
        async with a_world() as world:
            world.prober.answers[HOOK] = lambda now_s: SUCCESS if now_s >= 3 else UNKNOWN
            world.begin(post_start=HOOK)
            await asyncio.sleep(10)
            assert world.prober.times(HOOK) == [0, 1, 2, 3]
            assert world.last.is_post_started

    async def test_a_failed_startup_ends_it(self) -> None:
        async with a_world() as world:
            world.prober.answers[STARTUP] = lambda _: REFUSED
            world.begin(startup=Probe(check=STARTUP, failure_threshold=2), liveness=Probe(check=LIVENESS))
            await asyncio.sleep(100)
            assert world.last.broken == "startup probe failed: connection refused"
            assert world.told[-1][0] == 10
            assert not world.prober.times(LIVENESS)

    async def test_what_was_started_before_is_not_asked_whether_it_has(self) -> None:
        async with a_world() as world:
            known = replace(world.health, is_started=True, is_post_started=True)
            world.begin(health=known, post_start=HOOK, startup=Probe(check=STARTUP))
            await asyncio.sleep(100)
            assert world.prober.asked == []


class TestTelling:
    async def test_changes_are_told_when_they_happen_and_nothing_else_is(self) -> None:
        async with a_world() as world:
            world.prober.answers[READINESS] = lambda now_s: REFUSED if 50 <= now_s < 100 else SUCCESS
            world.begin(readiness=Probe(check=READINESS, period_s=1.0), liveness=Probe(check=LIVENESS))
            await asyncio.sleep(200)
            assert [(at_s, health.is_ready) for at_s, health in world.told] == [
                (0, True),
                (52, False),
                (100, True),
            ]

    async def test_a_liveness_failure_is_told_once_and_asks_no_more(self) -> None:
        async with a_world() as world:
            world.prober.answers[LIVENESS] = lambda _: REFUSED
            world.begin(liveness=Probe(check=LIVENESS, grace_s=3.0))
            await asyncio.sleep(200)
            assert world.prober.times(LIVENESS) == [0, 10, 20]
            assert [at_s for at_s, _ in world.told] == [20]
            assert world.last.broken_grace_s == 3.0

    async def test_a_hanging_check_delays_no_other(self) -> None:
        async with a_world() as world:
            world.prober.takes_s[LIVENESS] = 60.0
            world.begin(readiness=Probe(check=READINESS, period_s=1.0), liveness=Probe(check=LIVENESS))
            await asyncio.sleep(30.5)
            assert len(world.prober.times(READINESS)) == 31
            assert len(world.prober.times(LIVENESS)) == 1

    async def test_without_an_engine_nothing_changes(self) -> None:
        async with a_world() as world:
            world.prober.answers[READINESS] = world.prober.answers[LIVENESS] = lambda _: UNKNOWN
            known = replace(world.health, is_ready=True)
            world.begin(health=known, readiness=Probe(check=READINESS), liveness=Probe(check=LIVENESS))
            await asyncio.sleep(1000)
            assert world.told == []

    async def test_after_its_end_nothing_is_asked_and_nothing_told(self) -> None:
        async with a_world() as world:
            world.prober.takes_s[READINESS] = 0.5
            world.begin(readiness=Probe(check=READINESS))
            await asyncio.sleep(0.2)
            world.watch.end()
            await asyncio.sleep(100)
            assert world.told == []
            assert len(world.prober.asked) == 1
            assert not world.watch.is_of(world.health)

    async def test_a_bug_met_by_a_check_ends_neither_the_watch_nor_the_agent(self) -> None:
        async with a_world() as world:

            def fail(now_s: float) -> Outcome:
                if now_s < BUG_RETRY_S:
                    raise ZeroDivisionError
                return SUCCESS

            world.prober.answers[READINESS] = fail
            world.begin(readiness=Probe(check=READINESS))
            await asyncio.sleep(20)
            assert world.last.is_ready


class TestFoundRunning:
    async def test_first_checks_are_spread(self) -> None:
        async with a_world() as world:
            for seed in range(20):
                world.begin(
                    chance=random.Random(seed),
                    health=replace(world.health, is_ready=True),
                    readiness=Probe(check=READINESS),
                )
                await asyncio.sleep(0)
                world.watch.end()
            assert world.prober.asked == []
            world.begin(chance=random.Random(7), readiness=Probe(check=READINESS))
            await asyncio.sleep(1.1)
            assert world.last.is_ready

    async def test_a_hook_that_may_have_run_is_run_again(self) -> None:
        async with a_world() as world:
            world.begin(chance=random.Random(1), post_start=HOOK)
            await asyncio.sleep(1)
            assert world.prober.times(HOOK) == [0]


class TestPreStop:
    async def run(self, prober: ScriptedProber, hook: Hook, grace_s: float, *, ends_s: float = 1e6) -> str:
        return await run_pre_stop(
            prober, a_container(), hook, grace_s=grace_s, until_ended=asyncio.sleep(ends_s, None)
        )

    async def test_a_good_one_says_nothing(self) -> None:
        assert not await self.run(ScriptedProber(), HOOK, 30)

    async def test_a_failure_is_told(self) -> None:
        prober = ScriptedProber()
        prober.answers[HOOK] = lambda _: Outcome.failure("exit 1")
        assert await self.run(prober, HOOK, 30) == "preStop hook failed: exit 1"
        assert len(prober.asked) == 1

    async def test_a_bug_of_ours_does_not_keep_the_pod(self) -> None:
        def fail(now_s: float) -> Outcome:
            raise ZeroDivisionError(now_s)

        prober = ScriptedProber()
        prober.answers[HOOK] = fail
        assert "ZeroDivisionError" in await self.run(prober, HOOK, 30)

    async def test_without_an_engine_it_is_tried_within_the_grace(self) -> None:
        prober = ScriptedProber()
        prober.answers[HOOK] = lambda now_s: SUCCESS if now_s >= 7 else UNKNOWN
        assert not await self.run(prober, HOOK, 30)
        prober.answers[HOOK] = lambda _: UNKNOWN
        began_s = prober.now_s
        assert await self.run(prober, HOOK, 30) == "preStop hook failed: no engine"
        assert prober.now_s - began_s <= 30

    async def test_is_left_when_the_container_has_ended(self) -> None:
        prober = ScriptedProber()
        prober.takes_s[HOOK] = 20.0
        assert not await self.run(prober, HOOK, 30, ends_s=4)
        assert prober.now_s == 4


class TestDeadline:
    async def test_what_is_too_slow_has_failed(self) -> None:
        outcome = await within(1.5, asyncio.sleep(10, SUCCESS), place=":80")
        assert outcome == Outcome.failure("no answer within 1.5 s at :80")

    async def test_but_not_if_it_was_the_agent_that_did_not_look(self) -> None:
        """Its process was stopped, or its host slept: then every container would seem to have failed."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)

        async def attempt() -> Outcome:
            loop._now_s += 60
            await asyncio.Event().wait()
            return SUCCESS

        assert (await within(1.5, attempt())).result is Result.UNKNOWN


class TestCommands:
    """Through a runtime, as on real engines."""

    async def a_command(self, command: Command | None) -> tuple[SimulatedEngine, Commands, str]:
        engine = SimulatedEngine()
        engine.load_image("app:1")
        if command is not None:
            engine.commands["check",] = command
        runtime = SimulatedRuntime(engine, cluster="c", node="n")
        made = await runtime.create(ContainerSpec(name="web", image="app:1", labels={}))
        await runtime.start(made.id)
        return engine, Commands(runtime), made.id

    async def test_exit_code_0_is_success(self) -> None:
        _, commands, container_id = await self.a_command(Command())
        assert await commands.run(container_id, ("check",), timeout_s=1) == SUCCESS

    async def test_another_fails_with_its_last_line(self) -> None:
        output = (Output(data=b"looking\nno data"), Output(data=b"base\n", is_stderr=True))
        _, commands, container_id = await self.a_command(Command(exit_code=3, output=output))
        outcome = await commands.run(container_id, ("check",), timeout_s=1)
        assert outcome == Outcome.failure('exit 3: "no database"')

    async def test_one_that_is_not_there_fails(self) -> None:
        _, commands, container_id = await self.a_command(None)
        outcome = await commands.run(container_id, ("check",), timeout_s=1)
        assert outcome.words.startswith("exit 127")

    async def test_one_that_hangs_is_left_and_killed(self) -> None:
        engine, commands, container_id = await self.a_command(Command(runs_s=3600))
        outcome = await commands.run(container_id, ("check",), timeout_s=1.5)
        assert outcome == Outcome.failure("no answer within 1.5 s")
        assert engine.killed_commands == [("check",)]

    async def test_so_is_one_whose_watcher_leaves(self) -> None:
        engine, commands, container_id = await self.a_command(Command(runs_s=3600))
        task = asyncio.create_task(commands.run(container_id, ("check",), timeout_s=100))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert engine.killed_commands == [("check",)]

    async def test_a_great_output_is_not_kept(self) -> None:
        output = tuple(Output(data=b"x" * 65536) for _ in range(100))
        _, commands, container_id = await self.a_command(Command(exit_code=1, output=output))
        outcome = await commands.run(container_id, ("check",), timeout_s=1)
        assert len(outcome.words) < 300

    async def test_an_engine_that_is_away_says_nothing_about_the_container(self) -> None:
        engine, commands, container_id = await self.a_command(Command(exit_code=1))
        engine.kill()
        assert await commands.run(container_id, ("check",), timeout_s=1) == Outcome.unknown(
            "cannot connect to the container engine: connection refused"
        )

    async def test_an_engine_that_hangs_neither(self) -> None:
        engine, commands, container_id = await self.a_command(Command())
        engine.freeze()
        outcome = await commands.run(container_id, ("check",), timeout_s=1)
        assert outcome == Outcome.unknown("the container engine did not answer in time")
