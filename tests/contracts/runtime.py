"""What every runtime promises: one suite for the simulated engine and for real Docker.

A test module subclasses `RuntimeContract` and gives the fixture `world`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agent.runtime.port import (
    LABEL_EPOCH,
    LABEL_POD,
    ContainerGoneError,
    ContainerState,
    CreateError,
    EngineError,
    ImageError,
    StartError,
)
from tests.contracts.runtime_networks import NetworkContract
from tests.contracts.runtime_sandbox import SandboxContract
from tests.contracts.runtime_streams import StreamContract
from tests.contracts.runtime_world import (
    BUSY,
    EXITS_3,
    HOG,
    IGNORES_SIGTERM,
    MIB,
    NO_SUCH_PROGRAM,
    NODE,
    SAYS_WHEN_IT_HEEDS,
    World,
    ended,
    eventually,
    heeding,
    spec,
    started,
    text_of,
)


class RuntimeContract(StreamContract, NetworkContract, SandboxContract):
    """Subclass it and give `world`."""

    # --- the host ---

    async def test_says_what_the_host_has(self, world: World) -> None:
        info = await world.runtime.info()

        assert info.name
        assert info.cpu_millis >= 1000
        assert info.memory_bytes > 100 * MIB

    # --- a container's life ---

    async def test_a_created_container_waits_to_be_started(self, world: World) -> None:
        made = await world.runtime.create(spec(world))

        assert made.state is ContainerState.CREATED
        assert made.labels[LABEL_POD] == "uid.web.1"
        assert made.created_s > 0
        assert made.started_s == 0

    async def test_a_started_container_runs_at_an_address(self, world: World) -> None:
        first, second = await started(world, "a"), await started(world, "b")

        assert first.state is ContainerState.RUNNING
        assert first.pid > 0
        assert first.started_s >= first.created_s
        assert first.address
        assert first.address != second.address

    async def test_lists_running_and_ended_ones(self, world: World) -> None:
        running = await started(world, "a")
        gone = await ended(world, await started(world, "b", EXITS_3))

        listed = {container.id: container for container in await world.runtime.list_containers()}

        assert listed == {running.id: running, gone.id: gone}

    async def test_an_exit_code_is_kept(self, world: World) -> None:
        container = await ended(world, await started(world, command=EXITS_3))

        assert container.exit_code == 3
        assert not container.oom_killed
        assert container.finished_s >= container.started_s

    async def test_creating_twice_gives_the_same_container(self, world: World) -> None:
        """The reply to the first create was lost, and meanwhile another leader orders the same."""
        first = await world.runtime.create(spec(world))
        again = spec(world)
        second = await world.runtime.create(replace(again, labels={**again.labels, LABEL_EPOCH: "6"}))

        assert second.id == first.id
        assert len(await world.runtime.list_containers()) == 1

    async def test_another_container_of_that_name_is_refused(self, world: World) -> None:
        await world.runtime.create(spec(world))
        other = replace(spec(world), labels={LABEL_POD: "uid.9.9"})

        with pytest.raises(CreateError, match="taken"):
            await world.runtime.create(other)

    async def test_creating_from_an_image_that_went_away_says_so(self, world: World) -> None:
        with pytest.raises(ImageError, match="No such image"):
            await world.runtime.create(replace(spec(world), image=f"{world.registry}/gone:1"))

    async def test_starting_a_running_container_is_no_error(self, world: World) -> None:
        container = await started(world)

        await world.runtime.start(container.id)

        assert await world.runtime.inspect(container.id) == container

    async def test_a_command_that_does_not_exist_fails_at_start(self, world: World) -> None:
        made = await world.runtime.create(spec(world, command=NO_SUCH_PROGRAM))

        with pytest.raises(StartError, match="executable file not found") as caught:
            await world.runtime.start(made.id)

        assert caught.value.exit_code == 127
        shown = await world.runtime.inspect(made.id)
        assert shown.exit_code == 127
        assert "executable file not found" in shown.error

    async def test_too_much_memory_ends_it_and_says_why(self, world: World) -> None:
        container = await ended(world, await started(world, command=HOG, memory_limit_bytes=16 * MIB))

        assert container.oom_killed
        assert container.exit_code == 137

    # --- stopping ---

    async def test_stopping_lets_it_end_by_itself(self, world: World) -> None:
        container = await started(world, command=SAYS_WHEN_IT_HEEDS)
        await heeding(world, container)
        before = asyncio.get_running_loop().time()

        await world.runtime.stop(container.id, grace_s=30)

        shown = await world.runtime.inspect(container.id)
        assert (shown.state, shown.exit_code) == (ContainerState.EXITED, 0)
        assert asyncio.get_running_loop().time() - before < 5

    async def test_who_ignores_sigterm_is_killed_after_the_grace(self, world: World) -> None:
        container = await started(world, command=IGNORES_SIGTERM)
        before = asyncio.get_running_loop().time()

        await world.runtime.stop(container.id, grace_s=1)

        assert (await world.runtime.inspect(container.id)).exit_code == 137
        assert 0.9 <= asyncio.get_running_loop().time() - before < 5

    async def test_stopping_and_removing_twice_is_no_error(self, world: World) -> None:
        container = await started(world)

        for _ in range(2):
            await world.runtime.stop(container.id, grace_s=1)
        for _ in range(2):
            await world.runtime.remove(container.id)
        await world.runtime.stop(container.id, grace_s=1)

        assert await world.runtime.list_containers() == []
        with pytest.raises(ContainerGoneError):
            await world.runtime.inspect(container.id)

    async def test_a_running_container_is_not_removed(self, world: World) -> None:
        container = await started(world)

        with pytest.raises(EngineError, match="running"):
            await world.runtime.remove(container.id)

        assert await world.is_running(container.id)

    async def test_a_paused_container_can_be_stopped(self, world: World) -> None:
        container = await started(world)
        await world.pause(container.id)
        assert (await world.runtime.inspect(container.id)).state is ContainerState.PAUSED

        await world.runtime.stop(container.id, grace_s=1)

        assert (await world.runtime.inspect(container.id)).state is ContainerState.EXITED

    async def test_a_paused_container_can_go_on(self, world: World) -> None:
        container = await started(world)
        await world.pause(container.id)

        for _ in range(2):
            await world.runtime.unpause(container.id)

        assert await world.runtime.inspect(container.id) == container

    # --- behind our back ---

    async def test_a_container_removed_behind_our_back_is_gone(self, world: World) -> None:
        container = await started(world)
        await world.remove_container(container.id)

        assert await world.runtime.list_containers() == []
        with pytest.raises(ContainerGoneError):
            await world.runtime.inspect(container.id)
        with pytest.raises(ContainerGoneError):
            await world.runtime.start(container.id)
        with pytest.raises(ContainerGoneError):
            await text_of(
                world.runtime.logs(container.id, follow=False, tail=-1, since_s=0, timestamps=False)
            )

    async def test_foreign_containers_are_invisible_and_untouched(self, world: World) -> None:
        """Ones that are nobody's, and another node's on the same engine."""
        foreign = await world.add_foreign("bay-contract-foreign")
        other = world.another_agent(node="n2")
        neighbour = await other.create(spec(world, "neighbour"))
        await other.start(neighbour.id)

        assert await world.runtime.list_containers() == []
        for container_id in (foreign, neighbour.id):
            await world.runtime.stop(container_id, grace_s=0)
            await world.runtime.remove(container_id)
            with pytest.raises(ContainerGoneError):
                await world.runtime.inspect(container_id)
            assert await world.is_running(container_id)
        with pytest.raises(CreateError, match="taken"):
            await world.runtime.create(spec(world, "foreign"))

    async def test_a_new_agent_finds_what_runs(self, world: World) -> None:
        container = await started(world)

        assert await world.another_agent(node=NODE).list_containers() == [container]

    async def test_hints_tell_of_changes(self, world: World) -> None:
        hinted: list[str] = []

        async def listen() -> None:
            async for pod in world.runtime.hints():
                hinted.append(pod)  # noqa: PERF401 - it never ends

        async with asyncio.TaskGroup() as tasks:
            listener = tasks.create_task(listen())
            # Hints of a second ago may come again.
            await eventually(lambda: _is(hinted[:1] == [""]))
            container = await started(world, "hinted")
            await eventually(lambda: _is("uid.hinted.1" in hinted))
            await world.add_foreign("bay-contract-foreign")
            hinted.clear()
            await world.kill_container(container.id)
            await eventually(lambda: _is("uid.hinted.1" in hinted))
            assert set(hinted) == {"uid.hinted.1"}
            listener.cancel()

    # --- use ---

    async def test_use_rises(self, world: World) -> None:
        container = await started(world, command=BUSY)
        await asyncio.sleep(0.2)
        first = await world.runtime.usage([container])
        await asyncio.sleep(0.5)
        second = await world.runtime.usage([container])

        assert second[container.id][0] > first[container.id][0] > 0
        assert 0 < second[container.id][1] < 100 * MIB

    async def test_who_does_not_run_uses_nothing(self, world: World) -> None:
        container = await started(world)
        await world.remove_container(container.id)

        assert await world.runtime.usage([container]) == {}

    # --- images ---

    async def test_an_image_is_pulled_and_named_by_its_digest(self, world: World) -> None:
        await world.push(f"{world.registry}/app:1")

        reference, digest = await world.runtime.ensure_image(
            f"{world.registry}/app:1", policy="IfNotPresent", credentials={}
        )

        assert digest.startswith("sha256:")
        assert reference == f"{world.registry}/app@{digest}"
        made = await world.runtime.create(replace(spec(world), image=reference))
        await world.runtime.start(made.id)

    async def test_what_is_here_needs_no_registry(self, world: World) -> None:
        """A failover while the registry is down: by tag and by digest, and by digest whatever the policy."""
        name = f"{world.registry}/app:1"
        await world.push(name)
        pulled = await world.runtime.ensure_image(name, policy="Always", credentials={})
        await world.stop_registry()

        for image, policy in (
            (name, "IfNotPresent"),
            (name, "Never"),
            (pulled[0], "IfNotPresent"),
            (pulled[0], "Always"),
        ):
            assert await world.runtime.ensure_image(image, policy=policy, credentials={}) == pulled
        with pytest.raises(ImageError, match="connection refused"):
            await world.runtime.ensure_image(name, policy="Always", credentials={})

    async def test_a_local_image_is_run_by_its_id(self, world: World) -> None:
        reference, image_id = await world.runtime.ensure_image(
            world.image, policy="IfNotPresent", credentials={}
        )

        assert image_id.startswith("sha256:")
        made = await world.runtime.create(replace(spec(world), image=reference))
        assert made.image_id
        again = await world.runtime.ensure_image(reference, policy="IfNotPresent", credentials={})
        assert again == (reference, image_id)

    async def test_an_image_that_does_not_exist_says_so(self, world: World) -> None:
        await world.push(f"{world.registry}/app:1")

        with pytest.raises(ImageError, match="manifest unknown") as caught:
            await world.runtime.ensure_image(f"{world.registry}/app:9", policy="Always", credentials={})

        assert caught.value.reason == "ErrImagePull"

    async def test_a_registry_that_is_down_says_so(self, world: World) -> None:
        await world.stop_registry()

        with pytest.raises(ImageError, match="connection refused"):
            await world.runtime.ensure_image(f"{world.registry}/app:1", policy="IfNotPresent", credentials={})

    async def test_never_means_never(self, world: World) -> None:
        await world.push(f"{world.registry}/app:1")

        with pytest.raises(ImageError, match="Never") as caught:
            await world.runtime.ensure_image(f"{world.registry}/app:1", policy="Never", credentials={})

        assert caught.value.reason == "ErrImageNeverPull"

    async def test_a_wrong_name_is_refused(self, world: World) -> None:
        with pytest.raises(ImageError, match="lower case") as caught:
            await world.runtime.ensure_image("Web:1", policy="Always", credentials={})

        assert caught.value.reason == "InvalidImageName"

    async def test_only_what_we_pulled_and_nobody_uses_is_pruned(self, world: World) -> None:
        await world.push(f"{world.registry}/app:1")
        reference, _ = await world.runtime.ensure_image(
            f"{world.registry}/app:1", policy="IfNotPresent", credentials={}
        )
        made = await world.runtime.create(replace(spec(world), image=reference))

        assert await world.runtime.prune_images(keep=frozenset(), target_bytes=1) == 0
        await world.runtime.remove(made.id)
        assert await world.runtime.prune_images(keep=frozenset([reference]), target_bytes=1) == 0
        assert await world.runtime.prune_images(keep=frozenset(), target_bytes=1) > 0

        await world.runtime.ensure_image(world.image, policy="Never", credentials={})
        with pytest.raises(ImageError):
            await world.runtime.ensure_image(reference, policy="Never", credentials={})


async def _is(statement: bool) -> bool:  # noqa: FBT001 - it is a statement
    return statement
