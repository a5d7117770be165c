"""What of a leader's word on the pods' network is believed. Pure.

It becomes routes, tunnel entries and files that root writes, so a leader that is wrong, or was broken into, must
not lead a host's traffic astray. What this node itself is told is taken whole or not at all. Another node that
cannot be as it is told is left out, with the reason: the others are joined all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from agent.network.table import NetworkTable, Refused
from bayplan.model.names import is_name
from bayplan.model.network import (
    POD_PREFIX_MIN,
    PREFIX_MAX,
    SERVICE_PREFIX_MIN,
    UNFIT_RANGES,
    VNI_MAX,
    is_domain,
)
from bayplan.v1 import agent_link_pb2 as pb

_PORT_MAX = 65_535
_RESERVED = IPv4Network("240.0.0.0/4")  # With the broadcast address.
_WORDS_MAX = 80
# 32 bytes as base64: the last of 43 digits bears four bits.
_WIREGUARD_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")


def credible(table: NetworkTable) -> NetworkTable:
    """`table`, its nodes parted in those that can be and `refused` ones. Raises ValueError on a network that cannot be."""
    settings = table.settings
    if settings is None:
        return table
    pod_range = _check_own(settings, table.subnet)
    taken = {table.subnet: "this node"}
    peers: dict[str, pb.NetworkPeer] = {}
    refused: dict[str, Refused] = {}
    for name, peer in table.told.items():
        why = "" if is_name(name) else f"{_quoted(name)} is no name of a node"
        why = why or _wrong_with_subnet(peer.subnet, table.subnet, pod_range)
        if not why and (owner := taken.setdefault(IPv4Network(peer.subnet), name)) != name:
            why = f"its subnet {peer.subnet} is that of {owner}"
        if why:
            refused[name] = Refused(peer=peer, why=why)
        else:
            peers[name] = peer
    return replace(table, peers=peers, refused=refused)


def unreachable_peers(network: NetworkTable) -> dict[str, str]:
    """Nodes to which no packet can be sent, and why: the refused ones, and those that a tunnel cannot end at."""
    return {name: each.why for name, each in network.refused.items()} | dict(_without_tunnel(network))


def _without_tunnel(network: NetworkTable) -> Iterator[tuple[str, str]]:
    settings = network.settings
    if settings is None or settings.mode == pb.NETWORK_MODE_OFF:
        return
    ranges = [IPv4Network(settings.pod_range), IPv4Network(settings.service_range)]
    keys: dict[str, str] = {}
    for name, peer in network.peers.items():
        why = _wrong_with_address(peer.address, ranges)
        if not why and settings.mode == pb.NETWORK_MODE_WIREGUARD:
            if not _WIREGUARD_KEY.fullmatch(peer.wireguard_key):
                why = "it has no WireGuard key"
            elif (owner := keys.setdefault(peer.wireguard_key, name)) != name:
                why = f"its WireGuard key is that of {owner}"
        if why:
            yield name, why


def _check_own(settings: pb.NetworkSettings, subnet: IPv4Network) -> IPv4Network:
    """The pod range. Raises ValueError."""
    pod_range = _range("the pod range", settings.pod_range, shortest=POD_PREFIX_MIN)
    service_range = _range("the service range", settings.service_range, shortest=SERVICE_PREFIX_MIN)
    if pod_range.overlaps(service_range):
        raise ValueError(f"the pod range {pod_range} and the service range {service_range} overlap")
    if not _is_part(subnet, pod_range):
        raise ValueError(f"the subnet {subnet} is no part of the pod range {pod_range}")
    if settings.mode not in (pb.NETWORK_MODE_VXLAN, pb.NETWORK_MODE_WIREGUARD, pb.NETWORK_MODE_OFF):
        raise ValueError(f"this agent knows no way {settings.mode} to join nodes")
    if not 0 < settings.id <= VNI_MAX:
        raise ValueError(f"{settings.id} is no number of a network: 1 to {VNI_MAX}")
    if not 0 < settings.port <= _PORT_MAX:
        raise ValueError(f"{settings.port} is no port: 1 to {_PORT_MAX}")
    if not is_domain(settings.domain):
        raise ValueError(f"{_quoted(settings.domain)} is no domain")
    return pod_range


def _range(what: str, text: str, *, shortest: int) -> IPv4Network:
    found = IPv4Network(text)
    if str(found) != text or not shortest <= found.prefixlen <= PREFIX_MAX:
        raise ValueError(f"{what} {_quoted(text)} is not a /{shortest} to a /{PREFIX_MAX}")
    if any(found.overlaps(each) for each in UNFIT_RANGES):
        raise ValueError(f"{what} {text} holds addresses that no host can have")
    return found


def _is_part(subnet: IPv4Network, pod_range: IPv4Network) -> bool:
    return pod_range.prefixlen < subnet.prefixlen <= PREFIX_MAX and subnet.subnet_of(pod_range)


def _wrong_with_subnet(text: str, own: IPv4Network, pod_range: IPv4Network) -> str:
    try:
        subnet = IPv4Network(text)
    except ValueError:
        return f"its subnet {_quoted(text)} is none"
    # All parts of the range have one size: so two are the same, or share nothing.
    if subnet.prefixlen != own.prefixlen or not subnet.subnet_of(pod_range):
        return f"its subnet {subnet} is no /{own.prefixlen} of the pod range {pod_range}"
    return ""


def _wrong_with_address(text: str, ranges: list[IPv4Network]) -> str:
    try:
        address = IPv4Address(text)
    except AddressValueError:
        return f"its address {_quoted(text)} is none of IPv4"
    if address.is_unspecified or address.is_loopback or address.is_multicast or address in _RESERVED:
        return f"its address {address} is not that of a host"
    # A tunnel that ends in itself; and a pod at that address would speak as a node.
    inside = next((each for each in ranges if address in each), None)
    return f"its address {address} is inside the cluster's own range {inside}" if inside else ""


def _quoted(text: str) -> str:
    return repr(text[:_WORDS_MAX])
