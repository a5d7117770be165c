from __future__ import annotations

import asyncio

import pytest

from tests.virtual_time import START_S, Deadlock, TimeLimit, VirtualTimeLoop, run_virtual


@pytest.mark.virtual_time
class TestVirtualTime:
    async def test_sleeping_an_hour_takes_no_time(self) -> None:
        loop = asyncio.get_running_loop()

        await asyncio.sleep(3600)

        assert loop.time() == START_S + 3600

    async def test_timers_fire_in_order_of_their_times(self) -> None:
        order: list[float] = []

        async def note(delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            order.append(delay_s)

        async with asyncio.TaskGroup() as tasks:
            for delay_s in (0.3, 0.1, 0.2, 0.0):
                tasks.create_task(note(delay_s))

        assert order == [0.0, 0.1, 0.2, 0.3]

    async def test_a_timeout_ends_a_wait_for_an_event(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()

        assert asyncio.get_running_loop().time() == START_S + 5

    async def test_an_executor_works_in_place(self) -> None:
        assert await asyncio.to_thread(sum, [1, 2]) == 3

        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)


class TestMistakes:
    def test_waiting_for_what_nobody_can_bring_is_an_error(self) -> None:
        async def main() -> None:
            await asyncio.Event().wait()

        with pytest.raises(Deadlock, match=r"test_virtual_time\.py"):
            run_virtual(main())

    def test_waiting_while_only_timers_go_on_is_an_error(self) -> None:
        async def heartbeat() -> None:
            while True:  # noqa: ASYNC110 - timers without end are the case
                await asyncio.sleep(100)

        async def main() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(heartbeat())
                await asyncio.Event().wait()

        with pytest.raises(TimeLimit, match=r"Task-\d+ at"):
            run_virtual(main())


async def test_other_tests_run_on_a_real_loop() -> None:
    assert not isinstance(asyncio.get_running_loop(), VirtualTimeLoop)


def test_the_result_is_handed_back() -> None:
    async def main() -> str:
        await asyncio.sleep(10)
        return "done"

    assert run_virtual(main()) == "done"
