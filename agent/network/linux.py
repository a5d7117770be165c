"""The pods' network on a Linux host: what is wanted, what is there, and whatever makes the one the other.

Level-triggered as everything here: a hint from the kernel, a word from the leader, or a few seconds gone by
lead to the same look at the whole, and to as many deeds as differ. So what somebody deletes comes back, and
an agent that starts finds its network standing. Parts that fail are said and tried again; they do not keep the
others from being done. Ending removes nothing: packets flow on without us.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from ipaddress import IPv4Address
from pathlib import Path

import structlog

from agent.network import resolv_conf, wireguard_link
from agent.network.addresses import Addresses
from agent.network.conflicts import find_conflicts, has_foreign_device
from agent.network.conntrack import forget_udp
from agent.network.credible import unreachable_peers
from agent.network.firewall import Frontend, Fronts, changed_paths, fronts, render_table
from agent.network.forwarding import let_through
from agent.network.kernel import Kernel
from agent.network.links import Wanted, is_ours, plan_links, wanted_links
from agent.network.nft import Firewall
from agent.network.observed import Observed
from agent.network.operations import Operation, describe
from agent.network.plugs import Plugs
from agent.network.port import Attachment, NetworkError
from agent.network.sysctls import have_sysctls, wanted_sysctls
from agent.network.table import NetworkTable
from agent.network.underlay import published_at
from agent.network.wireguard import WireguardKey, load_or_make
from agent.runtime.port import LABEL_POD, BridgeNetwork, EngineError, NetworkTakenError, Runtime
from agent.settings import AgentSettings
from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as pb

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 5.0
# Looking takes at most this share of a processor: with many nodes and services it is done less often.
LOOKING_SHARE = 0.05
ENGINE_EVERY_S = 60.0
# Hints come in bunches, and services change in bunches.
COALESCE_S = 0.05
# Between rounds: our own deeds come as hints too, and two agents that undo each other's must not take a processor.
ROUND_PAUSE_S = 0.2
# An answer of the kernel's that was lost is not waited for for ever.
ROUND_MAX_S = 60.0
# A pod that is to start waits so long for a network that is just being made.
ATTACH_S = 5.0
_CABLE = "veth"  # How the engine names the host's end of a container's.
_EVENT = "RTM_"
_TELLING_EVENTS = ("RTM_DELROUTE", "RTM_DELADDR")

_FrontFacts = tuple[
    Mapping[str, pb.Service], Mapping[str, Mapping[str, pb.Endpoint]], tuple[IPv4Address, ...]
]


class LinuxNetwork:
    """Obeys `PodNetwork`. One per agent, made inside its event loop."""

    def __init__(
        self,
        settings: AgentSettings,
        runtime: Runtime,
        *,
        kernel: Kernel | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._kernel = kernel or Kernel()
        self._addresses = Addresses(settings.data_dir, monotonic_s=monotonic_s)
        self._firewall = Firewall(self._kernel)
        self._plugs = Plugs(runtime, self._kernel)
        self._network = NetworkTable()
        self._traffic = TrafficTable()
        self._offered: tuple[_FrontFacts, Fronts] | None = None  # With what they were made from.
        self._rendered: tuple[Wanted, Fronts, str] | None = None  # The same of the table.
        self._paths: dict[Frontend, frozenset[Frontend]] = {}
        self._key = WireguardKey()
        self._wanted: Wanted | None = None  # As it was last found to be possible.
        self._publish_addresses: tuple[IPv4Address, ...] = ()
        self._own: IPv4Address | None = None
        self._unreachable: dict[str, str] = {}
        self._link_problems: list[str] = []
        self._firewall_problems: list[str] = []
        self._note_problems: list[str] = []
        self._is_ready = asyncio.Event()
        self._engine_has: BridgeNetwork | None = None
        self._engine_asked_s = 0.0
        self._plugs_seen_s = 0.0
        self._is_look_due = True
        self._are_plugs_due = False
        self._is_looked_at = False  # With the present settings, to the end.
        self._wake = asyncio.Event()

    def use(self, network: NetworkTable, traffic: TrafficTable) -> None:
        if network != self._network:
            if network.identity != self._network.identity:
                self._is_ready.clear()
                self._is_looked_at = False
            self._is_look_due = True
        self._network, self._traffic = network, traffic
        self._wake.set()

    def problem(self) -> str:
        if self._network.settings is None:
            return "no manager has told this node its network yet"
        if not self._is_looked_at:
            return "the pods' network is just being made"
        return "; ".join([*self._link_problems, *self._firewall_problems, *self._note_problems])

    async def attach(self, pod_uid: str, namespace: str) -> Attachment:
        await self._ready()
        network = self._network
        address = await self._addresses.choose(pod_uid, network.subnet)
        path = await self.resolv_conf(namespace)
        return Attachment(network=network.bridge, address=str(address), resolv_conf=path)

    async def _ready(self) -> None:
        try:
            async with asyncio.timeout(ATTACH_S):
                await self._is_ready.wait()
        except TimeoutError as error:
            raise NetworkError(self.problem() or "the pods' network is just being made") from error

    async def resolv_conf(self, namespace: str) -> Path:
        await self._ready()
        network = self._network
        assert network.settings is not None
        try:
            return await asyncio.to_thread(
                resolv_conf.have,
                self._settings.data_dir,
                namespace,
                gateway=network.gateway,
                domain=network.settings.domain,
            )
        except (OSError, ValueError) as error:
            raise NetworkError(f"cannot write the pod's resolv.conf: {error}") from error

    def release(self, pod_uid: str) -> None:
        self._addresses.release(pod_uid)
        self._wake.set()

    def retain(self, pod_uids: Collection[str]) -> None:
        self._addresses.retain(pod_uids)
        self._wake.set()

    async def wireguard_public_key(self) -> str:
        """For Hello; empty where the kernel has no WireGuard. The key is made here once."""
        if not self._key.public and await wireguard_link.is_supported():
            try:
                self._key = await asyncio.to_thread(load_or_make, self._settings.data_dir)
            except OSError as error:
                log.warning("wireguard_key.not_kept", error=str(error))
        return self._key.public

    async def run(self) -> None:
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._keep(), name="network")
            parts.create_task(self._listen(), name="network-hints")

    async def _listen(self) -> None:
        async for hint in self._kernel.changes():
            if hint.startswith(_CABLE):
                self._are_plugs_due = True
                self._wake.set()
            elif not hint.startswith(_EVENT) or hint in _TELLING_EVENTS:
                # A device's name: ours, or one below the tunnel, whose MTU ours follows.
                self._is_look_due = True
                self._wake.set()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        look_at_s = ended_s = loop.time()
        while True:
            try:
                async with asyncio.timeout_at(look_at_s):
                    await self._wake.wait()
            except TimeoutError:
                self._is_look_due = True
            await asyncio.sleep(max(COALESCE_S, ended_s + ROUND_PAUSE_S - loop.time()))
            self._wake.clear()
            began_s, is_look = loop.time(), self._is_look_due
            try:
                async with asyncio.timeout(ROUND_MAX_S):
                    await self._mend()
            except TimeoutError:
                log.warning("network.round_given_up", after_s=ROUND_MAX_S)
                self._is_look_due = True
                self._wake.set()
            ended_s = loop.time()
            if is_look:
                look_at_s = ended_s + max(LOOK_EVERY_S, (ended_s - began_s) / LOOKING_SHARE)

    async def _mend(self) -> None:
        """One round. What goes wrong in a part is kept as the problem; the other parts are done."""
        before, network = self.problem(), self._network
        if network.settings is not None:
            if self._is_look_due:
                self._is_look_due = False
                self._link_problems = await self._mend_links()
            elif self._are_plugs_due and self._wanted is not None:
                # Only the next whole look forgets a problem.
                wanted = self._wanted
                found = await _attempt(lambda: self._mend_plugs(wanted, is_thorough=False))
                self._link_problems = list(dict.fromkeys(self._link_problems + found))
            self._are_plugs_due = False
            self._firewall_problems = await self._mend_firewall()
            # Unless the leader has said something else meanwhile.
            self._is_looked_at = network.identity == self._network.identity
        self._note_problems = await _attempt(self._save_addresses)
        after = self.problem()
        if after != before:
            log.info("network.problem_changed", problem=after)

    async def _save_addresses(self) -> None:
        try:
            await self._addresses.save()
        except OSError as error:
            raise NetworkError(f"cannot note the pods' addresses: {error.strerror}") from error

    async def _mend_links(self) -> list[str]:
        try:
            wanted, observed = await self._look()
        except NetworkError as error:
            return [str(error)]
        conflicts = find_conflicts(wanted, observed)
        bridge = observed.device(wanted.bridge)
        is_standing = bridge is not None and is_ours(bridge, wanted, observed)
        if conflicts and (not is_standing or has_foreign_device(wanted, observed)):
            return conflicts
        # What stands is kept up: services must not go stale since somebody added a route.
        self._wanted = wanted
        self._publish_addresses = published_at(
            self._settings.publish_addresses,
            observed,
            own=self._own,
            ours=frozenset((wanted.bridge, wanted.tunnel)),
        )
        problems = conflicts
        for operation in plan_links(wanted, observed):
            problems += await _attempt(functools.partial(self._do, operation))
        problems += await _attempt(lambda: self._have_engine_network(wanted))
        problems += await _attempt(lambda: self._mend_plugs(wanted, is_thorough=not is_standing))
        tunnel = "" if wanted.mode == pb.NETWORK_MODE_OFF else wanted.tunnel
        problems += await _attempt(lambda: _set_sysctls(wanted_sysctls(wanted.bridge, tunnel)))
        problems += await _attempt(lambda: self._let_through(wanted))
        return problems

    async def _look(self) -> tuple[Wanted, Observed]:
        network = self._network
        settings = network.settings
        assert settings is not None
        if settings.mode == pb.NETWORK_MODE_WIREGUARD and not await self.wireguard_public_key():
            raise NetworkError("the cluster joins its nodes by WireGuard, which this kernel does not have")
        self._own = await _resolve(self._settings.address)
        observed = await self._kernel.observe(tunnel=network.tunnel, port=settings.port)
        self._say_unreachable(unreachable_peers(network))
        wanted = wanted_links(
            network,
            observed,
            own=self._own,
            private_key=self._key.private,
            public_key=self._key.public,
        )
        return wanted, observed

    def _say_unreachable(self, peers: dict[str, str]) -> None:
        # No problem of this node: it takes pods, and its others are reached.
        for node in peers.keys() - self._unreachable.keys():
            log.warning("network.peer_not_reachable", node=node, reason=peers[node])
        self._unreachable = peers

    async def _do(self, operation: Operation) -> None:
        await self._kernel.do(operation)
        log.info("network.mended", did=describe(operation), reason=operation.reason)

    async def _have_engine_network(self, wanted: Wanted) -> None:
        network = BridgeNetwork(
            name=wanted.bridge,
            bridge=wanted.bridge,
            subnet=str(wanted.gateway.network),
            gateway=str(wanted.gateway.ip),
            mtu=wanted.mtu,
        )
        now_s = asyncio.get_running_loop().time()
        is_known = network == self._engine_has and self._is_ready.is_set()
        if is_known and now_s - self._engine_asked_s < ENGINE_EVERY_S:
            return
        try:
            await self._runtime.ensure_network(network)
            await self._adopt(wanted)
        except NetworkTakenError as error:
            self._is_ready.clear()
            raise NetworkError(str(error)) from error
        except EngineError as error:
            if is_known:
                log.warning("network.engine_not_asked", error=str(error))
                return  # The engine is away, which is said elsewhere; the network stands.
            raise NetworkError(f"the container engine has not made the network: {error}") from error
        self._engine_has, self._engine_asked_s = network, now_s
        self._is_ready.set()

    async def _adopt(self, wanted: Wanted) -> None:
        """Running pods keep the addresses that they have, whatever became of our notes."""
        for container in await self._runtime.list_containers():
            pod_uid = container.labels.get(LABEL_POD, "")
            if pod_uid and container.address:
                address = IPv4Address(container.address)
                if address in wanted.gateway.network:
                    self._addresses.adopt(pod_uid, address)

    async def _mend_plugs(self, wanted: Wanted, *, is_thorough: bool) -> None:
        now_s = asyncio.get_running_loop().time()
        is_thorough = is_thorough or now_s - self._plugs_seen_s >= ENGINE_EVERY_S
        is_done = not await self._plugs.mend(wanted, self._addresses.leases, is_thorough=is_thorough)
        if is_thorough and is_done:
            self._plugs_seen_s = now_s

    async def _let_through(self, wanted: Wanted) -> None:
        await let_through(wanted, proxy_port=self._settings.proxy_port)

    async def _mend_firewall(self) -> list[str]:
        wanted = self._wanted
        if wanted is None:
            return []
        problems = await _attempt(lambda: self._have_table(wanted))
        return problems or await _attempt(self._forget_flows)

    async def _have_table(self, wanted: Wanted) -> None:
        offered = self._fronts()
        if self._rendered is None or self._rendered[:2] != (wanted, offered):
            text = render_table(wanted, offered, proxy_port=self._settings.proxy_port)
            self._rendered = (wanted, offered, text)
        await self._firewall.have(f"inet {wanted.bridge}", self._rendered[2])

    async def _forget_flows(self) -> None:
        """After the firewall leads elsewhere, so that no flow is remembered anew the old way."""
        paths = self._fronts().udp_paths()
        await forget_udp(changed_paths(self._paths, paths))
        self._paths = paths

    def _fronts(self) -> Fronts:
        """Made anew only where services, or endpoints of UDP services, have changed: endpoints of TCP are the proxy's."""
        facts = (self._traffic.services, _udp_endpoints(self._traffic), self._publish_addresses)
        if self._offered is None or self._offered[0] != facts:
            offered = fronts(
                self._traffic, node=self._settings.node, publish_addresses=self._publish_addresses
            )
            self._offered = (facts, offered)
        return self._offered[1]


def _udp_endpoints(traffic: TrafficTable) -> dict[str, Mapping[str, pb.Endpoint]]:
    return {
        key: traffic.endpoints.get(key, {})
        for key, service in traffic.services.items()
        if any(port.udp for port in service.ports)
    }


async def _resolve(address: str) -> IPv4Address | None:
    """The own address of this host, which may be given by name; None if it has no IPv4 address now."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except OSError:
        return None
    return IPv4Address(found[0][4][0])


async def _set_sysctls(wanted: dict[str, str]) -> None:
    changed = await asyncio.to_thread(have_sysctls, wanted)
    if changed:
        log.info("network.sysctls_set", names=changed)


async def _attempt(part: Callable[[], Awaitable[None]]) -> list[str]:
    """Its problem in words, or none."""
    try:
        await part()
    except NetworkError as error:
        return [str(error)]
    return []
