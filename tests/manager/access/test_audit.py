from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from manager.access import audit as module
from manager.access.audit import FILES, FLUSH_EVERY_S, SAME_WITHIN_S, WAITING_MAX, Audit, Entry
from tests.manager.access.world import Clock

pytestmark = pytest.mark.virtual_time

ANNA = "spiffe://c1/user/anna"
ENTRY = Entry(
    at_ms=1_000,
    manager="m1",
    who=ANNA,
    via="",
    address="10.0.0.7",
    method="bayplan.v1.Control/Scale",
    target="web",
    allowed=True,
    why="operator",
    outcome="OK",
)
REFUSAL = replace(ENTRY, allowed=False, why="anna is a viewer", outcome="PERMISSION_DENIED")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def audit(path: Path, clock: Clock) -> Audit:
    return Audit(path, wall_s=clock)


@asynccontextmanager
async def written(audit: Audit) -> AsyncIterator[None]:
    """While it runs; when this ends it has written everything."""
    async with asyncio.TaskGroup() as parts:
        running = parts.create_task(audit.run())
        yield
        await asyncio.sleep(0)
        running.cancel()


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def content(path: Path) -> bytes:
    return path.read_bytes()


def change(path: Path, by: Callable[[bytes], bytes]) -> None:
    path.write_bytes(by(path.read_bytes()))


def put_in_the_way(path: Path) -> None:
    """It cannot be written."""
    path.mkdir()


def clear_the_way(path: Path) -> None:
    path.rmdir()


async def found(
    audit: Audit, *, since_ms: int = 0, limit: int = 100, denied: bool = False, who: str = ""
) -> list[Entry]:
    return await audit.read(since_ms=since_ms, limit=limit, denied=denied, who=who)


