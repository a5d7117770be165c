"""Answers in every way that the pods' network must carry: over HTTP on 8080, echoes over TCP and UDP on 9000, and
who connected, as the PROXY protocol tells it, on 9001.

    GET /              its name
    GET /head          its name, and the request as it came, as JSON
    GET /ready         200, or 503 after /toggle-ready

With arguments it tries others instead, all at once, and prints what each answered as a line of JSON:
`http://HOST:PORT/`, `tcp://HOST:PORT`, `udp://HOST:PORT`, and `name://HOST`, whose addresses it prints.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
import urllib.request
from urllib.parse import urlsplit

HTTP_PORT, ECHO_PORT, PROXY_PORT = 8080, 9000, 9001
# Version 2: its signature, version and command, family and protocol, length; of TCP over IPv4 two addresses and ports follow.
PROXY_HEAD = struct.Struct("!12sBBH")
PROXY_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PROXY_ADDRESSES = struct.Struct("!4s4sHH")
TIMEOUT_S = 2.0
SAID = b"over the network"


class UdpEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        self._transport.sendto(data, source)


is_ready = asyncio.Event()
is_ready.set()


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()  # A probe of the port, or a client that went away.
        return
    name = os.environ.get("HOSTNAME", "")
    status, content = "200 OK", name
    match request.split()[1]:
        case "/head":
            content = json.dumps({"name": name, "head": request.split("\r\n")})
        case "/ready" if not is_ready.is_set():
            status = "503 Service Unavailable"
        case "/toggle-ready":
            (is_ready.clear if is_ready.is_set() else is_ready.set)()
    body = content.encode()
    writer.write(
        f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
    )
    writer.close()


async def proxied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says `ADDRESS:PORT` of the client that the header names."""
    try:
        signature, _, _, length = PROXY_HEAD.unpack(await reader.readexactly(PROXY_HEAD.size))
        addresses = await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        writer.close()
        return
    if signature == PROXY_SIGNATURE and length >= PROXY_ADDRESSES.size:
        source, _, port, _ = PROXY_ADDRESSES.unpack_from(addresses)
        writer.write(f"{socket.inet_ntoa(source)}:{port}".encode())
    else:
        writer.write(b"no header")
    writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def serve() -> None:
    loop = asyncio.get_running_loop()
    await asyncio.start_server(http, "0.0.0.0", HTTP_PORT)
    await asyncio.start_server(echo, "0.0.0.0", ECHO_PORT)
    await asyncio.start_server(proxied, "0.0.0.0", PROXY_PORT)
    await loop.create_datagram_endpoint(UdpEcho, local_addr=("0.0.0.0", ECHO_PORT))
    stopped = asyncio.Event()
    loop.add_signal_handler(15, stopped.set)
    await stopped.wait()


def attempt(url: str) -> str:
    place = urlsplit(url)
    try:
        if place.scheme == "http":
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                return str(answer.read().decode())
        if place.scheme == "name":
            return " ".join(sorted(socket.gethostbyname_ex(str(place.hostname))[2]))
        kind = socket.SOCK_STREAM if place.scheme == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect((place.hostname, place.port))
            connection.send(SAID)
            return connection.recv(65536).decode()
    except OSError as error:
        return f"{type(error).__name__}: {error}"


async def try_all(urls: list[str]) -> None:
    answers = await asyncio.gather(*(asyncio.to_thread(attempt, url) for url in urls))
    json.dump(dict(zip(urls, answers, strict=True)), sys.stdout)


asyncio.run(try_all(sys.argv[1:]) if len(sys.argv) > 1 else serve())
