"""Listening at the bridge's address whether or not the bridge is there.

Bridges come after those who listen on them, and somebody may delete one and have it made again: the
sockets stay, and work when the address does.
"""

from __future__ import annotations

import socket

# linux/in.h; Python has no name for it.
_IP_FREEBIND = 15


def bound_early(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    """A socket for datagrams, or for `listen`, that does not block. Raises OSError, e.g. when somebody has the port."""
    bound = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        bound.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind == socket.SOCK_STREAM:
            # Connections of the process before this one may not be over. For datagrams it would let two listen.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound
