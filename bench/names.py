"""What the name server costs: queries a second, memory, and a change among 2,000 services of 10 pods.

    .venv/bin/python -m bench.names

Below 127, at a port of its own: it needs neither root nor a cluster.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import dns.message

from agent.dns.tables_to_zone import ZoneLines
from agent.dns.zone_file import FILE_NAME, ZoneFile, write_zone
from agent.network.table import NetworkTable
from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as pb

T = TypeVar("T")

SERVICES = 2000
PODS = 10
QUERIES = 50_000
IN_FLIGHT = 64
GATEWAY = "127.42.3.1"
PORT = 10_053

# As the command, with its settings read: what that imports is memory too.
_SERVER = f"""
import asyncio, gc
from pathlib import Path
from agent.dns.server import DnsServer
import agent.options
from bayplan.log import configure_log
configure_log(); gc.freeze()
asyncio.run(DnsServer(Path("{{directory}}"), port={PORT}).run())
"""


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as directory:
        for headless in (False, True):
            print("services without an address" if headless else "services with an address")
            _measure(Path(directory), a_table(headless=headless))


def a_table(*, headless: bool) -> TrafficTable:
    """All services and pods, as a leader would tell them at first."""
    services, endpoints = [], []
    for number in range(SERVICES):
        vip = "" if headless else f"10.96.{number // 250}.{number % 250 + 1}"
        port = pb.ServicePort(name="http", port=80)
        services.append(pb.Service(namespace="default", name=f"s{number}", vip=vip, ports=[port]))
        put = [an_endpoint(number * PODS + pod) for pod in range(PODS)]
        endpoints.append(pb.EndpointChanges(service=f"default/s{number}", full=True, put=put))
    return TrafficTable().fold(pb.Traffic(version=1, full=True, services=services, endpoints=endpoints))


def an_endpoint(number: int, *, ready: bool = True) -> pb.Endpoint:
    """A pod of its own address."""
    address = f"127.43.{number // 250}.{number % 250 + 1}"
    return pb.Endpoint(id=str(number), address=address, ports=[8080], ready=ready)


def _measure(directory: Path, traffic: TrafficTable) -> None:
    network = NetworkTable().fold(
        pb.Network(
            full=True,
            subnet="127.42.3.0/24",
            settings=pb.NetworkSettings(
                pod_range="127.42.0.0/15", service_range="10.96.0.0/16", domain="cluster.local", id=1
            ),
        )
    )
    change = pb.EndpointChanges(service="default/s7", put=[an_endpoint(7 * PODS, ready=False)])
    changed = traffic.fold(pb.Traffic(version=2, endpoints=[change]))
    lines, file, path = ZoneLines(), ZoneFile(directory / FILE_NAME), directory / FILE_NAME
    first = _timed("  agent, first time", lambda: lines.of(network, traffic))
    second = _timed("  agent, a pod changes", lambda: lines.of(network, changed))
    print(f"  to be written: {'no' if first == second else 'yes'}")
    _timed("  written", lambda: write_zone(path, first))
    _timed("  server, first time", file.read)
    write_zone(path, second)
    _timed("  server, a pod changes", file.read)
    _load(directory)


def _timed(what: str, work: Callable[[], T]) -> T:
    began_s = time.perf_counter()
    done = work()
    print(f"{what}: {(time.perf_counter() - began_s) * 1000:.1f} ms")
    return done


def _load(directory: Path) -> None:
    serving = subprocess.Popen(
        [sys.executable, "-c", _SERVER.format(directory=directory)], stdout=subprocess.DEVNULL
    )
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(0.2)
            asking.connect((GATEWAY, PORT))
            _wait_for(asking)
            names = [f"s{number}.default.svc.cluster.local" for number in range(200)]
            names += [f"example{number}.org.default.svc.cluster.local" for number in range(5)]
            for what in ("first round", "second round"):
                rate = _rate(asking, names)
                print(f"  queries a second, {what}: {rate:.0f}")
        status = Path(f"/proc/{serving.pid}/status").read_text()
        print(f"  memory (RSS): {int(status.split('VmRSS:')[1].split()[0]) / 1024:.0f} MiB")
    finally:
        serving.kill()
        serving.wait()


def _wait_for(asking: socket.socket) -> None:
    wire = dns.message.make_query("s1.default.svc.cluster.local", "A").to_wire()
    while True:
        try:
            asking.send(wire)
            asking.recv(4096)
        except OSError:  # Nobody there yet; TimeoutError is one too.
            time.sleep(0.05)
        else:
            return


def _rate(asking: socket.socket, names: Sequence[str]) -> float:
    wires = [dns.message.make_query(name, "A").to_wire()[2:] for name in names]
    sent = received = 0
    began_s = time.perf_counter()
    while received < QUERIES:
        while sent < received + IN_FLIGHT:
            asking.send((sent & 0xFFFF).to_bytes(2) + wires[sent % len(wires)])
            sent += 1
        asking.recv(4096)
        received += 1
    rate = received / (time.perf_counter() - began_s)
    for _ in range(sent - received):
        asking.recv(4096)
    return rate


if __name__ == "__main__":
    main()
