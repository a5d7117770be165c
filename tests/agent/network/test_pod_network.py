"""The contract of the pods' network, on simulated time and on a real kernel."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from agent.network.port import NetworkError, PodNetwork
from agent.network.simulated import SimulatedNetwork, SimulatedNotes
from agent.network.table import NetworkTable
from agent.runtime.simulated import SimulatedRuntime
from agent.runtime.simulated_engine import SimulatedEngine
from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.network.lab import Lab, Node, laboratory
from tests.agent.network.words import told
from tests.contracts.pod_network import PodNetworkContract
from tests.docker_engine import DockerEngine


class SimulatedWorld:
    """Obeys `World`."""

    def __init__(self) -> None:
        self.engine = SimulatedEngine()
        self._notes = SimulatedNotes()
        self._start()

    def _start(self) -> None:
        runtime = SimulatedRuntime(self.engine, cluster="test", node="n1")
        self._network: PodNetwork = SimulatedNetwork(runtime, self._notes)
        self._running = asyncio.create_task(self._network.run())

    async def use(self, network: pb.Network) -> None:
        self._network.use(NetworkTable().fold(network), TrafficTable())

    async def problem(self) -> str:
        return self._network.problem()

    async def becomes_ready(self) -> None:
        while self._network.problem():  # noqa: ASYNC110 - it tells nobody, as it is polled by the agent
            await asyncio.sleep(0.1)

    async def attach(self, pod_uid: str) -> tuple[str, str]:
        try:
            attachment = await self._network.attach(pod_uid, "shop")
        except NetworkError as error:
            return "", str(error)
        return attachment.network, attachment.address

    async def release(self, pod_uid: str) -> None:
        self._network.release(pod_uid)

    async def retain(self, pod_uids: list[str]) -> None:
        self._network.retain(pod_uids)

    async def restart(self) -> None:
        await self.stop()
        self._start()

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.wait([self._running])


class KernelWorld:
    """Obeys `World`, in a laboratory."""

    def __init__(self, lab: Lab, number: int) -> None:
        self._lab = lab
        self._name, self._address = f"h{number}", f"192.0.2.{number}"
        lab.host(self._name, self._address)
        self.node: Node = lab.node(self._name, self._address)

    async def use(self, network: pb.Network) -> None:
        self.node.use(network)

    async def problem(self) -> str:
        return self.node.problem()

    async def becomes_ready(self) -> None:
        self._lab.eventually(self.node.problem, "")

    async def attach(self, pod_uid: str) -> tuple[str, str]:
        return self.node.attachment(pod_uid)

    async def release(self, pod_uid: str) -> None:
        self.node.release(pod_uid)

    async def retain(self, pod_uids: list[str]) -> None:
        self.node.retain(pod_uids)

    async def restart(self) -> None:
        self.node.stop()
        self.node = self._lab.node(self._name, self._address)


@pytest.mark.virtual_time
class TestSimulatedNetwork(PodNetworkContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[SimulatedWorld]:
        world = SimulatedWorld()
        yield world
        await world.stop()

    async def test_a_range_that_is_taken_is_a_problem_until_it_is_free(self, world: SimulatedWorld) -> None:
        world.engine.add_foreign_network("shop_default", "10.42.0.0/20")
        await world.use(told(1, 2))

        network, words = await world.attach("a")
        assert (network, words) == (
            "",
            "the network shop_default has the range 10.42.0.0/20, which overlaps 10.42.1.0/24",
        )
        assert await world.problem() == words

        del world.engine.networks["shop_default"]
        await world.becomes_ready()
        assert await world.attach("a") == ("bay1", "10.42.1.2")


@pytest.fixture(scope="module")
def lab(docker_engine: DockerEngine) -> Iterator[Lab]:
    with laboratory(docker_engine) as lab:
        yield lab


_NUMBERS = itertools.count(20)


@pytest.mark.docker
class TestLinuxNetwork(PodNetworkContract):
    @pytest.fixture
    def world(self, lab: Lab) -> Iterator[KernelWorld]:
        world = KernelWorld(lab, next(_NUMBERS))
        yield world
        world.node.stop()
