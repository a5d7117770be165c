from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bayplan.v1 import agent_link_pb2 as wire
from manager.dispatcher.attached import Attached, StreamFailedError

pytestmark = pytest.mark.virtual_time


def a_stream() -> tuple[Attached, list[wire.OpenStream]]:
    asked: list[wire.OpenStream] = []
    attached = Attached("s1", asked.append)
    attached.node = "n1"
    return attached, asked


async def frames(*sent: wire.StreamFrame, then: Exception | None = None) -> AsyncIterator[wire.StreamFrame]:
    for frame in sent:
        yield frame
    if then is not None:
        raise then


async def read(attached: Attached) -> list[bytes]:
    return [frame.stdout async for frame in attached.frames() if frame.WhichOneof("kind") == "stdout"]


class TestAttached:
    async def test_carries_output_to_its_end(self) -> None:
        attached, _ = a_stream()
        sent = [wire.StreamFrame(stdout=b"a"), wire.StreamFrame(stdout=b"b"), wire.StreamFrame(end=True)]
        _, output = await asyncio.gather(_drained(attached, frames(*sent)), read(attached))

        assert output == [b"a", b"b"]

    async def test_fails_with_the_agents_words(self) -> None:
        attached, _ = a_stream()
        attached.fail("no such container")

        with pytest.raises(StreamFailedError, match="no such container"):
            await attached.open(wire.OpenStream())

    async def test_waits_ten_seconds_for_the_agent_and_no_longer(self) -> None:
        attached, asked = a_stream()
        with pytest.raises(StreamFailedError, match="n1 did not open the stream within 10 s"):
            await attached.open(wire.OpenStream(stream_id="s1"))

        assert asked[0].stream_id == "s1"

    @pytest.mark.parametrize("error", [None, RuntimeError("cut")])
    async def test_says_that_output_was_cut_short(self, error: Exception | None) -> None:
        attached, _ = a_stream()
        serving = asyncio.create_task(_drained(attached, frames(wire.StreamFrame(stdout=b"a"), then=error)))

        with pytest.raises(StreamFailedError, match="before it was complete"):
            await read(attached)
        await serving

    async def test_tells_a_reader_that_is_behind_that_the_node_is_lost(self) -> None:
        attached, _ = a_stream()
        many = [wire.StreamFrame(stdout=b"x") for _ in range(500)]
        serving = asyncio.create_task(_drained(attached, frames(*many)))
        await asyncio.sleep(1)
        attached.fail("the stream of node n1 was lost")

        with pytest.raises(StreamFailedError, match="n1 was lost"):
            await read(attached)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    async def test_holds_back_an_agent_whose_output_nobody_reads(self) -> None:
        attached, _ = a_stream()
        sent = 0

        async def output() -> AsyncIterator[wire.StreamFrame]:
            nonlocal sent
            while True:
                sent += 1
                yield wire.StreamFrame(stdout=b"x")

        serving = asyncio.create_task(_drained(attached, output()))
        await asyncio.sleep(60)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

        assert sent < 100

    async def test_ends_the_agents_side_when_the_user_leaves(self) -> None:
        attached, _ = a_stream()

        async def silent() -> AsyncIterator[wire.StreamFrame]:
            await asyncio.Event().wait()
            yield wire.StreamFrame()

        serving = asyncio.create_task(_drained(attached, silent()))
        await attached.send(wire.StreamFrame(stdin=b"hello"))
        attached.close()

        assert [frame.stdin for frame in await serving] == [b"hello"]


async def _drained(attached: Attached, incoming: AsyncIterator[wire.StreamFrame]) -> list[wire.StreamFrame]:
    return [frame async for frame in attached.serve(incoming)]
