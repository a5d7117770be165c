"""Pods of several containers, as their agent looks after them on a simulated engine and virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.runtime.port import LABEL_CONTAINER, SANDBOX, Container
from agent.runtime.simulated_engine import Command
from agent.runtime.simulated_images import Program
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.scripted_manager import World, a_pod, a_world, crashing, until

pytestmark = pytest.mark.virtual_time

UID = "u1.0.1"
READY = {"httpGet": {"port": 80}, "periodSeconds": 1, "failureThreshold": 1}


def a_pair(
    *,
    want: pb.Want = pb.WANT_RUN,
    web: Mapping[str, object] | None = None,
    side: Mapping[str, object] | None = None,
    annotations: dict[str, str] | None = None,
    **spec: object,
) -> pb.Assignment:
    """A pod of the containers `web` and `side`."""
    pod = a_pod(want=want)
    template = json.loads(pod.template_json)
    containers = [
        {"name": "web", "image": "app:1", **(web or {})},
        {"name": "side", "image": "side:1", **(side or {})},
    ]
    template["spec"] = {"containers": containers, **spec}
    template["metadata"]["annotations"] = annotations or {}
    pod.template_json = json.dumps(template)
    return pod


def living(world: World) -> dict[str, Container]:
    """What runs of the pod, by name."""
    found = {each.labels[LABEL_CONTAINER]: each for each in world.containers(UID)}
    assert len(found) == len(world.containers(UID)), "two of one name"
    return found


def status(world: World) -> pb.PodStatus:
    return world.manager.statuses.get(UID, pb.PodStatus())


async def ready(world: World) -> None:
    await until(lambda: status(world).ready)


async def a_running_pair(world: World, pod: pb.Assignment | None = None) -> dict[str, Container]:
    world.registry.push("side:1")
    world.manager.assign(pod or a_pair(), full=True)
    await ready(world)
    return living(world)


class TestARunningPod:
    async def test_has_one_address_its_sandboxs(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            pod = await a_running_pair(world)

            assert set(pod) == {SANDBOX, "web", "side"}
            assert status(world).address == pod[SANDBOX].address != ""
            assert (pod["web"].address, pod["side"].address) == ("", "")

    async def test_tells_of_each_container_but_the_sandbox(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            pod = await a_running_pair(world)

            told = status(world)
            assert [each.name for each in told.containers] == ["web", "side"]
            assert [each.container_id for each in told.containers] == [pod["web"].id, pod["side"].id]
            assert all(each.ready and each.running for each in told.containers)
            assert (told.state, told.reason) == (pb.POD_STATE_RUNNING, "")

    async def test_is_ready_when_all_are(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            pod = await a_running_pair(world, a_pair(side={"readinessProbe": READY}))
            world.engine.fail_probes(pod["side"].id)
            await until(lambda: not status(world).ready)

            told = status(world)
            assert [each.ready for each in told.containers] == [True, False]
            assert (told.reason, told.message) == (
                "Unready",
                "side: readiness probe failed: connection refused at :80/",
            )

    async def test_uses_what_its_containers_use(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("app:1", Program(cpu_cores=0.5, memory_bytes=2**20))
            world.registry.push("side:1", Program(cpu_cores=0.25, memory_bytes=2**21))
            world.manager.assign(a_pair(), full=True)
            await asyncio.sleep(35)

            usage = [each for beat in world.manager.of_kind("heartbeat") for each in beat.usage][-1]
            assert abs(usage.cpu_millis - 750) <= 20
            assert usage.memory_bytes == 3 * 2**20


class TestASideCar:
    async def test_that_ends_begins_again_and_nobody_else_notices(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            before = await a_running_pair(world)
            address = status(world).address
            world.engine.kill_container(before["side"].id)
            await until(lambda: not status(world).ready)
            assert [each.ready for each in status(world).containers] == [True, False]
            assert status(world).message == "side: exit 137 (SIGKILL)"
            await ready(world)

            after = living(world)
            assert (after[SANDBOX].id, after["web"].id) == (before[SANDBOX].id, before["web"].id)
            assert after["side"].id != before["side"].id
            assert [each.restarts for each in status(world).containers] == [0, 1]
            assert status(world).address == address

    async def test_whose_image_takes_its_time_holds_up_nobody(self, tmp_path: Path) -> None:
        """Another container is restarted as quickly as ever."""
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pair(), full=True)  # There is no image `side:1`.
            await until(lambda: "web" in living(world))
            first = living(world)["web"].id
            world.engine.kill_container(first)

            assert await until(lambda: living(world).get("web", first) not in (first, None)) < 3
            await until(lambda: status(world).reason == "ImagePullBackOff")
            assert status(world).message.startswith("side: manifest for")

    async def test_that_crashes_on_and_on_leaves_the_other_alone(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("side:1", crashing(3))
            world.manager.assign(a_pair(), full=True)
            await asyncio.sleep(60)

            told = status(world)
            assert told.containers[1].restarts >= 4
            assert told.containers[0].restarts == 0
            assert told.state == pb.POD_STATE_RUNNING
            assert not told.ready
            # Each look finds it in its pause, or just started.
            assert told.containers[1].last_exit.code == 3


class TestTheSandbox:
    async def test_takes_the_others_with_it_and_all_come_back_at_the_same_address(
        self, tmp_path: Path
    ) -> None:
        async with a_world(tmp_path) as world:
            before = await a_running_pair(world)
            address = status(world).address
            world.engine.kill_container(before[SANDBOX].id)
            await until(lambda: not status(world).ready)
            await ready(world)

            after = living(world)
            assert set(after) == set(before)
            assert not {each.id for each in after.values()} & {each.id for each in before.values()}
            assert status(world).address == address
            assert "sandbox" in status(world).containers[0].last_exit.message

    async def test_that_somebody_removes_is_made_again(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            before = await a_running_pair(world)
            world.engine.remove_container(before[SANDBOX].id)
            await until(lambda: living(world).get(SANDBOX, before[SANDBOX]).id != before[SANDBOX].id)
            await ready(world)

            assert set(living(world)) == set(before)

    async def test_ends_last(self, tmp_path: Path) -> None:
        """A server that drains still answers, as long as it may."""
        async with a_world(tmp_path) as world:
            world.registry.push("app:1", Program(stop_s=9.0))
            await a_running_pair(world)
            world.manager.assign(a_pair(want=pb.WANT_STOP))

            assert await until(lambda: "side" not in living(world)) < 1
            await asyncio.sleep(7)
            assert set(living(world)) == {SANDBOX, "web"}
            assert status(world).state == pb.POD_STATE_RUNNING
            await until(lambda: not living(world))
            await until(lambda: status(world).state == pb.POD_STATE_STOPPED)

    async def test_is_all_that_waits_for_the_network(self, tmp_path: Path) -> None:
        async with a_world(tmp_path, start=False) as world:
            world.manager.tells_network = False
            world.start_agent()
            await world.connected()
            world.registry.push("side:1")
            world.manager.assign(a_pair(), full=True)
            await until(lambda: status(world).reason == "NetworkNotReady")

            assert status(world).message == "the pod's sandbox: no manager has told this node its network yet"


class TestStopping:
    async def test_all_have_one_grace_together(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("app:1", Program(ignores_sigterm=True))
            world.registry.push("side:1", Program(ignores_sigterm=True))
            world.manager.assign(a_pair(terminationGracePeriodSeconds=10), full=True)
            await ready(world)
            world.manager.assign(a_pair(want=pb.WANT_STOP, terminationGracePeriodSeconds=10))

            assert 9.9 < await until(lambda: not living(world)) < 11

    async def test_hooks_run_at_once(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            commands = [("leave", "web"), ("leave", "side")]
            world.engine.commands |= {command: Command(runs_s=5.0) for command in commands}
            hooked = [
                {"lifecycle": {"preStop": {"exec": {"command": list(command)}}}} for command in commands
            ]
            await a_running_pair(world, a_pair(web=hooked[0], side=hooked[1]))
            world.manager.assign(a_pair(want=pb.WANT_STOP, web=hooked[0], side=hooked[1]))

            assert 4.9 < await until(lambda: not living(world)) < 6
            assert sorted(world.engine.executed) == sorted(commands)

    async def test_a_forgotten_pod_leaves_nothing(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            await a_running_pair(world)
            world.manager.assign(forget=[UID])
            await until(lambda: UID not in world.manager.statuses)

            assert not living(world)


class TestPodsThatEnd:
    async def test_succeed_when_all_have(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("app:1", Program(runs_s=2.0))
            world.registry.push("side:1", Program(runs_s=20.0))
            world.manager.assign(a_pair(restartPolicy="Never"), full=True)
            await until(lambda: len(living(world)) == 2)
            await until(lambda: status(world).message == "web: has completed")
            assert status(world).state == pb.POD_STATE_RUNNING

            await until(lambda: status(world).state == pb.POD_STATE_SUCCEEDED)
            assert not living(world)

    async def test_fail_when_one_has(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("app:1", Program(runs_s=2.0))
            world.registry.push("side:1", crashing(3, after_s=5.0))
            world.manager.assign(a_pair(restartPolicy="Never"), full=True)
            await until(lambda: status(world).state == pb.POD_STATE_FAILED)

            assert (status(world).reason, status(world).message) == ("Error", "side: exit 3")
            assert not living(world)


class TestTheAgentsRestart:
    async def test_touches_nothing(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            before = await a_running_pair(world)
            await asyncio.sleep(2)
            await world.kill_agent()
            world.manager.statuses.clear()
            world.start_agent()
            await ready(world)
            await asyncio.sleep(30)

            assert living(world) == before

    async def test_nor_without_its_journal(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            before = await a_running_pair(world)
            await world.kill_agent()
            (tmp_path / "journal.json").unlink(missing_ok=True)
            world.manager.statuses.clear()
            world.start_agent()
            await world.connected()
            world.manager.assign(a_pair(), full=True)
            await ready(world)
            await asyncio.sleep(30)

            assert living(world) == before

    async def test_after_the_hosts_restart_all_come_back_at_the_same_address(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            await a_running_pair(world)
            address = status(world).address
            await asyncio.sleep(2)
            await world.kill_agent()
            world.engine.kill(with_containers=True)
            world.engine.restart()
            world.manager.statuses.clear()
            world.start_agent()
            await ready(world)

            assert set(living(world)) == {SANDBOX, "web", "side"}
            assert status(world).address == address


class TestStreams:
    async def open(self, world: World, **options: object) -> list[pb.StreamFrame]:
        world.manager.say(
            open_stream=pb.OpenStream(stream_id="s1", pod_uid=UID, logs=pb.LogOptions(tail=-1, **options))  # type: ignore[arg-type]
        )
        await until(lambda: world.manager.frames.get("s1") or world.manager.of_kind("stream_failed"))
        await asyncio.sleep(0.5)
        return world.manager.frames.get("s1", [])

    async def a_talking_pair(self, world: World, annotations: dict[str, str] | None = None) -> None:
        world.registry.push("app:1", crashing(0, after_s=900, says=b"I am web\n"))
        world.registry.push("side:1", crashing(0, after_s=900, says=b"I am side\n"))
        world.manager.assign(a_pair(annotations=annotations), full=True)
        await ready(world)

    async def test_the_first_containers_log_where_none_is_named(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            await self.a_talking_pair(world)
            assert (await self.open(world))[0].stdout == b"I am web\n"

    async def test_or_that_of_the_templates_choice(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            await self.a_talking_pair(world, {"kubectl.kubernetes.io/default-container": "side"})
            assert (await self.open(world))[0].stdout == b"I am side\n"

    async def test_the_named_ones(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            await self.a_talking_pair(world)
            assert (await self.open(world, container="side"))[0].stdout == b"I am side\n"

    async def test_one_that_is_not_there_is_refused_with_those_that_are(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            await self.a_talking_pair(world)
            assert await self.open(world, container="sid") == []
            (failed,) = world.manager.of_kind("stream_failed")
            assert failed.message == 'the pod has no container "sid"; it has web, side'

    async def test_the_one_before_is_of_the_same_name(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            await self.a_talking_pair(world)
            world.engine.kill_container(living(world)["side"].id)
            await until(lambda: not status(world).ready)
            await ready(world)
            assert (await self.open(world, container="side", previous=True))[0].stdout == b"I am side\n"
            await self.open(world, previous=True)
            (failed,) = world.manager.of_kind("stream_failed")
            assert failed.message == "there is no previous container"
