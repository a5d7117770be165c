"""The kernel's network through netlink: look at it, do one thing to it, hear that something has changed.

Here, in deeds.py, wireguard_link.py and conntrack.py alone pyroute2 is known. Errors come out as NetworkError, in words.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import NLM_F_REQUEST, rtnl
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_GETGEN, AsyncNFTSocket

from agent.network import deeds, wireguard_link
from agent.network.observed import (
    Device,
    DeviceAddress,
    Forward,
    Neighbour,
    Observed,
    Route,
    WireguardDevice,
)
from agent.network.operations import Operation, WireguardOperation, describe
from agent.network.port import NetworkError

_KERNEL_PROTOCOL = 2
_UNICAST, _LOCAL = 1, 2
_PERMANENT = 0x80
_TABLE_MAIN, _TABLE_LOCAL = 254, 255
_HINT_GROUPS = rtnl.RTMGRP_LINK | rtnl.RTMGRP_IPV4_IFADDR | rtnl.RTMGRP_IPV4_ROUTE
_EVENTS_RETRY_S = 5.0


class Kernel:
    """Of the network namespace that this process is in."""

    async def observe(self, *, tunnel: str, port: int) -> Observed:
        """All that a plan needs. Raises NetworkError."""
        with translated("look at the network devices"):
            async with AsyncIPRoute() as netlink:
                devices = [_device(message) async for message in await netlink.link("dump")]
                names = {device.index: device.name for device in devices}
                addresses = [
                    DeviceAddress(
                        device=names[message["index"]],
                        interface=IPv4Interface(
                            (message.get("local") or message.get("address"), message["prefixlen"])
                        ),
                    )
                    async for message in await netlink.addr("dump", family=socket.AF_INET)
                    if message["index"] in names
                ]
                routes = [
                    route
                    async for message in await netlink.route("dump", family=socket.AF_INET)
                    if (route := _route(message, names)) is not None
                ]
                ours = next((device for device in devices if device.name == tunnel), None)
                neighbours, forwards = await _entries(netlink, ours)
            wireguard = WireguardDevice()
            if ours is not None and ours.kind == "wireguard":
                wireguard = await wireguard_link.observe(ours.name)
        is_carried = any(device.kind == "vxlan" and device.port == port for device in devices)
        has_own = ours is not None and ours.kind == "wireguard" and wireguard.port == port
        taker = "" if not port or is_carried or has_own else await asyncio.to_thread(udp_taker, port)
        return Observed(
            devices=tuple(devices),
            addresses=tuple(addresses),
            routes=tuple(routes),
            neighbours=tuple(neighbours),
            forwards=tuple(forwards),
            wireguard=wireguard,
            port_taker=taker,
        )

    async def devices(self) -> tuple[Device, ...]:
        """A part of `observe`. Raises NetworkError."""
        with translated("look at the network devices"):
            async with AsyncIPRoute() as netlink:
                return tuple([_device(message) async for message in await netlink.link("dump")])

    async def do(self, operation: Operation) -> None:
        """Do it. What is there already, or gone already, is no error. Raises NetworkError."""
        with translated(describe(operation)):
            if isinstance(operation, WireguardOperation):
                await wireguard_link.do(operation)
                return
            async with AsyncIPRoute() as netlink:
                await deeds.do(netlink, operation)

    async def namespaces(self, pids: dict[str, int]) -> dict[str, int]:
        """By the same keys, which number the kernel gives the network namespace of a process; without those that have none."""
        found = {}
        async with AsyncIPRoute() as netlink:
            for key, pid in pids.items():
                with suppress(NetlinkError):  # It has ended meanwhile.
                    answer = await netlink.get_netnsid(pid=pid)
                    number = answer["nsid"] if answer else None
                    # The kernel's "none": no device of this namespace leads there.
                    if number is not None and 0 <= number < 0x7FFF_FFFF:
                        found[key] = number
        return found

    async def firewall_generation(self) -> int | None:
        """Another number after any change to any nftables table; None where the kernel does not say."""
        message = nfgen_msg()
        message["nfgen_family"] = socket.AF_UNSPEC
        kind = (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETGEN
        try:
            async with AsyncNFTSocket() as netlink:
                async for answer in await netlink.nlm_request(
                    message, msg_type=kind, msg_flags=NLM_F_REQUEST
                ):
                    return int(answer.get("id"))
        except (NetlinkError, OSError, TypeError):
            pass
        return None

    async def changes(self) -> AsyncIterator[str]:
        """What kind of thing was changed, by whomever: a hint to look. Loses some under load, as netlink does."""
        while True:
            try:
                async with AsyncIPRoute() as netlink:
                    await netlink.bind(groups=_HINT_GROUPS)
                    while True:
                        async for message in netlink.get():
                            yield _hint(message)
            except (NetlinkError, OSError):
                # Its queue ran over: something has changed, and nobody knows what.
                yield ""
                await asyncio.sleep(_EVENTS_RETRY_S)


@contextmanager
def translated(deed: str) -> Iterator[None]:
    """Turn errors of netlink into ours."""
    try:
        yield
    except (NetlinkError, OSError) as error:
        code = error.code if isinstance(error, NetlinkError) else error.errno or 0
        raise NetworkError(f"cannot {deed}: {_reason(code)}") from error


def _reason(code: int) -> str:
    if code == errno.EPERM:
        return "the agent may not (it needs CAP_NET_ADMIN)"
    if code == errno.EOPNOTSUPP:
        return "the kernel does not know it (is its module missing?)"
    return os.strerror(code).lower()


def is_bridge_filtered() -> bool:
    """Whether iptables and nftables see what stays inside a bridge."""
    try:
        return Path("/proc/sys/net/bridge/bridge-nf-call-iptables").read_text().strip() == "1"
    except OSError:
        return False


def udp_taker(port: int) -> str:
    """Who listens on a UDP port of this host, in words; empty: nobody."""
    inodes = set()
    for table in ("udp", "udp6"):
        with suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    if not inodes:
        return ""
    targets = {f"socket:[{inode}]" for inode in inodes}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):  # It has ended, or is not ours to look into.
            for descriptor in (entry / "fd").iterdir():
                with suppress(OSError):
                    if str(descriptor.readlink()) in targets:
                        return f"{(entry / 'comm').read_text().strip()} (pid {entry.name})"
    return "another program, or the kernel"


def _device(message: Any) -> Device:
    kind = message.get(("linkinfo", "kind")) or ""
    data = message.get(("linkinfo", "data")) if kind == "vxlan" else None
    local = data.get_attr("IFLA_VXLAN_LOCAL") if data is not None else None
    return Device(
        index=message["index"],
        name=message.get("ifname"),
        kind=kind,
        alias=message.get("ifalias") or "",
        mac=message.get("address") or "",
        mtu=message.get("mtu"),
        is_up=message["state"] == "up",
        master=message.get("master") or 0,
        is_hairpin=bool(_port(message)),
        far_namespace=message.get("link_netnsid"),
        vni=data.get_attr("IFLA_VXLAN_ID") if data is not None else 0,
        port=data.get_attr("IFLA_VXLAN_PORT") if data is not None else 0,
        local=IPv4Address(local) if local else None,
        is_learning=bool(data.get_attr("IFLA_VXLAN_LEARNING")) if data is not None else False,
    )


def _port(message: Any) -> int:
    """How a port of a bridge takes its own frames; 0 on what is none."""
    if message.get(("linkinfo", "slave_kind")) != "bridge":
        return 0
    data = message.get(("linkinfo", "slave_data"))
    return int(data.get_attr("IFLA_BRPORT_MODE") or 0)


def _route(message: Any, names: dict[int, str]) -> Route | None:
    table, device = message.get("table") or message["table"], names.get(message.get("oif"), "")
    if table not in (_TABLE_MAIN, _TABLE_LOCAL) or message["type"] not in (_UNICAST, _LOCAL) or not device:
        return None
    gateway, source = message.get("gateway"), message.get("prefsrc")
    return Route(
        destination=IPv4Network((message.get("dst") or "0.0.0.0", message["dst_len"])),  # noqa: S104 - the default route
        device=device,
        gateway=IPv4Address(gateway) if gateway else None,
        source=IPv4Address(source) if source else None,
        is_local=table == _TABLE_LOCAL,
        is_kernels=message["proto"] == _KERNEL_PROTOCOL,
    )


async def _entries(netlink: AsyncIPRoute, tunnel: Device | None) -> tuple[list[Neighbour], list[Forward]]:
    if tunnel is None or tunnel.kind != "vxlan":
        return [], []
    neighbours = [
        Neighbour(device=tunnel.name, address=IPv4Address(message.get("dst")), mac=message.get("lladdr"))
        async for message in await netlink.neigh("dump", family=socket.AF_INET, ifindex=tunnel.index)
        if message["ifindex"] == tunnel.index and message["state"] & _PERMANENT
    ]
    forwards = [
        Forward(device=tunnel.name, mac=message.get("lladdr"), to=IPv4Address(message.get("dst")))
        async for message in await netlink.fdb("dump", ifindex=tunnel.index)
        if message["ifindex"] == tunnel.index and message.get("dst")
    ]
    return neighbours, forwards


def _hint(message: Any) -> str:
    """The name of the device that was changed where one was, else what was."""
    name = message.get("ifname")
    return str(name) if name else str(message.get("event", ""))
