"""What every runtime promises of a container's streams: its logs, and commands inside it."""

from __future__ import annotations

import asyncio

import pytest

from agent.runtime.port import EngineError
from tests.contracts.runtime_world import (
    EXEC_CAT,
    EXEC_FAILS,
    EXEC_HANGS,
    EXEC_SIZE,
    EXITS_3,
    FOREVER,
    NO_SUCH_PROGRAM,
    TALKS,
    World,
    ended,
    started,
    text_of,
)


class StreamContract:
    # --- output ---

    async def test_logs_tell_the_streams_apart(self, world: World) -> None:
        container = await ended(world, await started(world, command=TALKS))
        pieces = world.runtime.logs(container.id, follow=False, tail=-1, since_s=0, timestamps=False)

        assert await text_of(pieces) == ("one\nthree\n", "two\n")

    async def test_logs_can_begin_later(self, world: World) -> None:
        container = await ended(world, await started(world, command=TALKS))

        last = world.runtime.logs(container.id, follow=False, tail=1, since_s=0, timestamps=False)
        assert await text_of(last) == ("three\n", "")
        since_s = container.started_s + 0.2
        later = world.runtime.logs(container.id, follow=False, tail=-1, since_s=since_s, timestamps=False)
        assert await text_of(later) == ("three\n", "two\n")

    async def test_logs_can_say_when(self, world: World) -> None:
        container = await ended(world, await started(world, command=TALKS))
        pieces = world.runtime.logs(container.id, follow=False, tail=1, since_s=0, timestamps=True)

        when, what = (await text_of(pieces))[0].split(" ")
        assert what == "three\n"
        assert when.endswith("Z")

    async def test_followed_logs_end_with_the_container(self, world: World) -> None:
        container = await started(world, command=TALKS)
        pieces = world.runtime.logs(container.id, follow=True, tail=-1, since_s=0, timestamps=False)

        async with asyncio.timeout(10):
            assert await text_of(pieces) == ("one\nthree\n", "two\n")

    async def test_following_can_end_before_the_container(self, world: World) -> None:
        container = await started(world, command=FOREVER)
        follower = asyncio.ensure_future(
            text_of(world.runtime.logs(container.id, follow=True, tail=-1, since_s=0, timestamps=False))
        )
        await asyncio.sleep(0.1)

        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower
        assert await world.is_running(container.id)

    # --- commands inside ---

    async def test_exec_gives_output_and_exit_code(self, world: World) -> None:
        container = await started(world)
        session = await world.runtime.exec(
            container.id, EXEC_FAILS, tty=False, stdin=False, rows=0, columns=0
        )

        assert await text_of(session.output()) == ("out\n", "err\n")
        assert await session.exit_code() == 7
        await session.aclose()

    async def test_exec_takes_input_until_it_is_closed(self, world: World) -> None:
        container = await started(world)
        session = await world.runtime.exec(container.id, EXEC_CAT, tty=False, stdin=True, rows=0, columns=0)

        await session.write(b"hello ")
        await session.write(b"there\xff\n")
        await session.close_stdin()

        pieces = [piece.data async for piece in session.output()]
        assert b"".join(pieces) == b"hello there\xff\n"
        assert await session.exit_code() == 0
        await session.aclose()

    async def test_exec_has_a_terminal_of_the_right_size(self, world: World) -> None:
        container = await started(world)
        session = await world.runtime.exec(container.id, EXEC_SIZE, tty=True, stdin=True, rows=30, columns=99)

        out, err = await text_of(session.output())

        assert (out.strip(), err) == ("30 99", "")
        await session.aclose()

    async def test_a_terminal_can_change_its_size(self, world: World) -> None:
        container = await started(world)
        session = await world.runtime.exec(container.id, EXEC_SIZE, tty=True, stdin=True, rows=30, columns=99)

        await session.resize(rows=40, columns=120)

        out, _ = await text_of(session.output())
        assert out.strip() == "40 120"
        await session.aclose()

    async def test_exec_of_a_missing_command_says_so(self, world: World) -> None:
        container = await started(world)
        session = await world.runtime.exec(
            container.id, NO_SUCH_PROGRAM, tty=False, stdin=False, rows=0, columns=0
        )

        out, err = await text_of(session.output())

        assert "executable file not found" in out + err
        assert await session.exit_code() in (126, 127)
        await session.aclose()

    async def test_exec_needs_a_running_container(self, world: World) -> None:
        container = await ended(world, await started(world, command=EXITS_3))

        with pytest.raises(EngineError, match="not running"):
            await world.runtime.exec(container.id, EXEC_CAT, tty=False, stdin=False, rows=0, columns=0)

    async def test_a_command_can_be_killed(self, world: World) -> None:
        """A command that nobody watches any more runs on: probes that hang would fill the container."""
        container = await started(world)
        session = await world.runtime.exec(
            container.id, EXEC_HANGS, tty=False, stdin=False, rows=0, columns=0
        )

        output = asyncio.create_task(text_of(session.output()))
        await asyncio.sleep(0.2)
        assert not output.done()
        await session.kill()

        assert await output == ("", "")
        assert await session.exit_code() == 137
        await session.aclose()
        assert await world.is_running(container.id)

    async def test_killing_a_command_that_has_ended_is_no_error(self, world: World) -> None:
        container = await started(world)
        session = await world.runtime.exec(
            container.id, EXEC_FAILS, tty=False, stdin=False, rows=0, columns=0
        )
        await text_of(session.output())

        await session.kill()

        assert await session.exit_code() == 7
        await session.aclose()

    async def test_leaving_an_exec_early_leaves_the_container(self, world: World) -> None:
        container = await started(world)
        session = await world.runtime.exec(container.id, EXEC_CAT, tty=False, stdin=True, rows=0, columns=0)

        await session.aclose()
        await session.aclose()

        assert await world.is_running(container.id)
