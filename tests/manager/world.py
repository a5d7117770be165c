"""Real managers on a fake etcd and network, with agents that do what the test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import agent_link_pb2_grpc, control_pb2_grpc
from bayplan.v1 import control_pb2 as api
from manager.founding import NetworkChoice
from manager.leader import Leadership
from manager.manager import Manager, ManagerSettings
from tests.fakes.network import FakeNetwork, FakeTransport
from tests.fakes.store import FakeEtcd, FakeStore

PORT = 7400
WALL_S = 1_700_000_000.0


def a_deployment(name: str = "web", *, replicas: int = 2, image: str = "app:1", **labels: str) -> str:
    """A document as JSON."""
    return json.dumps(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "app", "image": image}]},
                },
            },
        }
    )


def a_service(name: str = "web", *, selector: dict[str, str] | None = None, **more: Any) -> str:
    """A document as JSON: port 80 to the pods' own, by the labels of `a_deployment`."""
    annotations = more.pop("annotations", {})
    spec = {"selector": {"app": name} if selector is None else selector, "ports": [{"port": 80}], **more}
    metadata = {"name": name, "annotations": annotations}
    return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})


class ScriptedAgent:
    """One node. Starts and stops what it is told at once, unless `is_idle`.

    Its proxy follows at once, unless `is_proxy_idle`; endpoints in `draining` keep their requests.
    """

    def __init__(self, world: World, name: str, manager: str, *, boot_id: str = "") -> None:
        self.name = name
        self.assignments: dict[str, wire.Assignment] = {}
        self.heard: list[wire.ManagerMessage] = []
        self.statuses: dict[str, wire.PodStatus] = {}
        self.is_idle = False
        self.engine_ok = True
        self.is_over = False
        self.ready = True
        self.traffic = TrafficTable()
        self.subnet = ""
        self.is_proxy_idle = False
        self.draining: set[str] = set()
        self._outbox: asyncio.Queue[wire.AgentMessage | None] = asyncio.Queue()
        self._transport = FakeTransport(world.network, name)
        self._address = f"{manager}:{PORT}"
        self._sequence = 0
        self._task: asyncio.Task[None] | None = None
        self.hello = wire.Hello(
            node=name,
            version="0.1.0",
            boot_id=boot_id or f"{name}-boot",
            session=f"{name}-{len(world.agents)}",
            capacity=wire.Amounts(cpu_millis=4000, memory_bytes=8 << 30, pods=110),
            address=name,
            witness_port=7443,
            engine="Fake 1",
        )

    def start(self, *, report: bool = True) -> None:
        self._task = asyncio.create_task(self._run(report=report), name=f"agent {self.name}")

    async def stop(self) -> None:
        """Without a Goodbye."""
        self._transport.kill()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def say(self, **message: Any) -> None:
        self._outbox.put_nowait(wire.AgentMessage(**message))

    def report(self, *, full: bool = False) -> None:
        condition = wire.NodeCondition(engine_ok=self.engine_ok) if full else None
        self.say(status=wire.StatusReport(full=full, pods=list(self.statuses.values()), condition=condition))

    def saw(self, uid: str, state: int, *, ready: bool = False, message: str = "", tell: bool = True) -> None:
        status = wire.PodStatus(uid=uid, ready=ready, message=message, reason="Error" if message else "")
        # One of its own for each: the same whoever computes it.
        number = 2 + zlib.crc32(uid.encode()) % 250
        before = self.statuses.get(uid)
        status.address = before.address if before is not None else f"{self.subnet[: -len('0/24')]}{number}"
        status.state = state  # type: ignore[assignment]  # values are equal by design
        self.statuses[uid] = status
        if tell:
            self.say(status=wire.StatusReport(pods=[status]))

    async def _run(self, *, report: bool) -> None:
        channel = self._transport.channel(self._address)
        beats = asyncio.create_task(self._beat(), name=f"beats {self.name}")
        self.say(hello=self.hello)
        if report:
            self.report(full=True)
        try:
            call = agent_link_pb2_grpc.AgentLinkStub(channel).Connect(self._outgoing())
            async for message in call:
                self.heard.append(message)
                if message.HasField("assignments"):
                    self._obey(message.assignments)
                if message.HasField("network") and message.network.full:
                    self.subnet = message.network.subnet
                if message.HasField("traffic"):
                    self.traffic = self.traffic.fold(message.traffic)
                    self.apply_traffic()
        finally:
            self.is_over = True
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)
            await channel.close()

    def apply_traffic(self, *problems: wire.PortProblem) -> None:
        """Its proxy has come as far as it was told."""
        if not self.is_proxy_idle:
            applied = wire.TrafficApplied(
                version=self.traffic.version, draining=sorted(self.draining), problems=problems
            )
            self.say(traffic_applied=applied)

    def endpoints(self, service: str = "default/web") -> set[str]:
        """Ids of the endpoints that its proxy was told of."""
        return set(self.traffic.endpoints.get(service, {}))

    async def _outgoing(self) -> AsyncIterator[wire.AgentMessage]:
        while (message := await self._outbox.get()) is not None:
            yield message

    async def _beat(self) -> None:
        while True:
            self._sequence += 1
            self.say(heartbeat=wire.Heartbeat(sequence=self._sequence))
            await asyncio.sleep(1)

    def _obey(self, told: wire.Assignments) -> None:
        if told.full:
            self.assignments.clear()
        for assignment in told.pods:
            self.assignments[assignment.uid] = assignment
            if self.is_idle:
                continue
            if assignment.want == wire.WANT_STOP:
                self.saw(assignment.uid, wire.POD_STATE_STOPPED)
            else:
                self.saw(assignment.uid, wire.POD_STATE_RUNNING, ready=self.ready)
        for uid in told.forget:
            self.assignments.pop(uid, None)
            self.statuses.pop(uid, None)

    def kinds(self) -> list[str | None]:
        return [message.WhichOneof("kind") for message in self.heard]


