from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest

from bayplan.transport.port import Contact
from bayplan.v1 import agent_link_pb2_grpc as link_grpc
from bayplan.v1 import control_pb2 as control
from bayplan.v1 import control_pb2_grpc as control_grpc
from tests.contracts.transport import LINK, Answers, Ends, TransportContract, answering, heartbeat, served
from tests.fakes.network import FakeNetwork, FakeTransport

pytestmark = pytest.mark.virtual_time


class TestFakeTransport(TransportContract):
    @pytest.fixture
    def ends(self) -> Ends:
        network = FakeNetwork()
        return Ends(FakeTransport(network, "a"), FakeTransport(network, "b"), "b")


@dataclass
class Talk:
    """A stream from host "a" to host "b" on which one message went each way."""

    network: FakeNetwork
    a: FakeTransport
    b: FakeTransport
    channel: grpc.aio.Channel
    answers: Answers
    call: Any

    async def error(self) -> Any:
        """How the stream fails for the client, and when."""
        started_s = asyncio.get_running_loop().time()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.call.read()
        return raised.value.code(), asyncio.get_running_loop().time() - started_s

    async def server_end(self) -> float:
        started_s = asyncio.get_running_loop().time()
        await self.answers.ended.wait()
        return asyncio.get_running_loop().time() - started_s


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    network = FakeNetwork()
    a, b = FakeTransport(network, "a"), FakeTransport(network, "b")
    answers = answering()
    async with served(Ends(a, b, "b"), answers) as channel:
        call = link_grpc.AgentLinkStub(channel).Connect()
        await call.write(heartbeat(1))
        await call.read()
        yield Talk(network, a, b, channel, answers, call)
        network.heal()
        for host in ("a", "b"):
            network.thaw(host)
    await asyncio.sleep(0.1)
    assert network.open_calls == 0


class TestKilledProcess:
    async def test_its_clients_see_an_end_within_milliseconds(self, talk: Talk) -> None:
        talk.network.kill("b")

        assert await talk.error() == (grpc.StatusCode.UNAVAILABLE, pytest.approx(0.001))
        assert await talk.a.contact("b", 20_000, timeout_s=0.5) is Contact.SILENT

    async def test_a_dead_client_looks_polite_and_then_cancels(self, talk: Talk) -> None:
        talk.network.kill("a")

        assert await talk.server_end() == pytest.approx(0.001)
        assert talk.answers.seen[0] == "polite end"

    async def test_its_host_refuses_while_the_host_lives(self, talk: Talk) -> None:
        talk.b.kill()

        assert await talk.a.contact("b", 20_000, timeout_s=0.5) is Contact.REFUSED
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await control_grpc.ControlStub(talk.channel).Version(control.VersionRequest())
        assert "refused" in (raised.value.details() or "")

    async def test_its_last_words_still_arrive(self, talk: Talk) -> None:
        await talk.call.write(heartbeat(2))
        await asyncio.sleep(0.0015)  # The answer is under way.

        talk.b.kill()

        assert (await talk.call.read()).heartbeat_ack.sequence == 2
        assert (await talk.error())[0] is grpc.StatusCode.UNAVAILABLE

    async def test_it_cannot_speak_any_more(self, talk: Talk) -> None:
        talk.a.kill()

        with pytest.raises(grpc.aio.AioRpcError):
            await control_grpc.ControlStub(talk.channel).Version(control.VersionRequest())

    async def test_a_revived_host_serves_anew(self, talk: Talk) -> None:
        talk.network.kill("b")
        talk.network.revive("b")
        again = FakeTransport(talk.network, "b")

        async with served(Ends(talk.a, again, "b"), answering()) as channel:
            reply = await control_grpc.ControlStub(channel).Version(control.VersionRequest())

        assert reply.version == "1"


