"""When each container of a workload first answers TCP. Runs inside a node, alone: standard library only.

A line "<container id> <time.monotonic()>" each time one answers first; containers share the
host's monotonic clock, so that the lines of several nodes can be compared. The engine's
events say when to list again, a listing each 250 ms is the truth, and what was listed but has
not answered yet is tried each 10 ms. Ends when its stdin does.

    python3 tcp_probe.py LABEL=VALUE PORT
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import sys
import time
from typing import Any
from urllib.parse import quote

ENGINE = "/var/run/docker.sock"
LIST_EVERY_S = 0.25
TRY_EVERY_S = 0.01
CONNECT_TIMEOUT_S = 0.05
ENGINE_TIMEOUT_S = 10.0
EVENT_BYTES_MAX = 65536


def main() -> None:
    """See the module's docstring."""
    label, port = sys.argv[1], int(sys.argv[2])
    events = _starts(label)
    waiting: dict[str, str] = {}  # Container id → address.
    answered: set[str] = set()
    listed_s = float("-inf")
    while True:
        pause_s = TRY_EVERY_S if waiting else LIST_EVERY_S
        ready, _, _ = select.select([sys.stdin, events], [], [], pause_s)
        if sys.stdin in ready:
            return
        hinted = events in ready and bool(events.recv(EVENT_BYTES_MAX))
        if hinted or time.monotonic() - listed_s >= LIST_EVERY_S:
            waiting = {name: at for name, at in _running(label).items() if name not in answered}
            listed_s = time.monotonic()
        for container, address in list(waiting.items()):
            if _answers(address, port):
                print(container, time.monotonic(), flush=True)
                answered.add(container)
                del waiting[container]


def _engine() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(ENGINE_TIMEOUT_S)
    connection.connect(ENGINE)
    return connection


def _starts(label: str) -> socket.socket:
    """Something can be read from it whenever a container has started."""
    filters = quote(json.dumps({"type": ["container"], "event": ["start"], "label": [label]}))
    connection = _engine()
    connection.sendall(f"GET /events?filters={filters} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
    return connection


def _running(label: str) -> dict[str, str]:
    """Containers that run and have an address."""
    filters = quote(json.dumps({"label": [label], "status": ["running"]}))
    connection = http.client.HTTPConnection("docker")
    connection.sock = _engine()
    try:
        connection.request("GET", f"/containers/json?filters={filters}")
        rows: list[dict[str, Any]] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    found = {row["Id"]: row["NetworkSettings"]["Networks"].values() for row in rows}
    addresses = {name: [one["IPAddress"] for one in networks] for name, networks in found.items()}
    return {name: at[0] for name, at in addresses.items() if at and at[0]}


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
