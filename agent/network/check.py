"""Does this node reach every other over the pods' network? Tried, not concluded: for `bay doctor network`.

Each peer is asked at its bridge's address, from ours, so packets go the way that pods' packets go. Five
things, since each breaks alone: a route (address), the peer's name server (name), connections that carry
data (tcp), datagrams (udp), and full-size packets (mtu), which tunnels lose first.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from ipaddress import IPv4Network

import dns.message
import dns.rcode
import dns.rdatatype

from agent.dns.exchange import DNS_PORT, ask_server
from agent.network.credible import unreachable_peers
from agent.network.table import NetworkTable
from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as pb

TRY_S = 2.0
PEERS_AT_A_TIME = 100
# More than any window of a new connection: some of it has to be acknowledged.
ECHO_BYTES = 64 * 1024
# Datagrams may be lost.
DATAGRAM_TRIES = 4
IP_AND_UDP_BYTES = 28
# A datagram's length has 16 bits; loopback's MTU is larger.
MTU_MAX_BYTES = 65535
# Tried when full-size packets are lost, to say what would pass: Ethernet less common tunnels, and IPv6's minimum.
SMALLER_BYTES = (1500, 1450, 1420, 1400, 1280, 576)
# linux/in.h; Python has no names for them.
_IP_MTU_DISCOVER, _IP_PMTUDISC_DO, _IP_MTU = 10, 2, 14


# With more peers than these only what fails is listed, and what works is counted: nobody reads so many lines.
LISTED_PEERS_MAX = 30
LISTED_FAILURES_MAX = 100


class PathError(Exception):
    """What is wrong, in words."""


class Checker:
    """Tries the peers whenever a manager asks. One per agent.

    Args:
        node: this one.
        echo_port: of every node's echo.
        send: gives the result to the leader.
    """

    def __init__(self, node: str, *, echo_port: int, send: Callable[[pb.AgentMessage], None]) -> None:
        self._node = node
        self._echo_port = echo_port
        self._send = send
        self._network = NetworkTable()
        self._asked = asyncio.Event()
        self._request = 0

    def use(self, network: NetworkTable, traffic: TrafficTable) -> None:  # noqa: ARG002 - as all parts have it
        """Who the peers are from now on."""
        self._network = network

    def ask(self, request: pb.NetworkCheck) -> None:
        """The latest request alone is answered: who asked before has given up, or gets the same."""
        self._request = request.request
        self._asked.set()

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            request = self._request
            paths = await try_peers(self._node, self._network, echo_port=self._echo_port)
            self._send(pb.AgentMessage(network_check=result_of(request, paths)))


def result_of(request: int, paths: Sequence[pb.NetworkPath]) -> pb.NetworkCheckResult:
    """What the leader is told of `paths`: of 300 nodes it hears 300 times, and must not be held up by it."""
    if len({path.to for path in paths}) <= LISTED_PEERS_MAX:
        return pb.NetworkCheckResult(request=request, paths=paths)
    failed = [path for path in paths if not path.ok]
    return pb.NetworkCheckResult(
        request=request,
        paths=failed[:LISTED_FAILURES_MAX],
        healthy=len(paths) - len(failed),
        failed=max(0, len(failed) - LISTED_FAILURES_MAX),
    )


async def try_peers(
    node: str, network: NetworkTable, *, echo_port: int, dns_port: int = DNS_PORT
) -> list[pb.NetworkPath]:
    """Every path from `node`. Takes a few seconds at most per `PEERS_AT_A_TIME` peers."""
    if network.settings is None:
        return []
    at_a_time = asyncio.Semaphore(PEERS_AT_A_TIME)
    source, domain = str(network.gateway), network.settings.domain

    async def try_peer(peer: pb.NetworkPeer) -> list[pb.NetworkPath]:
        target = str(IPv4Network(peer.subnet)[1])
        tries: dict[str, Callable[[], Awaitable[str]]] = {
            "address": lambda: _connect(source, target, echo_port),
            "name": lambda: _ask_name(source, target, dns_port, domain),
            "tcp": lambda: _echo_stream(source, target, echo_port),
            "udp": lambda: _echo_datagram(source, target, echo_port),
            "mtu": lambda: _echo_full_size(source, target, echo_port),
        }
        async with at_a_time:
            outcomes = await asyncio.gather(*(_outcome(each) for each in tries.values()))
        return [
            pb.NetworkPath(**{"from": node}, to=peer.node, what=what, ok=ok, detail=detail)
            for what, (ok, detail) in zip(tries, outcomes, strict=True)
        ]

    unreachable = unreachable_peers(network)
    paths = [
        pb.NetworkPath(**{"from": node}, to=name, what="address", ok=False, detail=why)
        for name, why in sorted(unreachable.items())
    ]
    async with asyncio.TaskGroup() as parts:
        tasks = [
            parts.create_task(try_peer(network.peers[name]))
            for name in sorted(network.peers.keys() - unreachable.keys())
        ]
    return paths + [path for task in tasks for path in task.result()]


async def _outcome(attempt: Callable[[], Awaitable[str]]) -> tuple[bool, str]:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        async with asyncio.timeout(TRY_S):
            detail = await attempt()
    except TimeoutError:
        return False, f"no answer in {TRY_S:g} s"
    except PathError as error:
        return False, str(error)
    except OSError as error:
        # asyncio's own text names the call and the address: the reason is in the number.
        return False, os.strerror(error.errno).lower() if error.errno else str(error)
    return True, detail or f"{(loop.time() - began_s) * 1000:.1f} ms"


async def _connect(source: str, target: str, port: int) -> str:
    async with _connection(source, target, port):
        return ""


async def _echo_stream(source: str, target: str, port: int) -> str:
    content = bytes(range(256)) * (ECHO_BYTES // 256)
    async with _connection(source, target, port) as (reader, writer):
        writer.write(content)
        try:
            returned = await reader.readexactly(len(content))
        except asyncio.IncompleteReadError as error:
            raise PathError(f"closed after {len(error.partial)} of {len(content)} bytes") from error
    if returned != content:
        raise PathError("what came back is not what was sent")
    return ""


async def _echo_datagram(source: str, target: str, port: int) -> str:
    with _datagrams(source, target, port) as asking:
        await _echo(asking, b"bayplan", tries=DATAGRAM_TRIES, within_s=TRY_S)
    return ""


async def _echo_full_size(source: str, target: str, port: int) -> str:
    """Don't-fragment packets as large as the way to there claims to carry."""
    with _datagrams(source, target, port) as asking:
        asking.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
        claimed = min(MTU_MAX_BYTES, asking.getsockopt(socket.IPPROTO_IP, _IP_MTU))
        # Half of the time for the size that must pass, the rest for what does.
        within_s = TRY_S / 2 / len(SMALLER_BYTES)
        if await _passes(asking, claimed, tries=DATAGRAM_TRIES, within_s=TRY_S / 2):
            return f"{claimed} bytes"
        for size in SMALLER_BYTES:
            if size < claimed and await _passes(asking, size, tries=1, within_s=within_s * 0.9):
                raise PathError(f"packets of {claimed} bytes are lost, {size} pass")
    raise PathError(f"packets of {claimed} bytes are lost, and all smaller ones")


