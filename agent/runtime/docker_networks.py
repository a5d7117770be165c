"""Networks of the Docker Engine: one of ours on a bridge of ours, on which the engine neither masquerades nor publishes.

The engine plugs containers in, and restores them after its own restart; all else about the network is the agent's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any

from agent.runtime.engine_client import SLOW_S, EngineClient, RefusedError
from agent.runtime.port import BridgeNetwork, EngineError, NetworkTakenError

_OPTION = "com.docker.network.bridge"
# The first that drops what comes to a container past its bridge, and the first that knows how not to.
_GUARDED_SINCE = 28


class DockerNetworks:
    """Through the client of a runtime."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client

    async def ensure(self, network: BridgeNetwork, labels: Mapping[str, str]) -> None:
        """Have it as described, with `labels`. Raises NetworkTakenError, EngineError."""
        found = await self._find(network.name)
        if found is not None:
            if not _is_ours(found, labels):
                raise NetworkTakenError(f"the Docker network {network.name} is there and is not this node's")
            if _is_as_wanted(found, network):
                return
            await self._remove(network.name)
        version = (await self._client.get("version"))["Version"]
        body = to_network_body(network, labels, engine_version=version)
        try:
            await self._client.post("networks/create", body=body, deadline_s=SLOW_S)
        except RefusedError as error:
            raise await self._why_refused(network, error) from error

    async def reconnect(self, container_id: str, *, network: str, address: str) -> None:
        """Unplug it, which may have happened by itself, and plug it in at the address."""
        body: dict[str, Any] = {"Container": container_id, "Force": True}
        try:
            await self._client.post(f"networks/{network}/disconnect", body=body, deadline_s=SLOW_S)
        except RefusedError as error:
            if "is not connected" not in str(error):
                raise
        body = {"Container": container_id, "EndpointConfig": {"IPAMConfig": {"IPv4Address": address}}}
        await self._client.post(f"networks/{network}/connect", body=body, deadline_s=SLOW_S)

    async def _find(self, name: str) -> dict[str, Any] | None:
        filters = json.dumps({"name": [name]})
        # A filter finds parts of names too.
        rows = await self._client.get("networks", params={"filters": filters})
        return next((row for row in rows if row["Name"] == name), None)

    async def _remove(self, name: str) -> None:
        try:
            await self._client.delete(f"networks/{name}")
        except RefusedError as error:
            raise EngineError(
                f"the Docker network {name} has other settings than this node's, and containers use it: {error}"
            ) from error

    async def _why_refused(self, network: BridgeNetwork, error: RefusedError) -> EngineError:
        """By name, where another network has the range or the bridge."""
        wanted = IPv4Network(network.subnet)
        for row in await self._client.get("networks"):
            for config in (row.get("IPAM") or {}).get("Config") or ():
                subnet = config.get("Subnet", "")
                if "." in subnet and IPv4Network(subnet, strict=False).overlaps(wanted):
                    return NetworkTakenError(
                        f"the Docker network {row['Name']} has the range {subnet}, which overlaps {network.subnet}"
                    )
            if (row.get("Options") or {}).get(f"{_OPTION}.name") == network.bridge:
                return NetworkTakenError(f"the Docker network {row['Name']} has the bridge {network.bridge}")
        return error


def to_network_body(
    network: BridgeNetwork, labels: Mapping[str, str], *, engine_version: str
) -> dict[str, Any]:
    """The body of `POST /networks/create`. Pure."""
    options = {
        f"{_OPTION}.name": network.bridge,
        f"{_OPTION}.enable_ip_masquerade": "false",
        "com.docker.network.driver.mtu": str(network.mtu),
    }
    major = engine_version.partition(".")[0]
    if major.isdecimal() and int(major) >= _GUARDED_SINCE:
        # Else it drops, in the raw table, what other nodes send to containers. What may come in is the agent's
        # firewall's to say.
        options[f"{_OPTION}.gateway_mode_ipv4"] = "nat-unprotected"
    return {
        "Name": network.name,
        "CheckDuplicate": True,
        "Driver": "bridge",
        "IPAM": {"Config": [{"Subnet": network.subnet, "Gateway": network.gateway}]},
        "Options": options,
        "Labels": dict(labels),
    }


def _is_ours(found: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    return all((found.get("Labels") or {}).get(key) == value for key, value in labels.items())


def _is_as_wanted(found: Mapping[str, Any], network: BridgeNetwork) -> bool:
    """Its MTU apart: containers that run keep theirs, and the bridge's own is the agent's."""
    configs = (found.get("IPAM") or {}).get("Config") or [{}]
    has = (configs[0].get("Subnet"), configs[0].get("Gateway"), found["Options"].get(f"{_OPTION}.name"))
    return has == (network.subnet, network.gateway, network.bridge)
