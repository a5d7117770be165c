"""A manager that does what the test says, and a world of one agent, its engine and such managers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agent.agent import Agent
from agent.network.simulated import SimulatedNetwork, SimulatedNotes
from agent.probes.simulated import SimulatedProber
from agent.runtime.port import Container, ContainerState
from agent.runtime.simulated import SimulatedRuntime
from agent.runtime.simulated_engine import EPOCH_S, SimulatedEngine
from agent.runtime.simulated_images import Program, SimulatedRegistry
from agent.settings import AgentSettings
from agent.traffic.simulated import SimulatedProxy
from bayplan.v1 import agent_link_pb2 as pb
from bayplan.v1.agent_link_pb2_grpc import AgentLinkServicer, add_AgentLinkServicer_to_server
from tests.fakes.host import FakeHost
from tests.fakes.network import FakeNetwork, FakeTransport

CLUSTER = "c1"
STORE = "store-1"
PORT = 7400
NETWORK = pb.Network(
    full=True,
    settings=pb.NetworkSettings(
        pod_range="10.42.0.0/15",
        service_range="10.96.0.0/16",
        domain="cluster.local",
        mode=pb.NETWORK_MODE_VXLAN,
        id=1,
        port=7472,
    ),
    subnet="10.42.0.0/24",
)


class ScriptedManager(AgentLinkServicer):
    """Answers a Hello with `answer` (None: Welcome), acknowledges heartbeats, and keeps what it hears."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = f"{name}:{PORT}"
        self.cluster = CLUSTER
        self.store = STORE
        self.epoch = 5
        self.managers: list[str] = []
        self.answer: pb.ManagerMessage | None = None
        self.acknowledges = True
        self.tells_network = True
        self.hellos: list[pb.Hello] = []
        self.heard: list[pb.AgentMessage] = []
        self.statuses: dict[str, pb.PodStatus] = {}
        self.frames: dict[str, list[pb.StreamFrame]] = {}
        self.input: asyncio.Queue[pb.StreamFrame | None] = asyncio.Queue()
        self.connections = 0
        self._outbox: asyncio.Queue[pb.ManagerMessage | None] | None = None

    async def serve(self, transport: FakeTransport) -> None:
        await transport.serve("", PORT, [partial(add_AgentLinkServicer_to_server, self)], [])

    @property
    def is_connected(self) -> bool:
        return self._outbox is not None

    def say(self, **message: Any) -> None:
        """To the agent, under this manager's epoch."""
        assert self._outbox is not None, f"no agent is connected to {self.name}"
        self._outbox.put_nowait(
            pb.ManagerMessage(epoch=pb.Epoch(store=self.store, revision=self.epoch), **message)
        )

    def assign(self, *pods: pb.Assignment, full: bool = False, forget: Sequence[str] = ()) -> None:
        self.say(
            assignments=pb.Assignments(full=full, pods=pods, forget=forget, commit_sequence=self.epoch + 10)
        )

    def hang_up(self) -> None:
        assert self._outbox is not None
        self._outbox.put_nowait(None)

    def of_kind(self, kind: str) -> list[Any]:
        return [getattr(message, kind) for message in self.heard if message.WhichOneof("kind") == kind]

    async def Connect(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[pb.AgentMessage], context: Any
    ) -> AsyncIterator[pb.ManagerMessage]:
        del context
        hello = (await anext(request_iterator)).hello
        self.hellos.append(hello)
        if self.answer is not None:
            yield self.answer
            return
        outbox: asyncio.Queue[pb.ManagerMessage | None] = asyncio.Queue()
        self._outbox = outbox
        self.connections += 1
        self.say(
            welcome=pb.Welcome(
                cluster=self.cluster, manager=self.name, heartbeat_s=1.0, managers=self.managers
            )
        )
        if self.tells_network:
            self.say(network=NETWORK)
        reader = asyncio.create_task(self._read(request_iterator, outbox))
        try:
            while (message := await outbox.get()) is not None:
                yield message
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            if self._outbox is outbox:
                self._outbox = None

    async def Attach(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[pb.StreamFrame], context: Any
    ) -> AsyncIterator[pb.StreamFrame]:
        del context
        stream_id = (await anext(request_iterator)).stream_id
        frames = self.frames.setdefault(stream_id, [])

        async def read() -> None:
            async for frame in request_iterator:
                frames.append(frame)
                if frame.WhichOneof("kind") in ("end", "exit_code", "error"):
                    break
            self.input.put_nowait(None)

        reader = asyncio.create_task(read())
        try:
            while (frame := await self.input.get()) is not None:
                yield frame
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(
        self,
        incoming: AsyncIterator[pb.AgentMessage],
        outbox: asyncio.Queue[pb.ManagerMessage | None],
    ) -> None:
        async for message in incoming:
            self.heard.append(message)
            match message.WhichOneof("kind"):
                case "heartbeat" if self.acknowledges:
                    self.say(heartbeat_ack=pb.HeartbeatAck(sequence=message.heartbeat.sequence))
                case "status":
                    if message.status.full:
                        self.statuses.clear()
                    self.statuses.update({each.uid: each for each in message.status.pods})
                    for uid in message.status.forgotten:
                        self.statuses.pop(uid, None)
                case _:
                    pass
        outbox.put_nowait(None)


