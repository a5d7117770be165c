from __future__ import annotations

import asyncio

import pytest

from agent.runtime.port import Container, Credential, EngineUnavailableError, ImageError, Output, Runtime
from agent.runtime.simulated import SimulatedRuntime
from agent.runtime.simulated_engine import Command, SimulatedEngine
from agent.runtime.simulated_images import Program, SimulatedRegistry
from tests.contracts.runtime import RuntimeContract
from tests.contracts.runtime_world import (
    BUSY,
    CLUSTER,
    EXEC_CAT,
    EXEC_FAILS,
    EXEC_HANGS,
    EXEC_SIZE,
    EXITS_3,
    FOREVER,
    HOG,
    IGNORES_SIGTERM,
    MIB,
    NO_SUCH_PROGRAM,
    NODE,
    SAYS_WHEN_IT_HEEDS,
    TALKS,
    ended,
    spec,
    started,
)

PROGRAMS = {
    FOREVER: Program(stop_exit_code=0),
    SAYS_WHEN_IT_HEEDS: Program(stop_exit_code=0, output=(Output(data=b"heeds\n"),)),
    IGNORES_SIGTERM: Program(ignores_sigterm=True),
    EXITS_3: Program(runs_s=0.01, exit_code=3),
    NO_SUCH_PROGRAM: Program(
        start_exit_code=127, start_error='exec: "no-such-program": executable file not found in $PATH'
    ),
    HOG: Program(memory_bytes=64 * MIB),
    BUSY: Program(cpu_cores=1.0),
    TALKS: Program(
        runs_s=0.6,
        output=(Output(data=b"one\n"), Output(data=b"two\n", is_stderr=True), Output(data=b"three\n")),
        output_every_s=0.29,
    ),
}
COMMANDS = {
    EXEC_FAILS: Command(output=(Output(data=b"out\n"), Output(data=b"err\n", is_stderr=True)), exit_code=7),
    EXEC_CAT: Command(echoes_input=True),
    EXEC_HANGS: Command(runs_s=1000),
    EXEC_SIZE: Command(shows_size=True, runs_s=0.5),
}


class SimulatedWorld:
    """Obeys `World`."""

    def __init__(self) -> None:
        self.engine = SimulatedEngine()
        self.engine.programs |= PROGRAMS
        self.engine.commands |= COMMANDS
        self.image = "bayplan-test/busybox:1"
        self.registry = "127.0.0.1:5000"
        self.engine.load_image(self.image)
        self.runtime = self.another_agent(node=NODE)

    def another_agent(self, *, node: str) -> Runtime:
        return SimulatedRuntime(self.engine, cluster=CLUSTER, node=node)

    async def push(self, name: str) -> None:
        self.engine.registry.push(name, Program(stop_exit_code=0, cpu_cores=0.1))

    async def stop_registry(self) -> None:
        self.engine.registry.is_up = False

    async def kill_container(self, container_id: str) -> None:
        self.engine.kill_container(container_id)

    async def remove_container(self, container_id: str) -> None:
        self.engine.remove_container(container_id)

    async def pause(self, container_id: str) -> None:
        self.engine.pause(container_id)

    async def add_foreign(self, name: str) -> str:
        return self.engine.add_foreign(name)

    async def add_foreign_network(self, name: str, subnet: str) -> None:
        self.engine.add_foreign_network(name, subnet)

    async def is_running(self, container_id: str) -> bool:
        return self.engine.get(container_id).is_running


@pytest.fixture
async def world() -> SimulatedWorld:
    return SimulatedWorld()


@pytest.mark.virtual_time
class TestSimulatedRuntime(RuntimeContract):
    """The contract, in no time at all."""


@pytest.mark.virtual_time
class TestSimulatedEngine:
    async def test_a_frozen_engine_is_given_up_and_its_containers_run_on(self, world: SimulatedWorld) -> None:
        container = await started(world)
        world.engine.freeze()

        with pytest.raises(EngineUnavailableError, match="in time"):
            await world.runtime.list_containers()

        world.engine.thaw()
        assert await world.runtime.list_containers() == [container]

    async def test_a_dead_engine_refuses_and_comes_back_with_what_it_had(self, world: SimulatedWorld) -> None:
        container = await started(world)
        world.engine.kill()
        with pytest.raises(EngineUnavailableError, match="refused"):
            await world.runtime.inspect(container.id)

        world.engine.restart()

        assert await world.runtime.inspect(container.id) == container

    async def test_a_dead_host_loses_what_ran(self, world: SimulatedWorld) -> None:
        container = await started(world)

        world.engine.kill(with_containers=True)
        world.engine.restart()

        assert (await ended(world, container)).exit_code == 137

    async def test_hints_come_back_with_the_engine(self, world: SimulatedWorld) -> None:
        hints = world.runtime.hints()
        assert await anext(hints) == ""
        world.engine.kill()
        asyncio.get_running_loop().call_later(5, world.engine.restart)

        assert await anext(hints) == ""

        await world.runtime.create(spec(world))
        assert await anext(hints) == "uid.web.1"

    async def test_a_pull_in_progress_ends_with_the_engine(self, world: SimulatedWorld) -> None:
        await world.push("web:1")
        asyncio.get_running_loop().call_later(0.1, world.engine.kill)

        with pytest.raises(EngineUnavailableError):
            await world.runtime.ensure_image("web:1", policy="Always", credentials={})

    async def test_the_registry_asks_for_the_right_account(self, world: SimulatedWorld) -> None:
        account = Credential(registry="reg.example", username="me", password="secret")
        world.engine.registry.accounts["reg.example"] = account
        await world.push("reg.example/web:1")

        with pytest.raises(ImageError, match="unauthorized"):
            await world.runtime.ensure_image("reg.example/web:1", policy="Always", credentials={})
        await world.runtime.ensure_image(
            "reg.example/web:1", policy="Always", credentials={"reg.example": account}
        )

    async def test_two_runs_are_the_same(self) -> None:
        async def run() -> list[Container]:
            world = SimulatedWorld()
            for name in ("a", "b"):
                await started(world, name, TALKS)
            return [await ended(world, container) for container in await world.runtime.list_containers()]

        first = await run()
        second = await run()

        assert [(container.id, container.address) for container in first] == [
            (container.id, container.address) for container in second
        ]

    async def test_engines_share_a_registry(self) -> None:
        registry = SimulatedRegistry()
        registry.push("web:1")
        engines = [SimulatedEngine(registry, name=name) for name in ("n1", "n2")]
        runtimes = [SimulatedRuntime(engine, cluster=CLUSTER, node=engine.name) for engine in engines]

        references = {
            await runtime.ensure_image("web:1", policy="Always", credentials={}) for runtime in runtimes
        }

        assert len(references) == 1
