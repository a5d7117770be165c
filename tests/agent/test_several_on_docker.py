"""Pods of several containers on a real Docker Engine: what only a kernel and its signals can show."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from agent.agent import Agent
from agent.network.port import Attachment
from agent.network.simulated import SimulatedNetwork
from agent.probes.prober import HostProber
from agent.runtime.docker import DockerRuntime
from agent.runtime.port import LABEL_CONTAINER, SANDBOX, Container, ContainerState
from agent.settings import AgentSettings
from agent.traffic.simulated import SimulatedProxy
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.scripted_manager import CLUSTER, NETWORK, ScriptedManager, until
from tests.agent.test_several_containers import UID, a_pair
from tests.docker_engine import DockerEngine
from tests.fakes.host import FakeHost
from tests.fakes.network import FakeNetwork, FakeTransport

pytestmark = pytest.mark.docker

SUBNET = "10.213.249.0/24"
NETWORK_ID = 249
ANSWERS = (
    "trap 'exit 0' TERM; while :; do echo hello | nc -l -p 80; done & while :; do sleep 1000 & wait $!; done"
)
ASKS = "trap 'exit 0' TERM; until nc 127.0.0.1 80; do sleep 0.1; done; while :; do sleep 1000 & wait $!; done"


class NamedNetwork(SimulatedNetwork):
    """Addresses in a network of the real engine, with a file of names that is there."""

    def __init__(self, runtime: DockerRuntime, names: Path) -> None:
        super().__init__(runtime)
        self._names = names

    async def attach(self, pod_uid: str, namespace: str) -> Attachment:
        return replace(await super().attach(pod_uid, namespace), resolv_conf=self._names)


class World:
    """An agent on the engine, and its manager."""

    def __init__(self, engine: DockerEngine, directory: Path) -> None:
        self.engine = engine
        self.node = f"n-{uuid.uuid4().hex[:8]}"
        self.runtime = DockerRuntime(cluster=CLUSTER, node=self.node, wall_s=time.time, socket=engine.socket)
        self.manager = ScriptedManager("m1")
        self.manager.tells_network = False
        self._directory = directory
        self._network = FakeNetwork()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self.manager.serve(FakeTransport(self._network, "m1"))
        names = self._directory / "resolv.conf"
        names.write_text("nameserver 10.213.249.1\n")
        agent = Agent(
            AgentSettings(
                node=self.node,
                data_dir=self._directory,
                run_dir=self._directory / "run",
                managers=(self.manager.address,),
                address="n1",
            ),
            transport=FakeTransport(self._network, "n1"),
            runtime=self.runtime,
            network=NamedNetwork(self.runtime, names),
            proxy=SimulatedProxy(),
            prober=HostProber(self.runtime),
            host=FakeHost("n1"),
            wall_s=time.time,
            rng=random.Random(1),
        )
        self._task = asyncio.create_task(agent.run())
        await until(lambda: self.manager.is_connected)
        network = pb.Network()
        network.CopyFrom(NETWORK)
        network.subnet, network.settings.id = SUBNET, NETWORK_ID
        network.settings.pod_range = "10.213.0.0/16"
        self.manager.say(network=network)

    async def close(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for container in await self.runtime.list_containers():
            await self.runtime.stop(container.id, grace_s=0)
            await self.runtime.remove(container.id)
        await asyncio.to_thread(self.engine.call, "DELETE", f"networks/bay{NETWORK_ID}")
        await self.runtime.aclose()

    @property
    def status(self) -> pb.PodStatus:
        return self.manager.statuses.get(UID, pb.PodStatus())

    @property
    def restarts(self) -> list[int]:
        return [each.restarts for each in self.status.containers]

    async def living(self) -> dict[str, Container]:
        listed = await self.runtime.list_containers()
        return {each.labels[LABEL_CONTAINER]: each for each in listed if each.state is ContainerState.RUNNING}

    async def kill(self, container: Container) -> None:
        await asyncio.to_thread(self.engine.call, "POST", f"containers/{container.id}/kill")

    async def restart(self, container: Container) -> None:
        await asyncio.to_thread(self.engine.call, "POST", f"containers/{container.id}/restart", t="1")

    def a_pair(self, want: pb.Want = pb.WANT_RUN) -> pb.Assignment:
        pod = a_pair(
            want=want,
            web={"image": self.engine.image, "command": ["sh", "-c", ANSWERS]},
            side={"image": self.engine.image, "command": ["sh", "-c", ASKS]},
            terminationGracePeriodSeconds=20,
        )
        pod.name = f"web-{self.node}"
        return pod


@pytest.fixture
async def world(docker_engine: DockerEngine, tmp_path: Path) -> AsyncIterator[World]:
    world = World(docker_engine, tmp_path)
    await world.open()
    yield world
    await world.close()


async def a_running_pair(world: World) -> dict[str, Container]:
    world.manager.assign(world.a_pair(), full=True)
    await until(lambda: world.status.ready)
    return await world.living()


class TestOnDocker:
    async def test_a_killed_side_car_comes_back_at_the_pods_address(self, world: World) -> None:
        before = await a_running_pair(world)
        address = world.status.address
        assert before[SANDBOX].address == address
        assert int(address.rpartition(".")[2]) in range(2, IPv4Network(SUBNET).num_addresses)
        await world.kill(before["side"])
        await until(lambda: world.status.ready and world.restarts == [0, 1])

        after = await world.living()
        assert (after[SANDBOX].id, after["web"].id) == (before[SANDBOX].id, before["web"].id)
        assert after["side"].id != before["side"].id
        assert world.status.address == address

    @pytest.mark.parametrize("deed", ["kill", "restart"])
    async def test_a_sandbox_in_strange_hands_takes_all_along_and_the_address_stays(
        self, world: World, deed: str
    ) -> None:
        before = await a_running_pair(world)
        address = world.status.address
        await (world.kill if deed == "kill" else world.restart)(before[SANDBOX])
        await until(lambda: world.status.ready and 0 not in world.restarts)

        after = await world.living()
        assert {"web", "side"} == {name for name in ("web", "side") if after[name].id != before[name].id}
        assert world.status.address == after[SANDBOX].address == address
        asked = await world.runtime.exec(
            after["side"].id,
            ("sh", "-c", f"until nc {address} 80; do sleep 0.1; done"),
            tty=False,
            stdin=False,
            rows=0,
            columns=0,
        )
        assert [piece.data async for piece in asked.output()] == [b"hello\n"]
        await asked.aclose()

    async def test_stops_at_once_and_leaves_nothing_running(self, world: World) -> None:
        """All get SIGTERM together, the sandbox SIGKILL after them."""
        await a_running_pair(world)
        world.manager.assign(world.a_pair(pb.WANT_STOP))

        assert await until(lambda: world.status.state == pb.POD_STATE_STOPPED) < 10
        assert await world.living() == {}
