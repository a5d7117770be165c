"""The whole agent against a scripted manager, on a simulated engine and virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.runtime.port import ContainerState, Credential, Output
from agent.runtime.simulated_images import Program
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.scripted_manager import NETWORK, a_pod, a_world, crashing, until

pytestmark = pytest.mark.virtual_time


class TestPods:
    async def test_an_assigned_pod_runs_and_is_reported_ready(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(), full=True)
            took_s = await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).ready)
            status = world.manager.statuses["u1.0.1"]
            assert status.state == pb.POD_STATE_RUNNING
            assert status.containers[0].restarts == 0
            assert status.address
            assert len(world.containers()) == 1
            # One pull (0.2 s) and one start (0.05 s); the rest must not be felt.
            assert took_s < 0.5

    async def test_states_are_reported_in_order_and_never_go_back(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(), full=True)
            await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).ready)
            states = [each.state for report in world.manager.of_kind("status") for each in report.pods]
            assert states == sorted(states)

    async def test_fifty_pods_start_as_fast_as_the_engine_can(self, tmp_path: Path) -> None:
        """Four starts at once of 0.05 s each."""
        async with a_world(tmp_path) as world:
            world.manager.assign(*(a_pod(number) for number in range(50)), full=True)
            took_s = await until(
                lambda: sum(each.ready for each in world.manager.statuses.values()) == 50, within_s=10
            )
            assert took_s < 50 / 4 * 0.05 + 0.6

    async def test_stops_and_reports_then_forgets(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(), full=True)
            await until(world.containers)
            world.manager.assign(a_pod(want=pb.WANT_STOP))
            await until(lambda: world.manager.statuses["u1.0.1"].state == pb.POD_STATE_STOPPED)
            assert not world.containers()
            world.manager.assign(forget=["u1.0.1"])
            await until(lambda: "u1.0.1" not in world.manager.statuses)

    async def test_full_assignments_stop_what_they_do_not_name(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(0), a_pod(1), full=True)
            await until(lambda: len(world.containers()) == 2)
            world.manager.assign(a_pod(1), full=True)
            await until(lambda: [each.labels["bayplan.io/pod"] for each in world.containers()] == ["u1.1.1"])
            await until(lambda: set(world.manager.statuses) == {"u1.1.1"})

    async def test_a_pull_is_abandoned_when_the_pod_is_to_stop(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.engine.pull_delay_s = 600.0
            world.manager.assign(a_pod(), full=True)
            await until(lambda: world.manager.statuses)
            world.manager.assign(a_pod(want=pb.WANT_STOP))
            took_s = await until(lambda: world.manager.statuses["u1.0.1"].state == pb.POD_STATE_STOPPED)
            assert took_s < 1


def written_under(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.rglob("*") if file.is_file())


class TestCredentials:
    async def test_are_used_as_they_are_told_and_kept_on_no_disk(self, tmp_path: Path) -> None:
        """The welcome brought none; the password is changed twice while the agent is connected."""
        async with a_world(tmp_path) as world:
            world.registry.push("reg.example:5000/app:1")
            for number, password in enumerate(("first-word", "second-word")):
                account = Credential(registry="reg.example:5000", username="me", password=password)
                world.registry.accounts = {"reg.example:5000": account}
                told = pb.RegistryCredential(registry="reg.example:5000", username="me", password=password)
                world.manager.say(credentials=pb.Credentials(credentials=[told]))
                pod = a_pod(number, image="reg.example:5000/app:1", revision=f"0000000{number}")
                world.manager.assign(pod, full=not number)
                await until(lambda uid=pod.uid: world.manager.statuses.get(uid, pb.PodStatus()).ready)  # type: ignore[misc]  # a default binds the loop's variable
            await asyncio.sleep(2)

            written = written_under(tmp_path)
            assert b"reg.example:5000/app" in written
            assert b"-word" not in written


class TestFailures:
    async def test_a_crash_is_restarted_with_growing_pauses_and_says_why(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("bad:1", crashing(3, says=b"starting\nno database at db:5432\n"))
            world.manager.assign(a_pod(image="bad:1"), full=True)
            await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).reason)
            status = world.manager.statuses["u1.0.1"]
            assert status.state == pb.POD_STATE_RUNNING
            assert not status.ready
            assert status.reason == "CrashLoopBackOff"
            assert status.message == 'exit 3: "no database at db:5432"'
            assert status.next_restart_ms
            await asyncio.sleep(20)
            # 1 + 2 + 4 + 8 s of pauses.
            assert world.manager.statuses["u1.0.1"].containers[0].restarts == 4

    async def test_what_it_wrote_to_stderr_is_the_reason_whatever_arrives_last(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            output = (
                Output(data=b"no database at db:5432\n", is_stderr=True),
                Output(data=b"request 17 done\n"),
            )
            world.registry.push("bad:1", Program(runs_s=0.1, exit_code=3, output=output))
            world.manager.assign(a_pod(image="bad:1"), full=True)
            await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).reason)
            status = world.manager.statuses["u1.0.1"]
            assert status.message == 'exit 3: "no database at db:5432"'
            lines = status.containers[0].last_exit.last_log_lines
            assert lines == "no database at db:5432\nrequest 17 done\n"

    async def test_a_command_that_is_not_there_says_so(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            words = 'exec: "gunicorn": executable file not found in $PATH'
            world.registry.push("bad:1", Program(start_exit_code=127, start_error=words))
            world.manager.assign(a_pod(image="bad:1"), full=True)
            await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).reason)
            status = world.manager.statuses["u1.0.1"]
            assert (status.reason, status.message) == ("StartError", f"exit 127: {words}")
            assert status.state == pb.POD_STATE_STARTING

    async def test_never_restarts_when_told_never(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("once:1", Program(runs_s=0.1, exit_code=0))
            world.registry.push("bad:1", crashing(4))
            world.manager.assign(
                a_pod(0, image="once:1", restartPolicy="OnFailure"),
                a_pod(1, image="bad:1", restartPolicy="Never"),
                full=True,
            )
            await asyncio.sleep(10)
            assert world.manager.statuses["u1.0.1"].state == pb.POD_STATE_SUCCEEDED
            assert world.manager.statuses["u1.1.1"].state == pb.POD_STATE_FAILED
            assert len(world.engine.containers) == 2

    async def test_a_missing_image_says_so_and_is_tried_again(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(image="later:1"), full=True)
            await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).reason)
            assert "manifest unknown" in world.manager.statuses["u1.0.1"].message
            await asyncio.sleep(5)
            assert world.manager.statuses["u1.0.1"].reason == "ImagePullBackOff"
            world.registry.push("later:1")
            await until(lambda: world.manager.statuses["u1.0.1"].ready, within_s=61)

    async def test_what_cannot_be_run_here_fails_in_words(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(container={"resources": {"limits": {"memory": "lots"}}}), full=True)
            await until(
                lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).state == pb.POD_STATE_FAILED
            )
            assert "spec.containers[0].resources" in world.manager.statuses["u1.0.1"].message

    @pytest.mark.parametrize("deed", ["kill_container", "remove_container", "pause"])
    async def test_what_others_do_to_our_containers_is_repaired(self, tmp_path: Path, deed: str) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(), full=True)
            await until(world.containers)
            await asyncio.sleep(1)
            getattr(world.engine, deed)(world.containers()[0].id)
            await asyncio.sleep(0.05)
            await until(
                lambda: [each.state for each in world.containers()] == [ContainerState.RUNNING], within_s=5
            )
            expected = 0 if deed == "pause" else 1
            await until(lambda: world.manager.statuses["u1.0.1"].ready)
            assert world.manager.statuses["u1.0.1"].containers[0].restarts == expected

    async def test_an_engine_outage_is_told_and_counts_a_restart_once(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(), full=True)
            await until(world.containers)
            await asyncio.sleep(1)
            world.engine.kill(with_containers=True)
            await until(
                lambda: any(
                    report.HasField("condition") and not report.condition.engine_ok
                    for report in world.manager.of_kind("status")[1:]
                ),
                within_s=40,
            )
            # Not emptied, not failed: the state is kept.
            assert world.manager.statuses["u1.0.1"].state == pb.POD_STATE_RUNNING
            world.engine.restart()
            await until(world.containers, within_s=15)
            await until(lambda: world.manager.statuses["u1.0.1"].containers[0].restarts == 1)
            conditions = [
                report.condition for report in world.manager.of_kind("status") if report.HasField("condition")
            ]
            await asyncio.sleep(2)
            assert conditions[-1].engine_ok

    async def test_a_network_that_stands_is_told_at_once(self, tmp_path: Path) -> None:
        """Of many nodes that come together the first that is ready would be given all pods."""
        async with a_world(tmp_path, start=False) as world:
            world.manager.tells_network = False
            world.start_agent()
            await world.connected()
            await asyncio.sleep(10.55)
            world.manager.say(network=NETWORK)

            def problems() -> list[str]:
                reports = world.manager.of_kind("status")
                return [each.condition.network_problem for each in reports if each.HasField("condition")]

            assert problems()[-1]
            assert await until(lambda: not problems()[-1]) < 0.2

    async def test_with_the_registry_down_an_image_that_is_here_starts_at_once(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("reg:5000/app:latest")
            world.manager.assign(a_pod(0, image="reg:5000/app:latest"), full=True)
            await until(world.containers)
            world.registry.is_up = False
            world.manager.assign(a_pod(1, image="reg:5000/app:latest"))
            assert await until(lambda: len(world.containers()) == 2) < 0.3
            # Another revision asks the registry, does not reach it, and takes what is here.
            world.manager.assign(a_pod(2, image="reg:5000/app:latest", revision="0000beef"))
            assert await until(lambda: len(world.containers()) == 3) < 1.5


class TestRestartOfTheAgent:
    @pytest.mark.parametrize("away_s", [1.0, 60.0])
    async def test_keeps_every_container(self, tmp_path: Path, away_s: float) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(0), a_pod(1), full=True)
            await until(lambda: sum(each.ready for each in world.manager.statuses.values()) == 2)
            before = sorted(each.id for each in world.containers())
            await world.kill_agent()
            await asyncio.sleep(away_s)
            world.manager.statuses.clear()
            world.start_agent()
            await until(lambda: sum(each.ready for each in world.manager.statuses.values()) == 2)
            world.manager.assign(a_pod(0), a_pod(1), full=True)
            await asyncio.sleep(5)
            assert sorted(each.id for each in world.containers()) == before
            assert world.manager.hellos[-1].highest_epoch.revision == 5

    async def test_runs_on_without_any_manager(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(), full=True)
            await until(world.containers)
            world.network.kill("m1")
            await asyncio.sleep(100)
            world.engine.kill_container(world.containers()[0].id)
            await until(world.containers, within_s=5)
            await world.kill_agent()
            world.engine.kill_container(world.containers()[0].id)
            world.start_agent()
            await until(world.containers, within_s=5)

    async def test_after_a_reboot_pods_start_from_the_journal_but_no_jobs(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(0), a_pod(1, kind="Job", restartPolicy="OnFailure"), full=True)
            await until(lambda: len(world.containers()) == 2)
            await asyncio.sleep(1)
            await world.kill_agent()
            world.network.kill("m1")
            world.engine.kill(with_containers=True)
            world.engine.restart()
            world.host.reboot()
            world.start_agent()
            await asyncio.sleep(20)
            assert [each.labels["bayplan.io/pod"] for each in world.containers()] == ["u1.0.1"]

    @pytest.mark.parametrize("moment_s", [0.19, 0.201, 0.21, 0.22, 0.24, 0.26, 0.28])
    async def test_killed_while_it_starts_a_pod_leaves_no_double(
        self, tmp_path: Path, moment_s: float
    ) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(), full=True)
            await asyncio.sleep(moment_s)
            await world.kill_agent()
            world.start_agent()
            await world.connected()
            await asyncio.sleep(0.1)
            world.manager.assign(a_pod(), full=True)
            await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).ready)
            await asyncio.sleep(20)
            assert len(world.containers()) == 1
            assert len(world.engine.containers) == 1

    async def test_a_damaged_journal_is_set_aside_and_what_runs_is_adopted(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(), full=True)
            await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).ready)
            before = [each.id for each in world.containers()]
            await world.kill_agent()
            (tmp_path / "journal.json").write_text('{"format": 1, "clu')
            world.manager.statuses.clear()
            world.start_agent()
            await until(lambda: "u1.0.1" in world.manager.statuses)
            status = world.manager.statuses["u1.0.1"]
            assert status.state == pb.POD_STATE_RUNNING
            assert status.assignment.name == "web-0-bbbbb"
            world.manager.assign(a_pod(), full=True)
            await asyncio.sleep(5)
            assert [each.id for each in world.containers()] == before
            assert (tmp_path / "journal.json.damaged").exists()

    async def test_what_nobody_wants_is_left_alone_until_the_leader_has_spoken(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(), full=True)
            await until(world.containers)
            await world.kill_agent()
            (tmp_path / "journal.json").unlink()
            world.start_agent()
            await world.connected()
            await asyncio.sleep(60)
            assert len(world.containers()) == 1
            world.manager.assign(full=True)
            await until(lambda: not world.containers())

    async def test_foreign_containers_are_never_touched(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            foreign = world.engine.add_foreign("postgres")
            world.manager.assign(full=True)
            await asyncio.sleep(120)
            assert world.engine.get(foreign).is_running