class World:
    """Managers m1, m2, …; users call any of them."""

    def __init__(self) -> None:
        self.etcd = FakeEtcd()
        self.network = FakeNetwork()
        self.managers: dict[str, Manager] = {}
        self.agents: list[ScriptedAgent] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._transports: dict[str, FakeTransport] = {}
        self._user = FakeTransport(self.network, "user")

    def manager(self, name: str, *, network: NetworkChoice | None = None) -> Manager:
        """One that does not run yet."""
        transport = self._transports[name] = FakeTransport(self.network, name)
        return Manager(
            ManagerSettings(
                id=name,
                listen_host=name,
                listen_port=PORT,
                advertise=f"{name}:{PORT}",
                network=network or NetworkChoice(),
            ),
            store=FakeStore(self.etcd, name),
            transport=transport,
            wall_s=lambda: WALL_S + asyncio.get_running_loop().time(),
            chance=random.Random(name),
        )

    async def start(self, name: str, *, network: NetworkChoice | None = None) -> Manager:
        manager = self.managers[name] = self.manager(name, network=network)
        self._tasks[name] = asyncio.create_task(manager.run(), name=f"manager {name}")
        await asyncio.sleep(0.2)
        return manager

    def task(self, name: str) -> asyncio.Task[None]:
        """The process of a manager."""
        return self._tasks[name]

    async def kill(self, name: str) -> None:
        """SIGKILL: nothing is given up."""
        self.etcd.cut(name)
        self._transports[name].kill()
        task = self._tasks.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del self.managers[name]

    async def close(self) -> None:
        for agent in self.agents:
            await agent.stop()
        for name in list(self._tasks):
            await self.kill(name)

    @property
    def leader(self) -> str:
        """Its name."""
        return next(name for name, manager in self.managers.items() if manager.leadership is not None)

    @property
    def leadership(self) -> Leadership:
        leadership = self.managers[self.leader].leadership
        assert leadership is not None
        return leadership

    @property
    def follower(self) -> str:
        return next(name for name, manager in self.managers.items() if manager.leadership is None)

    def control(self, name: str = "") -> control_pb2_grpc.ControlAsyncStub:
        """What a user's program holds: a stub of a manager, the leader's if none is named."""
        channel = self._user.channel(f"{name or self.leader}:{PORT}")
        return control_pb2_grpc.ControlStub(channel)

    async def agent(self, name: str, *, manager: str = "", **settings: Any) -> ScriptedAgent:
        """A node, connected and synced."""
        agent = ScriptedAgent(self, name, manager or self.leader, **settings)
        self.agents.append(agent)
        agent.start()
        await self.until(lambda: agent.is_over or "assignments" in agent.kinds())
        return agent

    async def apply(self, *documents: str, at: str = "") -> list[api.Applied]:
        reply = await self.control(at).Apply(api.ApplyRequest(documents=list(documents)))
        return list(reply.applied)

    async def pods(self, **request: Any) -> list[api.Pod]:
        return list((await self.control().ListPods(api.ListPodsRequest(**request))).pods)

    async def pods_mark(self) -> api.Mark:
        """How recent an answer about pods is now."""
        return (await self.control().ListPods(api.ListPodsRequest())).mark

    async def until(self, holds: Callable[[], bool], *, within_s: float = 30.0) -> None:
        async with asyncio.timeout(within_s):
            while not holds():  # noqa: ASYNC110 - a condition of the world, no event tells of it
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def a_world(managers: int = 1, *, network: NetworkChoice | None = None) -> AsyncIterator[World]:
    """With this many managers, one of which leads."""
    world = World()
    try:
        for number in range(managers):
            await world.start(f"m{number + 1}", network=network)
        await world.until(lambda: any(each.leadership is not None for each in world.managers.values()))
        yield world
    finally:
        await world.close()
