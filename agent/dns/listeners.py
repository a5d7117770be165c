"""Where clients come in: UDP and TCP at one address. Whoever is neither a pod nor this host is not answered."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Network
from typing import Any

import structlog

from agent.dns.messages import UDP_MAX_BYTES
from agent.dns.responder import Reply, Responder
from agent.dns.shares import Shares
from agent.dns.stats import Counters
from agent.network.early_bind import bound_early

log = structlog.get_logger(__name__)

# Taken at a time, before others have their turn.
DATAGRAMS_AT_A_TIME = 64
# A question has 300 bytes at most; the rest is for options, of which each takes its time.
QUERY_MAX_BYTES = UDP_MAX_BYTES
RECEIVE_BUFFER_BYTES = 2**20
# Queries that wait for others' answers.
WAITING_MAX = 2000
WAITING_OF_CLIENT_MAX = 200
CONNECTIONS_MAX = 200
CONNECTIONS_OF_CLIENT_MAX = 20
CONNECTION_IDLE_S = 10.0
_LENGTH_BYTES = 2
_LOOPBACK = IPv4Network("127.0.0.0/8")

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Clients:
    """Who may ask. Asked of every packet, so it compares whole numbers."""

    def __init__(self, networks: tuple[IPv4Network, ...]) -> None:
        self._masks = [(int(each.netmask), int(each.network_address)) for each in (*networks, _LOOPBACK)]

    def __contains__(self, host: str) -> bool:
        number = int.from_bytes(socket.inet_aton(host))
        return any(number & mask == network for mask, network in self._masks)


class Listeners:
    """Both sockets, from `open` to `close`.

    Args:
        spawn: starts a task that ends with the server.
    """

    def __init__(self, responder: Responder, counters: Counters, spawn: Spawn, *, port: int) -> None:
        self._responder = responder
        self._counters = counters
        self._spawn = spawn
        self._port = port
        self._clients = Clients(())
        self._shares = Shares()
        self._waiting: Counter[str] = Counter()
        self._connections: Counter[str] = Counter()
        self._datagrams: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self.address = ""

    async def open(self, address: str, clients: Clients) -> None:
        """Listen at `address`, and no longer where it was. Raises OSError."""
        self.close()
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as if_failed:
            datagrams = if_failed.enter_context(bound_early(socket.SOCK_DGRAM, address, self._port))
            streams = if_failed.enter_context(
                bound_early(socket.SOCK_STREAM, address, datagrams.getsockname()[1])
            )
            self._server = await asyncio.start_server(self._connected, sock=streams)
            if_failed.pop_all()
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self._datagrams = datagrams
        self._clients = clients
        loop.add_reader(datagrams, self._readable, datagrams)
        self.address = address

    @property
    def port(self) -> int:
        """The one it has, where it was left to the kernel."""
        return int(self._datagrams.getsockname()[1]) if self._datagrams is not None else self._port

    def close(self) -> None:
        if self._datagrams is not None:
            asyncio.get_running_loop().remove_reader(self._datagrams)
            self._datagrams.close()
            self._datagrams = None
        if self._server is not None:
            self._server.close()
            self._server = None
        self.address = ""

    # UDP

    def _readable(self, datagrams: socket.socket) -> None:
        # Not asyncio's own transport: it takes one datagram a turn of the loop, at half the rate.
        now_s = asyncio.get_running_loop().time()
        for _ in range(DATAGRAMS_AT_A_TIME):
            try:
                wire, client = datagrams.recvfrom(QUERY_MAX_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("datagram.not_received", error=str(error))
                return
            self._received(datagrams, wire, client, now_s)

    def _received(self, datagrams: socket.socket, wire: bytes, client: tuple[str, int], now_s: float) -> None:
        host = client[0]
        if host not in self._clients:
            self._counters.not_ours += 1
            return
        reply = self._respond(host, wire, now_s)
        if isinstance(reply, bytes):
            self._send(datagrams, reply, client)
        elif reply is not None:
            if self._waiting.total() >= WAITING_MAX or self._waiting[host] >= WAITING_OF_CLIENT_MAX:
                # It asks again by itself; by then others may have been served.
                self._counters.refused += 1
                reply.close()
                return
            self._waiting[host] += 1
            self._spawn(self._send_later(datagrams, reply, client))

    def _respond(self, host: str, wire: bytes, now_s: float, *, is_tcp: bool = False) -> Reply:
        """None, too, for who has had its share: it asks again by itself."""
        began_s = self._shares.begin()
        if self._shares.is_used_up(host):
            self._counters.refused += 1
            return None
        reply = self._responder.respond(wire, now_s, is_tcp=is_tcp)
        self._shares.end(host, began_s, is_forwarded=reply is not None and not isinstance(reply, bytes))
        return reply

    async def _send_later(
        self, datagrams: socket.socket, reply: Coroutine[Any, Any, bytes], client: tuple[str, int]
    ) -> None:
        try:
            self._send(datagrams, await reply, client)
        except Exception:
            self._counters.failed += 1
            log.exception("query.failed", client=client[0])
        finally:
            _count_down(self._waiting, client[0])

    def _send(self, datagrams: socket.socket, reply: bytes, client: tuple[str, int]) -> None:
        try:
            datagrams.sendto(reply, client)
        except OSError:
            # The bridge may be gone, the buffer full, the socket closed for another one: the client asks again.
            self._counters.unsent += 1

    # TCP

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = str(writer.get_extra_info("peername")[0])
        is_one_too_many = (
            self._connections.total() >= CONNECTIONS_MAX
            or self._connections[host] >= CONNECTIONS_OF_CLIENT_MAX
        )
        self._connections[host] += 1
        try:
            if host not in self._clients:
                self._counters.not_ours += 1
            elif is_one_too_many:
                self._counters.refused += 1
            else:
                await self._converse(host, reader, writer)
        except (OSError, asyncio.IncompleteReadError):  # TimeoutError is an OSError.
            pass  # It went away, or had nothing more to say.
        except Exception:
            self._counters.failed += 1
            log.exception("query.failed", client=host)
        finally:
            _count_down(self._connections, host)
            writer.close()

    async def _converse(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            async with asyncio.timeout(CONNECTION_IDLE_S):
                length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES))
                if length > QUERY_MAX_BYTES:
                    return
                wire = await reader.readexactly(length)
            reply = self._respond(host, wire, loop.time(), is_tcp=True)
            if reply is None:
                return
            text = reply if isinstance(reply, bytes) else await reply
            writer.write(len(text).to_bytes(_LENGTH_BYTES) + text)
            async with asyncio.timeout(CONNECTION_IDLE_S):
                await writer.drain()


def _count_down(counter: Counter[str], host: str) -> None:
    counter[host] -= 1
    if not counter[host]:
        del counter[host]
