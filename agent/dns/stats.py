"""What the name server has done, told to whoever connects to its socket.

A socket, not a file: nothing has to be written while nobody asks, and who is answered knows that it lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

SOCKET_NAME = "dns.sock"
STATS_MAX_BYTES = 64 * 1024
_TIMEOUT_S = 1.0


@dataclass(slots=True, kw_only=True)
class Counters:
    """Counted since the process began."""

    queries: int = 0
    ready: int = 0  # Answered with a reply that was made already.
    own: int = 0  # Made from the zone.
    no_such_name: int = 0  # Of those.
    malformed: int = 0
    not_ours: int = 0  # Packets of somebody who is neither a pod nor this host.
    refused: int = 0  # Too many at a time: not asked on, or not answered.
    unsent: int = 0  # Replies that the kernel did not take.
    failed: int = 0  # Faults of the server itself; the log says which.
    cache_hits: int = 0  # Of names that are not ours.
    stale: int = 0
    upstream_queries: int = 0
    upstream_failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsStats:
    """What it says of itself."""

    counters: Counters
    address: str = ""  # Where it listens; empty: nowhere.
    problem: str = ""  # Why not, or what else is wrong.
    services: int = 0
    zone_serial: int = 0  # When the zone was written, seconds since the Unix epoch.
    upstreams: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> DnsStats:
        """Raises ValueError, KeyError or TypeError on what is none."""
        facts = json.loads(text)
        return cls(
            counters=Counters(**facts["counters"]),
            address=str(facts["address"]),
            problem=str(facts["problem"]),
            services=int(facts["services"]),
            zone_serial=int(facts["zone_serial"]),
            upstreams=tuple(facts["upstreams"]),
        )


async def read_stats(path: Path) -> DnsStats | None:
    """What the server at this socket says. None: nobody answers there, or nothing that is understood."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                text = await reader.read(STATS_MAX_BYTES)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        return DnsStats.from_json(text)
    except (OSError, ValueError, KeyError, TypeError):  # TimeoutError is an OSError.
        return None
