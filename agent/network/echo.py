"""Gives back what it gets, over TCP and UDP on the bridge's address: what other nodes' checks of the network ask for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address

import structlog

from agent.network.early_bind import bound_early
from agent.network.table import NetworkTable
from agent.traffic.table import TrafficTable

log = structlog.get_logger(__name__)

BIND_RETRY_S = 5.0
DATAGRAM_MAX_BYTES = 65535
DATAGRAMS_AT_A_TIME = 16
# Checks are small and rare; whoever wants more than that is no check.
CONNECTIONS_MAX = 64
CONNECTION_S = 5.0
CHUNK_BYTES = 64 * 1024


class Echo:
    """One per agent.

    Args:
        port: of both protocols.
    """

    def __init__(self, *, port: int) -> None:
        self._port = port
        self._address: IPv4Address | None = None
        self._changed = asyncio.Event()
        self._connections = 0

    def use(self, network: NetworkTable, traffic: TrafficTable) -> None:  # noqa: ARG002 - as all parts have it
        """Listen at this node's address in it."""
        address = network.gateway if network.settings is not None else None
        if address != self._address:
            self._address = address
            self._changed.set()

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            self._changed.clear()
            if self._address is None:
                await self._changed.wait()
                continue
            try:
                async with self._listening(str(self._address)):
                    await self._changed.wait()
            except OSError as error:
                # Without it other nodes' checks of this one fail, and say so: still a node.
                log.warning("echo_port.not_bound", address=str(self._address), error=str(error))
                await asyncio.sleep(BIND_RETRY_S)

    @contextlib.asynccontextmanager
    async def _listening(self, address: str) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        with (
            bound_early(socket.SOCK_DGRAM, address, self._port) as datagrams,
            bound_early(socket.SOCK_STREAM, address, self._port) as streams,
        ):
            server = await asyncio.start_server(self._connected, sock=streams)
            loop.add_reader(datagrams, self._readable, datagrams)
            try:
                yield
            finally:
                loop.remove_reader(datagrams)
                server.close()

    def _readable(self, datagrams: socket.socket) -> None:
        for _ in range(DATAGRAMS_AT_A_TIME):
            try:
                content, sender = datagrams.recvfrom(DATAGRAM_MAX_BYTES)
                # Two of us would give a forged packet back to each other for ever.
                if sender[1] != self._port:
                    datagrams.sendto(content, sender)
            except OSError:  # BlockingIOError: no more. Anything else: who sent it asks again.
                return

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= CONNECTIONS_MAX:
                async with asyncio.timeout(CONNECTION_S):
                    while content := await reader.read(CHUNK_BYTES):
                        writer.write(content)
                        await writer.drain()
        except OSError:  # TimeoutError is one.
            pass
        finally:
            self._connections -= 1
            writer.close()
