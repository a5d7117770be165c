"""What services cost one node. Runs inside a container of the nodes' image, alone: no bench, no tests there.

The agent's own code drives a real HAProxy, as on a node, with tables that are made up: so many services of
so many endpoints on ten nodes. No cluster and no traffic. The other nodes answer HAProxy's checks, or it
would be busy with their death. Prints one JSON object, progress on stderr.

    python3 many_services_program.py SERVICES ENDPOINTS CHANGES
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import BinaryIO

import structlog

from agent.network.table import NetworkTable
from agent.settings import AgentSettings
from agent.traffic import ports
from agent.traffic.endpoint_changes import parse_servers
from agent.traffic.haproxy_socket import HaproxySocket, ProxyAnswerError
from agent.traffic.places import DIRECTORY, MASTER_SOCKET
from agent.traffic.proxy import HaproxyProxy
from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as pb

NODES = [f"n{number}" for number in range(1, 11)]
# All of 127.0.0.0/8 is this host's. A /16 for each, since every service has a pod on every node.
SUBNETS = {name: IPv4Network(f"127.{100 + index}.0.0/16") for index, name in enumerate(NODES)}
VIPS = IPv4Network("10.96.0.0/16")
NAMESPACE, PORT, POD_PORT = "default", 80, 8080
RELOADS = 5
# Longer than what follows a change or a reload: the file is written, a drained server is deleted.
PAUSE_S = 3.0
IDLE_S = 30.0
APPLIED_TIMEOUT_S = 120.0
TICKS_PER_S = 100
KIB_PER_MIB = 1024
PROC = Path("/proc")
LOG = Path("/tmp/haproxy.log")
LOG_SHOWN_MAX = 4000


class HaproxyError(Exception):
    """HAProxy is not as the agent says it is."""


class Node:
    """One node's proxy, and the tables that a leader would send it."""

    def __init__(self) -> None:
        self._settings = AgentSettings(node="n1", data_dir=Path("/tmp"), managers=(), address="127.0.0.1")
        directory = self._settings.run_dir / DIRECTORY
        self._proxy = HaproxyProxy(self._settings)
        self._news = asyncio.Event()
        self._proxy.on_applied = self._news.set
        self._socket = HaproxySocket(directory / MASTER_SOCKET)
        self._network = NetworkTable().fold(
            pb.Network(
                full=True,
                settings=pb.NetworkSettings(id=1),
                subnet=str(SUBNETS["n1"]),
                peers=[
                    pb.NetworkPeer(node=name, address="127.0.0.1", subnet=str(SUBNETS[name]))
                    for name in NODES[1:]
                ],
            )
        )
        self._traffic = TrafficTable()
        self._peers: list[asyncio.Server] = []

    async def run(self) -> None:
        """Until cancelled."""
        for name in NODES[1:]:
            port = self._settings.proxy_port + ports.HEALTH
            self._peers.append(await asyncio.start_server(_hang_up, str(SUBNETS[name][1]), port))
        await self._proxy.run()

    async def apply(self, message: pb.Traffic) -> float:
        """Seconds from the leader's message to the proxy's word that it is in force."""
        message.version = self._traffic.version + 1
        self._traffic = self._traffic.fold(message)
        began_s = time.perf_counter()
        self._proxy.use(self._network, self._traffic)
        async with asyncio.timeout(APPLIED_TIMEOUT_S):
            while self._proxy.applied().version < message.version:
                self._news.clear()
                await self._news.wait()
        return time.perf_counter() - began_s

    async def servers(self, service: int) -> set[str]:
        """Those that HAProxy itself says it offers."""
        worker = (await self._socket.processes()).worker
        backend = f"{NAMESPACE}.{_name(service)}.{PORT}"
        said = await self._socket.tell(worker, [f"show servers state {backend}"])
        return {name for name, one in parse_servers(said)[backend].items() if one.is_ready}

    async def processes(self) -> list[int]:
        """Of HAProxy, once old workers have ended."""
        while True:
            seen = await self._socket.processes()
            if not seen.old_workers:
                return [seen.master, seen.worker]
            await asyncio.sleep(0.2)


