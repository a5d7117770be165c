"""What lies below the tunnel: which of the host's addresses it leaves from, and how large its packets may be. Pure.

The MTU follows the routes to the other nodes, so that nobody has to set it: on a cloud's 9,001 bytes
pods get 8,951, over a VPN of 1,420 they get 1,370.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address

from agent.network.observed import Observed, Route
from bayplan.v1 import agent_link_pb2 as pb

MTU_DEFAULT = 1500
# IPv4's least (RFC 791) would do for nothing; below IPv6's least (RFC 8200) a path is broken, not small.
MTU_MIN = 1280
MTU_MAX = 65_535
# Outer Ethernet's header is not counted in an MTU: IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14.
VXLAN_OVERHEAD = 50
# IPv4 20, UDP 8, WireGuard 32; 20 more where the path is IPv6, for which wg-quick keeps room too.
WIREGUARD_OVERHEAD = 80

_OVERHEADS = {
    pb.NETWORK_MODE_VXLAN: VXLAN_OVERHEAD,
    pb.NETWORK_MODE_WIREGUARD: WIREGUARD_OVERHEAD,
    pb.NETWORK_MODE_OFF: 0,
}


def pod_mtu(
    observed: Observed,
    mode: pb.NetworkMode,
    *,
    own: IPv4Address | None,
    peers: Iterable[IPv4Address],
    ours: frozenset[str],
) -> int:
    """The largest packet of a pod that reaches every peer whole.

    Args:
        observed: the host's devices and routes.
        mode: what the tunnel takes of each packet.
        own: this host's address, as other nodes know it.
        peers: the other nodes' addresses.
        ours: names of the devices that are the pods' network themselves.
    """
    mtus = {device.name: device.mtu for device in observed.devices}
    routes = sorted(
        (route for route in observed.routes if not route.is_local and route.device not in ours),
        key=lambda route: -route.destination.prefixlen,
    )
    leading = {_device_towards(routes, peer) for peer in peers}
    leading |= {each.device for each in observed.addresses if own is not None and each.interface.ip == own}
    known = [mtus[device] for device in leading if device in mtus]
    smallest = min(known, default=MTU_DEFAULT)
    # The loopback's 65,536 is met where nodes are namespaces of one host.
    return max(MTU_MIN, min(smallest, MTU_MAX) - _OVERHEADS.get(mode, 0))


def local_address(observed: Observed, own: IPv4Address | None) -> IPv4Address | None:
    """Where the tunnel leaves from. None, that is what the kernel chooses, where `own` is somebody else's who forwards to us."""
    return own if any(each.interface.ip == own for each in observed.addresses) else None


def published_at(
    addresses: Sequence[str], observed: Observed, *, own: IPv4Address | None, ours: frozenset[str]
) -> tuple[IPv4Address, ...]:
    """Where published ports are found: at `addresses`, by default at `own`; 0.0.0.0 is every address of the host."""
    chosen: list[IPv4Address] = []
    for text in addresses:
        try:
            chosen.append(IPv4Address(text))
        except AddressValueError:
            continue  # IPv6 is the proxy's alone.
    if not addresses and own is not None:
        chosen = [own]
    if any(address.is_unspecified for address in chosen):
        chosen = [
            each.interface.ip
            for each in observed.addresses
            if each.device not in ours and not each.interface.is_loopback
        ]
    return tuple(dict.fromkeys(chosen))


def _device_towards(routes: list[Route], address: IPv4Address) -> str:
    """`routes`: longest prefix first."""
    return next((route.device for route in routes if address in route.destination), "")