async def _passes(asking: socket.socket, size: int, *, tries: int, within_s: float) -> bool:
    content = size.to_bytes(4) + bytes(size - IP_AND_UDP_BYTES - 4)
    try:
        async with asyncio.timeout(within_s):
            await _echo(asking, content, tries=tries, within_s=within_s)
    except TimeoutError:
        return False
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            return False  # The kernel has learned of a narrower part of the way.
        raise
    return True


async def _echo(asking: socket.socket, content: bytes, *, tries: int, within_s: float) -> None:
    """Until it comes back; the caller says how long that may take."""
    loop = asyncio.get_running_loop()
    for _ in range(tries):
        asking.send(content)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s / tries):
                while await loop.sock_recv(asking, MTU_MAX_BYTES) != content:
                    pass  # Late, from a try before.
                return
    raise TimeoutError


async def _ask_name(source: str, target: str, port: int, domain: str) -> str:
    """Every name server knows itself under one name, so the answer shows which one answered."""
    name = f"ns.dns.{domain}."
    answer = await ask_server(target, dns.message.make_query(name, "A"), port=port, source=source)
    if answer.rcode() != dns.rcode.NOERROR:
        raise PathError(f"{name} {dns.rcode.to_text(answer.rcode())}")
    found = [data.to_text() for rrset in answer.answer if rrset.rdtype == dns.rdatatype.A for data in rrset]
    if found != [target]:
        raise PathError(f"{name} is {', '.join(found) or 'nothing'} there, not {target}")
    return ""


@contextlib.asynccontextmanager
async def _connection(
    source: str, target: str, port: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(target, port, local_addr=(source, 0))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _datagrams(source: str, target: str, port: int) -> socket.socket:
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        asking.bind((source, 0))
        asking.connect((target, port))
    except OSError:
        asking.close()
        raise
    return asking
