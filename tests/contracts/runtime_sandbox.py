"""What every runtime promises about pods of several containers: one owns the network, the others join it."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from agent.runtime.port import Container, ContainerSpec, ContainerState, StartError
from tests.contracts.runtime_networks import ADDRESS, NETWORK
from tests.contracts.runtime_world import World, ended, spec

GRACE_S = 30


async def sandbox_spec(world: World, name: str = "sandbox") -> ContainerSpec:
    image, command = await world.runtime.ensure_sandbox_image()
    return replace(
        spec(world, name, command),
        image=image,
        is_sandbox=True,
        hostname="web-1",
        network=NETWORK.name,
        address=ADDRESS,
    )


async def a_sandbox(world: World) -> Container:
    await world.runtime.ensure_network(NETWORK)
    made = await world.runtime.create(await sandbox_spec(world))
    await world.runtime.start(made.id)
    return await world.runtime.inspect(made.id)


async def joined(world: World, sandbox: Container, name: str = "web") -> Container:
    made = await world.runtime.create(replace(spec(world, name), joins=sandbox.id))
    await world.runtime.start(made.id)
    return await world.runtime.inspect(made.id)


class SandboxContract:
    """Part of `RuntimeContract`."""

    async def test_the_sandbox_has_the_address(self, world: World) -> None:
        sandbox = await a_sandbox(world)

        assert (sandbox.state, sandbox.address) == (ContainerState.RUNNING, ADDRESS)

    async def test_its_image_is_made_once(self, world: World) -> None:
        assert await world.runtime.ensure_sandbox_image() == await world.runtime.ensure_sandbox_image()

    async def test_it_obeys_at_once_when_it_is_to_stop(self, world: World) -> None:
        sandbox = await a_sandbox(world)

        asked_s = time.monotonic()
        await world.runtime.stop(sandbox.id, grace_s=GRACE_S)

        assert time.monotonic() - asked_s < GRACE_S
        assert (await world.runtime.inspect(sandbox.id)).state is ContainerState.EXITED

    async def test_one_that_joins_has_no_address_of_its_own(self, world: World) -> None:
        container = await joined(world, await a_sandbox(world))

        assert (container.state, container.address) == (ContainerState.RUNNING, "")

    async def test_it_may_end_and_the_others_run_on(self, world: World) -> None:
        sandbox = await a_sandbox(world)
        web, side = await joined(world, sandbox, "web"), await joined(world, sandbox, "side")

        await world.kill_container(side.id)
        await ended(world, side)

        assert await world.runtime.inspect(web.id) == web
        assert await world.runtime.inspect(sandbox.id) == sandbox
        assert (await joined(world, sandbox, "side-1")).state is ContainerState.RUNNING

    async def test_nothing_joins_a_sandbox_that_has_ended(self, world: World) -> None:
        sandbox = await a_sandbox(world)
        await world.kill_container(sandbox.id)
        await ended(world, sandbox)

        with pytest.raises(StartError, match=r"non running|not running"):
            await joined(world, sandbox)

    async def test_nor_one_that_is_gone(self, world: World) -> None:
        sandbox = await a_sandbox(world)
        made = await world.runtime.create(replace(spec(world), joins=sandbox.id))
        await world.remove_container(sandbox.id)

        with pytest.raises(StartError):
            await world.runtime.start(made.id)
        assert (await world.runtime.inspect(made.id)).state is not ContainerState.RUNNING

    async def test_its_address_is_free_when_it_has_ended_though_others_live(self, world: World) -> None:
        """So the next sandbox of the pod is where the last one was."""
        sandbox = await a_sandbox(world)
        await joined(world, sandbox)
        await world.kill_container(sandbox.id)
        await ended(world, sandbox)

        made = await world.runtime.create(await sandbox_spec(world, "sandbox-1"))
        await world.runtime.start(made.id)

        assert (await world.runtime.inspect(made.id)).address == ADDRESS
