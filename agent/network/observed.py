"""What the kernel shows of this host's network, as far as the pods' network is concerned. Values alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A network device of the host."""

    index: int
    name: str
    kind: str = ""  # bridge, vxlan, wireguard, veth …; empty: hardware, or the loopback.
    alias: str = ""
    mac: str = ""
    mtu: int = 1500
    is_up: bool = True
    master: int = 0  # Index of the bridge that it is a port of.
    is_hairpin: bool = False  # As a port of a bridge: what came from it may go back to it.
    far_namespace: int | None = None  # The kernel's number of the namespace that holds the other end.
    # Of VXLAN alone.
    vni: int = 0
    port: int = 0
    local: IPv4Address | None = None
    is_learning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAddress:
    """An address of this host."""

    device: str
    interface: IPv4Interface


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Of the main table, or where `is_local` of the table of the host's own addresses."""

    destination: IPv4Network
    device: str
    gateway: IPv4Address | None = None
    source: IPv4Address | None = None
    is_local: bool = False
    is_kernels: bool = False  # Made with an address, and gone with it.


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A permanent entry of the neighbour table."""

    device: str
    address: IPv4Address
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """VXLAN's forwarding: frames to `mac` are sent to the host at `to`."""

    device: str
    mac: str
    to: IPv4Address


@dataclass(frozen=True, slots=True, kw_only=True)
class WireguardPeer:
    """Whom the tunnel encrypts for, and which packets are theirs."""

    key: str
    endpoint: tuple[str, int] | None
    allowed: frozenset[IPv4Network]


@dataclass(frozen=True, slots=True, kw_only=True)
class WireguardDevice:
    """The cryptographic half of a WireGuard device."""

    public_key: str = ""
    port: int = 0
    peers: tuple[WireguardPeer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """All of it, seen within a few milliseconds."""

    devices: tuple[Device, ...] = ()
    addresses: tuple[DeviceAddress, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    forwards: tuple[Forward, ...] = ()
    wireguard: WireguardDevice = field(default_factory=WireguardDevice)
    # Who listens on the tunnel's UDP port, in words; empty: nobody, or the tunnel itself.
    port_taker: str = ""

    def device(self, name: str) -> Device | None:
        """The device of that name."""
        return next((device for device in self.devices if device.name == name), None)
