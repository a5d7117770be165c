"""Pods on the host's own network: the engine knows no address of theirs, everybody else reaches them at the node's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.scripted_manager import World, a_pod, a_world, until

UID = "u1.0.1"


def on_the_host(**container: Any) -> pb.Assignment:
    pod = a_pod(hostNetwork=True, container=container)
    pod.privileged = True
    return pod


def status(world: World) -> pb.PodStatus:
    return world.manager.statuses.get(UID, pb.PodStatus())


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    "check", [{"httpGet": {"port": 8080}}, {"tcpSocket": {"port": 8080}}, {"grpc": {"port": 8080}}]
)
async def test_are_probed_and_told_at_the_nodes_address(tmp_path: Path, check: dict[str, Any]) -> None:
    async with a_world(tmp_path, start=False) as world:
        world.address = "192.0.2.7"
        world.start_agent()
        await world.connected()
        world.manager.assign(on_the_host(readinessProbe=check), full=True)

        await until(lambda: status(world).ready)
        assert status(world).address == "192.0.2.7"


async def test_their_ports_are_forwarded_there(tmp_path: Path) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    async with server, a_world(tmp_path, start=False) as world:
        world.address = "127.0.0.1"
        world.start_agent()
        await world.connected()
        world.manager.assign(on_the_host(), full=True)
        await until(lambda: status(world).ready)
        world.manager.input.put_nowait(pb.StreamFrame(stdin=b"hello\n"))
        port = server.sockets[0].getsockname()[1]
        world.manager.say(open_stream=pb.OpenStream(stream_id="s1", pod_uid=UID, forward_port=port))

        await until(lambda: world.manager.frames.get("s1") and world.manager.frames["s1"][-1].end)
        assert b"".join(frame.stdout for frame in world.manager.frames["s1"]) == b"HELLO\n"


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("spec", "asks"),
    [
        ({}, "/simulated/default.conf"),
        ({"dnsPolicy": "ClusterFirst"}, "/simulated/default.conf"),
        ({"dnsPolicy": "Default"}, "the host's"),
        ({"hostNetwork": True}, "the host's"),
        ({"hostNetwork": True, "dnsPolicy": "ClusterFirst"}, "the host's"),
        ({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}, "/simulated/default.conf"),
    ],
)
async def test_whom_pods_ask_for_names(tmp_path: Path, spec: dict[str, Any], asks: str) -> None:
    """Kubernetes' dnsPolicy."""
    async with a_world(tmp_path) as world:
        pod = a_pod(**spec)
        pod.privileged = True
        world.manager.assign(pod, full=True)
        await until(lambda: status(world).ready)

        (made,) = [each.spec for each in world.engine.containers.values()]
        assert [(mount.source, mount.target) for mount in made.mounts] == (
            [] if asks == "the host's" else [(asks, "/etc/resolv.conf")]
        )
