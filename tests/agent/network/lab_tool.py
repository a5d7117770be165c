"""Runs in the laboratory, with Python's standard library alone: a server that says who asked, and its client.

lab_tool.py serve NAME tcp|udp ADDRESS PORT     answers "NAME <- client's address, first destination"
lab_tool.py ask tcp|udp ADDRESS PORT FROM SIZE   prints the answer, or the error
lab_tool.py flow ADDRESS PORT                   asks over UDP from one socket, once a line of its input
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys

SO_ORIGINAL_DST = 80
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2  # Nobody may cut the packet.
IP_AND_UDP = 28
TIMEOUT_S = 1.5


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def serve(name: str, kind: str, address: str, port: int) -> None:
    server = socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    if kind == "tcp":
        server.listen()
    say("serving")
    while True:
        if kind == "udp":
            _, client = server.recvfrom(65536)
            server.sendto(f"{name} <- {client[0]}".encode(), client)
            continue
        connection, client = server.accept()
        with connection, contextlib.suppress(OSError):  # A client that has given up.
            connection.sendall(f"{name} <- {client[0]}, {first_destination(connection)}".encode())


def first_destination(connection: socket.socket) -> str:
    try:
        found = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
    except OSError:
        return "itself"
    port, packed = struct.unpack("!2xH4s8x", found)
    return f"{socket.inet_ntoa(packed)}:{port}"


def ask(kind: str, address: str, port: int, source: str, size: int) -> str:
    with socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT_S)
        try:
            client.bind((source, 0))
            client.connect((address, port))
            if kind == "udp":
                client.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
                client.send(b"?" * (size - IP_AND_UDP))
            return client.recv(4096).decode()
        except OSError as error:
            return type(error).__name__


def flow(address: str, port: int) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT_S)
        client.connect((address, port))
        for _ in sys.stdin:
            try:
                client.send(b"?")
                answer = client.recv(4096).decode()
            except OSError as error:
                answer = type(error).__name__
            say(answer)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", name, kind, address, port]:
            serve(name, kind, address, int(port))
        case ["ask", kind, address, port, source, size]:
            say(ask(kind, address, int(port), source, int(size)))
        case ["flow", address, port]:
            flow(address, int(port))
