"""Probes and hooks in the whole agent, on a simulated engine and virtual time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from agent.runtime.port import Container, ContainerState
from agent.runtime.simulated_engine import HANGS, Command
from agent.runtime.simulated_images import Program
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.scripted_manager import World, a_pod, a_world, until

pytestmark = pytest.mark.virtual_time

UID = "u1.0.1"
READY = {"readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1}}
LIVE = {"livenessProbe": {"httpGet": {"path": "/live", "port": 8080}, "periodSeconds": 1}}


def a_probed_pod(container: dict[str, Any], want: pb.Want = pb.WANT_RUN, **spec: Any) -> pb.Assignment:
    return a_pod(container=container, want=want, **spec)


def status(world: World) -> pb.PodStatus:
    return world.manager.statuses.get(UID, pb.PodStatus())


def the_container(world: World) -> Container:
    (container,) = world.containers()
    return container


def executed(world: World, command: str, **does: Any) -> tuple[str, ...]:
    """Teach the engine a command."""
    world.engine.commands[command,] = Command(**does)
    return (command,)


async def ready(world: World) -> float:
    return await until(lambda: status(world).ready)


class TestReadiness:
    async def test_a_pod_is_ready_when_its_probe_says_so_and_soon_then(self, tmp_path: Path) -> None:
        """The program listens three seconds after its start; Kubernetes would ask it again after ten."""
        async with a_world(tmp_path) as world:
            world.registry.push("slow:1", Program(serves_after_s=3.0))
            probe = {"readinessProbe": {"tcpSocket": {"port": 8080}}}
            world.manager.assign(a_probed_pod(probe, image="slow:1"), full=True)
            await until(lambda: status(world).reason == "Unready")
            assert status(world).state == pb.POD_STATE_RUNNING
            assert status(world).containers[0].running
            assert status(world).message == "readiness probe failed: connection refused at :8080"
            took_s = await ready(world)
            assert 3.0 < took_s < 4.2
            assert not status(world).reason
            assert not status(world).message

    async def test_a_flip_is_reported_at_once_and_restarts_nothing(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_probed_pod(READY), full=True)
            await ready(world)
            before = the_container(world).id
            world.engine.fail_probes(before, "HTTP 503 Service Unavailable")
            took_s = await until(lambda: not status(world).ready)
            # Three failures, a second apart, and the report.
            assert took_s < 3.1
            assert status(world).message == (
                "readiness probe failed: HTTP 503 Service Unavailable at :8080/ready"
            )
            await asyncio.sleep(600)
            assert the_container(world).id == before
            world.engine.heal_probes(before)
            assert await ready(world) < 1.1

    async def test_without_a_probe_a_pod_is_ready_when_it_runs(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(), full=True)
            assert await ready(world) < 0.5

    async def test_a_restarted_container_begins_anew(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("slow:1", Program(serves_after_s=5.0))
            world.manager.assign(a_probed_pod(READY, image="slow:1"), full=True)
            await ready(world)
            world.engine.kill_container(the_container(world).id)
            await until(lambda: not status(world).ready)
            assert await ready(world) > 5

    async def test_so_does_one_that_somebody_restarts_between_two_looks(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("slow:1", Program(serves_after_s=5.0))
            world.manager.assign(a_probed_pod(READY, image="slow:1"), full=True)
            await ready(world)
            container = world.engine.get(the_container(world).id)
            world.engine.kill_container(container.shown.id)
            world.engine.start(container)
            await until(lambda: not status(world).ready)
            assert await ready(world) > 4
            assert status(world).containers[0].restarts == 0

    async def test_a_pod_that_hands_over_is_probed_and_one_that_stops_is_not_ready(
        self, tmp_path: Path
    ) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_probed_pod(READY, terminationGracePeriodSeconds=1), full=True)
            await ready(world)
            world.manager.assign(a_probed_pod(READY, want=pb.WANT_HANDOVER))
            world.engine.fail_probes(the_container(world).id)
            await until(lambda: not status(world).ready)
            world.engine.heal_probes(the_container(world).id)
            await ready(world)
            world.manager.assign(a_probed_pod(READY, want=pb.WANT_STOP))
            await until(lambda: status(world).state == pb.POD_STATE_STOPPED)
            assert not status(world).ready

    async def test_an_engine_outage_changes_no_readiness(self, tmp_path: Path) -> None:
        """Commands cannot be run meanwhile: that says nothing about the container."""
        async with a_world(tmp_path) as world:
            command = executed(world, "check")
            probe = {"exec": {"command": list(command)}, "periodSeconds": 1}
            world.manager.assign(a_probed_pod({"readinessProbe": probe, "livenessProbe": probe}), full=True)
            await ready(world)
            world.engine.kill()
            await asyncio.sleep(60)
            assert status(world).ready
            world.engine.restart()
            await asyncio.sleep(30)
            assert status(world).ready
            assert status(world).containers[0].restarts == 0


class TestLiveness:
    async def test_a_failure_restarts_with_back_off_and_says_why(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_probed_pod(LIVE | READY), full=True)
            await ready(world)
            first = the_container(world).id
            world.engine.fail_probes(first, "HTTP 500 Internal Server Error", place=":8080/live")
            why = "liveness probe failed: HTTP 500 Internal Server Error at :8080/live"
            await until(lambda: status(world).reason == "CrashLoopBackOff")
            assert status(world).message == why
            assert status(world).next_restart_ms
            await ready(world)
            assert the_container(world).id != first
            container = status(world).containers[0]
            assert container.restarts == 1
            assert (container.last_exit.reason, container.last_exit.message) == ("Unhealthy", why)
            assert container.last_exit.code == 143

    async def test_it_is_stopped_with_the_probes_own_grace(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("stubborn:1", Program(ignores_sigterm=True))
            probe = {**LIVE["livenessProbe"], "failureThreshold": 1, "terminationGracePeriodSeconds": 4}
            world.manager.assign(
                a_probed_pod({"livenessProbe": probe}, image="stubborn:1", terminationGracePeriodSeconds=600),
                full=True,
            )
            await ready(world)
            world.engine.fail_probes(the_container(world).id, HANGS)
            await until(lambda: status(world).reason == "Unhealthy")
            took_s = await until(lambda: not world.containers())
            assert 3.9 < took_s < 4.1

    @pytest.mark.parametrize(
        ("policy", "state", "restarts"),
        [("Never", pb.POD_STATE_FAILED, 0), ("OnFailure", pb.POD_STATE_RUNNING, 1)],
    )
    async def test_the_restart_policy_decides_and_a_clean_exit_is_no_excuse(
        self, tmp_path: Path, policy: str, state: pb.PodState, restarts: int
    ) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("polite:1", Program(stop_exit_code=0))
            world.manager.assign(a_probed_pod(LIVE, image="polite:1", restartPolicy=policy), full=True)
            await ready(world)
            world.engine.fail_probes(the_container(world).id)
            await asyncio.sleep(20)
            assert status(world).state == state
            assert status(world).containers[0].restarts == restarts
            assert "liveness probe failed" in status(world).containers[0].last_exit.message

    async def test_a_crash_is_told_as_what_it_is(self, tmp_path: Path) -> None:
        """Probes of a dead program fail as well: that must not hide its exit code."""
        async with a_world(tmp_path) as world:
            world.manager.assign(a_probed_pod(LIVE), full=True)
            await ready(world)
            world.engine.kill_container(the_container(world).id, exit_code=3)
            await until(lambda: status(world).reason == "CrashLoopBackOff")
            assert status(world).message == "exit 3"

    async def test_startup_protects_what_starts_slowly(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("slow:1", Program(serves_after_s=25.0))
            startup = {"startupProbe": {"tcpSocket": {"port": 8080}, "failureThreshold": 6}}
            world.manager.assign(a_probed_pod(LIVE | READY | startup, image="slow:1"), full=True)
            await until(lambda: status(world).reason == "Unready")
            assert status(world).message.startswith("startup probe failed: connection refused")
            assert await ready(world) < 31
            assert status(world).containers[0].restarts == 0

    async def test_and_restarts_what_does_not_start(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("never:1", Program(serves_after_s=1e9))
            startup = {"startupProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}
            world.manager.assign(a_probed_pod(startup, image="never:1"), full=True)
            await until(lambda: status(world).reason == "CrashLoopBackOff")
            assert status(world).message.startswith("startup probe failed: connection refused at :8080")


class TestHooks:
    async def test_post_start_holds_readiness_back(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            command = executed(world, "warm-up", runs_s=4.0)
            hook = {"lifecycle": {"postStart": {"exec": {"command": list(command)}}}}
            world.manager.assign(a_probed_pod(hook), full=True)
            await until(lambda: status(world).reason == "Unready")
            assert status(world).message == "its postStart hook has not ended yet"
            assert 3.5 < await ready(world) < 4.1

    async def test_a_failed_post_start_kills_the_container(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            command = executed(world, "warm-up", exit_code=2)
            hook = {"lifecycle": {"postStart": {"exec": {"command": list(command)}}}}
            world.manager.assign(a_probed_pod(hook), full=True)
            await until(lambda: status(world).reason == "CrashLoopBackOff")
            assert status(world).message == "postStart hook failed: exit 2"

    async def test_pre_stop_comes_before_sigterm_and_counts_against_the_grace(self, tmp_path: Path) -> None:
        """10 s of grace, 4 of which the hook takes; then SIGTERM is ignored."""
        async with a_world(tmp_path) as world:
            world.registry.push("stubborn:1", Program(ignores_sigterm=True))
            pod = {"lifecycle": {"preStop": {"sleep": {"seconds": 4}}}}
            spec: dict[str, Any] = {"image": "stubborn:1", "terminationGracePeriodSeconds": 10}
            world.manager.assign(a_probed_pod(pod, **spec), full=True)
            await ready(world)
            world.manager.assign(a_probed_pod(pod, pb.WANT_STOP, **spec))
            took_s = await until(lambda: not world.containers())
            assert 9.9 < took_s < 10.2
            await until(lambda: status(world).state == pb.POD_STATE_STOPPED)
            assert not status(world).message

    async def test_at_least_two_seconds_are_left_for_sigterm(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("slow-end:1", Program(stop_s=1.5, stop_exit_code=0))
            pod = {"lifecycle": {"preStop": {"sleep": {"seconds": 60}}}}
            spec: dict[str, Any] = {"image": "slow-end:1", "terminationGracePeriodSeconds": 5}
            world.manager.assign(a_probed_pod(pod, **spec), full=True)
            await ready(world)
            container = the_container(world).id
            world.manager.assign(a_probed_pod(pod, pb.WANT_STOP, **spec))
            await until(lambda: not world.containers())
            assert world.engine.get(container).shown.exit_code == 0

    async def test_a_failed_pre_stop_is_told_and_stops_nothing(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            command = executed(world, "drain", exit_code=9)
            pod = {"lifecycle": {"preStop": {"exec": {"command": list(command)}}}}
            world.manager.assign(a_probed_pod(pod), full=True)
            await ready(world)
            world.manager.assign(a_probed_pod(pod, pb.WANT_STOP))
            await until(lambda: status(world).state == pb.POD_STATE_STOPPED)
            assert status(world).message == "preStop hook failed: exit 9"

    async def test_a_container_that_ends_in_its_hook_waits_for_nothing(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            pod = {"lifecycle": {"preStop": {"sleep": {"seconds": 20}}}}
            world.manager.assign(a_probed_pod(pod), full=True)
            await ready(world)
            world.manager.assign(a_probed_pod(pod, pb.WANT_STOP))
            await asyncio.sleep(2)
            world.engine.kill_container(the_container(world).id, exit_code=0)
            assert await until(lambda: status(world).state == pb.POD_STATE_STOPPED) < 1

    async def test_a_container_that_liveness_ends_has_its_hook_too(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            pod = LIVE | {"lifecycle": {"preStop": {"sleep": {"seconds": 6}}}}
            world.manager.assign(a_probed_pod(pod), full=True)
            await ready(world)
            world.engine.fail_probes(the_container(world).id)
            await until(lambda: status(world).reason == "Unhealthy")
            assert 5.9 < await until(lambda: not world.containers()) < 6.2

    async def test_a_container_that_is_to_go_on_after_all_has_it_at_its_next_end(
        self, tmp_path: Path
    ) -> None:
        """Told to stop, then to run while the hook ran; later to stop again."""
        async with a_world(tmp_path) as world:
            pod = {"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}
            world.manager.assign(a_probed_pod(pod), full=True)
            await ready(world)
            before = the_container(world).id
            world.manager.assign(a_probed_pod(pod, pb.WANT_STOP))
            await asyncio.sleep(1)
            world.manager.assign(a_probed_pod(pod))
            await ready(world)
            assert the_container(world).id == before
            await asyncio.sleep(10)
            world.manager.assign(a_probed_pod(pod, pb.WANT_STOP))
            assert 4.9 < await until(lambda: not world.containers()) < 5.2


class TestRestartOfTheAgent:
    async def test_takes_no_healthy_pod_out_of_the_proxies(self, tmp_path: Path) -> None:
        """Not even for the time until it has been probed again."""
        async with a_world(tmp_path) as world:
            world.manager.assign(a_probed_pod(READY | LIVE), full=True)
            await ready(world)
            await asyncio.sleep(2)
            await world.kill_agent()
            await asyncio.sleep(5)
            heard = len(world.manager.heard)
            world.start_agent()
            await world.connected()
            await asyncio.sleep(30)
            told = [
                each.ready
                for message in world.manager.heard[heard:]
                for each in message.status.pods
                if each.uid == UID
            ]
            assert told
            assert all(told)

    async def test_a_pod_that_went_bad_meanwhile_is_found_out(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_probed_pod(READY), full=True)
            await ready(world)
            await asyncio.sleep(2)
            await world.kill_agent()
            world.engine.fail_probes(the_container(world).id)
            world.start_agent()
            await world.connected()
            assert await until(lambda: not status(world).ready) < 5

    async def test_one_that_was_not_ready_is_not_taken_for_it(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("never:1", Program(serves_after_s=1e9))
            world.manager.assign(a_probed_pod(READY, image="never:1"), full=True)
            await until(lambda: status(world).reason == "Unready")
            await asyncio.sleep(2)
            await world.kill_agent()
            world.manager.statuses.clear()
            world.start_agent()
            await until(lambda: status(world).state == pb.POD_STATE_RUNNING)
            assert not any(each.ready for report in world.manager.of_kind("status") for each in report.pods)

    async def test_a_lost_journal_costs_a_second(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            probe = {"readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 60}}
            world.manager.assign(a_probed_pod(probe), full=True)
            await ready(world)
            await world.kill_agent()
            (tmp_path / "journal.json").unlink(missing_ok=True)
            world.start_agent()
            await world.connected()
            await asyncio.sleep(1)
            world.manager.assign(a_probed_pod(probe), full=True)
            await asyncio.sleep(1.5)
            assert status(world).ready

    async def test_what_liveness_condemned_stays_condemned(self, tmp_path: Path) -> None:
        """The agent ends while the container has its grace."""
        async with a_world(tmp_path) as world:
            world.registry.push("stubborn:1", Program(ignores_sigterm=True))
            world.manager.assign(a_probed_pod(LIVE, image="stubborn:1"), full=True)
            await ready(world)
            first = the_container(world).id
            world.engine.fail_probes(first)
            await until(lambda: status(world).reason == "Unhealthy")
            await asyncio.sleep(2)
            await world.kill_agent()
            world.engine.heal_probes(first)
            world.start_agent()
            await until(lambda: world.containers() and the_container(world).id != first, within_s=40)
            assert "liveness probe failed" in status(world).containers[0].last_exit.message

    @pytest.mark.parametrize(("killed_after_s", "runs"), [(1.0, 2), (6.0, 1)])
    async def test_a_pre_stop_hook_runs_again_only_if_it_had_not_ended(
        self, tmp_path: Path, killed_after_s: float, runs: int
    ) -> None:
        """The hook takes 5 s; then SIGTERM is ignored for the rest of 30 s."""
        async with a_world(tmp_path) as world:
            world.registry.push("stubborn:1", Program(ignores_sigterm=True))
            command = executed(world, "drain", runs_s=5.0)
            pod = {"lifecycle": {"preStop": {"exec": {"command": list(command)}}}}
            world.manager.assign(a_probed_pod(pod, image="stubborn:1"), full=True)
            await ready(world)
            world.manager.assign(a_probed_pod(pod, pb.WANT_STOP, image="stubborn:1"))
            await asyncio.sleep(killed_after_s)
            await world.kill_agent()
            world.start_agent()
            await until(lambda: not world.containers(), within_s=60)
            assert world.engine.executed.count(command) == runs

    async def test_old_journals_are_read(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(), full=True)
            await ready(world)
            await asyncio.sleep(2)
            await world.kill_agent()
            path = tmp_path / "journal.json"
            document = json.loads(path.read_text())
            for memory in document["memories"].values():
                del memory["containers"]["web"]["health"]
            path.write_text(json.dumps(document))
            world.manager.statuses.clear()
            world.start_agent()
            await ready(world)
            assert not (tmp_path / "journal.json.damaged").exists()
            assert the_container(world).state is ContainerState.RUNNING
