"""What pods and the host use, every 10 s, for `bay top` and the autoscaler.

Processor time is a difference of two counters: with one sample only, or after a restart, it is
missing, never zero.
"""

from __future__ import annotations

import asyncio

import structlog

from agent.engine import Engine
from agent.host import Host, HostUse
from agent.runtime.port import LABEL_POD, ContainerState, EngineError, Runtime
from bayplan.v1 import agent_link_pb2 as pb

log = structlog.get_logger(__name__)

SAMPLE_EVERY_S = 10.0


class UsageMeter:
    """One per agent. `take` gives each sample to one heartbeat."""

    def __init__(self, runtime: Runtime, engine: Engine, host: Host) -> None:
        self._runtime = runtime
        self._engine = engine
        self._host = host
        self._cpu_s: dict[str, float] = {}  # By container id, at the last sample.
        self._host_use: HostUse | None = None
        self._sampled_s = 0.0
        self._sample: tuple[list[pb.Usage], pb.Amounts | None] | None = None

    def take(self) -> tuple[list[pb.Usage], pb.Amounts | None]:
        """The last sample, once: (of each pod, of the host); empty until there is a new one."""
        sample, self._sample = self._sample, None
        return sample or ([], None)

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            try:
                await self._measure()
            except (EngineError, OSError) as error:
                log.warning("usage.not_measured", error=str(error))
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def _measure(self) -> None:
        running = [each for each in self._engine.all() if each.state is ContainerState.RUNNING]
        used = await self._runtime.usage(running)
        now_s = asyncio.get_running_loop().time()
        passed_s = now_s - self._sampled_s
        pods: dict[str, pb.Usage] = {}
        for container in running:
            if container.id not in used:
                continue
            cpu_s, memory_bytes = used[container.id]
            before_s = self._cpu_s.get(container.id)
            if before_s is None or passed_s <= 0 or cpu_s < before_s:
                continue
            uid = container.labels.get(LABEL_POD, "")
            usage = pods.setdefault(uid, pb.Usage(uid=uid))
            usage.cpu_millis += round((cpu_s - before_s) / passed_s * 1000)
            usage.memory_bytes += memory_bytes
        host = self._measure_host(passed_s)
        self._cpu_s = {container_id: cpu_s for container_id, (cpu_s, _) in used.items()}
        self._sampled_s = now_s
        self._sample = (list(pods.values()), host)

    def _measure_host(self, passed_s: float) -> pb.Amounts | None:
        before, self._host_use = self._host_use, self._host.use()
        if before is None or passed_s <= 0:
            return None
        busy_s = self._host_use.cpu_busy_s - before.cpu_busy_s
        return pb.Amounts(
            cpu_millis=max(0, round(busy_s / passed_s * 1000)), memory_bytes=self._host_use.memory_bytes
        )
