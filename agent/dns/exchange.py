"""One question to one name server, over UDP and, where the answer is cut short, over TCP.

Every question has a socket of its own, so its port is the kernel's random choice, and an id of its own: who
wants to slip in an answer has to guess both. What does not fit the question is passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import dns.exception
import dns.flags
import dns.message

DNS_PORT = 53
DATAGRAM_MAX_BYTES = 65535
# Answers to other questions than ours: somebody guesses, or the server is broken.
STRANGE_MAX = 32
_LENGTH_BYTES = 2


class StrangeAnswersError(OSError):
    """Nothing that came was an answer to the question."""


async def ask_server(
    server: str, query: dns.message.Message, *, port: int = DNS_PORT, source: str = ""
) -> dns.message.Message:
    """The answer, whatever it says. Raises OSError; the caller says how long it waits.

    Args:
        server: its address.
        query: with an id of its own.
        port: where it listens.
        source: our own address that the question is to come from; empty: the kernel's choice.
    """
    answer = await _over_udp(server, port, query, source)
    if answer.flags & dns.flags.TC:
        answer = await _over_tcp(server, port, query, source)
    return answer


async def _over_udp(server: str, port: int, query: dns.message.Message, source: str) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    family, _, _, _, address = socket.getaddrinfo(
        server, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
    )[0]
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as asking:
        if source:
            asking.bind((source, 0))
        # Connected: the kernel drops what comes from elsewhere, and tells when nobody listens there.
        asking.connect(address)
        asking.send(query.to_wire())
        for _ in range(STRANGE_MAX):
            answer = _read(await loop.sock_recv(asking, DATAGRAM_MAX_BYTES), query)
            if answer is not None:
                return answer
    raise StrangeAnswersError(f"{server}: answers that do not fit the question")


async def _over_tcp(server: str, port: int, query: dns.message.Message, source: str) -> dns.message.Message:
    local = (source, 0) if source else None
    reader, writer = await asyncio.open_connection(server, port, local_addr=local)
    try:
        writer.write(query.to_wire(prepend_length=True))
        length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES))
        answer = _read(await reader.readexactly(length), query)
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError(f"{server}: closed before the answer was complete") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    if answer is None:
        raise StrangeAnswersError(f"{server}: an answer that does not fit the question")
    return answer


def _read(wire: bytes, query: dns.message.Message) -> dns.message.Message | None:
    """None: it is no answer to `query`."""
    try:
        answer = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return None
    return answer if query.is_response(answer) else None
