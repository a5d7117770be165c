"""Looks at proxies, engines and the store, all the time: what must hold of traffic, whatever happens.

Agents are not asked, and of managers only which one leads: what a proxy has in force, which containers
run, and what the store wants. Much may be late while something is broken; so what has a time bound is
judged only of nodes, and under a leader, that nothing was wrong with for a while.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agent.next_step import run_of, sandbox_of
from agent.runtime.port import LABEL_CONTAINER, LABEL_POD, SANDBOX, ContainerState
from agent.runtime.simulated_engine import SIGKILL_EXIT_CODE
from agent.traffic.simulated import SimulatedProxy
from bayplan.model.placements import Want
from manager.store import keys, records
from tests.simulation.watcher import ended

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster, Node

EVERY_S = 0.05
# Since its last trouble: connected anew, told everything, and everything done.
CALM_S = 10.0
# Longer: a verdict may come late, and a proxy may hear of it later still.
LONG_CALM_S = 25.0
# From a change in the store or on a host to all proxies; they take 0.15 s of it.
FOLLOWED_WITHIN_S = 2.0
# A table that an agent has loaded from its disk may be as old as it writes it seldom.
SERVING_FOR_S = 5.0


class TrafficWatcher:
    """Look from the beginning: what it has not seen it does not judge. Notes into the cluster's watcher."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.stops_judged = 0  # While at least one proxy could be held to it.
        self._running: dict[str, str] = {}  # By container.
        self._serving_since_s: dict[str, float] = {}  # Those whose probes do not fail.
        self._ran: set[str] = set()
        self._node_of: dict[str, str] = {}
        self._wanted: frozenset[str] = frozenset()
        self._changed_s: dict[str, float] = {}  # When a pod began or ceased to serve or to be wanted.
        self._chunks: dict[str, tuple[bytes, dict[str, Want]]] = {}
        self._troubled_s: dict[str, float] = {}
        self._led_since_s: tuple[object, float] = (None, 0.0)
        self._proxies: dict[str, tuple[SimulatedProxy, dict[str, set[str]]]] = {}
        self._vips: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._run(), name="traffic watcher")

    async def __aexit__(self, *exc: object) -> None:
        await ended(self._task)

    async def _run(self) -> None:
        while True:
            self._look(asyncio.get_running_loop().time())
            await asyncio.sleep(EVERY_S)

    def _look(self, now_s: float) -> None:
        self._look_for_trouble(now_s)
        stopped = self._look_at_containers(now_s)
        self._look_at_placements(now_s)
        for uid in stopped:
            self._judge_stop(uid, now_s)
        for node in self._cluster.nodes.values():
            self._judge_proxy(node, now_s)
        self._judge_allocations(now_s)

    def _note(self, now_s: float, words: str) -> None:
        self._cluster.watcher.violations.append(f"{now_s:.2f}: {words}")

    # -- who can be held to anything -----------------------------------------------------------

    def _look_for_trouble(self, now_s: float) -> None:
        for name, node in self._cluster.nodes.items():
            if node.is_dead or not node.has_agent or node.engine.is_frozen or self._is_cut(name):
                self._troubled_s[name] = now_s
        leader = self._cluster.leader
        leads = leader.etcd_client if leader is not None and leader.is_commanding else None
        if leads is None or leads != self._led_since_s[0]:
            self._led_since_s = leads, now_s

    def _is_cut(self, name: str) -> bool:
        network = self._cluster.network
        return any(
            network.is_blocked(name, manager) or network.is_blocked(manager, name)
            for manager in self._cluster.managers
        )

    def _is_calm(self, name: str, now_s: float, *, for_s: float = CALM_S) -> bool:
        return now_s - self._troubled_s.get(name, 0.0) >= for_s

    def _is_led(self, now_s: float) -> bool:
        leader, since_s = self._led_since_s
        return leader is not None and now_s - since_s >= CALM_S

    # -- what is so ----------------------------------------------------------------------------

    def _look_at_containers(self, now_s: float) -> list[str]:  # noqa: C901 - one look at all there is
        """Returns the pods that were politely stopped since the last look."""
        running: dict[str, str] = {}
        addresses: Counter[str] = Counter()
        serving = set()
        stopped = []
        for node in self._cluster.nodes.values():
            half, sandboxes = node.half_pods(), _sandboxes(node)
            for name, container in node.engine.containers.items():
                uid = container.shown.labels.get(LABEL_POD, "")
                if not uid:
                    continue
                self._node_of[uid] = node.name
                if container.shown.address:
                    addresses[container.shown.address] += 1
                if container.shown.labels.get(LABEL_CONTAINER) != "app":
                    continue  # Its sandbox has the address, a side-car serves nobody.
                if container.shown.state is ContainerState.RUNNING:
                    running[name] = uid
                    if not container.faults and uid not in half:
                        serving.add(uid)
                elif name in self._running and container.shown.exit_code != SIGKILL_EXIT_CODE:
                    # One whose network somebody has ended is stopped at once: nobody reaches it.
                    stopped += [uid] if (uid, sandbox_of(container.shown)) in sandboxes else []
        for address, count in addresses.items():
            if count > 1:
                self._note(now_s, f"{count} running pods have the address {address}")
        for uid in serving ^ self._serving_since_s.keys():
            self._changed_s[uid] = now_s
        self._serving_since_s = {uid: self._serving_since_s.get(uid, now_s) for uid in serving}
        self._running = running
        self._ran.update(running.values())
        return stopped

    def _look_at_placements(self, now_s: float) -> None:
        etcd = self._cluster.etcd
        names = {
            facts.number: facts.name
            for facts in (records.decode_node(item.value) for item in etcd.items(keys.NODES))
        }
        chunks = {}
        for item in etcd.items(keys.PLACEMENTS):
            value, wants = self._chunks.get(item.key, (b"", {}))
            if value != item.value:
                place = keys.parse_placements(item.key)
                assert place is not None
                read = records.decode_chunk(*place, item.value, names)
                wants = {str(each.pod): each.want for each in read.placements}
            chunks[item.key] = item.value, wants
        self._chunks = chunks
        wanted = frozenset(
            uid
            for _, wants in chunks.values()
            for uid, want in wants.items()
            if want in (Want.RUN, Want.HANDOVER)
        )
        for uid in wanted ^ self._wanted:
            self._changed_s[uid] = now_s
        self._wanted = wanted

    # -- what must hold ------------------------------------------------------------------------

    def _judge_stop(self, uid: str, now_s: float) -> None:
        """No pod ends while a proxy that is in reach still sends to it, or has requests there."""
        if not self._is_led(now_s):
            return
        for name, node in self._cluster.nodes.items():
            if not self._is_calm(name, now_s) or node.proxy.is_stuck:
                continue
            self.stops_judged += 1
            has = [key for key, ids in _endpoints(node.proxy).items() if uid in ids]
            if has or uid in node.proxy.applied().draining:
                self._note(now_s, f"{uid} was stopped, and the proxy of {name} has it in {has or 'flight'}")

    def _judge_proxy(self, node: Node, now_s: float) -> None:
        proxy, now = node.proxy, _endpoints(node.proxy)
        told, before = self._proxies.get(node.name, (proxy, {}))
        self._proxies[node.name] = proxy, now
        for key, ids in now.items():
            for uid in ids - self._ran:
                self._note(now_s, f"the proxy of {node.name} has {uid} in {key}, which has never run")
            if told is proxy:
                for uid in before.get(key, set()) - ids:
                    self._judge_loss(node.name, uid, key, now_s)
        if self._is_led(now_s) and self._is_calm(node.name, now_s) and not proxy.is_stuck:
            for key, ids in now.items():
                for uid in ids:
                    self._judge_presence(node.name, uid, key, now_s)

    def _judge_loss(self, name: str, uid: str, key: str, now_s: float) -> None:
        """Whoever leads, dies, or comes: a pod that serves and is wanted stays in."""
        served_s = now_s - self._serving_since_s.get(uid, now_s)
        is_well = self._is_calm(self._node_of[uid], now_s, for_s=LONG_CALM_S)
        if uid in self._wanted and served_s >= SERVING_FOR_S and is_well:
            self._note(now_s, f"the proxy of {name} has lost {uid} of {key}, which serves and is wanted")

    def _judge_presence(self, name: str, uid: str, key: str, now_s: float) -> None:
        """A pod that does not serve, or is not wanted, is out soon; of nodes in trouble verdicts decide."""
        is_well = self._is_calm(self._node_of[uid], now_s, for_s=LONG_CALM_S)
        is_serving = uid in self._serving_since_s and uid in self._wanted
        if is_well and not is_serving and now_s - self._changed_s.get(uid, 0.0) > FOLLOWED_WITHIN_S:
            self._note(now_s, f"the proxy of {name} has {uid} in {key}, which does not serve any more")

    def _judge_allocations(self, now_s: float) -> None:
        """Addresses of services are theirs alone, and for life; so are nodes' parts of the pod range."""
        etcd = self._cluster.etcd
        vips = {item.key: records.decode_allocation(item.value).vip for item in etcd.items(keys.SERVICES)}
        for key in vips.keys() & self._vips.keys():
            if self._vips[key] and vips[key] != self._vips[key]:
                self._note(now_s, f"{key} had {self._vips[key]}, and has {vips[key]}")
        self._vips = vips
        subnets = [records.decode_node(item.value).subnet for item in etcd.items(keys.NODES)]
        for what, count in Counter(each for each in [*vips.values(), *subnets] if each).items():
            if count > 1:
                self._note(now_s, f"{what} was given {count} times")

    # -- at the end ----------------------------------------------------------------------------

    def differences(self) -> list[str]:
        """Where proxies and engines do not agree on who serves; nothing, once all is healed and settled."""
        serving: dict[str, set[str]] = {}
        for node in self._cluster.nodes.values():
            for pod in node.running():
                serving.setdefault(f"default/{self._cluster.workload_of(node, pod)}", set()).add(str(pod))
        return list(self._differences(serving))

    def _differences(self, serving: dict[str, set[str]]) -> Iterator[str]:
        for name, node in self._cluster.nodes.items():
            for key, ids in _endpoints(node.proxy).items():
                if ids != serving.get(key, set()):
                    yield f"{name}: {key}: {sorted(ids)}, but {sorted(serving.get(key, set()))} run"


def _endpoints(proxy: SimulatedProxy) -> dict[str, set[str]]:
    return {key: proxy.endpoints(key) for key in proxy.traffic.services}


def _sandboxes(node: Node) -> set[tuple[str, str]]:
    """Which networks there are: (pod, run of its sandbox), the run empty for pods that need none."""
    found = set()
    for each in node.engine.containers.values():
        uid = each.shown.labels.get(LABEL_POD, "")
        found.add((uid, run_of(each.shown) if each.shown.labels.get(LABEL_CONTAINER) == SANDBOX else ""))
    return found
