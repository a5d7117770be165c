"""Clients outside of the cluster: HTTP with and without TLS, and datagrams, each call on a connection of its own."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

TIMEOUT_S = 2.0
PAUSE_S = 0.02


def call(
    address: str, port: int, path: str = "/", *, host: str = "", is_tls: bool = False
) -> tuple[int, str]:
    """Status and content, on a connection of its own. 0: none, and why. `host`: for TLS as well, unverified."""
    try:
        with socket.create_connection((address, port), timeout=TIMEOUT_S) as plain:
            connection = http.client.HTTPConnection(host or address, port, timeout=TIMEOUT_S)
            connection.sock = _trusting().wrap_socket(plain, server_hostname=host) if is_tls else plain
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, f"{type(error).__name__}: {error}"


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def shown_certificate(address: str, host: str) -> bytes:
    with (
        socket.create_connection((address, 443), timeout=TIMEOUT_S) as plain,
        _trusting().wrap_socket(plain, server_hostname=host) as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""


def echoed(address: str, port: int, data: bytes = b"over the network") -> bytes:
    """What comes back to a datagram from a socket of its own. Empty: nothing, or it was refused."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(TIMEOUT_S)
        try:
            sender.connect((address, port))
            sender.send(data)
            return sender.recv(2048)
        except OSError:
            return b""


@dataclass(slots=True)
class Caller:
    """Calls one place again and again, one call after the other."""

    address: str
    port: int
    failed_s: list[float] = field(default_factory=list)  # When each ended.
    answered: list[tuple[float, str]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self._ended.wait(PAUSE_S):
            status, text = call(self.address, self.port)
            if status == http.HTTPStatus.OK:
                self.answered.append((time.monotonic(), text))
            else:
                self.failed_s.append(time.monotonic())
                self.reasons.append(f"{status} {text}")

    @contextmanager
    def calling(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run, name=f"caller of {self.address}")
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
