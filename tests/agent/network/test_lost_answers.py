"""A kernel whose answer never comes: netlink may lose one under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.network.kernel import Kernel
from agent.network.linux import ROUND_MAX_S, LinuxNetwork
from agent.network.observed import Observed
from agent.network.table import NetworkTable
from agent.runtime.simulated import SimulatedRuntime
from agent.runtime.simulated_engine import SimulatedEngine
from agent.settings import AgentSettings
from agent.traffic.table import TrafficTable
from tests.agent.scripted_manager import NETWORK

pytestmark = pytest.mark.virtual_time


class SilentKernel(Kernel):
    """Answers nothing."""

    def __init__(self) -> None:
        self.asked_s: list[float] = []

    async def observe(self, *, tunnel: str, port: int) -> Observed:
        del tunnel, port
        self.asked_s.append(asyncio.get_running_loop().time())
        return await asyncio.Future()

    async def changes(self) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""


async def test_it_is_asked_again(tmp_path: Path) -> None:
    kernel = SilentKernel()
    settings = AgentSettings(node="n1", managers=("m1:7400",), data_dir=tmp_path, address="127.0.0.1")
    runtime = SimulatedRuntime(SimulatedEngine(), cluster="test", node="n1")
    network = LinuxNetwork(settings, runtime, kernel=kernel)
    network.use(NetworkTable().fold(NETWORK), TrafficTable())
    running = asyncio.create_task(network.run())
    await asyncio.sleep(3 * ROUND_MAX_S)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert len(kernel.asked_s) >= 2
    assert network.problem()