class TestWriting:
    async def test_each_decision_is_a_line_of_json(self, audit: Audit, path: Path) -> None:
        async with written(audit):
            audit.add(ENTRY)
            audit.add(replace(ENTRY, target='a"\n\x1b[2J'))

        first, second = lines(path)
        assert (first["who"], first["method"], first["count"]) == (ANNA, "bayplan.v1.Control/Scale", 1)
        assert second["target"] == 'a"\n\x1b[2J'
        assert content(path).isascii()
        assert mode(path) == 0o600

    async def test_a_crash_loses_little(self, audit: Audit, path: Path) -> None:
        async with written(audit):
            audit.add(ENTRY)
            await asyncio.sleep(FLUSH_EVERY_S * 1.5)
            assert len(lines(path)) == 1

    async def test_an_end_loses_nothing(self, audit: Audit, path: Path) -> None:
        async with written(audit):
            await asyncio.sleep(FLUSH_EVERY_S * 1.5)
            audit.add(ENTRY)
            audit.add(REFUSAL)
            audit.add(REFUSAL)

        assert [line["count"] for line in lines(path)] == [1, 1, 1]

    async def test_what_was_written_is_only_added_to(self, audit: Audit, path: Path, clock: Clock) -> None:
        """Over restarts too."""
        async with written(audit):
            audit.add(ENTRY)
        before = content(path)
        again = Audit(path, wall_s=clock)
        async with written(again):
            again.add(REFUSAL)

        assert content(path).startswith(before)
        assert len(lines(path)) == 2

    async def test_long_words_are_cut(self, audit: Audit, path: Path) -> None:
        """They may come from anybody."""
        async with written(audit):
            audit.add(replace(ENTRY, target="t" * 10_000, why="w" * 10_000))

        assert len(content(path)) < 1000

    async def test_what_waits_for_a_slow_disk_has_a_limit(
        self, audit: Audit, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert WAITING_MAX >= 10_000, "half a minute of a busy manager"
        monkeypatch.setattr(module, "WAITING_MAX", 10)
        with structlog.testing.capture_logs() as logs:
            for _ in range(25):
                audit.add(ENTRY)
            assert len(await found(audit)) == 10

        assert [(entry["event"], entry["count"]) for entry in logs] == [("audit.lines_lost", 15)]
        assert len(lines(path)) == 10

    async def test_a_disk_that_does_not_bear_writing_stops_nothing(self, audit: Audit, path: Path) -> None:
        put_in_the_way(path)
        with structlog.testing.capture_logs() as logs:
            async with written(audit):
                audit.add(ENTRY)
                await asyncio.sleep(1)
                clear_the_way(path)
                audit.add(replace(ENTRY, target="after"))
                await asyncio.sleep(1)

        (complaint,) = logs
        assert (complaint["event"], complaint["lines"], complaint["log_level"]) == (
            "audit.not_written", 1, "error",
        )  # fmt: skip
        assert [line["target"] for line in lines(path)] == ["after"]


class TestTheSameRefusal:
    async def test_is_written_at_once_and_then_counted(self, audit: Audit, path: Path, clock: Clock) -> None:
        """Nobody can push the past out of the files by knocking."""
        async with written(audit):
            for _ in range(1000):
                audit.add(REFUSAL)
            await asyncio.sleep(1)
            assert [line["count"] for line in lines(path)] == [1]
            clock.now_s += SAME_WITHIN_S
            await asyncio.sleep(1)
            assert [line["count"] for line in lines(path)] == [1, 999]

            audit.add(REFUSAL)
            await asyncio.sleep(1)
            assert [line["count"] for line in lines(path)] == [1, 999, 1], "told again"

    async def test_is_of_the_same_one_about_the_same_method(self, audit: Audit, path: Path) -> None:
        async with written(audit):
            for entry in (
                REFUSAL,
                replace(REFUSAL, who="spiffe://c1/user/bob"),
                replace(REFUSAL, address="10.0.0.8"),
                replace(REFUSAL, method="bayplan.v1.Control/Delete"),
                replace(REFUSAL, via="m2"),
            ):
                audit.add(entry)
            await asyncio.sleep(1)
            assert len(lines(path)) == 5

    async def test_words_of_the_callers_choice_make_no_difference(self, audit: Audit, path: Path) -> None:
        async with written(audit):
            for number in range(1000):
                audit.add(replace(REFUSAL, target=f"t{number}", why=f"cannot speak for node n{number}"))

        assert [line["count"] for line in lines(path)] == [1, 999]

    async def test_what_a_node_does_is_counted_too(self, audit: Audit, path: Path) -> None:
        """It may have been taken over."""
        async with written(audit):
            for number in range(1000):
                audit.add(replace(ENTRY, who="spiffe://c1/node/n1", target=f"t{number}"))

        assert [(line["count"], line["allowed"]) for line in lines(path)] == [(1, True), (999, True)]

    async def test_what_users_were_allowed_is_never_counted_together(self, audit: Audit, path: Path) -> None:
        async with written(audit):
            for _ in range(3):
                audit.add(ENTRY)

        assert [line["count"] for line in lines(path)] == [1, 1, 1]

    async def test_is_still_counted_when_many_knock(
        self, audit: Audit, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who comes from a thousand addresses does not end the counting of the first."""
        monkeypatch.setattr(module, "_KNOCKERS_MAX", 2)
        async with written(audit):
            for number in range(4):
                audit.add(replace(REFUSAL, address=f"10.0.0.{number}"))
            for _ in range(100):
                audit.add(replace(REFUSAL, address="10.0.0.0"))

        assert [(line["address"], line["count"]) for line in lines(path)] == [
            ("10.0.0.0", 1), ("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.3", 1), ("10.0.0.0", 100),
        ]  # fmt: skip


class TestFiles:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file holds three lines."""
        monkeypatch.setattr(module, "FILE_MAX_BYTES", 750)

    async def fill(self, audit: Audit, count: int) -> None:
        for number in range(count):
            audit.add(replace(ENTRY, at_ms=number))
            await found(audit, limit=1)

    async def test_a_full_one_is_kept_by_number(self, audit: Audit, path: Path) -> None:
        await self.fill(audit, 10)

        assert sorted(each.name for each in path.parent.iterdir()) == [
            "audit.jsonl", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3",
        ]  # fmt: skip
        assert all(each.stat().st_size <= 750 for each in path.parent.iterdir())
        assert [entry.at_ms for entry in await found(audit)] == list(range(10))

    async def test_the_oldest_goes(self, audit: Audit, path: Path) -> None:
        await self.fill(audit, 60)
        await found(audit)

        assert len(list(path.parent.iterdir())) == FILES
        kept = [entry.at_ms for entry in await found(audit)]
        assert kept == list(range(kept[0], 60))
        assert 3 * (FILES - 1) < len(kept) <= 3 * FILES


class TestReading:
    async def test_brings_what_was_just_added(self, audit: Audit) -> None:
        audit.add(ENTRY)

        assert await found(audit) == [ENTRY]

    async def test_brings_what_is_just_being_written(
        self, audit: Audit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def on_a_slow_disk(work: Callable[..., object], *arguments: object) -> object:
            if work == audit._write:
                await asyncio.sleep(1)
            return work(*arguments)

        monkeypatch.setattr(asyncio, "to_thread", on_a_slow_disk)
        async with written(audit):
            audit.add(ENTRY)
            await asyncio.sleep(FLUSH_EVERY_S * 1.5)

            assert await found(audit) == [ENTRY]

    async def test_brings_the_newest_oldest_first(self, audit: Audit) -> None:
        for number in range(10):
            audit.add(replace(ENTRY, at_ms=number))

        assert [entry.at_ms for entry in await found(audit, limit=3)] == [7, 8, 9]

    async def test_brings_what_fits(self, audit: Audit) -> None:
        bob = replace(ENTRY, who="spiffe://c1/user/bob", at_ms=2_000)
        refused = replace(REFUSAL, at_ms=3_000)
        for entry in (ENTRY, bob, refused):
            audit.add(entry)

        assert await found(audit, since_ms=2_000) == [bob, refused]
        assert await found(audit, denied=True) == [refused]
        assert await found(audit, who="anna") == [ENTRY, refused]
        assert await found(audit, who="user/bob") == [bob]
        assert await found(audit, who="nobody") == []

    async def test_before_there_is_a_file_brings_nothing(self, audit: Audit) -> None:
        assert await found(audit) == []

    @pytest.mark.parametrize(
        "damage",
        [
            b"",
            b"{",
            b"junk",
            b"\xff\xfe\x00",
            b"[]",
            b"1",
            b"null",
            b"{}",
            b'{"at_ms": 1}',
            b'"' + b"x" * 9999,
        ],
    )
    async def test_a_damaged_line_harms_only_itself(self, audit: Audit, path: Path, damage: bytes) -> None:
        audit.add(ENTRY)
        await found(audit)
        with path.open("ab") as file:
            file.write(damage + b"\n")
        audit.add(REFUSAL)
        with structlog.testing.capture_logs() as logs:
            assert await found(audit) == [ENTRY, REFUSAL]

        assert [entry["event"] for entry in logs] == ["audit.line_damaged"]

    async def test_a_line_that_was_cut_by_a_crash_harms_only_itself(
        self, audit: Audit, path: Path, clock: Clock
    ) -> None:
        audit.add(ENTRY)
        audit.add(ENTRY)
        await found(audit)
        change(path, lambda before: before[:-20])
        again = Audit(path, wall_s=clock)
        again.add(REFUSAL)

        assert await found(again) == [ENTRY, REFUSAL]

    async def test_what_a_later_version_adds_is_passed_over(self, audit: Audit, path: Path) -> None:
        audit.add(ENTRY)
        await found(audit)
        change(path, lambda before: before.replace(b"{", b'{"new":1,'))

        assert await found(audit) == [ENTRY]


class TestThreads:
    def test_that_write_at_once_lose_nothing(
        self, audit: Audit, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The record is read (and written for that) in one thread while it is written in another."""
        monkeypatch.setattr(module, "FILE_MAX_BYTES", 500)
        monkeypatch.setattr(module, "FILES", 300)
        line = b"x" * 99 + b"\n"

        def write() -> None:
            for _ in range(50):
                audit._write(line)

        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sum(each.stat().st_size for each in path.parent.iterdir()) == 200 * len(line)
