from __future__ import annotations

import asyncio

import pytest

from bayplan.transport.streams import Outbox, SlowPeerError
from bayplan.v1 import agent_link_pb2 as link

pytestmark = pytest.mark.virtual_time


def ack(sequence: int) -> link.HeartbeatAck:
    return link.HeartbeatAck(sequence=sequence)


class TestOutbox:
    async def test_messages_leave_in_order_and_what_was_queued_outlives_the_closing(self) -> None:
        outbox: Outbox[link.HeartbeatAck] = Outbox()
        assert outbox.put(ack(1))
        assert outbox.put(ack(2))
        outbox.close()

        assert not outbox.put(ack(3))
        assert [message.sequence async for message in outbox] == [1, 2]

    async def test_a_reader_waits_for_messages(self) -> None:
        outbox: Outbox[link.HeartbeatAck] = Outbox()
        loop = asyncio.get_running_loop()
        loop.call_later(1, outbox.put, ack(1))
        loop.call_later(2, outbox.close)

        assert [message.sequence async for message in outbox] == [1]

    async def test_a_peer_that_takes_too_few_messages_loses_its_stream(self) -> None:
        outbox: Outbox[link.HeartbeatAck] = Outbox(messages_max=2)
        assert outbox.put(ack(1))
        assert outbox.put(ack(2))

        assert not outbox.put(ack(3))

        with pytest.raises(SlowPeerError):
            [message async for message in outbox]
        await outbox.overflowed()

    async def test_bytes_count_too(self) -> None:
        outbox: Outbox[link.Goodbye] = Outbox(bytes_max=1000)

        assert outbox.put(link.Goodbye(reason="x" * 900))
        assert not outbox.put(link.Goodbye(reason="x" * 900))

    async def test_room_comes_back_as_messages_are_read(self) -> None:
        outbox: Outbox[link.HeartbeatAck] = Outbox(messages_max=1)
        reader = aiter(outbox)
        for sequence in range(1, 4):
            assert outbox.put(ack(sequence))
            assert (await anext(reader)).sequence == sequence
