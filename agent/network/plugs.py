"""Pods' devices that came off the bridge, and pods that have lost theirs.

When the bridge is deleted, the host's ends of the pods' cables stay, plugged into nothing: they are found by
the namespace that their other end is in, and plugged in again within milliseconds. Where the cable itself is gone the
engine makes another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address

import structlog

from agent.network.kernel import Kernel, is_bridge_filtered
from agent.network.links import Wanted, plan_ports
from agent.network.observed import Device
from agent.network.port import NetworkError
from agent.runtime.port import (
    LABEL_POD,
    Container,
    ContainerState,
    EngineError,
    EngineUnavailableError,
    Runtime,
)

log = structlog.get_logger(__name__)


class Plugs:
    """Of the pods of one node."""

    def __init__(self, runtime: Runtime, kernel: Kernel) -> None:
        self._runtime = runtime
        self._kernel = kernel
        # Seen without a cable once: it may just be starting or ending.
        self._suspects: frozenset[str] = frozenset()

    async def mend(self, wanted: Wanted, leases: Mapping[str, IPv4Address], *, is_thorough: bool) -> bool:
        """Plug in what is loose. Whether it should soon be asked again. Raises NetworkError.

        Args:
            wanted: whose bridge it is.
            leases: pods' addresses, by uid: who has none is not ours to connect.
            is_thorough: look for pods without a cable even if no cable is loose.
        """
        devices = await self._kernel.devices()
        running: list[Container] = []
        is_loose = any(device.kind == "veth" and not device.master for device in devices)
        if is_loose or is_thorough or self._suspects:
            running = await self._running(leases)
        namespaces = await self._kernel.namespaces({each.id: each.pid for each in running})
        plan = plan_ports(wanted, devices, namespaces.values(), is_bridge_filtered=is_bridge_filtered())
        for operation in plan:
            await self._kernel.do(operation)
            log.info("network.plugged", device=operation.device, reason=operation.reason)
        await self._reconnect(wanted, leases, without_cable(running, namespaces, devices))
        return bool(self._suspects)

    async def _running(self, leases: Mapping[str, IPv4Address]) -> list[Container]:
        """Containers that are connected to our network, as the engine sees it."""
        try:
            return [
                container
                for container in await self._runtime.list_containers()
                if container.pid
                and container.state is not ContainerState.EXITED
                and str(leases.get(container.labels.get(LABEL_POD, ""))) == container.address
            ]
        except EngineUnavailableError:
            return []  # Which is said elsewhere; what is plugged in stays.
        except EngineError as error:
            raise NetworkError(f"cannot see which pods are connected: {error}") from error

    async def _reconnect(
        self, wanted: Wanted, leases: Mapping[str, IPv4Address], missing: list[Container]
    ) -> None:
        confirmed = [container for container in missing if container.id in self._suspects]
        self._suspects = frozenset(container.id for container in missing if container not in confirmed)
        for container in confirmed:
            address = leases[container.labels[LABEL_POD]]
            try:
                await self._runtime.reconnect(container.id, network=wanted.bridge, address=str(address))
            except EngineError as error:
                raise NetworkError(f"cannot connect {container.name} again: {error}") from error
            log.info("network.reconnected", container=container.name, address=str(address))


def without_cable(
    running: Sequence[Container], namespaces: Mapping[str, int], devices: Sequence[Device]
) -> list[Container]:
    """Those in whose namespace no device of this host's ends. Pure."""
    connected = {device.far_namespace for device in devices if device.kind == "veth"}
    return [each for each in running if each.id not in namespaces or namespaces[each.id] not in connected]
