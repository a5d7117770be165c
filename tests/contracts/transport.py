"""What every transport promises, the real one on loopback and the fake one in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bayplan.transport.port import Contact, Listener, Transport
from bayplan.transport.streams import Outbox
from bayplan.v1 import agent_link_pb2 as link
from bayplan.v1 import agent_link_pb2_grpc as link_grpc
from bayplan.v1 import control_pb2 as control
from bayplan.v1 import control_pb2_grpc as control_grpc

LINK = "bayplan.v1.AgentLink"
CONTROL = "bayplan.v1.Control"


@dataclass
class Ends:
    """Two processes and how the first reaches the second."""

    client: Transport
    server: Transport
    server_host: str


@dataclass
class Answers(control_grpc.ControlServicer, link_grpc.AgentLinkServicer):
    """Answers in every style, and notes what it saw."""

    seen: list[str] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    listener: Listener | None = None

    async def Version(  # noqa: N802 - the proto's name
        self,
        request: control.VersionRequest,  # noqa: ARG002 - empty
        context: Any,
    ) -> control.VersionReply:
        metadata = {pair[0]: pair[1] for pair in context.invocation_metadata()}
        self.seen.append(metadata.get("mark", ""))
        if metadata.get("mark") == "slow":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.seen.append("cancelled")
                self.ended.set()
                raise
        context.set_trailing_metadata((("later", "yes"),))
        return control.VersionReply(version="1", manager=context.peer()[:4])

    async def Get(  # noqa: N802 - the proto's name
        self, request: control.GetRequest, context: Any
    ) -> control.GetReply:
        if request.name == "bug":
            raise ValueError("a bug")
        await context.abort(grpc.StatusCode.NOT_FOUND, f"no {request.name}", (("why-bin", b"\x00"),))
        raise AssertionError("abort raises")

    async def WatchEvents(  # noqa: N802 - the proto's name
        self,
        request: control.ListEventsRequest,  # noqa: ARG002 - everything
        context: Any,
    ) -> AsyncIterator[control.Event]:
        for count in range(3):
            yield control.Event(count=count)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "leader changed")

    async def Connect(  # noqa: N802 - the proto's name
        self, requests: AsyncIterator[link.AgentMessage], context: Any
    ) -> AsyncIterator[link.ManagerMessage]:
        context.add_done_callback(lambda _: self.seen.append("done"))
        try:
            async for request in requests:
                sequence = request.heartbeat.sequence
                if sequence < 0:
                    return
                yield link.ManagerMessage(heartbeat_ack=link.HeartbeatAck(sequence=sequence))
            self.seen.append("polite end")
            yield link.ManagerMessage(goodbye=link.Goodbye(reason="you said so"))
        finally:
            self.seen.append("left")
            self.ended.set()


def answering() -> Answers:
    """A servicer that leaves most methods unwritten: what a call of them becomes is part of the contract."""
    return Answers()  # type: ignore[abstract]


def heartbeat(sequence: int) -> link.AgentMessage:
    return link.AgentMessage(heartbeat=link.Heartbeat(sequence=sequence))


@asynccontextmanager
async def served(ends: Ends, answers: Answers) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server that runs `answers`."""
    answers.listener = await ends.server.serve(
        ends.server_host,
        0,
        [
            partial(control_grpc.add_ControlServicer_to_server, answers),
            partial(link_grpc.add_AgentLinkServicer_to_server, answers),
        ],
        [CONTROL, LINK],
    )
    channel = ends.client.channel(f"{ends.server_host}:{answers.listener.port}")
    try:
        yield channel
    finally:
        await channel.close()
        await answers.listener.stop(0)


