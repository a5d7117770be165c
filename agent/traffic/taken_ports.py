"""Whether a published port can be had on this host, and who has it if not. Found out by trying.

HAProxy shares its ports with its own successor (SO_REUSEPORT), and so does the attempt here: it collides
with everybody else, never with ours, and as it does not listen it takes no connection from anybody.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Iterable
from pathlib import Path

_LISTENING = "0A"


def taken_ports(places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Those that cannot be bound, with words."""
    found = {}
    for address, port in places:
        why = _why_not(address, port)
        if why:
            found[address, port] = why
    return found


def _why_not(address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            attempt.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"taken by {_who_listens(address, port)}"
            if error.errno == errno.EADDRNOTAVAIL:
                return f"{address} is no address of this host"
            return f"cannot be bound: {error.strerror}"
    return ""


def _who_listens(address: str, port: int) -> str:
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(address, port)}
    for process in Path("/proc").glob("[0-9]*"):
        if sockets & _open_files(process):
            try:
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
            except OSError:
                break  # It has just ended.
    return "another process"


def _open_files(process: Path) -> set[str]:
    """Of a process that may end, or close them, meanwhile."""
    found = set()
    try:
        for name in os.listdir(process / "fd"):  # noqa: PTH208 - whole: pathlib's own descriptor would be among them
            with contextlib.suppress(OSError):
                found.add(os.readlink(process / "fd" / name))  # noqa: PTH115 - text, no path
    except OSError:
        return set()
    return found


def _listening_inodes(address: str, port: int) -> set[str]:
    wanted = {ipaddress.ip_address(address), ipaddress.ip_address("0.0.0.0"), ipaddress.ip_address("::")}  # noqa: S104 - compared, not bound
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            local, _, number = fields[1].partition(":")
            if fields[3] == _LISTENING and int(number, 16) == port and _address(local) in wanted:
                found.add(fields[9])
    return found


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The kernel prints each 32 bits as the host keeps them."""
    raw = bytes.fromhex(text)
    words = b"".join(raw[index : index + 4][::-1] for index in range(0, len(raw), 4))
    address = ipaddress.ip_address(words)
    return getattr(address, "ipv4_mapped", None) or address