class World:
    """One node with its agent, and managers m1 …"""

    def __init__(self, directory: Path, *, managers: int = 1) -> None:
        self.network = FakeNetwork()
        self.registry = SimulatedRegistry()
        self.registry.push("app:1")
        self.engine = SimulatedEngine(self.registry)
        self.host = FakeHost("n1")
        self.directory = directory
        self.run_dir = directory / "run"
        self.managers = [ScriptedManager(f"m{number + 1}") for number in range(managers)]
        self.manager_transports: list[FakeTransport] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.seed = 1
        self.address = "n1"  # That the agent advertises.
        self.notes = SimulatedNotes()
        self.proxy = SimulatedProxy()

    @property
    def manager(self) -> ScriptedManager:
        return self.managers[0]

    async def open(self) -> None:
        for manager in self.managers:
            transport = FakeTransport(self.network, manager.name)
            self.manager_transports.append(transport)
            await manager.serve(transport)

    def start_agent(self) -> Agent:
        """A new process of the agent on the same host."""
        self.transport = FakeTransport(self.network, "n1")
        loop = asyncio.get_running_loop()
        self.seed += 1
        runtime = SimulatedRuntime(self.engine, cluster="", node="n1")
        agent = Agent(
            AgentSettings(
                node="n1",
                data_dir=self.directory,
                run_dir=self.run_dir,
                managers=tuple(manager.address for manager in self.managers),
                address=self.address,
            ),
            transport=self.transport,
            runtime=runtime,
            network=SimulatedNetwork(runtime, self.notes),
            proxy=self.proxy,
            prober=SimulatedProber(self.engine, runtime),
            host=self.host,
            wall_s=lambda: EPOCH_S + loop.time(),
            rng=random.Random(self.seed),
        )
        self._tasks.append(loop.create_task(agent.run(), name="agent"))
        return agent

    async def kill_agent(self) -> None:
        """SIGKILL: no Goodbye, no last words to the disk but those already written."""
        self.transport.kill()
        files = [self.directory / name for name in ("journal.json", "network.pb", "traffic.pb")]
        written = {file: file.read_bytes() if file.exists() else None for file in files}
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        # A cancelled agent still writes them; a killed one does not.
        for file, content in written.items():
            if content is not None:
                file.write_bytes(content)
            else:
                file.unlink(missing_ok=True)

    async def connected(self, manager: ScriptedManager | None = None) -> None:
        await until(lambda: (manager or self.manager).is_connected)

    async def close(self) -> None:
        await self.kill_agent()
        for transport in self.manager_transports:
            transport.kill()
        await asyncio.sleep(1)

    def containers(self, uid: str | None = None) -> list[Container]:
        """What the engine itself has, ours and running."""
        return [
            each.shown
            for each in self.engine.containers.values()
            if each.shown.state in (ContainerState.RUNNING, ContainerState.PAUSED)
            and (uid is None or each.shown.labels.get("bayplan.io/pod") == uid)
        ]


async def until(condition: Callable[[], object], *, within_s: float = 30.0) -> float:
    """Wait until it holds; returns the seconds it took."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while not condition():
        assert loop.time() - began_s < within_s, f"not so within {within_s} s"
        await asyncio.sleep(0.01)
    return loop.time() - began_s


@contextlib.asynccontextmanager
async def a_world(directory: Path, *, managers: int = 1, start: bool = True) -> AsyncIterator[World]:
    """Open; with `start` the agent runs and is connected to the first manager."""
    world = World(directory, managers=managers)
    await world.open()
    try:
        if start:
            world.start_agent()
            await world.connected()
        yield world
    finally:
        await world.close()


def a_pod(
    number: int = 0,
    *,
    want: pb.Want = pb.WANT_RUN,
    image: str = "app:1",
    incarnation: int = 1,
    revision: str = "0000abcd",
    kind: str = "Deployment",
    **spec: Any,
) -> pb.Assignment:
    """An assignment of workload `web`, slot `number`; `spec`: more fields of the pod's spec."""
    container = {"name": "web", "image": image, **spec.pop("container", {})}
    template = {"metadata": {}, "spec": {"containers": [container], **spec}}
    return pb.Assignment(
        uid=f"u1.{number}.{incarnation}",
        name=f"web-{number}-{'bcdfg'[incarnation - 1] * 5}",
        namespace="default",
        workload_kind=kind,
        workload="web",
        workload_uid="u1",
        slot=number,
        incarnation=incarnation,
        revision=revision,
        want=want,
        template_json=json.dumps(template),
    )


def crashing(code: int = 1, *, after_s: float = 0.1, says: bytes = b"") -> Program:
    from agent.runtime.port import Output

    output = (Output(data=says),) if says else ()
    return Program(runs_s=after_s, exit_code=code, output=output)
