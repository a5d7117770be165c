"""HTTP/2 by hand, for what a well-behaved client never does. RFC 9113; headers are literals without Huffman."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.attacks.world import Member, World

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
CANCEL = 8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header(name: str, value: str) -> bytes:
    return b"\0" + _string(name.encode()) + _string(value.encode())


def _string(content: bytes) -> bytes:
    length = len(content)
    if length < 127:
        return bytes([length]) + content
    encoded, rest = bytearray([127]), length - 127
    while rest >= 128:
        encoded.append(rest % 128 + 128)
        rest //= 128
    return bytes([*encoded, rest]) + content


def call_headers(path: str, *extra: tuple[str, str]) -> bytes:
    """The header block of a call."""
    fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "manager"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *extra,
    ]
    return b"".join(header(name, value) for name, value in fields)


def message(content: bytes, *, compressed: bool = False) -> bytes:
    """As gRPC frames it within DATA."""
    return struct.pack(">BI", compressed, len(content)) + content


class Connection:
    """One, with what the server has said on it so far."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.seen: Counter[int] = Counter()  # Frames by kind.
        self.settings: dict[int, int] = {}
        self.ended: set[int] = set()  # Streams.

    def send(self, *frames: bytes) -> None:
        self._writer.write(b"".join(frames))

    async def drain(self) -> None:
        """Raises ConnectionError when the server has closed."""
        await self._writer.drain()

    async def read(self, *, for_s: float) -> bool:
        """Take in what comes for so long; whether the connection is open then."""
        try:
            async with asyncio.timeout(for_s):
                while True:
                    await self._read_one()
        except TimeoutError:
            return True
        except (asyncio.IncompleteReadError, OSError):
            return False

    async def _read_one(self) -> None:
        head = await self._reader.readexactly(9)
        kind, flags, stream = head[3], head[4], struct.unpack(">I", head[5:])[0]
        payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        self.seen[kind] += 1
        if kind == SETTINGS and not flags & ACK:
            self.settings |= dict(struct.iter_unpack(">HI", payload))
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM or (kind in (HEADERS, DATA) and flags & END_STREAM):
            self.ended.add(stream)


@asynccontextmanager
async def connection(
    world: World, address: str, source: str, member: Member | None, *, greets: bool = True
) -> AsyncIterator[Connection]:
    """To a manager's port, past the handshake of TLS. `greets`: with the preface of HTTP/2."""
    host, _, port = address.rpartition(":")
    context = await asyncio.to_thread(_context, world, member)
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=context, local_addr=(source, 0), server_hostname="manager"
    )
    try:
        made = Connection(reader, writer)
        if greets:
            made.send(PREFACE, frame(SETTINGS, 0, 0))
        yield made
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _context(world: World, member: Member | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if member is not None:
        # Python's ssl takes files alone.
        with tempfile.NamedTemporaryFile(dir=world.directory) as file:
            file.write(member.credentials.key_pem + member.credentials.certificates_pem)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def in_frames(content: bytes, stream: int, *, size: int = 16384) -> Sequence[bytes]:
    """`content` as DATA."""
    return [frame(DATA, 0, stream, content[at : at + size]) for at in range(0, len(content), size)]
