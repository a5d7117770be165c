from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from manager.members import DuplicateManagerError, Members
from manager.store import keys
from tests.fakes.store import FakeEtcd, FakeStore

pytestmark = pytest.mark.virtual_time


@contextlib.asynccontextmanager
async def a_member(server: FakeEtcd, name: str, *, client: str = "", seed: int = 0) -> AsyncIterator[Members]:
    members = Members(
        FakeStore(server, client or name),
        manager_id=name,
        address=f"{name}:7400",
        chance=random.Random(f"{name}{seed}"),
    )
    task = asyncio.create_task(members.run(), name=f"members {name}")
    await asyncio.sleep(0.5)
    try:
        yield members
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class TestMembers:
    async def test_know_each_other_and_learn_who_is_gone(self) -> None:
        server = FakeEtcd()
        async with a_member(server, "m1") as one:
            async with a_member(server, "m2"):
                assert one.addresses() == ["m1:7400", "m2:7400"]
            await asyncio.sleep(2)

            assert one.addresses() == ["m1:7400"]

    async def test_forget_one_that_was_killed_when_its_lease_ends(self) -> None:
        server = FakeEtcd()
        async with a_member(server, "m1") as one, a_member(server, "m2"):
            server.cut("m2")
            await asyncio.sleep(5)
            assert len(one.all()) == 2
            await asyncio.sleep(10)

            assert list(one.all()) == ["m1"]

    async def test_register_again_after_the_store_was_away(self) -> None:
        server = FakeEtcd()
        async with a_member(server, "m1") as one:
            server.kill()
            await asyncio.sleep(60)
            server.restart()
            await asyncio.sleep(15)

            assert server.get(keys.manager("m1")) is not None
            assert list(one.all()) == ["m1"]

    async def test_stay_registered_when_the_reply_to_their_registration_was_lost(self) -> None:
        server = FakeEtcd()
        server.drop_next_reply("m1")
        async with a_member(server, "m1"):
            for _ in range(60):
                await asyncio.sleep(1)
            assert server.get(keys.manager("m1")) is not None

    async def test_take_the_place_of_a_killed_process_though_etcd_restarts_meanwhile(self) -> None:
        server = FakeEtcd()
        async with a_member(server, "m1"):
            server.cut("m1")
            next_one = Members(
                FakeStore(server, "m1.2"), manager_id="m1", address="m1:7400", chance=random.Random(2)
            )
            running = asyncio.create_task(next_one.run(), name="next m1")
            await asyncio.sleep(8.25)
            server.kill()  # Back before the next try: nobody notices.
            server.restart()
            await asyncio.sleep(30)

            assert not running.done()
            found = server.get(keys.manager("m1"))
            assert found is not None
            assert found.value == next_one._value
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def test_refuse_a_second_process_with_the_same_id(self) -> None:
        server = FakeEtcd()
        async with a_member(server, "m1"):
            second = Members(
                FakeStore(server, "other"),
                manager_id="m1",
                address="elsewhere:7400",
                chance=random.Random(2),
            )
            with pytest.raises(ExceptionGroup) as caught:
                await second.run()

            found = caught.value.exceptions[0]
            assert isinstance(found, DuplicateManagerError)
            assert "m1:7400" in str(found)
            assert "--id" in str(found)

    async def test_pass_over_junk(self) -> None:
        server = FakeEtcd()
        server.put(keys.MANAGERS + "a/b", b"x")
        server.put(keys.manager("m9"), b"not json")
        async with a_member(server, "m1") as one:
            assert list(one.all()) == ["m1"]
