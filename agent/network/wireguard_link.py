"""The cryptographic half of a WireGuard device, through the kernel's own protocol for it."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic.wireguard import AsyncWireGuard

from agent.network import operations as ops
from agent.network.observed import WireguardDevice, WireguardPeer
from agent.network.operations import WireguardOperation

# The agent dials no manager meanwhile.
ANSWER_S = 2.0


async def observe(name: str) -> WireguardDevice:
    """Its key, its port and its peers. Raises NetlinkError."""
    public_key, port, peers = "", 0, []
    async with AsyncWireGuard() as wireguard:
        async for message in await wireguard.info(name):
            public_key = (message.get_attr("WGDEVICE_A_PUBLIC_KEY") or b"").decode()
            port = message.get_attr("WGDEVICE_A_LISTEN_PORT") or 0
            for peer in message.get_attr("WGDEVICE_A_PEERS") or ():
                endpoint = peer.get_attr("WGPEER_A_ENDPOINT")
                peers.append(
                    WireguardPeer(
                        key=peer.get_attr("WGPEER_A_PUBLIC_KEY").decode(),
                        endpoint=(endpoint["addr"], endpoint["port"]) if endpoint else None,
                        allowed=frozenset(
                            IPv4Network(each["addr"]) for each in peer.get_attr("WGPEER_A_ALLOWEDIPS") or ()
                        ),
                    )
                )
    return WireguardDevice(public_key=public_key, port=port, peers=tuple(peers))


async def do(operation: WireguardOperation) -> None:
    """Raises NetlinkError."""
    async with AsyncWireGuard() as wireguard:
        match operation:
            case ops.SetWireguardKey(device=device, port=port, private_key=key):
                await wireguard.set(device, listen_port=port, private_key=key)
            case ops.RemoveWireguardPeer(device=device, key=key):
                await wireguard.set(device, peer={"public_key": key, "remove": True})
            case ops.PutWireguardPeer(device=device, peer=peer):
                assert peer.endpoint is not None
                address, port = peer.endpoint
                await wireguard.set(
                    device,
                    peer={
                        "public_key": peer.key,
                        "endpoint_addr": address,
                        "endpoint_port": port,
                        "replace_allowed_ips": True,
                        "allowed_ips": [str(network) for network in peer.allowed],
                    },
                )


async def is_supported() -> bool:
    """Whether this kernel has WireGuard; asking loads its module. A kernel that does not answer in time has not."""
    try:
        async with asyncio.timeout(ANSWER_S), AsyncWireGuard():
            return True
    except (NetlinkError, OSError):  # TimeoutError is an OSError.
        return False
