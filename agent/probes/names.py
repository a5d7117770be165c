"""Hosts that probes name, looked up in threads of their own.

While no name server answers each takes a thread for many seconds, and the loop's own few write the journal: one
pod's probe must not hold that up.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address

from aiohttp.abc import AbstractResolver, ResolveResult

THREADS_MAX = 4


class Names(AbstractResolver):
    """One per agent: aiohttp's resolver, and everybody else's."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="probed-names")

    async def addresses(self, host: str) -> list[str]:
        """At least one; of an address itself. Raises OSError."""
        with contextlib.suppress(ValueError):
            return [str(ip_address(host))]
        return [each["host"] for each in await self.resolve(host)]

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises OSError."""
        look_up = partial(socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [
            ResolveResult(
                hostname=host,
                host=str(place[0]),
                port=port,
                family=family,
                proto=proto,
                flags=socket.AI_NUMERICHOST,
            )
            for family, _, proto, _, place in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
