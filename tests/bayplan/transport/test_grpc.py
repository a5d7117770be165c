from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bayplan.transport.grpc import MESSAGE_MAX_BYTES, GrpcTransport
from bayplan.transport.port import Contact
from bayplan.v1 import agent_link_pb2_grpc as link_grpc
from bayplan.v1 import control_pb2 as control
from bayplan.v1 import control_pb2_grpc as control_grpc
from tests.contracts.transport import (
    CONTROL,
    LINK,
    Answers,
    Ends,
    TransportContract,
    answering,
    heartbeat,
    served,
)

# The keepalive needs 3 s at most; a busy machine gets a little more.
NOTICED_S = 3.5


@pytest.fixture
def ends() -> Ends:
    return Ends(GrpcTransport(), GrpcTransport(), "127.0.0.1")


class TestGrpcTransport(TransportContract):
    async def test_reflection_names_the_services(self, channel: grpc.aio.Channel) -> None:
        async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            yield reflection_pb2.ServerReflectionRequest(list_services="")

        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        replies = [reply async for reply in stub.ServerReflectionInfo(requests())]

        names = {service.name for service in replies[0].list_services_response.service}
        assert {CONTROL, LINK, "grpc.health.v1.Health"} <= names

    async def test_a_message_above_the_limit_is_refused(self, channel: grpc.aio.Channel) -> None:
        request = control.ApplyRequest(documents=["x" * MESSAGE_MAX_BYTES])

        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await control_grpc.ControlStub(channel).Apply(request, timeout=5)

        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    async def test_swollen_metadata_is_refused(self, channel: grpc.aio.Channel, answers: Answers) -> None:
        with pytest.raises(grpc.aio.AioRpcError):
            await control_grpc.ControlStub(channel).Version(
                control.VersionRequest(), metadata=(("mark", "x" * (64 << 10)),), timeout=5
            )

        assert answers.seen == []


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[Process]:
    """A peer in a process of its own."""
    command = (sys.executable, "-m", "tests.bayplan.transport.peer", *arguments)
    peer = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    try:
        yield peer
    finally:
        if peer.returncode is None:
            peer.kill()
        await peer.communicate()


async def line(peer: Process) -> str:
    assert peer.stdout
    return (await peer.stdout.readline()).decode().strip()


def elapsed_s(since_s: float) -> float:
    return asyncio.get_running_loop().time() - since_s


class TestFrozenPeer:
    async def test_a_client_notices_and_cannot_connect_anew(self) -> None:
        async with process("serve") as peer:
            address = f"127.0.0.1:{await line(peer)}"
            transport = GrpcTransport()
            async with transport.channel(address) as channel, transport.channel(address) as other:
                call = link_grpc.AgentLinkStub(channel).Connect()
                await call.write(heartbeat(1))
                await call.read()
                peer.send_signal(signal.SIGSTOP)
                frozen_s = asyncio.get_running_loop().time()

                contact = await transport.contact("127.0.0.1", int(address[10:]), timeout_s=1)
                assert contact is Contact.ANSWERED, "its kernel does"
                with pytest.raises(grpc.aio.AioRpcError) as anew:
                    await control_grpc.ControlStub(other).Version(control.VersionRequest(), timeout=10)
                assert anew.value.code() is grpc.StatusCode.UNAVAILABLE
                assert elapsed_s(frozen_s) < NOTICED_S
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call.read()
                assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
                assert elapsed_s(frozen_s) < NOTICED_S

    async def test_a_server_notices_and_the_thawed_client_is_told(self, ends: Ends) -> None:
        answers = answering()
        async with served(ends, answers):
            assert answers.listener
            async with process("call", f"127.0.0.1:{answers.listener.port}") as peer:
                assert await line(peer) == "connected"
                peer.send_signal(signal.SIGSTOP)
                frozen_s = asyncio.get_running_loop().time()

                async with asyncio.timeout(10):
                    await answers.ended.wait()

                assert elapsed_s(frozen_s) < NOTICED_S
                peer.send_signal(signal.SIGCONT)
                assert await line(peer) == "UNAVAILABLE"


class TestKilledPeer:
    async def test_a_client_notices_at_once(self) -> None:
        async with process("serve") as peer:
            port = int(await line(peer))
            transport = GrpcTransport()
            async with transport.channel(f"127.0.0.1:{port}") as channel:
                call = link_grpc.AgentLinkStub(channel).Connect()
                await call.write(heartbeat(1))
                await call.read()
                peer.kill()
                killed_s = asyncio.get_running_loop().time()

                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call.read()

                assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
                assert elapsed_s(killed_s) < 0.5
            await peer.wait()  # A dying process closes its sockets one after the other.
            assert await transport.contact("127.0.0.1", port, timeout_s=1) is Contact.REFUSED

    async def test_a_server_sees_a_polite_end_at_once(self, ends: Ends) -> None:
        answers = answering()
        async with served(ends, answers):
            assert answers.listener
            async with process("call", f"127.0.0.1:{answers.listener.port}") as peer:
                assert await line(peer) == "connected"
                peer.kill()
                killed_s = asyncio.get_running_loop().time()

                async with asyncio.timeout(10):
                    await answers.ended.wait()

                assert elapsed_s(killed_s) < 0.5

    async def test_an_idle_stream_lives_on(self, ends: Ends) -> None:
        """The server bears pings that are closer together than gRPC permits by default."""
        answers = answering()
        async with served(ends, answers) as channel:
            call = link_grpc.AgentLinkStub(channel).Connect()
            await call.write(heartbeat(1))
            await call.read()

            await asyncio.sleep(NOTICED_S)
            await call.write(heartbeat(2))

            assert (await call.read()).heartbeat_ack.sequence == 2  # type: ignore[attr-defined]
            call.cancel()
