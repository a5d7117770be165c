"""Programs that answer probes, well or as badly as can be, on sockets of this host."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from agent.runtime.port import Container, ContainerState

Talk = Callable[["Server", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

LOOPBACK = "127.0.0.1"


def a_container(address: str = LOOPBACK) -> Container:
    return Container(
        id="c" * 64,
        name="bay-web-0-web-0",
        labels={},
        state=ContainerState.RUNNING,
        image="app",
        image_id="sha256:1",
        created_s=1.0,
        started_s=1.0,
        address=address,
    )


class Server:
    """Keeps the requests it got, and how much it could send."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.port = 0
        self.requests: list[str] = []
        self.sent_bytes = 0

    async def heard(self, reader: asyncio.StreamReader) -> str:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(request)
        return request

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever probes leaves when it has seen enough.
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._talk(self, reader, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def serving(
    talk: Talk,
    *,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Server]:
    server = Server(talk)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(server.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(accept, LOOPBACK, 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answering(status: str, *headers: str, body: bytes = b"") -> Talk:
    """Always the same answer."""

    async def talk(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.heard(reader)
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()

    return talk


async def hang(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the request and say nothing."""
    del writer
    await server.heard(reader)
    await asyncio.Event().wait()


async def hang_in_body(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await server.heard(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhal")
    await writer.drain()
    await asyncio.Event().wait()


async def hang_up(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection instead of answering."""
    del writer
    await server.heard(reader)


async def flood_body(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """100 MB."""
    await server.heard(reader)
    piece = b"x" * 65536
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
    for _ in range(1600):
        writer.write(piece)
        await writer.drain()
        server.sent_bytes += len(piece)


async def flood_headers(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await server.heard(reader)
    writer.write(b"HTTP/1.1 200 OK\r\n")
    number = 0
    while True:
        writer.write(b"X-%d: y\r\n" % number)
        await writer.drain()
        number += 1
        server.sent_bytes += 10


async def flood_one_header(
    server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await server.heard(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"y" * 65536)
        await writer.drain()
        server.sent_bytes += 65536


async def drip(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte now and then, for ever."""
    await server.heard(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.02)


async def redirect_for_ever(
    server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await server.heard(reader)
    location = f"Location: /again/{len(server.requests)}"
    writer.write(f"HTTP/1.1 302 Found\r\n{location}\r\nContent-Length: 0\r\n\r\n".encode())
    await writer.drain()


async def babble(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak something else than HTTP."""
    del server, reader
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await writer.drain()
    await asyncio.Event().wait()


def self_signed(directory: Path) -> ssl.SSLContext:
    """A server's TLS with a certificate that nobody vouches for, of another name, and out of date."""
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "elsewhere.example")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2001, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2002, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    path = directory / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
