from __future__ import annotations

import asyncio

import pytest

from bayplan.v1 import control_pb2 as api
from manager.events import EVENTS_MAX, EventLog

pytestmark = pytest.mark.virtual_time


def a_log() -> EventLog:
    return EventLog(lambda: asyncio.get_running_loop().time())


class TestEventLog:
    async def test_counts_the_same_words_about_the_same_object(self) -> None:
        log = a_log()
        for _ in range(3):
            log.add("PodFailed", "exit 1", obj="Pod/web-0")
        log.add("PodFailed", "exit 1", obj="Pod/web-1")

        assert [(event.object, event.count) for event in log.select()] == [("Pod/web-0", 3), ("Pod/web-1", 1)]

    async def test_tells_a_repetition_after_a_long_time_anew(self) -> None:
        log = a_log()
        log.add("NodeDown", "silent", obj="Node/n1")
        await asyncio.sleep(3600)
        log.add("NodeDown", "silent", obj="Node/n1")

        assert [event.count for event in log.select()] == [1, 1]

    async def test_keeps_the_last_ones_only(self) -> None:
        log = a_log()
        for number in range(EVENTS_MAX + 100):
            log.add("PodReady", str(number), obj="Pod/web-0")

        assert len(log.select()) == EVENTS_MAX
        assert log.select()[-1].message == str(EVENTS_MAX + 99)

    async def test_selects_by_namespace_object_and_time(self) -> None:
        log = a_log()
        log.add("PodReady", "a", obj="Pod/web-0", namespace="shop")
        log.add("PodReady", "b", obj="Pod/web-0", namespace="other")
        await asyncio.sleep(10)
        log.add("NodeReady", "c", obj="Node/n1")
        now_ms = int(asyncio.get_running_loop().time() * 1000)

        assert [event.message for event in log.select(namespace="shop")] == ["a", "c"]
        assert [event.message for event in log.select(obj="web-0")] == ["a", "b"]
        assert [event.message for event in log.select(obj="pod/web-0", namespace="other")] == ["b"]
        assert [event.message for event in log.select(since_ms=now_ms)] == ["c"]

    async def test_reads_decisions_back(self) -> None:
        """What one leader has committed, the next can tell."""
        log = a_log()
        decision = {
            "reason": "PodPlaced",
            "message": "room on n1",
            "pod": "web-0-x",
            "namespace": "shop",
            "uid": "u1",
            "slot": 0,
        }
        log.add_decisions({"at_ms": 5, "decisions": [decision]})

        assert [event.message for event in log.about_slot("u1", 0)] == ["room on n1"]
        assert log.about_slot("u1", 1) == []


class TestWatch:
    async def follow(self, log: EventLog, got: list[api.Event]) -> None:
        got.extend([event async for event in log.watch(obj="Pod/web-0")])

    async def test_gives_what_matches_until_the_term_is_over(self) -> None:
        log = a_log()
        got: list[api.Event] = []
        task = asyncio.create_task(self.follow(log, got))
        await asyncio.sleep(0)
        log.add("PodReady", "a", obj="Pod/web-0")
        log.add("PodReady", "b", obj="Pod/web-1")
        await asyncio.sleep(1)
        log.close()
        await task

        assert [event.message for event in got] == ["a"]

    async def test_cuts_off_who_reads_too_slowly(self) -> None:
        log = a_log()
        watch = log.watch()
        reading = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        for number in range(5000):
            log.add("PodReady", str(number), obj="Pod/web-0")
        await reading
        rest = [event async for event in watch]

        assert len(rest) < 1100

    async def test_ends_at_once_when_the_term_is_over_already(self) -> None:
        log = a_log()
        log.close()

        assert [event async for event in log.watch()] == []
