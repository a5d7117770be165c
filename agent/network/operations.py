"""What can be done to the kernel's network, one value per deed, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import ClassVar

from agent.network.observed import Forward, Neighbour, Route, WireguardPeer


@dataclass(frozen=True, slots=True, kw_only=True)
class AddBridge:
    """Make the bridge that pods are plugged into."""

    deed: ClassVar[str] = "make the bridge {name}"

    name: str
    mac: str
    mtu: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddVxlan:
    """Make the tunnel: it learns nothing, what it knows it is told."""

    deed: ClassVar[str] = "make the tunnel {name}"

    name: str
    mac: str
    mtu: int
    vni: int
    port: int
    local: IPv4Address | None  # None: the kernel chooses.
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddWireguard:
    """Make the encrypted tunnel, still without a key."""

    deed: ClassVar[str] = "make the tunnel {name}"

    name: str
    mtu: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetWireguardKey:
    """Give the tunnel its key and its port."""

    deed: ClassVar[str] = "give {device} its key"

    device: str
    port: int
    private_key: str = field(repr=False)
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PutWireguardPeer:
    """Add a peer, or make it what it is to be."""

    deed: ClassVar[str] = "add a peer to {device}"

    device: str
    peer: WireguardPeer
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveWireguardPeer:
    """Encrypt for it no more."""

    deed: ClassVar[str] = "remove a peer from {device}"

    device: str
    key: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveDevice:
    """Remove a device that is ours."""

    deed: ClassVar[str] = "remove the device {name}"

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDevice:
    """Up, with these properties. An empty MAC is left as it is."""

    deed: ClassVar[str] = "set up the device {name}"

    name: str
    mtu: int
    mac: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMaster:
    """Make a device a port of a bridge."""

    deed: ClassVar[str] = "plug {device} into {bridge}"

    device: str
    bridge: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetHairpin:
    """Let a port of a bridge have back what came from it."""

    deed: ClassVar[str] = "set up the port {device}"

    device: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddAddress:
    """Give a device an address."""

    deed: ClassVar[str] = "give {device} the address {interface}"

    device: str
    interface: IPv4Interface
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAddress:
    """Take an address from a device of ours."""

    deed: ClassVar[str] = "take the address {interface} from {device}"

    device: str
    interface: IPv4Interface
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PutRoute:
    """Add a route, or replace what leads to its destination."""

    deed: ClassVar[str] = "lead {route.destination} through {route.device}"

    route: Route
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveRoute:
    """Remove a route through a device of ours."""

    deed: ClassVar[str] = "remove the route to {destination} through {device}"

    destination: IPv4Network
    device: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PutNeighbour:
    """Say which MAC an address has."""

    deed: ClassVar[str] = "say where {neighbour.address} is"

    neighbour: Neighbour
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNeighbour:
    """Forget an address."""

    deed: ClassVar[str] = "forget where {neighbour.address} is"

    neighbour: Neighbour
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PutForward:
    """Say which host a MAC is at."""

    deed: ClassVar[str] = "send frames for {forward.mac} to {forward.to}"

    forward: Forward
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveForward:
    """Forget a MAC."""

    deed: ClassVar[str] = "send no frames for {forward.mac} to {forward.to}"

    forward: Forward
    reason: str


Operation = (
    AddBridge
    | AddVxlan
    | AddWireguard
    | SetWireguardKey
    | PutWireguardPeer
    | RemoveWireguardPeer
    | RemoveDevice
    | SetDevice
    | SetMaster
    | SetHairpin
    | AddAddress
    | RemoveAddress
    | PutRoute
    | RemoveRoute
    | PutNeighbour
    | RemoveNeighbour
    | PutForward
    | RemoveForward
)
WireguardOperation = SetWireguardKey | PutWireguardPeer | RemoveWireguardPeer


def describe(operation: Operation) -> str:
    """In words, as "cannot …" would go on."""
    return operation.deed.format(**{each.name: getattr(operation, each.name) for each in fields(operation)})