class TestCutLink:
    async def test_both_sides_notice_after_the_keepalive(self, talk: Talk) -> None:
        talk.network.cut("a", "b")

        assert await talk.error() == (grpc.StatusCode.UNAVAILABLE, pytest.approx(3.0))
        assert await talk.server_end() == pytest.approx(0.0)

    async def test_one_direction_is_enough_to_lose_a_stream(self, talk: Talk) -> None:
        talk.network.cut("b", "a", one_way=True)

        assert await talk.error() == (grpc.StatusCode.UNAVAILABLE, pytest.approx(3.0))

    async def test_what_was_said_meanwhile_arrives_in_order_after_a_short_cut(self, talk: Talk) -> None:
        talk.network.isolate("b")
        for sequence in (2, 3):
            await talk.call.write(heartbeat(sequence))
        await asyncio.sleep(2.5)
        talk.network.heal("b")

        sequences = [(await talk.call.read()).heartbeat_ack.sequence for _ in range(2)]
        assert sequences == [2, 3]

    async def test_a_unary_call_ends_by_its_deadline_and_a_long_one_for_want_of_a_connection(
        self, talk: Talk
    ) -> None:
        talk.network.partition(["a"])
        stub = control_grpc.ControlStub(talk.channel)

        codes = []
        for timeout_s in (0.5, 10.0):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.Version(control.VersionRequest(), timeout=timeout_s)
            codes.append(raised.value.code())

        assert codes == [grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE]
        assert await talk.a.contact("b", 20_000, timeout_s=0.5) is Contact.SILENT

    async def test_who_waits_for_ready_is_served_after_healing(self, talk: Talk) -> None:
        talk.network.cut("a", "b")
        async with asyncio.TaskGroup() as tasks:
            stub = control_grpc.ControlStub(talk.channel)
            call = stub.Version(control.VersionRequest(), timeout=30, wait_for_ready=True)
            reply = tasks.create_task(asyncio.wait_for(call, 30))
            await asyncio.sleep(7)
            talk.network.heal("a", "b")

        assert reply.result().version == "1"


class TestFrozenHost:
    async def test_its_peer_notices_after_the_keepalive_and_it_when_it_thaws(self, talk: Talk) -> None:
        talk.network.freeze("b")

        assert await talk.error() == (grpc.StatusCode.UNAVAILABLE, pytest.approx(3.0))
        await asyncio.sleep(5)
        assert not talk.answers.ended.is_set()
        talk.network.thaw("b")
        assert await talk.server_end() == pytest.approx(0.0)

    async def test_its_kernel_still_answers(self, talk: Talk) -> None:
        talk.network.freeze("b")

        assert await talk.a.contact("b", 20_000, timeout_s=0.5) is Contact.ANSWERED

    async def test_a_short_pause_loses_nothing(self, talk: Talk) -> None:
        talk.network.freeze("b")
        await talk.call.write(heartbeat(2))
        await asyncio.sleep(2)
        talk.network.thaw("b")

        assert (await talk.call.read()).heartbeat_ack.sequence == 2


async def test_a_slow_reader_holds_its_writer_back(talk: Talk) -> None:
    """Nobody reads the answers: the window fills, and the server waits instead of piling up."""
    big = heartbeat(2)
    big.heartbeat.witnessed.append("x" * 1000)
    written = 0
    with pytest.raises(TimeoutError):  # noqa: PT012 - it raises at the end
        async with asyncio.timeout(5):
            while True:
                await talk.call.write(big)
                written += 1

    assert 50 < written < 50_000


async def test_requests_of_a_stream_may_have_one_answer() -> None:
    network = FakeNetwork()
    a, b = FakeTransport(network, "a"), FakeTransport(network, "b")

    async def total(requests: AsyncIterator[bytes], _context: object) -> bytes:
        return b"+".join([request async for request in requests])

    handler = grpc.stream_unary_rpc_method_handler(total, bytes, bytes)

    def register(server: grpc.aio.Server) -> None:
        server.add_registered_method_handlers("test.Sum", {"Total": handler})

    listener = await b.serve("b", 0, [register], [])
    async with a.channel(f"b:{listener.port}") as channel:
        method = channel.stream_unary("/test.Sum/Total", bytes, bytes)
        call = method()
        await call.write(b"1")
        await call.write(b"2")
        await call.done_writing()

        assert await call == b"1+2"
        assert await method(iter([b"3"])) == b"3"


async def test_thousand_streams_are_cheap() -> None:
    network = FakeNetwork()
    b = FakeTransport(network, "b")
    answers = answering()
    listener = await b.serve("b", 0, [partial(link_grpc.add_AgentLinkServicer_to_server, answers)], [LINK])

    async def beat(number: int) -> int:
        channel = FakeTransport(network, f"n{number}").channel(f"b:{listener.port}")
        call = link_grpc.AgentLinkStub(channel).Connect()
        await call.write(heartbeat(number))
        sequence: int = (await call.read()).heartbeat_ack.sequence  # type: ignore[attr-defined]
        await channel.close()
        return sequence

    assert await asyncio.gather(*map(beat, range(1, 1001))) == list(range(1, 1001))
