"""A whole cluster in one process, on virtual time: real managers and agents on fakes.

Only the edges are false: etcd, the network, the engines and the clock.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from agent.agent import Agent
from agent.network.simulated import SimulatedNetwork, SimulatedNotes
from agent.next_step import run_of, sandbox_of
from agent.probes.simulated import SimulatedProber
from agent.runtime import port as runtime_port
from agent.runtime.port import SANDBOX, Container, ContainerState
from agent.runtime.simulated import SimulatedRuntime
from agent.runtime.simulated_engine import SimulatedEngine
from agent.runtime.simulated_images import Program, SimulatedRegistry
from agent.settings import AgentSettings
from agent.traffic.simulated import SimulatedProxy
from bayplan.client import Client
from bayplan.model.names import PodId
from manager.founding import NetworkChoice
from manager.manager import Manager, ManagerSettings
from manager.store import keys
from tests.fakes.etcd_server import FakeEtcd
from tests.fakes.host import FakeHost
from tests.fakes.network import FakeNetwork, FakeTransport
from tests.fakes.store import FakeStore
from tests.simulation.watcher import Watcher, ended

IMAGE = "app:1"
SIDE_CAR = "side-car"
_WORKLOADS = keys.resources_of("Deployment")
WALL_S = 1_700_000_000.0


def deployment(
    name: str = "web",
    *,
    replicas: int = 3,
    image: str = IMAGE,
    cpu: str = "100m",
    version: str = "",
    namespace: str = "default",
    has_side_car: bool = False,
    **pod_spec: Any,
) -> dict[str, Any]:
    """A document in Kubernetes' shape; another `version` makes another template."""
    container: dict[str, Any] = {"name": "app", "image": image, "resources": {"requests": {"cpu": cpu}}}
    if version:
        container["env"] = [{"name": "VERSION", "value": version}]
    side_cars = [{"name": SIDE_CAR, "image": IMAGE}] if has_side_car else []
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [container, *side_cars], **pod_spec},
            },
        },
    }


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    """A document that finds the pods of the deployment of its name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}], **spec},
    }


class Node:
    """A host: its engine outlives its agent."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.name = name
        self.host = FakeHost(name)
        self.engine = SimulatedEngine(cluster.registry, name=name, start_delay_s=0.05)
        self._cluster = cluster
        self._data = cluster.data / name
        self._task: asyncio.Task[None] | None = None
        self._transport: FakeTransport | None = None
        self.agent: Agent | None = None
        # Both outlive the agent: a note on the disk, and a process of its own.
        self._notes = SimulatedNotes()
        self.proxy = SimulatedProxy()
        self.is_dead = False
        self._foreign = ""

    @property
    def has_agent(self) -> bool:
        """Whether its agent process runs."""
        return self._task is not None

    @property
    def is_foreign_touched(self) -> bool:
        """Whether the container that is not ours runs no more, although its host lives."""
        container = self.engine.containers.get(self._foreign)
        return not self.is_dead and (container is None or not container.is_running)

    def add_foreign(self) -> None:
        """Run a container that is not ours."""
        self._foreign = self.engine.add_foreign(f"foreign-{self.host.boots}")

    def start_agent(self) -> None:
        """Start the agent process."""
        self._transport = FakeTransport(self._cluster.network, self.name)
        settings = AgentSettings(
            node=self.name,
            data_dir=self._data,
            run_dir=self._data / "run",
            managers=tuple(f"{name}:7400" for name in self._cluster.managers),
            address=self.name,
        )
        runtime = SimulatedRuntime(self.engine, cluster="", node=self.name)
        self.agent = Agent(
            settings,
            transport=self._transport,
            runtime=runtime,
            network=SimulatedNetwork(runtime, self._notes),
            proxy=self.proxy,
            prober=SimulatedProber(self.engine, runtime),
            host=self.host,
            wall_s=self._cluster.wall_s,
            rng=self._cluster.process_chance(self.name),
        )
        self._task = asyncio.create_task(self.agent.run(), name=f"agent {self.name}")

    def renew_certificate(self) -> None:
        """As if the agent had got a new one: it connects anew with that."""
        assert self._transport is not None
        self._transport.renew_identity()

    async def kill_agent(self) -> None:
        """SIGKILL: no Goodbye, containers run on."""
        if self._transport is not None:
            self._transport.kill()
        await ended(self._task)
        self._task = None

    def use_data(self, path: Path) -> None:
        """Keep the agent's data somewhere else."""
        self._data = path

    def lose_data(self) -> None:
        """Somebody removes the data directory of the agent, which does not run."""
        shutil.rmtree(self._data)

    async def kill(self) -> None:
        """The host loses power."""
        self.is_dead = True
        self._cluster.network.kill(self.name)
        self.engine.kill(with_containers=True)
        await self.kill_agent()

    def boot(self) -> None:
        """The host comes back."""
        self._cluster.network.revive(self.name)
        self.host.reboot()
        self.proxy = SimulatedProxy()
        self.engine.restart()
        self.is_dead = False
        self.add_foreign()
        self.start_agent()

    def running(self) -> list[PodId]:
        """Pods whose app runs, from the engine itself."""
        return [
            PodId.parse(container.shown.labels[runtime_port.LABEL_POD])
            for container in self.engine.containers.values()
            if container.shown.state is ContainerState.RUNNING
            and container.shown.labels.get(runtime_port.LABEL_CONTAINER) == "app"
        ]

    def half_pods(self) -> set[str]:
        """Pods of which something runs, but not all of it, or not in its present sandbox."""
        pods: dict[str, list[Container]] = {}
        for each in self.engine.containers.values():
            if each.shown.state is ContainerState.RUNNING and runtime_port.LABEL_POD in each.shown.labels:
                pods.setdefault(each.shown.labels[runtime_port.LABEL_POD], []).append(each.shown)
        return {uid for uid, containers in pods.items() if not _is_whole(containers)}


