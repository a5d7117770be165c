"""Whom the agent dials, whom it obeys, and when it lets go."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from agent.fence import Fence, Standing, may_obey, standing
from agent.route import Route
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.scripted_manager import a_pod, a_world, until

pytestmark = pytest.mark.virtual_time


class TestFence:
    @pytest.mark.parametrize(
        ("store", "revision", "expected"),
        [
            ("s1", 50, Standing.CURRENT),
            ("s1", 49, Standing.PAST),
            ("s1", 200, Standing.CURRENT),
            ("s2", 1, Standing.OTHER_STORE),
        ],
    )
    def test_tells_a_leader_from_the_past(self, store: str, revision: int, expected: Standing) -> None:
        fence = Fence(store="s1", revision=50, commit_sequence=100)
        assert standing(fence, store=store, revision=revision) is expected

    def test_a_lower_epoch_of_the_same_store_is_never_obeyed(self) -> None:
        fence = Fence(store="s1", revision=50, commit_sequence=100)
        assert not may_obey(fence, store="s1", revision=49)
        assert may_obey(fence, store="s1", revision=50)
        assert may_obey(fence, store="s2", revision=1)
        assert not may_obey(fence, store="", revision=99)


class TestRoute:
    def test_goes_to_the_leader_at_once_and_back_to_be_relayed(self) -> None:
        route = Route(["m1:1", "m2:1"], random.Random(0))
        first = route.next()
        other = next(each for each in route.managers if each != first.address)
        route.redirected(other, was_relay=False)
        assert (route.next().address, route.next().wait_s) == (other, 0.0)
        route.lost(other, was_welcome=False)
        again = route.next()
        assert (again.address, again.relay) == (first.address, True)

    def test_after_a_session_another_manager_is_asked(self) -> None:
        route = Route(["m1:1", "m2:1", "m3:1"], random.Random(0))
        first = route.next().address
        route.welcomed()
        route.lost(first, was_welcome=True)
        assert route.next().address != first

    def test_pauses_grow_to_two_seconds_and_differ(self) -> None:
        route = Route(["m1:1"], random.Random(0))
        waits = []
        for _ in range(10):
            dial = route.next()
            waits.append(dial.wait_s)
            route.lost(dial.address, was_welcome=False)
        assert waits[1] <= 0.1
        assert 1.0 <= waits[-1] <= 2.0
        assert len(set(waits[5:])) > 1

    def test_managers_that_name_each_other_are_not_asked_in_a_tight_loop(self) -> None:
        route = Route(["m1:1", "m2:1"], random.Random(0))
        waits = []
        for _ in range(6):
            dial = route.next()
            waits.append(dial.wait_s)
            route.redirected("m2:1" if dial.address == "m1:1" else "m1:1", was_relay=False)
        assert waits[-1] > 0.1

    def test_a_leader_is_tried_again_when_nobody_relays(self) -> None:
        route = Route(["m1:1", "m2:1"], random.Random(0))
        route.redirected("leader:1", was_relay=False)
        route.lost("leader:1", was_welcome=False)
        for _ in range(2):
            assert route.next().relay
            route.redirected("leader:1", was_relay=True)
        assert not route.next().relay


class TestSession:
    async def test_says_who_it_is_and_reports_everything_first(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            await until(lambda: world.manager.of_kind("status"))
            hello = world.manager.hellos[0]
            assert (hello.node, hello.cluster, hello.capacity.cpu_millis) == ("n1", "", 4000)
            assert not hello.HasField("highest_epoch")
            report = world.manager.of_kind("status")[0]
            assert report.full
            assert report.condition.engine_ok

    async def test_follows_a_redirect(self, tmp_path: Path) -> None:
        async with a_world(tmp_path, managers=2, start=False) as world:
            world.managers[0].answer = pb.ManagerMessage(redirect=pb.Redirect(leader_address="m2:7400"))
            world.start_agent()
            await world.connected(world.managers[1])

    async def test_asks_to_be_relayed_when_the_leader_cannot_be_reached(self, tmp_path: Path) -> None:
        async with a_world(tmp_path, managers=2, start=False) as world:
            world.network.cut("n1", "m2")
            world.managers[0].answer = pb.ManagerMessage(redirect=pb.Redirect(leader_address="m2:7400"))
            world.start_agent()
            await until(lambda: any(hello.relay for hello in world.managers[0].hellos))
            world.managers[0].answer = None
            await world.connected(world.managers[0])

    async def test_drops_a_leader_that_no_longer_answers(self, tmp_path: Path) -> None:
        async with a_world(tmp_path, managers=1) as world:
            world.manager.acknowledges = False
            await until(lambda: world.manager.connections == 2, within_s=6)

    async def test_redials_at_once_when_the_leader_dies(self, tmp_path: Path) -> None:
        async with a_world(tmp_path, managers=2, start=False) as world:
            world.managers[0].answer = pb.ManagerMessage(redirect=pb.Redirect(leader_address="m2:7400"))
            world.start_agent()
            await world.connected(world.managers[1])
            world.managers[0].answer = None
            world.network.kill("m2")
            await until(lambda: world.managers[0].is_connected, within_s=0.5)

    async def test_a_final_refusal_is_tried_again_slowly(self, tmp_path: Path) -> None:
        async with a_world(tmp_path, start=False) as world:
            refusal = pb.Refusal(reason="upgrade the agent", final=True)
            world.manager.answer = pb.ManagerMessage(refusal=refusal)
            world.start_agent()
            await asyncio.sleep(95)
            assert len(world.manager.hellos) == 4

    async def test_beats_each_second(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            await asyncio.sleep(10)
            beats = world.manager.of_kind("heartbeat")
            assert 9 <= len(beats) <= 12
            assert [beat.sequence for beat in beats] == sorted({beat.sequence for beat in beats})

    async def test_says_goodbye_and_leaves_containers_running(self, tmp_path: Path) -> None:
        async with a_world(tmp_path, start=False) as world:
            agent = world.start_agent()
            await world.connected()
            world.manager.assign(a_pod(), full=True)
            await until(world.containers)
            agent.stop()
            await until(lambda: world.manager.of_kind("goodbye"))
            assert world.manager.of_kind("goodbye")[0].restarting
            await asyncio.sleep(10)
            assert len(world.containers()) == 1
            assert not world.manager.is_connected


class TestEpochs:
    async def test_a_replaced_leader_is_not_obeyed(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.epoch = 7
            world.manager.assign(a_pod(), full=True)
            await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).ready)
            world.manager.epoch = 6
            world.manager.assign(full=True)
            await until(lambda: world.manager.connections == 2)
            await asyncio.sleep(5)
            assert len(world.containers()) == 1
            assert world.manager.hellos[-1].highest_epoch.revision == 7

    async def test_another_store_gets_what_it_needs_to_adopt(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(0), a_pod(1), full=True)
            await until(lambda: sum(each.ready for each in world.manager.statuses.values()) == 2)
            before = sorted(each.id for each in world.containers())
            world.manager.store, world.manager.cluster, world.manager.epoch = "store-2", "c2", 1
            world.manager.hang_up()
            await until(lambda: world.manager.connections == 2)
            await asyncio.sleep(30)
            reports = [report for report in world.manager.of_kind("status") if report.full]
            adoptable = [status.assignment for status in reports[-1].pods]
            assert sorted(each.name for each in adoptable) == ["web-0-bbbbb", "web-1-bbbbb"]
            assert any(each.template_json for each in adoptable)
            assert sorted(each.id for each in world.containers()) == before
            # The operator has decided.
            world.manager.assign(a_pod(0), full=True)
            await until(lambda: len(world.containers()) == 1)
            world.manager.assign(a_pod(0), a_pod(2), full=True)
            await until(lambda: len(world.containers()) == 2)
            assert before[0] in {each.id for each in world.containers()} or before[1] in {
                each.id for each in world.containers()
            }

    async def test_the_epoch_is_on_disk_before_it_is_obeyed(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.epoch = 9
            world.manager.assign(a_pod(), full=True)
            await until(lambda: world.engine.containers)
            assert '"revision":9' in (tmp_path / "journal.json").read_text()
