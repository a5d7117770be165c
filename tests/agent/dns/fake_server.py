"""A name server on real sockets, which says what a test wants it to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import dns.message

# From one query to the datagrams, or messages over TCP, that go back.
Says = Callable[[dns.message.Message], Iterable[bytes]]

# Not 127.0.0.1: a connection of anybody on this host may have the same port there.
HOST = "127.0.0.53"


@dataclass
class FakeServer:
    port: int
    datagrams: list[tuple[str, int]] = field(default_factory=list)  # Who asked.
    connections: int = 0


@asynccontextmanager
async def a_server(udp: Says, tcp: Says | None = None) -> AsyncIterator[FakeServer]:
    """Both on one port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as datagrams:
        datagrams.bind((HOST, 0))
        fake = FakeServer(port=datagrams.getsockname()[1])
        loop = asyncio.get_running_loop()

        def readable() -> None:
            wire, client = datagrams.recvfrom(65535)
            fake.datagrams.append(client)
            for each in udp(dns.message.from_wire(wire)):
                datagrams.sendto(each, client)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            fake.connections += 1
            wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            for each in (tcp or udp)(dns.message.from_wire(wire)):
                writer.write(len(each).to_bytes(2) + each)
            writer.close()

        server = await asyncio.start_server(connected, HOST, fake.port)
        loop.add_reader(datagrams, readable)
        try:
            yield fake
        finally:
            loop.remove_reader(datagrams)
            server.close()
