"""A random series of faults and of users' writes, the same for one seed.

Faults come and go for a minute; then everything is healed, and the cluster must come to what was
acknowledged last. What must never be is watched all the time (`Watcher`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from bayplan.client.errors import BayplanError
from manager.history import History, decode_history
from manager.store import keys
from tests.simulation.cluster import Cluster, Node, deployment, service
from tests.simulation.traffic_watcher import TrafficWatcher

FAULTS_S = 60.0
SETTLED_WITHIN_S = 90.0
WORKLOADS = {"api": 300, "shop": 500, "web": 800}  # Millicores a pod: some nodes are full at times.
PROBED = "shop"
SEVERAL = "web"  # Its pods have a side-car, and so a sandbox.
SPARE_SERVICES = 4  # They find no pods, and come and go.
# How long the last requests of a pod take: it leaves proxies that are in reach well before its time is over.
REQUESTS_LAST_S = 1.5
REPLICAS_MAX = 8
# Faults of etcd are rare: every other one would be hidden behind them.
WEIGHTS = {
    "kill_or_boot_node": 4,
    "isolate_or_heal_node": 4,
    "kill_or_start_agent": 4,
    "kill_or_start_manager": 4,
    "freeze_or_thaw_manager": 2,
    "cut_manager_from_etcd_or_heal": 2,
    "cut_or_heal_link": 2,
    "lose_reply": 2,
    "stop_etcd_for_a_moment": 1,
    "freeze_etcd_for_a_moment": 1,
    "kill_container": 3,
    "hang_or_free_engine": 1,
    "fail_or_heal_probes": 3,
    "stick_or_free_proxy": 1,
}


def _workload(name: str, replicas: int, version: str) -> dict[str, Any]:
    document = deployment(
        name,
        replicas=replicas,
        version=version,
        cpu=f"{WORKLOADS[name]}m",
        has_side_car=name == SEVERAL,
    )
    if name == PROBED:
        probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
        document["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = probe
    return document


class Chaos:
    """Runs on a cluster that is up. `story` tells what was done, for whoever studies a failing seed."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.story: list[str] = []
        # What the last acknowledged write of each workload wants; absent: its outcome is not known.
        self.acknowledged: dict[str, int] = {}
        self._cluster = cluster
        self._faults = random.Random(f"faults {seed}")
        self._user = random.Random(f"user {seed}")
        self._other_user = random.Random(f"other user {seed}")
        self._isolated: set[str] = set()
        self._cut_links: set[tuple[str, str]] = set()
        self._frozen: set[str] = set()
        self._cut_clients: set[str] = set()
        self._hung: set[str] = set()
        self.traffic = TrafficWatcher(cluster)

    async def run(self) -> None:
        """Faults for a minute, then heal everything and wait until what runs is what is wanted."""
        await self._cluster.client.apply([service(name) for name in WORKLOADS])
        for node in self._cluster.nodes.values():
            node.proxy.requests_last_s = REQUESTS_LAST_S
        async with self.traffic, asyncio.TaskGroup() as parts:
            users = [
                parts.create_task(self._write_for_ever(), name="user"),
                parts.create_task(self._write_services_for_ever(), name="other user"),
            ]
            look = parts.create_task(self._look_for_ever(), name="look")
            await self._break_for(FAULTS_S)
            for user in users:
                user.cancel()
            await self._heal()
            await self._uncordon_all()
            await self._cluster.until_steady(within_s=SETTLED_WITHIN_S, for_s=10)
            look.cancel()
            assert not self.traffic.differences()

    def _tell(self, what: str) -> None:
        self.story.append(f"{asyncio.get_running_loop().time():.3f} {what}")

    # -- faults --------------------------------------------------------------------------------

    async def _break_for(self, duration_s: float) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + duration_s
        names = list(WEIGHTS)
        while loop.time() < end_s:
            await asyncio.sleep(self._faults.expovariate(1 / 1.5))
            (name,) = self._faults.choices(names, weights=list(WEIGHTS.values()))
            fault: Callable[[], Awaitable[str]] = getattr(self, f"_{name}")
            done = await fault()
            if done:
                self._tell(done)

    def _any_node(self) -> Node:
        return self._faults.choice(list(self._cluster.nodes.values()))

    async def _kill_or_boot_node(self) -> str:
        node = self._any_node()
        if node.is_dead:
            self._boot(node)
            return f"{node.name} boots"
        self._hung.discard(node.name)
        await node.kill()
        return f"{node.name} loses power"

    @staticmethod
    def _boot(node: Node) -> None:
        node.boot()
        node.proxy.requests_last_s = REQUESTS_LAST_S

    async def _isolate_or_heal_node(self) -> str:
        name = self._any_node().name
        if name in self._isolated:
            self._isolated.discard(name)
            self._cluster.network.heal(name)
            self._cut_links = {link for link in self._cut_links if name not in link}
            return f"{name} is reached again"
        self._isolated.add(name)
        self._cluster.network.isolate(name)
        return f"{name} is cut off"

    async def _kill_or_start_agent(self) -> str:
        node = self._any_node()
        if node.is_dead:
            return ""
        if node.has_agent:
            await node.kill_agent()
            return f"the agent of {node.name} is killed"
        node.start_agent()
        return f"the agent of {node.name} starts"

    async def _kill_or_start_manager(self) -> str:
        manager = self._faults.choice(list(self._cluster.managers.values()))
        if not manager.is_running:
            manager.start()
            return f"{manager.name} starts"
        if manager.name in self._frozen:
            self._thaw(manager.name)
        self._cut_clients.discard(manager.name)
        await manager.kill()
        return f"{manager.name} is killed"

    async def _freeze_or_thaw_manager(self) -> str:
        manager = self._faults.choice(list(self._cluster.managers.values()))
        if manager.name in self._frozen:
            self._thaw(manager.name)
            return f"{manager.name} thaws"
        if not manager.is_running or manager.name in self._cut_clients:
            return ""
        self._frozen.add(manager.name)
        manager.freeze()
        return f"{manager.name} freezes"

    def _thaw(self, name: str) -> None:
        self._frozen.discard(name)
        self._cluster.managers[name].thaw()

    async def _cut_manager_from_etcd_or_heal(self) -> str:
        manager = self._faults.choice(list(self._cluster.managers.values()))
        if not manager.is_running or manager.name in self._frozen:
            return ""
        if manager.name in self._cut_clients:
            self._cut_clients.discard(manager.name)
            self._cluster.etcd.heal(manager.etcd_client)
            return f"{manager.name} reaches etcd again"
        self._cut_clients.add(manager.name)
        self._cluster.etcd.cut(manager.etcd_client)
        return f"{manager.name} is cut off from etcd"

    async def _cut_or_heal_link(self) -> str:
        ends = self._any_node().name, self._faults.choice(list(self._cluster.managers))
        if ends in self._cut_links:
            self._cut_links.discard(ends)
            self._cluster.network.heal(*ends)
            return f"{ends[0]} and {ends[1]} reach each other again"
        self._cut_links.add(ends)
        self._cluster.network.cut(*ends, one_way=self._faults.random() < 0.3)
        return f"{ends[0]} and {ends[1]} are cut apart"

    async def _lose_reply(self) -> str:
        self._cluster.etcd.drop_next_reply()
        return "etcd's next reply is lost"

    async def _stop_etcd_for_a_moment(self) -> str:
        self._cluster.etcd.kill()
        await asyncio.sleep(self._faults.uniform(0.1, 6))
        self._cluster.etcd.restart()
        return "etcd was killed and started"

    async def _freeze_etcd_for_a_moment(self) -> str:
        self._cluster.etcd.pause()
        await asyncio.sleep(self._faults.uniform(0.1, 6))
        self._cluster.etcd.resume()
        return "etcd was frozen"

    async def _kill_container(self) -> str:
        node = self._any_node()
        running = [found.id for found in self._cluster.containers() if found.id in node.engine.containers]
        if not running:
            return ""
        node.engine.kill_container(self._faults.choice(running))
        return f"a container on {node.name} is killed"

    async def _hang_or_free_engine(self) -> str:
        node = self._any_node()
        if node.name in self._hung:
            self._hung.discard(node.name)
            node.engine.thaw()
            return f"the engine of {node.name} answers again"
        if node.is_dead:
            return ""
        self._hung.add(node.name)
        node.engine.freeze()
        return f"the engine of {node.name} hangs"

    async def _fail_or_heal_probes(self) -> str:
        node = self._any_node()
        running = [
            found.id for found in self._cluster.containers(PROBED) if found.id in node.engine.containers
        ]
        if not running:
            return ""
        chosen = self._faults.choice(running)
        if node.engine.get(chosen).faults:
            node.engine.heal_probes(chosen)
            return f"a probe on {node.name} is well again"
        node.engine.fail_probes(chosen)
        return f"a probe on {node.name} fails"

    async def _stick_or_free_proxy(self) -> str:
        node = self._any_node()
        if node.proxy.is_stuck:
            node.proxy.unstick()
            return f"the proxy of {node.name} follows again"
        node.proxy.is_stuck = True
        return f"the proxy of {node.name} follows no more"

    async def _heal(self) -> None:
        cluster = self._cluster
        cluster.network.heal()
        for name in list(self._frozen):
            self._thaw(name)
        for manager in cluster.managers.values():
            cluster.etcd.heal(manager.etcd_client)
            if not manager.is_running:
                manager.start()
        for node in cluster.nodes.values():
            node.engine.thaw()
            node.proxy.unstick()
            for container in node.engine.containers:
                node.engine.heal_probes(container)
            if node.is_dead:
                self._boot(node)
            elif not node.has_agent:
                node.start_agent()
        self._tell("all is healed")

    # -- users' writes -------------------------------------------------------------------------

    async def _write_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._user.expovariate(1 / 4))
            if self._user.random() < 0.15:
                await self._drain_or_uncordon()
                continue
            name = self._user.choice(list(WORKLOADS))
            replicas = self._user.randrange(0, REPLICAS_MAX + 1)
            version = str(self._user.randrange(3))
            is_delete = self._user.random() < 0.15
            # Until it is acknowledged nobody can say what is wanted.
            self.acknowledged.pop(name, None)
            try:
                if is_delete:
                    await self._cluster.client.delete("Deployment", name)
                else:
                    await self._cluster.client.apply([_workload(name, replicas, version)])
            except BayplanError as error:
                self._tell(f"{name}: {type(error).__name__}: {error}")
            else:
                self.acknowledged[name] = 0 if is_delete else replicas
                self._tell(f"{name}: {'deleted' if is_delete else replicas}")

    async def _write_services_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._other_user.expovariate(1 / 6))
            name = f"spare-{self._other_user.randrange(SPARE_SERVICES)}"
            try:
                if self._other_user.random() < 0.5:
                    await self._cluster.client.delete("Service", name)
                else:
                    await self._cluster.client.apply([service(name, type="NodePort")])
            except BayplanError as error:
                self._tell(f"{name}: {type(error).__name__}: {error}")

    async def _drain_or_uncordon(self) -> None:
        node, drain = self._user.choice(list(self._cluster.nodes)), self._user.random() < 0.5
        try:
            # As `bay drain` and `bay uncordon` do it: a drained node stays cordoned until it is uncordoned.
            if drain:
                await self._cluster.client.update_node(node, drain=True)
            else:
                await self._cluster.client.update_node(node, unschedulable=False)
        except BayplanError as error:
            self._tell(f"{node}: {type(error).__name__}: {error}")
        else:
            self._tell(f"{node} is {'drained' if drain else 'uncordoned'}")

    async def _uncordon_all(self) -> None:
        for node in self._cluster.nodes:
            for _ in range(20):
                try:
                    await self._cluster.client.update_node(node, unschedulable=False)
                    break
                except BayplanError:
                    await asyncio.sleep(1)

    # -- what must hold ------------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        """No node is overbooked; no leader but the latest has written."""
        last = History()
        while True:
            for name, node in self._cluster.nodes.items():
                used = sum(WORKLOADS[self._cluster.workload_of(node, pod)] for pod in node.running())
                if used > node.engine.cpu_millis:
                    self._cluster.watcher.violations.append(f"{used} millicores run on {name}")
            found = self._cluster.etcd.get(keys.COMMIT)
            history = decode_history(found.value if found else None)
            if (history.epoch, history.sequence) < (last.epoch, last.sequence):
                self._cluster.watcher.violations.append(f"{history} was written after {last}")
            last = history
            await asyncio.sleep(0.1)