class ManagerProcess:
    """A manager that can be killed and started again."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.name = name
        self._cluster = cluster
        self._task: asyncio.Task[None] | None = None
        self._transport: FakeTransport | None = None
        self.manager: Manager | None = None
        self._store: FakeStore | None = None
        self._starts = 0

    def start(self) -> None:
        """Start the process."""
        self._starts += 1
        self._transport = FakeTransport(self._cluster.network, self.name)
        self._store = FakeStore(self._cluster.etcd, self.etcd_client)
        self.manager = Manager(
            ManagerSettings(
                id=self.name,
                listen_host=self.name,
                listen_port=7400,
                advertise=f"{self.name}:7400",
                network=self._cluster.pods_network,
            ),
            store=self._store,
            transport=self._transport,
            wall_s=self._cluster.wall_s,
            chance=self._cluster.process_chance(self.name),
        )
        self._task = asyncio.create_task(self.manager.run(), name=f"manager {self.name}")

    async def kill(self) -> None:
        """SIGKILL: nothing is given up, not even the lease."""
        if self._transport is None or self._store is None:
            return
        self._cluster.etcd.cut(self.etcd_client)
        await self._store.aclose()
        self._transport.kill()
        await ended(self._task)
        self._task = self.manager = None

    def freeze(self) -> None:
        """SIGSTOP, as far as a test can: none of its words reach anybody until it is thawed."""
        self._cluster.network.freeze(self.name)
        self._cluster.etcd.cut(self.etcd_client)

    def thaw(self) -> None:
        """SIGCONT."""
        self._cluster.network.thaw(self.name)
        self._cluster.etcd.heal(self.etcd_client)

    @property
    def etcd_client(self) -> str:
        """What etcd knows this process by."""
        return f"{self.name}.{self._starts}"

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._task is not None

    @property
    def is_commanding(self) -> bool:
        """Whether it leads and is not suspended."""
        leadership = self.manager.leadership if self.manager is not None else None
        return leadership is not None and not leadership.term.is_suspended

    @property
    def is_leading(self) -> bool:
        """Whether it believes to lead, and has read the store."""
        return self.manager is not None and self.manager.leadership is not None


class Cluster:
    """Three managers and five nodes unless said otherwise. Use as `async with`."""

    def __init__(
        self, data: Path, *, managers: int = 3, nodes: int = 5, pods_network: NetworkChoice | None = None
    ) -> None:
        self.data = data
        self.pods_network = pods_network or NetworkChoice()
        self._processes = 0
        self.network = FakeNetwork()
        self.etcd = FakeEtcd()
        self.registry = SimulatedRegistry()
        self.registry.push(f"docker.io/library/{IMAGE}", Program())
        self.managers = {f"m{i}": ManagerProcess(self, f"m{i}") for i in range(1, managers + 1)}
        self.nodes = {f"n{i}": Node(self, f"n{i}") for i in range(1, nodes + 1)}
        self.watcher = Watcher(self)
        self._watching: asyncio.Task[None] | None = None
        self.client = Client(
            [f"{name}:7400" for name in self.managers], transport=FakeTransport(self.network, "user")
        )

    def process_chance(self, name: str) -> random.Random:
        """Another one for each process that is started; the same in each run of a test."""
        self._processes += 1
        return random.Random(f"{name} {self._processes}")

    @staticmethod
    def wall_s() -> float:
        """Follows the loop's time."""
        return WALL_S + asyncio.get_running_loop().time()

    async def __aenter__(self) -> Self:
        for manager in self.managers.values():
            manager.start()
        for node in self.nodes.values():
            node.add_foreign()
            node.start_agent()
        self._watching = asyncio.create_task(self.watcher.run(), name="watcher")
        await self.client.__aenter__()
        await self.until(self._is_up, within_s=15)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.client.__aexit__(None, None, None)
        await ended(self._watching)
        for node in self.nodes.values():
            await node.kill_agent()
        for manager in self.managers.values():
            await manager.kill()
        assert not self.watcher.violations, "\n".join(self.watcher.violations)

    def _is_up(self) -> bool:
        leader = self.leader
        if leader is None or leader.manager is None or leader.manager.leadership is None:
            return False
        nodes = leader.manager.leadership.state.nodes
        # A node takes no pods before its network stands.
        return len(nodes) == len(self.nodes) and all(
            entry.has_reported and not entry.condition.network_problem for entry in nodes.values()
        )

    @property
    def leader(self) -> ManagerProcess | None:
        """The leading manager with the highest epoch."""
        leading = [process for process in self.managers.values() if process.is_leading]
        return max(leading, key=_epoch, default=None)

    def running(self, name: str = "") -> Counter[str]:
        """How many pods run on each node, as its engine says; of one workload if named."""
        return Counter(
            {
                node.name: len(pods)
                for node in self.nodes.values()
                if (
                    pods := [pod for pod in node.running() if not name or self.workload_of(node, pod) == name]
                )
            }
        )

    @staticmethod
    def workload_of(node: Node, pod: PodId) -> str:
        """The name on the container's label."""
        for container in node.engine.containers.values():
            if container.shown.labels.get(runtime_port.LABEL_POD) == str(pod):
                return container.shown.labels[runtime_port.LABEL_WORKLOAD].rpartition("/")[2]
        return ""

    async def until(self, condition: Callable[[], bool], *, within_s: float, what: str = "") -> float:
        """Wait for `condition`; returns how many (virtual) seconds it took."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        while not condition():
            if loop.time() - begun_s > within_s:
                raise AssertionError(
                    f"{what or condition} does not hold within {within_s} s: {self.running()}"
                )
            await asyncio.sleep(0.02)
        return loop.time() - begun_s

    async def until_running(self, name: str, pods: int, *, within_s: float) -> float:
        """Wait until exactly so many pods of a workload run."""
        return await self.until(
            lambda: self.running(name).total() == pods, within_s=within_s, what=f"{pods} pods of {name}"
        )

    def containers(self, name: str = "") -> list[Container]:
        """Running containers of a workload, or of all, as `docker ps` on each host shows them."""
        return [
            container.shown
            for node in self.nodes.values()
            for container in node.engine.containers.values()
            if container.shown.state is ContainerState.RUNNING
            and runtime_port.LABEL_POD in container.shown.labels
            and name in ("", container.shown.labels[runtime_port.LABEL_WORKLOAD].rpartition("/")[2])
        ]

    def container_ids(self, name: str = "") -> set[str]:
        """Of running containers of a workload, or of all."""
        return {container.id for container in self.containers(name)}

    def revisions(self, name: str) -> Counter[str]:
        """How many containers of each revision run."""
        return Counter(found.labels[runtime_port.LABEL_REVISION] for found in self.containers(name))

    def stored_keys(self) -> list[str]:
        """What the store holds."""
        return [item.key for item in self.etcd.items("/")]

    def desired(self) -> dict[str, int]:
        """How many pods each workload wants, by uid, read from the store alone."""
        found = {}
        for item in self.etcd.items(_WORKLOADS):
            record = json.loads(item.value)
            found[record["uid"]] = 0 if record["deleting"] else record["document"]["spec"].get("replicas", 1)
        return found

    def desired_by_name(self) -> dict[str, int]:
        """The same by name, documents that are being deleted left out."""
        found = {}
        for item in self.etcd.items(_WORKLOADS):
            record = json.loads(item.value)
            if not record["deleting"]:
                name = record["document"]["metadata"]["name"]
                found[name] = record["document"]["spec"].get("replicas", 1)
        return found

    def is_settled(self) -> bool:
        """Whether exactly what the store's documents want runs: one copy a slot."""
        slots = Counter(
            (pod.workload_uid, pod.slot) for node in self.nodes.values() for pod in node.running()
        )
        wanted = {(uid, slot): 1 for uid, replicas in self.desired().items() for slot in range(replicas)}
        return slots == wanted and not any(node.half_pods() for node in self.nodes.values())

    async def until_steady(self, *, within_s: float, for_s: float = 5.0) -> None:
        """Wait until it has been settled, without a break, for so long."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + within_s + for_s
        since_s = loop.time()
        while loop.time() - since_s < for_s:
            if not self.is_settled():
                since_s = loop.time()
                assert since_s < end_s, f"not settled within {within_s} s: {self.difference()}"
            await asyncio.sleep(0.05)

    def difference(self) -> str:
        """What runs and should not, what should and does not."""
        slots = Counter(
            (pod.workload_uid, pod.slot) for node in self.nodes.values() for pod in node.running()
        )
        wanted = Counter(
            {(uid, slot): 1 for uid, replicas in self.desired().items() for slot in range(replicas)}
        )
        return f"too many: {dict(slots - wanted)}, missing: {dict(wanted - slots)}"

    async def stays(self, condition: Callable[[], bool], *, for_s: float, what: str = "") -> None:
        """Look all the time: `condition` must hold throughout."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        while loop.time() < begun_s + for_s:
            if not condition():
                raise AssertionError(f"{what or condition} ended after {loop.time() - begun_s:.2f} s")
            await asyncio.sleep(0.05)

    async def change_leader(self) -> float:
        """Kill the leader; returns how long it took until another had read the store."""
        leader = self.leader
        assert leader is not None
        begun_s = asyncio.get_running_loop().time()
        await leader.kill()
        await self.until(lambda: self.leader is not None, within_s=5, what="another leader")
        return asyncio.get_running_loop().time() - begun_s


def _is_whole(containers: list[Container]) -> bool:
    by_name = {each.labels[runtime_port.LABEL_CONTAINER]: each for each in containers}
    joined = {sandbox_of(each) for name, each in by_name.items() if name != SANDBOX}
    if joined == {""}:
        return len(containers) == 1
    names = {SANDBOX, "app", SIDE_CAR}
    return len(containers) == 3 and by_name.keys() == names and joined == {run_of(by_name[SANDBOX])}


def _epoch(process: ManagerProcess) -> int:
    assert process.manager is not None
    assert process.manager.leadership is not None
    return process.manager.leadership.term.epoch.revision
