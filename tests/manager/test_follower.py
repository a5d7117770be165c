from __future__ import annotations

import asyncio

import pytest

from manager.store import keys
from tests.manager.world import a_deployment, a_world

pytestmark = pytest.mark.virtual_time


class TestFollower:
    async def test_has_a_killed_leader_replaced_within_a_second(self) -> None:
        """Long before the lease of 3 s ends."""
        async with a_world(3) as world:
            await asyncio.sleep(5)
            loop = asyncio.get_running_loop()
            await world.kill(world.leader)
            begun_s = loop.time()
            await world.until(lambda: any(each.leadership for each in world.managers.values()))

            assert loop.time() - begun_s < 1.0

    async def test_leaves_a_leader_alone_that_another_manager_still_hears(self) -> None:
        async with a_world(3) as world:
            await asyncio.sleep(5)
            leader, follower = world.leader, world.follower
            world.network.cut(leader, follower)
            await asyncio.sleep(60)

            assert world.leader == leader
            assert world.etcd.get(keys.TAKEOVER) is None

    async def test_deposes_a_leader_that_nobody_hears_at_most_once_in_thirty_seconds(self) -> None:
        async with a_world(3) as world:
            await asyncio.sleep(5)
            epochs = set()
            world.network.partition({"m1"})
            world.network.partition({"m2"})
            world.network.partition({"m3"})
            for _ in range(600):
                epochs |= {
                    each.leadership.term.epoch.revision for each in world.managers.values() if each.leadership
                }
                await asyncio.sleep(0.1)

            assert len(epochs) <= 4

    async def test_lets_a_leader_go_that_says_goodbye(self) -> None:
        async with a_world(3) as world:
            await asyncio.sleep(5)
            old = world.leader
            await world.managers[old]._election.resign()
            await world.until(lambda: any(each.leadership for each in world.managers.values()))

            assert world.leader != old
            assert world.etcd.get(keys.TAKEOVER) is None


class TestManager:
    async def test_gives_the_leadership_up_and_lives_when_a_part_of_it_fails(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with a_world(2) as world:
            broken = world.leader

            def fail(_now_s: float) -> None:
                raise ZeroDivisionError

            monkeypatch.setattr(world.leadership.dispatcher._peers, "send", fail)
            await world.until(lambda: world.managers[broken].leadership is None)
            await world.until(lambda: any(each.leadership for each in world.managers.values()))

            assert (await world.apply(a_deployment(), at=broken))[0].result == "created"

    async def test_answers_nothing_as_a_leader_that_was_frozen_past_its_lease(self) -> None:
        """It wakes and believes that it leads: what it commits is refused, and it steps down."""
        async with a_world(3) as world:
            old = world.leader
            epoch = world.leadership.term.epoch.revision
            world.etcd.cut(old)
            world.network.freeze(old)
            await asyncio.sleep(10)
            world.etcd.heal(old)
            world.network.thaw(old)
            await asyncio.sleep(1)
            await world.apply(a_deployment(), at=old)
            await asyncio.sleep(1)

            assert world.leadership.term.epoch.revision > epoch
            assert sum(each.leadership is not None for each in world.managers.values()) == 1
