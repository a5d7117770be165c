"""A TCP proxy that misbehaves on purpose: delay, stall, lost replies, resets, refusal."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct


class ChaosProxy:
    """Stands before one server. Its knobs may be turned at any time and act at once."""

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = target_host, target_port
        self.delay_s = 0.0  # Of each piece of data, both ways.
        self.is_dropping_replies = False  # What the server says is lost; requests get through.
        self.is_refusing = False  # New connections are closed at once.
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def stall(self) -> None:
        """Hold everything back, both ways, as a cut link does: nobody is told."""
        self._flowing.clear()

    def flow(self) -> None:
        """Undo `stall`: what was held back is sent on."""
        self._flowing.set()

    def reset(self) -> None:
        """Break all connections with RST."""
        for writer in list(self._writers):
            raw: socket.socket = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._join(reader, writer)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._connections.discard(connection)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_refusing:
            return
        # A stalled link accepts no connection either; the kernel did, but nothing goes through.
        await self._flowing.wait()
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        self._writers.add(server_writer)
        try:
            pumps = {
                asyncio.ensure_future(self._pump(reader, server_writer, are_replies=False)),
                asyncio.ensure_future(self._pump(server_reader, writer, are_replies=True)),
            }
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            server_writer.transport.abort()
            self._writers.discard(server_writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, are_replies: bool
    ) -> None:
        while data := await reader.read(65536):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self._flowing.wait()
            if not (are_replies and self.is_dropping_replies):
                writer.write(data)
                await writer.drain()
