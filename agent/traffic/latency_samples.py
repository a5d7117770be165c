"""HAProxy tells the backend, status and duration of some requests, as datagrams on a unix socket.

There it also tells when a node's check falls. Datagrams nobody reads are dropped by HAProxy: no agent, no
figures, and requests go on as before.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
from collections.abc import Callable
from pathlib import Path

_FIELDS = 3
_OF_A_CHECK = b"Server "


class LatencySamples(asyncio.DatagramProtocol):
    """Calls `count` with a backend's name and milliseconds, and `on_fall` when a check has fallen."""

    def __init__(self, count: Callable[[str, float], None], on_fall: Callable[[], None]) -> None:
        self._count = count
        self._on_fall = on_fall

    def datagram_received(self, data: bytes, addr: object) -> None:
        del addr
        if data.startswith(_OF_A_CHECK):
            self._on_fall()
            return
        fields = data.split()
        if len(fields) != _FIELDS or not fields[2].isdigit():
            return  # Aborted before it was answered: it has no duration.
        # Whole milliseconds, cut off: on the average half a one more.
        self._count(fields[0].decode(errors="replace"), int(fields[2]) + 0.5)


async def listen(
    path: Path, count: Callable[[str, float], None], on_fall: Callable[[], None], *, user: str
) -> asyncio.DatagramTransport:
    """Receive samples until the transport is closed. Raises OSError."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: LatencySamples(count, on_fall), sock=_bound(path, user)
    )
    return transport


def _bound(path: Path, user: str) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        listener.setblocking(False)
        listener.bind(str(path))
        path.chmod(0o600)
        if user:
            os.chown(path, pwd.getpwnam(user).pw_uid, -1)
    except OSError:
        listener.close()
        raise
    return listener