class TransportContract:
    """Subclass it with a fixture `ends`."""

    @pytest.fixture
    def answers(self) -> Answers:
        return answering()

    @pytest.fixture
    async def channel(self, ends: Ends, answers: Answers) -> AsyncIterator[grpc.aio.Channel]:
        async with served(ends, answers) as channel:
            yield channel

    async def test_a_call_carries_its_metadata_and_brings_trailing_metadata(
        self, channel: grpc.aio.Channel, answers: Answers
    ) -> None:
        call = control_grpc.ControlStub(channel).Version(
            control.VersionRequest(), metadata=(("mark", "7"),), timeout=5
        )

        reply = await call

        assert reply.version == "1"
        assert reply.manager == "ipv4"
        assert answers.seen == ["7"]
        assert await call.code() is grpc.StatusCode.OK
        assert dict(await call.trailing_metadata())["later"] == "yes"

    async def test_abort_becomes_the_clients_error(self, channel: grpc.aio.Channel) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await control_grpc.ControlStub(channel).Get(control.GetRequest(name="web"), timeout=5)

        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        assert raised.value.details() == "no web"
        assert dict(raised.value.trailing_metadata())["why-bin"] == b"\x00"

    async def test_a_handler_that_raises_becomes_unknown(self, channel: grpc.aio.Channel) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await control_grpc.ControlStub(channel).Get(control.GetRequest(name="bug"), timeout=5)

        assert raised.value.code() is grpc.StatusCode.UNKNOWN
        assert "a bug" in (raised.value.details() or "")

    async def test_a_method_that_was_not_written_is_unimplemented(self, channel: grpc.aio.Channel) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await control_grpc.ControlStub(channel).List(control.ListRequest(), timeout=5)

        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED

    async def test_a_deadline_ends_the_call_on_both_sides(
        self, channel: grpc.aio.Channel, answers: Answers
    ) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await control_grpc.ControlStub(channel).Version(
                control.VersionRequest(), metadata=(("mark", "slow"),), timeout=0.3
            )

        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(2):
            await answers.ended.wait()
        assert answers.seen == ["slow", "cancelled"]

    async def test_who_cancels_his_wait_cancels_the_call(
        self, channel: grpc.aio.Channel, answers: Answers
    ) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await control_grpc.ControlStub(channel).Version(
                    control.VersionRequest(), metadata=(("mark", "slow"),)
                )

        async with asyncio.timeout(2):
            await answers.ended.wait()
        assert answers.seen == ["slow", "cancelled"]

    async def test_a_stream_of_responses_comes_in_order_before_its_error(
        self, channel: grpc.aio.Channel
    ) -> None:
        counts = []
        with pytest.raises(grpc.aio.AioRpcError) as raised:  # noqa: PT012 - it raises at the end
            async for event in control_grpc.ControlStub(channel).WatchEvents(control.ListEventsRequest()):
                counts.append(event.count)  # noqa: PERF401 - it raises at the end

        assert counts == [0, 1, 2]
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert raised.value.details() == "leader changed"

    async def test_both_sides_talk_on_one_stream(self, channel: grpc.aio.Channel, answers: Answers) -> None:
        call = link_grpc.AgentLinkStub(channel).Connect()
        await call.wait_for_connection()
        for sequence in (1, 2):
            await call.write(heartbeat(sequence))
            answer = await call.read()
            assert answer.heartbeat_ack.sequence == sequence  # type: ignore[attr-defined]  # EOF has none

        await call.done_writing()

        assert (await call.read()).goodbye.reason == "you said so"  # type: ignore[attr-defined]
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        assert answers.seen[:2] == ["polite end", "left"]

    async def test_requests_may_come_from_an_iterator(self, channel: grpc.aio.Channel) -> None:
        async def requests() -> AsyncIterator[link.AgentMessage]:
            for sequence in (1, 2):
                yield heartbeat(sequence)

        call = link_grpc.AgentLinkStub(channel).Connect(requests())
        answers = [answer async for answer in call]

        assert [answer.heartbeat_ack.sequence for answer in answers] == [1, 2, 0]
        with pytest.raises(grpc.aio.UsageError):
            await call.write(heartbeat(3))

    async def test_an_outbox_writes_a_stream_and_ends_it(self, channel: grpc.aio.Channel) -> None:
        outbox: Outbox[link.AgentMessage] = Outbox()
        call = link_grpc.AgentLinkStub(channel).Connect()
        for sequence in (1, 2):
            outbox.put(heartbeat(sequence))
        outbox.close()

        await outbox.write_to(call)

        assert [answer.heartbeat_ack.sequence async for answer in call] == [1, 2, 0]

    async def test_nothing_is_written_to_a_call_that_is_over(self, channel: grpc.aio.Channel) -> None:
        call = link_grpc.AgentLinkStub(channel).Connect()
        await call.write(heartbeat(-1))
        assert await call.code() is grpc.StatusCode.OK

        with pytest.raises(asyncio.InvalidStateError):
            await call.write(heartbeat(1))

        assert await call.read() is grpc.aio.EOF

    async def test_a_cancelled_stream_cancels_its_handler(
        self, channel: grpc.aio.Channel, answers: Answers
    ) -> None:
        call = link_grpc.AgentLinkStub(channel).Connect()
        await call.write(heartbeat(1))
        await call.read()

        call.cancel()

        async with asyncio.timeout(2):
            await answers.ended.wait()
        assert call.cancelled()
        assert await call.code() is grpc.StatusCode.CANCELLED
        with pytest.raises(asyncio.CancelledError):
            await call.read()

    async def test_five_mebibytes_pass(self, channel: grpc.aio.Channel) -> None:
        call = link_grpc.AgentLinkStub(channel).Connect()
        big = link.AgentMessage(heartbeat=link.Heartbeat(sequence=1, witnessed=["x" * (5 << 20)]))

        await call.write(big)

        assert (await call.read()).heartbeat_ack.sequence == 1  # type: ignore[attr-defined]
        call.cancel()

    async def test_each_service_says_that_it_serves(self, channel: grpc.aio.Channel) -> None:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", CONTROL, LINK):
            reply = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING

    async def test_a_stopped_server_ends_streams_and_refuses_calls(
        self, channel: grpc.aio.Channel, answers: Answers
    ) -> None:
        call = link_grpc.AgentLinkStub(channel).Connect()
        await call.write(heartbeat(1))
        await call.read()
        assert answers.listener

        await answers.listener.stop(0.2)

        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        async with asyncio.timeout(2):
            await answers.ended.wait()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await control_grpc.ControlStub(channel).Version(control.VersionRequest(), timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE

    async def test_a_grace_lets_handlers_finish(self, channel: grpc.aio.Channel, answers: Answers) -> None:
        call = link_grpc.AgentLinkStub(channel).Connect()
        await call.write(heartbeat(1))
        await call.read()
        assert answers.listener
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(answers.listener.stop(5))
            await asyncio.sleep(0.1)
            await call.done_writing()
            assert (await call.read()).goodbye.reason == "you said so"  # type: ignore[attr-defined]

        assert await call.code() is grpc.StatusCode.OK

    async def test_where_nobody_listens_a_call_is_unavailable(self, ends: Ends) -> None:
        async with ends.client.channel(f"{ends.server_host}:1") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await control_grpc.ControlStub(channel).Version(control.VersionRequest(), timeout=5)

            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE

    async def test_a_closed_channel_cancels_its_calls_and_takes_no_more(
        self, ends: Ends, answers: Answers
    ) -> None:
        async with served(ends, answers) as channel:
            stub = link_grpc.AgentLinkStub(channel)
            call = stub.Connect()
            await call.write(heartbeat(1))
            await call.read()
            await channel.close()

            assert await call.code() is grpc.StatusCode.CANCELLED
            with pytest.raises(grpc.aio.UsageError):
                stub.Connect()

    async def test_two_servers_never_share_a_port(self, ends: Ends) -> None:
        first = await ends.server.serve(ends.server_host, 0, [], [])

        with pytest.raises(OSError, match="cannot listen"):
            await ends.server.serve(ends.server_host, first.port, [], [])

        await first.stop(0)

    async def test_contact_tells_a_listener_from_a_living_host(self, ends: Ends) -> None:
        listener = await ends.server.listen_for_contact(ends.server_host, 0)
        port = listener.port

        answered = await ends.client.contact(ends.server_host, port, timeout_s=1)
        await listener.stop(0)
        refused = await ends.client.contact(ends.server_host, port, timeout_s=1)

        assert (answered, refused) == (Contact.ANSWERED, Contact.REFUSED)

    async def test_a_server_answers_contact_too(self, ends: Ends) -> None:
        listener = await ends.server.serve(ends.server_host, 0, [], [])

        assert await ends.client.contact(ends.server_host, listener.port, timeout_s=1) is Contact.ANSWERED

        await listener.stop(0)

    async def test_a_host_that_is_not_there_is_silent(self, ends: Ends) -> None:
        assert await ends.client.contact("no-such-host.invalid", 80, timeout_s=0.5) is Contact.SILENT
