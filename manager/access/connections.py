"""How many connections one address may hold at the two ports: beyond that the newest are cut.

gRPC limits what goes on within a connection and has no hook at which to count them, so this looks
at the sockets of the process itself, once a second. Each costs a file descriptor, and 20 KiB from its
first byte on (measured): a host that opens thousands would keep everybody else out.

A look takes 8 µs a socket, in a thread: 0.1 ms with a few, 16 ms with 2,000 agents.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

import structlog

log = structlog.get_logger(__name__)

# Behind one address of a NAT there may be a network of agents, each with its stream and a few for logs.
MAIN_PER_ADDRESS_MAX = 256
# Who joins does so once; a load balancer asks for health.
JOIN_PER_ADDRESS_MAX = 32
LOOK_EVERY_S = 1.0

_DESCRIPTORS = "/proc/self/fd"
_SPARE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Connections that one address may hold, by port; others' ports are not looked at."""

    main: int = MAIN_PER_ADDRESS_MAX
    joining: int = JOIN_PER_ADDRESS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class _Peer:
    """The other end of a connection to one of the ports."""

    port: int  # Ours.
    address: str


class Connections:
    """Of one manager. `run` it while it serves.

    Args:
        ports: main and join port; 0 for one that is not served.
        managers: addresses, host:port, which have no limit: a manager passes agents on, a connection for each.
    """

    def __init__(
        self,
        ports: tuple[int, int],
        limits: ConnectionLimits | None = None,
        *,
        managers: Callable[[], Iterable[str]] = lambda: (),
    ) -> None:
        self._ports = ports
        self._limits = limits or ConnectionLimits()
        self._managers = managers
        # Looking and cutting take a descriptor or two, and when all are in use it matters most.
        self._spare: list[int] = []
        # Sockets by inode, oldest first: an inode outlives no socket, a descriptor's number does.
        self._known: dict[str, _Peer | None] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                cut = await asyncio.to_thread(self.look)
            except OSError as error:
                log.error("connections.not_looked_at", error=str(error))  # noqa: TRY400 - says all
                continue
            for (port, address), count in cut.items():
                log.warning("connections.cut", address=address, port=port, count=count)

    def look(self) -> dict[tuple[int, str], int]:
        """Cut what is beyond the limits; returns how many, by port and address. Raises OSError."""
        while self._spare:
            os.close(self._spare.pop())
        try:
            return self._look()
        finally:
            with suppress(OSError):
                while len(self._spare) < _SPARE:
                    self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _look(self) -> dict[tuple[int, str], int]:
        managers = _addresses(self._managers())
        limits = {
            port: most
            for port, most in zip(self._ports, (self._limits.main, self._limits.joining), strict=True)
            if port
        }
        held: dict[tuple[int, str], list[tuple[str, int]]] = defaultdict(list)
        for inode, descriptor, peer in self._peers(limits):
            if peer.address in managers:
                continue
            held[peer.port, peer.address].append((inode, descriptor))
        cut: dict[tuple[int, str], int] = {}
        for (port, address), sockets in held.items():
            # Those that were there before are somebody's streams; those that came last are the flood.
            count = sum(_cut(inode, descriptor) for inode, descriptor in sockets[limits[port] :])
            if count:
                cut[port, address] = count
        return cut

    def _peers(self, ports: dict[int, int]) -> list[tuple[str, int, _Peer]]:
        """(inode, descriptor, peer) of every connection that counts, oldest first."""
        descriptors = _sockets()
        self._known = {inode: peer for inode, peer in self._known.items() if inode in descriptors}
        # Roughly as they were made: each processor numbers sockets from a batch of its own.
        for inode in sorted(descriptors.keys() - self._known.keys(), key=lambda each: int(each[8:-1])):
            self._known[inode] = self._peer(inode, descriptors[inode], ports)
        return [(inode, descriptors[inode], peer) for inode, peer in self._known.items() if peer is not None]

    def _peer(self, inode: str, descriptor: int, ports: dict[int, int]) -> _Peer | None:
        """None of what does not count: other sockets, and those that were closed meanwhile."""
        try:
            seen = socket.socket(fileno=descriptor)
        except OSError:
            return None
        try:
            if seen.family not in (socket.AF_INET, socket.AF_INET6) or seen.type != socket.SOCK_STREAM:
                return None
            port, remote = int(seen.getsockname()[1]), str(seen.getpeername()[0])
        except OSError:
            return None  # It listens, or its peer has gone.
        finally:
            seen.detach()  # It is gRPC's: closing is for gRPC alone.
        # Looked at by number: in between another socket may have taken its place.
        if port not in ports or _inode(descriptor) != inode:
            return None
        return _Peer(port=port, address=_host(remote))


def _addresses(managers: Iterable[str]) -> set[str]:
    """Of `host:port`; a name that does not resolve now has none."""
    found: set[str] = set()
    for each in managers:
        with suppress(OSError):
            found |= {
                _host(str(info[4][0]))
                for info in socket.getaddrinfo(each.rpartition(":")[0].strip("[]"), None)
            }
    return found


def _sockets() -> dict[str, int]:
    """Inode → descriptor of every socket of this process."""
    found = {}
    for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208 - a Path for each would cost more than the rest
        inode = _inode(int(name))
        if inode.startswith("socket:"):
            found[inode] = int(name)
    return found


def _inode(descriptor: int) -> str:
    """`socket:[12345]`; empty when it is closed."""
    try:
        return os.readlink(f"{_DESCRIPTORS}/{descriptor}")  # noqa: PTH115 - as above
    except OSError:
        return ""


def _cut(inode: str, descriptor: int) -> bool:
    """End a connection; gRPC sees it as closed by the other side, and closes it."""
    try:
        own = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return False
    with own:
        # The duplicate cannot change hands any more: now it is certain which socket this is.
        if _inode(own.fileno()) != inode:
            return False
        try:
            own.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
    return True


def _host(address: str) -> str:
    """What counts as one address. An IPv6 host has a whole /64."""
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is None:
            return parsed.exploded[:19]
        parsed = parsed.ipv4_mapped
    return str(parsed)
