"""One operation, done to the kernel through netlink. What is there already, or gone already, is no error."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from agent.network import operations as ops
from agent.network.links import ALIAS
from agent.network.operations import Operation

# "Of ours" in the protocol field of routes: no daemon in iproute2's list has this number.
ROUTE_PROTOCOL = 74
TABLE_MAIN, TABLE_LOCAL = 254, 255
_GONE = (errno.ENODEV, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL)


async def do(netlink: AsyncIPRoute, operation: Operation) -> None:
    """Raises NetlinkError."""
    match operation:
        case ops.AddBridge() | ops.AddVxlan() | ops.AddWireguard():
            await _add_device(netlink, operation)
        case ops.SetDevice() | ops.RemoveDevice() | ops.SetMaster() | ops.SetHairpin():
            await _do_device(netlink, operation)
        case ops.AddAddress() | ops.RemoveAddress():
            await _do_address(netlink, operation)
        case ops.PutRoute() | ops.RemoveRoute():
            await _do_route(netlink, operation)
        case ops.PutNeighbour() | ops.RemoveNeighbour() | ops.PutForward() | ops.RemoveForward():
            await _do_entry(netlink, operation)


async def _add_device(
    netlink: AsyncIPRoute, operation: ops.AddBridge | ops.AddVxlan | ops.AddWireguard
) -> None:
    match operation:
        case ops.AddBridge(name=name, mac=mac, mtu=mtu):
            await netlink.link("add", ifname=name, kind="bridge", address=mac)
            await _set_up(netlink, name, mtu=mtu)
        case ops.AddVxlan(name=name, mac=mac, mtu=mtu, vni=vni, port=port, local=local):
            where = {"vxlan_local": str(local)} if local else {}
            await netlink.link(
                "add",
                ifname=name,
                kind="vxlan",
                address=mac,
                vxlan_id=vni,
                vxlan_port=port,
                vxlan_learning=0,
                **where,
            )
            await _set_up(netlink, name, mtu=mtu)
        case ops.AddWireguard(name=name, mtu=mtu):
            await netlink.link("add", ifname=name, kind="wireguard")
            await _set_up(netlink, name, mtu=mtu)


async def _do_device(
    netlink: AsyncIPRoute,
    operation: ops.SetDevice | ops.RemoveDevice | ops.SetMaster | ops.SetHairpin,
) -> None:
    match operation:
        case ops.SetDevice(name=name, mtu=mtu, mac=mac):
            await _set_up(netlink, name, mtu=mtu, mac=mac)
        case ops.RemoveDevice(name=name):
            with _gone_already():
                await netlink.link("del", index=await _index(netlink, name))
        case ops.SetMaster(device=name, bridge=bridge):
            with _gone_already():  # With its pod, or the bridge once more: the next look sees it.
                index, master = await _index(netlink, name), await _index(netlink, bridge)
                await netlink.link("set", index=index, master=master, state="up")
        case ops.SetHairpin(device=name):
            with _gone_already():
                await netlink.brport("set", index=await _index(netlink, name), mode=1)


async def _do_address(netlink: AsyncIPRoute, operation: ops.AddAddress | ops.RemoveAddress) -> None:
    match operation:
        case ops.AddAddress(device=name, interface=interface):
            index = await _index(netlink, name)
            await netlink.addr(
                "replace", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen
            )
        case ops.RemoveAddress(device=name, interface=interface):
            with _gone_already():
                await netlink.addr(
                    "del",
                    index=await _index(netlink, name),
                    address=str(interface.ip),
                    prefixlen=interface.network.prefixlen,
                )


async def _do_route(netlink: AsyncIPRoute, operation: ops.PutRoute | ops.RemoveRoute) -> None:
    if isinstance(operation, ops.RemoveRoute):
        with _gone_already():
            index = await _index(netlink, operation.device)
            await netlink.route("del", dst=str(operation.destination), oif=index, table=TABLE_MAIN)
        return
    route = operation.route
    request: dict[str, Any] = {
        "dst": str(route.destination),
        "oif": await _index(netlink, route.device),
        "prefsrc": str(route.source),
        "proto": ROUTE_PROTOCOL,
    }
    if route.is_local:
        request |= {"type": "local", "table": TABLE_LOCAL, "scope": "host"}
    elif route.gateway is not None:
        # The gateway is in no subnet of this host; the neighbour entry says how it is reached.
        request |= {"gateway": str(route.gateway), "flags": ["onlink"]}
    else:
        request |= {"scope": "link"}
    await netlink.route("replace", **request)


async def _do_entry(
    netlink: AsyncIPRoute,
    operation: ops.PutNeighbour | ops.RemoveNeighbour | ops.PutForward | ops.RemoveForward,
) -> None:
    match operation:
        case ops.PutNeighbour(neighbour=entry):
            await netlink.neigh(
                "replace",
                ifindex=await _index(netlink, entry.device),
                dst=str(entry.address),
                lladdr=entry.mac,
                state="permanent",
            )
        case ops.RemoveNeighbour(neighbour=entry):
            with _gone_already():
                await netlink.neigh(
                    "del", ifindex=await _index(netlink, entry.device), dst=str(entry.address)
                )
        case ops.PutForward(forward=forward):
            # The kernel knows no replacing here. Others at this MAC were removed before.
            with _there_already():
                await netlink.fdb(
                    "append",
                    ifindex=await _index(netlink, forward.device),
                    lladdr=forward.mac,
                    dst=str(forward.to),
                )
        case ops.RemoveForward(forward=forward):
            with _gone_already():
                await netlink.fdb(
                    "del",
                    ifindex=await _index(netlink, forward.device),
                    lladdr=forward.mac,
                    dst=str(forward.to),
                )


@contextmanager
def _gone_already() -> Iterator[None]:
    """What is to be removed may be gone: that was asked for."""
    try:
        yield
    except NetlinkError as error:
        if error.code not in _GONE:
            raise


@contextmanager
def _there_already() -> Iterator[None]:
    """What is to be made may be there: that was asked for."""
    try:
        yield
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


async def _index(netlink: AsyncIPRoute, name: str) -> int:
    found = await netlink.link_lookup(ifname=name)
    if not found:
        raise NetlinkError(errno.ENODEV, f"no device {name}")
    return int(found[0])


async def _set_up(netlink: AsyncIPRoute, name: str, *, mtu: int, mac: str = "") -> None:
    properties: dict[str, Any] = {"mtu": mtu, "ifalias": ALIAS, "state": "up"}
    if mac:
        properties["address"] = mac
    await netlink.link("set", index=await _index(netlink, name), **properties)
