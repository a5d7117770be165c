"""What to do so that the kernel's devices, addresses and routes are what the pods' network needs. Pure.

Nodes are joined without any learning, flooding or asking: a node's MAC follows from its gateway's
address, so for each peer three entries say all there is, a route (its subnet is behind its gateway),
a neighbour (the gateway has this MAC) and a forward (the MAC is at that host). WireGuard needs the route
and the peer's key. A plan names only devices that are ours; `conflicts.py` says when one is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network

from agent.network import operations as ops
from agent.network.credible import unreachable_peers
from agent.network.observed import Device, Forward, Neighbour, Observed, Route, WireguardPeer
from agent.network.operations import Operation
from agent.network.table import NetworkTable
from agent.network.underlay import local_address, pod_mtu
from bayplan.v1 import agent_link_pb2 as pb

ALIAS = "bayplan"
# Locally administered, unicast. The rest is the gateway's address, so that it is the same whenever it is made
# again: pods keep what they know of their router.
_MAC_PREFIX = "ba:79"
LOOPBACK = "lo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another node."""

    node: str
    address: IPv4Address
    subnet: IPv4Network
    wireguard_key: str = ""

    @property
    def gateway(self) -> IPv4Address:
        return self.subnet[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The pods' network on this host as it is to be."""

    bridge: str
    tunnel: str
    mode: pb.NetworkMode
    vni: int
    port: int
    gateway: IPv4Interface
    pod_range: IPv4Network
    service_range: IPv4Network
    mtu: int
    local: IPv4Address | None = None
    peers: tuple[Peer, ...] = ()
    private_key: str = field(default="", repr=False)
    public_key: str = ""

    @property
    def mac(self) -> str:
        return mac_of(self.gateway.ip)


def mac_of(gateway: IPv4Address) -> str:
    """Of a node's bridge and tunnel."""
    return ":".join((_MAC_PREFIX, *(f"{byte:02x}" for byte in gateway.packed)))


def wanted_links(
    network: NetworkTable,
    observed: Observed,
    *,
    own: IPv4Address | None,
    private_key: str = "",
    public_key: str = "",
) -> Wanted:
    """From what the leader said and what lies below. `network` has settings, and is credible."""
    settings = network.settings
    assert settings is not None
    unreachable = unreachable_peers(network)
    peers = tuple(
        peer
        for name, each in network.peers.items()
        if name not in unreachable and (peer := _peer(each)) is not None
    )
    ours = frozenset((network.bridge, network.tunnel))
    mtu = pod_mtu(observed, settings.mode, own=own, peers=(peer.address for peer in peers), ours=ours)
    return Wanted(
        bridge=network.bridge,
        tunnel=network.tunnel,
        mode=settings.mode,
        vni=settings.id,
        port=settings.port,
        gateway=IPv4Interface(f"{network.gateway}/{network.subnet.prefixlen}"),
        pod_range=IPv4Network(settings.pod_range),
        service_range=IPv4Network(settings.service_range),
        mtu=mtu,
        local=local_address(observed, own),
        peers=peers,
        private_key=private_key,
        public_key=public_key,
    )


def _peer(message: pb.NetworkPeer) -> Peer | None:
    try:
        address = IPv4Address(message.address)
    except AddressValueError:
        return None  # It is known by a name, which does without a tunnel.
    return Peer(
        node=message.node,
        address=address,
        subnet=IPv4Network(message.subnet),
        wireguard_key=message.wireguard_key,
    )


def is_ours(device: Device, wanted: Wanted, observed: Observed) -> bool:
    """Whether a device that has a name of ours was made by us, or for us by the engine at its start."""
    if device.alias == ALIAS or device.mac.startswith(_MAC_PREFIX):
        return True
    return device.kind == "bridge" and any(
        each.device == device.name and each.interface == wanted.gateway for each in observed.addresses
    )


def plan_links(wanted: Wanted, observed: Observed) -> list[Operation]:
    """In an order in which each can be done. Empty: all is as it should be."""
    return [
        *_bridge(wanted, observed),
        *_tunnel(wanted, observed),
        *_peers(wanted, observed),
        *_routes(wanted, observed),
    ]


def plan_ports(
    wanted: Wanted, devices: Sequence[Device], namespaces: Iterable[int], *, is_bridge_filtered: bool
) -> list[ops.SetMaster | ops.SetHairpin]:
    """Plug pods' devices in again that stand beside the bridge, since it was made anew.

    Args:
        wanted: whose bridge it is.
        devices: all that there are.
        namespaces: of our pods' containers, as the kernel numbers them.
        is_bridge_filtered: whether the firewall sees frames inside bridges. Then a packet that a pod sends to a
            service and that comes back to itself never leaves the bridge.
    """
    known = frozenset(namespaces)
    bridge = next((device.index for device in devices if device.name == wanted.bridge), 0)
    if not bridge:
        return []  # It comes first.
    plan: list[ops.SetMaster | ops.SetHairpin] = []
    for device in devices:
        is_loose = device.kind == "veth" and not device.master and device.far_namespace in known
        if is_loose:
            plan.append(
                ops.SetMaster(device=device.name, bridge=wanted.bridge, reason="a pod's device is loose")
            )
        is_plugged = is_loose or (device.kind == "veth" and device.master == bridge)
        if is_plugged and is_bridge_filtered and not device.is_hairpin:
            plan.append(ops.SetHairpin(device=device.name, reason="a pod may be its own service"))
    return plan


def _bridge(wanted: Wanted, observed: Observed) -> Iterator[Operation]:
    bridge = observed.device(wanted.bridge)
    if bridge is None:
        yield ops.AddBridge(name=wanted.bridge, mac=wanted.mac, mtu=wanted.mtu, reason="there is no bridge")
    else:
        yield from _properties(bridge, wanted, mac=wanted.mac)
    addresses = {each.interface for each in observed.addresses if each.device == wanted.bridge}
    for address in sorted(addresses - {wanted.gateway}):
        yield ops.RemoveAddress(
            device=wanted.bridge, interface=address, reason=f"the gateway is {wanted.gateway}"
        )
    if wanted.gateway not in addresses:
        yield ops.AddAddress(
            device=wanted.bridge, interface=wanted.gateway, reason="the bridge has no address"
        )


def _properties(device: Device, wanted: Wanted, *, mac: str) -> Iterator[Operation]:
    reasons = [
        words
        for words, differs in (
            (f"its MTU is {device.mtu}", device.mtu != wanted.mtu),
            (f"its MAC is {device.mac}", bool(mac) and device.mac != mac),
            ("it is down", not device.is_up),
            ("it is not marked", device.alias != ALIAS),
        )
        if differs
    ]
    if reasons:
        yield ops.SetDevice(name=device.name, mtu=wanted.mtu, mac=mac, reason=", ".join(reasons))


def _tunnel(wanted: Wanted, observed: Observed) -> Iterator[Operation]:
    device = observed.device(wanted.tunnel)
    if wanted.mode == pb.NETWORK_MODE_OFF:
        if device is not None:
            yield ops.RemoveDevice(name=device.name, reason="the hosts' own network routes the subnets")
        return
    if device is not None and (wrong := _wrong_tunnel(device, wanted)):
        yield ops.RemoveDevice(name=device.name, reason=wrong)
        device = None
    if device is not None:
        is_vxlan = wanted.mode == pb.NETWORK_MODE_VXLAN
        yield from _properties(device, wanted, mac=wanted.mac if is_vxlan else "")
    elif wanted.mode == pb.NETWORK_MODE_WIREGUARD:
        yield ops.AddWireguard(name=wanted.tunnel, mtu=wanted.mtu, reason="there is no tunnel")
    else:
        yield ops.AddVxlan(
            name=wanted.tunnel,
            mac=wanted.mac,
            mtu=wanted.mtu,
            vni=wanted.vni,
            port=wanted.port,
            local=wanted.local,
            reason="there is no tunnel",
        )


def _wrong_tunnel(device: Device, wanted: Wanted) -> str:
    """Why it must be made anew: these cannot be changed on a device that is there."""
    if wanted.mode == pb.NETWORK_MODE_WIREGUARD:
        return "" if device.kind == "wireguard" else f"it is of the kind {device.kind}"
    has = (device.kind, device.vni, device.port, device.local, device.is_learning)
    wants = ("vxlan", wanted.vni, wanted.port, wanted.local, False)
    return "" if has == wants else f"it is {_words(has)}, not {_words(wants)}"


def _words(properties: tuple[str, int, int, IPv4Address | None, bool]) -> str:
    kind, vni, port, local, is_learning = properties
    return f"{kind} {vni} from {local or 'any'}:{port}{' learning' if is_learning else ''}"


def _peers(wanted: Wanted, observed: Observed) -> Iterator[Operation]:
    if wanted.mode == pb.NETWORK_MODE_VXLAN:
        yield from _neighbours(wanted, observed)
        yield from _forwards(wanted, observed)
    elif wanted.mode == pb.NETWORK_MODE_WIREGUARD:
        yield from _wireguard(wanted, observed)


def _neighbours(wanted: Wanted, observed: Observed) -> Iterator[Operation]:
    wants = {
        Neighbour(device=wanted.tunnel, address=peer.gateway, mac=mac_of(peer.gateway)): peer.node
        for peer in wanted.peers
    }
    has = {each for each in observed.neighbours if each.device == wanted.tunnel}
    kept = {each.address for each in wants}
    for neighbour in sorted(has - wants.keys(), key=lambda each: each.address):
        if neighbour.address not in kept:  # Others are overwritten below.
            yield ops.RemoveNeighbour(neighbour=neighbour, reason="it belongs to no node")
    for neighbour, node in wants.items():
        if neighbour not in has:
            yield ops.PutNeighbour(neighbour=neighbour, reason=f"it is {node}'s gateway")


def _forwards(wanted: Wanted, observed: Observed) -> Iterator[Operation]:
    wants = {
        Forward(device=wanted.tunnel, mac=mac_of(peer.gateway), to=peer.address): peer.node
        for peer in wanted.peers
    }
    has = {each for each in observed.forwards if each.device == wanted.tunnel}
    # Gone first: one MAC may be at one host only.
    for forward in sorted(has - wants.keys(), key=lambda each: (each.mac, each.to)):
        yield ops.RemoveForward(forward=forward, reason="no node is there")
    for forward, node in wants.items():
        if forward not in has:
            yield ops.PutForward(forward=forward, reason=f"{node} is there")


def _wireguard(wanted: Wanted, observed: Observed) -> Iterator[Operation]:
    has = observed.wireguard
    if (has.public_key, has.port) != (wanted.public_key, wanted.port):
        yield ops.SetWireguardKey(
            device=wanted.tunnel,
            port=wanted.port,
            private_key=wanted.private_key,
            reason="it has another key or port, or none",
        )
    wants = {
        peer.wireguard_key: WireguardPeer(
            key=peer.wireguard_key,
            endpoint=(str(peer.address), wanted.port),
            allowed=frozenset((peer.subnet,)),
        )
        for peer in wanted.peers
        if peer.wireguard_key
    }
    known = {peer.key: peer for peer in has.peers}
    for key in known:
        if key not in wants:
            yield ops.RemoveWireguardPeer(device=wanted.tunnel, key=key, reason="no node has this key")
    for key, peer in wants.items():
        # Endpoints are the kernel's to change: behind NAT a peer is where its last packet came from.
        if key not in known or known[key].allowed != peer.allowed:
            yield ops.PutWireguardPeer(device=wanted.tunnel, peer=peer, reason="a node has this key")


def _routes(wanted: Wanted, observed: Observed) -> Iterator[Operation]:
    wants = dict(_wanted_routes(wanted))
    has = {
        route
        for route in observed.routes
        if not route.is_kernels
        and (route.device == wanted.tunnel or route.destination == wanted.service_range)
    }
    kept = {(route.destination, route.device) for route in wants}
    for route in sorted(has - wants.keys(), key=lambda each: each.destination):
        if route.device == wanted.tunnel and (route.destination, route.device) not in kept:
            yield ops.RemoveRoute(
                destination=route.destination, device=route.device, reason="no node has this subnet"
            )
    for route, reason in wants.items():
        if route not in has:
            yield ops.PutRoute(route=route, reason=reason)


def _wanted_routes(wanted: Wanted) -> Iterator[tuple[Route, str]]:
    # The host's own connections to a virtual address leave from the gateway's: every pod can answer it.
    yield (
        Route(
            destination=wanted.service_range,
            device=LOOPBACK,
            source=wanted.gateway.ip,
            is_local=True,
        ),
        "services' addresses are answered here",
    )
    if wanted.mode == pb.NETWORK_MODE_OFF:
        return
    is_vxlan = wanted.mode == pb.NETWORK_MODE_VXLAN
    for peer in wanted.peers:
        yield (
            Route(
                destination=peer.subnet,
                device=wanted.tunnel,
                gateway=peer.gateway if is_vxlan else None,
                source=wanted.gateway.ip,
            ),
            f"{peer.node}'s pods are there",
        )
