"""A process of its own for tests that freeze and kill: `serve`, or `call ADDRESS`."""

from __future__ import annotations

import asyncio
import sys

import grpc.aio

from bayplan.transport.grpc import GrpcTransport
from bayplan.v1 import agent_link_pb2_grpc as link_grpc
from tests.contracts.transport import Ends, answering, heartbeat, served


async def serve() -> None:
    transport = GrpcTransport()
    answers = answering()
    async with served(Ends(transport, transport, "127.0.0.1"), answers):
        assert answers.listener
        print(answers.listener.port, flush=True)  # noqa: T201 - read by the test
        await asyncio.Event().wait()


async def call(address: str) -> None:
    """Print "connected", and the code by which the stream ends."""
    async with GrpcTransport().channel(address) as channel:
        stream = link_grpc.AgentLinkStub(channel).Connect()
        await stream.write(heartbeat(1))
        await stream.read()
        print("connected", flush=True)  # noqa: T201 - read by the test
        try:
            await stream.read()
        except grpc.aio.AioRpcError as error:
            print(error.code().name, flush=True)  # noqa: T201 - read by the test


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1] == "serve" else call(sys.argv[2]))
