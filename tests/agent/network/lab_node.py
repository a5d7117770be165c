"""Runs in the laboratory: the pods' network of one node, in the namespace that it is started in.

Reads one request a line from its input, as JSON, and answers each with one line.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import structlog

from agent.network.linux import LinuxNetwork
from agent.network.port import NetworkError
from agent.network.table import NetworkTable
from agent.runtime.port import LABEL_POD, Container, ContainerState
from agent.runtime.simulated import SimulatedRuntime
from agent.runtime.simulated_engine import SimulatedEngine
from agent.settings import AgentSettings
from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as pb


class LabRuntime(SimulatedRuntime):
    """A simulated engine whose containers are processes of the laboratory."""

    containers: tuple[Container, ...] = ()
    reconnected: tuple[str, ...] = ()

    async def list_containers(self) -> list[Container]:
        return list(self.containers)

    async def reconnect(self, container_id: str, *, network: str, address: str) -> None:
        self.reconnected += (f"{container_id} {network} {address}",)


async def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    node, address, data_dir = sys.argv[1:4]
    runtime = LabRuntime(SimulatedEngine(), cluster="lab", node=node)
    settings = AgentSettings(node=node, data_dir=Path(data_dir), managers=(), address=address)
    network = LinuxNetwork(settings, runtime)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    running = asyncio.create_task(network.run())
    while line := await reader.readline():
        if running.done():
            running.result()
        answer = await _answer(network, runtime, json.loads(line))
        print(json.dumps(answer), flush=True)  # noqa: T201 - this is the answer
    running.cancel()


async def _answer(network: LinuxNetwork, runtime: LabRuntime, request: dict[str, Any]) -> Any:  # noqa: PLR0911 - one a request
    match request:
        case {"use": [told, traffic]}:
            table = NetworkTable().fold(pb.Network.FromString(base64.b64decode(told)))
            services = TrafficTable().fold(pb.Traffic.FromString(base64.b64decode(traffic)))
            network.use(table, services)
            return None
        case {"problem": _}:
            return network.problem()
        case {"attach": pod_uid}:
            try:
                attachment = await network.attach(pod_uid, "shop")
            except NetworkError as error:
                return ["", str(error)]
            return [attachment.network, attachment.address]
        case {"release": pod_uid}:
            network.release(pod_uid)
            return None
        case {"retain": pod_uids}:
            network.retain(pod_uids)
            return None
        case {"pods": pods}:
            runtime.containers = tuple(
                Container(
                    id=uid,
                    name=uid,
                    labels={LABEL_POD: uid},
                    state=ContainerState.RUNNING,
                    image="",
                    image_id="",
                    created_s=0,
                    address=address,
                    pid=pid,
                )
                for uid, pid, address in pods
            )
            return None
        case {"reconnected": _}:
            return runtime.reconnected
    raise ValueError(request)


if __name__ == "__main__":
    asyncio.run(main())
