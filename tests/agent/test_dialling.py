"""The session over real sockets."""

from __future__ import annotations

import asyncio
import random
import socket
from unittest.mock import AsyncMock, Mock

import pytest

from agent import session
from agent.route import Route
from agent.session import Session
from bayplan.transport.grpc import GrpcTransport
from bayplan.v1 import agent_link_pb2 as pb


class SilentManager:
    """Takes connections and never says a word, as one does that is frozen."""

    def __init__(self) -> None:
        self.is_dialled = asyncio.Event()

        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    async def run(self) -> None:
        """Until cancelled."""
        connections = []
        try:
            while True:
                connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
                connections.append(connection)
                self.is_dialled.set()
        finally:
            for each in (*connections, self._listener):
                each.close()


class TestSilentManagers:
    async def test_each_is_left_for_the_next(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Before gRPC itself gives the connection up, as after a stall of the whole host.
        monkeypatch.setattr(session, "GREETING_TIMEOUT_S", 0.2)
        managers = [SilentManager() for _ in range(3)]
        dialling = Session(
            Mock(hello=AsyncMock(return_value=pb.Hello(node="n1"))),
            board=Mock(),
            transport=GrpcTransport(),
            route=Route([each.address for each in managers], random.Random(0)),
        )
        running = [
            asyncio.create_task(dialling.run()),
            *(asyncio.create_task(each.run()) for each in managers),
        ]
        try:
            async with asyncio.timeout(10):
                for manager in managers:
                    await manager.is_dialled.wait()
        finally:
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)
