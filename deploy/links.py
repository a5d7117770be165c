"""Network links of this host, by ioctl: set one up or down, delete a bridge. Root only.

Without the `ip` command, which small systems lack, and at once: a link that is cut 300 ms after
the clock was started would flatter every figure of a failover.

    python3 -m deploy.links up|down|delete-bridge NAME
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

from deploy.shell import StepError, as_root, ends, run

# linux/sockios.h and linux/if.h
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCBRDELBR = 0x8913, 0x8914, 0x89A1
IFF_UP = 0x1


def change(action: str, link: str) -> None:
    """Do it, through sudo where we are not root."""
    if os.geteuid() == 0:
        _change(action, link)
    else:
        run(as_root([sys.executable, "-m", "deploy.links", action, link]))


def by_index(index: int) -> str:
    """The name of the host's link with that number. Raises StepError when there is none."""
    for link in Path("/sys/class/net").iterdir():
        if int((link / "ifindex").read_text()) == index:
            return link.name
    raise StepError(f"this host has no network link number {index}")


def _change(action: str, link: str) -> None:
    name = link.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", name, 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        flags = flags | IFF_UP if action == "up" else flags & ~IFF_UP
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", name, flags))
        if action == "delete-bridge":
            fcntl.ioctl(any_socket, SIOCBRDELBR, struct.pack("16s", name))


def main() -> None:
    """See the module's docstring."""
    if len(sys.argv) != 3 or sys.argv[1] not in {"up", "down", "delete-bridge"}:
        raise StepError("usage: python3 -m deploy.links up|down|delete-bridge NAME")
    try:
        _change(sys.argv[1], sys.argv[2])
    except OSError as error:
        raise StepError(f"link {sys.argv[2]}: {error.strerror}") from error


if __name__ == "__main__":
    ends(main)
