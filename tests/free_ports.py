"""Ports for servers of tests, on the loopback interface.

Below the range from which the kernel gives ports to outgoing connections: between the moment at which
a port was found free and the one at which a server binds it, a connection of another test, or of another
run beside this one, could take it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator

FIRST, END = 20_000, 32_000


def _sequence() -> Iterator[int]:
    """Each process begins elsewhere, so that two of them seldom look at one port at the same time."""
    size = END - FIRST
    # A multiplier that shares no factor with the size spreads neighbouring process ids.
    begin = os.getpid() * 4_801 % size
    return (FIRST + (begin + number) % size for number in itertools.count())


_candidates = _sequence()


def free_port(*, in_a_row: int = 1) -> int:
    """The first of that many ports in a row that nobody listens at; it is not given twice by this process."""
    for _ in range(END - FIRST):
        port = next(_candidates)
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for number in range(in_a_row):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port + number))
            for _ in range(in_a_row - 1):
                next(_candidates)
            return port
    raise AssertionError(f"no {in_a_row} ports in a row are free")
