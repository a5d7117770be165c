"""The pods' network in memory, for simulations: addresses as on a real host, and no kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from agent.network.addresses import AddressBook
from agent.network.linux import ATTACH_S, LOOK_EVERY_S
from agent.network.port import Attachment, NetworkError
from agent.network.table import NetworkTable
from agent.network.underlay import MTU_DEFAULT, VXLAN_OVERHEAD
from agent.runtime.port import LABEL_POD, BridgeNetwork, EngineError, Runtime
from agent.traffic.table import TrafficTable


@dataclass(slots=True)
class SimulatedNotes:
    """A host's note of its pods' addresses. It outlives the agents, as a disk does."""

    book: AddressBook = field(default_factory=AddressBook)


class SimulatedNetwork:
    """Obeys `PodNetwork`, on the event loop's time.

    Args:
        runtime: is asked for the network, as a real engine would be.
        notes: shared by the agents of one host, one after the other.
    """

    def __init__(self, runtime: Runtime, notes: SimulatedNotes | None = None) -> None:
        self._runtime = runtime
        self._notes = notes or SimulatedNotes()
        self._network = NetworkTable()
        self._problem = ""
        self._is_ready = asyncio.Event()
        self._changed = asyncio.Event()

    def use(self, network: NetworkTable, traffic: TrafficTable) -> None:
        del traffic
        if network.identity != self._network.identity:
            self._is_ready.clear()
            self._changed.set()
        self._network = network

    def problem(self) -> str:
        if self._network.settings is None:
            return "no manager has told this node its network yet"
        if not self._is_ready.is_set():
            return self._problem or "the pods' network is just being made"
        return ""

    async def attach(self, pod_uid: str, namespace: str) -> Attachment:
        path = await self.resolv_conf(namespace)
        now_s = asyncio.get_running_loop().time()
        self._notes.book, address = self._notes.book.choose(pod_uid, self._network.subnet, now_s=now_s)
        return Attachment(
            network=self._network.bridge,
            address=str(address),
            resolv_conf=path,
        )

    async def resolv_conf(self, namespace: str) -> Path:
        try:
            async with asyncio.timeout(ATTACH_S):
                await self._is_ready.wait()
        except TimeoutError as error:
            raise NetworkError(self.problem() or "the pods' network is just being made") from error
        return Path("/simulated", f"{namespace}.conf")

    def release(self, pod_uid: str) -> None:
        self._notes.book = self._notes.book.release(pod_uid, now_s=asyncio.get_running_loop().time())

    def retain(self, pod_uids: Collection[str]) -> None:
        for pod_uid in self._notes.book.leases.keys() - set(pod_uids):
            self.release(pod_uid)

    async def wireguard_public_key(self) -> str:
        return ""

    async def run(self) -> None:
        while True:
            self._changed.clear()
            if self._network.settings is not None:
                await self._ensure()
            try:
                async with asyncio.timeout(None if self._is_ready.is_set() else LOOK_EVERY_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _ensure(self) -> None:
        network = self._network
        try:
            await self._runtime.ensure_network(
                BridgeNetwork(
                    name=network.bridge,
                    bridge=network.bridge,
                    subnet=str(network.subnet),
                    gateway=str(network.gateway),
                    mtu=MTU_DEFAULT - VXLAN_OVERHEAD,
                )
            )
            for container in await self._runtime.list_containers():
                pod_uid = container.labels.get(LABEL_POD, "")
                if pod_uid and container.address and IPv4Address(container.address) in network.subnet:
                    self._notes.book = self._notes.book.adopt(pod_uid, IPv4Address(container.address))
        except EngineError as error:
            self._problem = str(error)
            return
        self._problem = ""
        if network.identity == self._network.identity:  # Nothing else was said meanwhile.
            self._is_ready.set()