async def measure(services: int, endpoints: int, changes: int, log: BinaryIO) -> dict[str, list[float]]:
    """Key → what each run gave. `log`: where HAProxy writes."""
    node = Node()
    running = asyncio.create_task(node.run())
    haproxy = await asyncio.create_subprocess_exec("bayplan-proxy", "--node", "n1", stdout=log, stderr=log)
    try:
        first = pb.Traffic(full=True)
        for number in range(services):
            first.services.append(_service(number))
            first.endpoints.append(_endpoints(number, endpoints))
        _say(f"{services} services of {endpoints} endpoints: in force after {await node.apply(first):.2f} s")
        found = {
            "endpoint_change_s": await _time_changes(node, services, changes),
            "reload_s": await _time_reloads(node, services, endpoints),
        }
        pids = await node.processes()
        found["haproxy_mib"] = [sum(map(_pss_mib, pids))]
        before_s, began_s = sum(map(_processor_s, pids)), time.perf_counter()
        await asyncio.sleep(IDLE_S)
        used_s = sum(map(_processor_s, pids)) - before_s
        found["haproxy_idle_cpu"] = [100 * used_s / (time.perf_counter() - began_s)]
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        haproxy.terminate()
        await haproxy.wait()
    return found


async def _time_changes(node: Node, services: int, changes: int) -> list[float]:
    """One endpoint of one service is replaced."""
    times = []
    for number in range(changes):
        service = number * 97 % services
        life = number // services
        old, new = (_endpoint(service, slot=0, life=each) for each in (life, life + 1))
        await asyncio.sleep(PAUSE_S)
        change = pb.EndpointChanges(service=f"{NAMESPACE}/{_name(service)}", gone=[old.id], put=[new])
        times.append(await node.apply(pb.Traffic(endpoints=[change])))
        offered = await node.servers(service)
        if new.id not in offered or old.id in offered:
            raise HaproxyError(f"HAProxy offers {sorted(offered)}")
        _say(f"  an endpoint is replaced: {times[-1]:.3f} s")
    return times


async def _time_reloads(node: Node, services: int, endpoints: int) -> list[float]:
    """A service more: only a reload makes a backend."""
    times = []
    for number in range(services, services + RELOADS):
        await asyncio.sleep(PAUSE_S)
        message = pb.Traffic(services=[_service(number)], endpoints=[_endpoints(number, endpoints)])
        times.append(await node.apply(message))
        if len(offered := await node.servers(number)) != endpoints:
            raise HaproxyError(f"HAProxy offers {sorted(offered)}")
        _say(f"  a service more: {times[-1]:.3f} s")
    return times


def _name(service: int) -> str:
    return f"web-{service}"


def _service(number: int) -> pb.Service:
    return pb.Service(
        namespace=NAMESPACE,
        name=_name(number),
        vip=str(VIPS[1 + number]),
        ports=[pb.ServicePort(name="http", port=PORT, http=True)],
    )


def _endpoints(service: int, count: int) -> pb.EndpointChanges:
    put = [_endpoint(service, slot=slot, life=0) for slot in range(count)]
    return pb.EndpointChanges(service=f"{NAMESPACE}/{_name(service)}", full=True, put=put)


def _endpoint(service: int, *, slot: int, life: int) -> pb.Endpoint:
    """Slot n is on the n-th node; each life of it has another address."""
    node = NODES[slot % len(NODES)]
    return pb.Endpoint(
        id=f"{service:08x}-0000-4000-8000-000000000000.{slot}.{life}",
        node=node,
        address=str(SUBNETS[node][10 + service * 10 + slot // len(NODES) + life]),
        ports=[POD_PORT],
        ready=True,
    )


def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def _processor_s(pid: int) -> float:
    # proc(5): utime and stime are the 14th and 15th field; the second ends with the last parenthesis.
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _pss_mib(pid: int) -> float:
    found = re.search(r"^Pss:\s+(\d+) kB", (PROC / str(pid) / "smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / KIB_PER_MIB


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """See the module's docstring."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    services, endpoints, changes = map(int, sys.argv[1:4])
    # Apart: it has a line for every service at each reload.
    with LOG.open("wb") as log:
        try:
            found = asyncio.run(measure(services, endpoints, changes, log))
        except (TimeoutError, ProxyAnswerError, HaproxyError):
            _say(LOG.read_text(errors="replace")[-LOG_SHOWN_MAX:])
            raise
    print(json.dumps(found))


if __name__ == "__main__":
    main()
