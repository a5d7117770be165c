"""Which part of the pod range a node gets.

Parts are given in turn, the next behind the highest in use, so that the part of a node that was removed
is not at once another's: somewhere a route may still lead to where it was.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from functools import lru_cache

from bayplan.model.network import ClusterNetwork

# Of each part: its first and last address, and the gateway's.
_NOT_FOR_PODS = 3


def parts(network: ClusterNetwork) -> int:
    """How many nodes the pod range is for."""
    return 1 << (network.node_prefix - ipaddress.IPv4Network(network.pod_range).prefixlen)


def pods_per_part(network: ClusterNetwork) -> int:
    """How many pods have an address in a node's part: 253 in a /24."""
    return _part_size(network) - _NOT_FOR_PODS


@lru_cache(maxsize=8192)  # Asked for every pod that reports.
def first_address(subnet: str) -> int | None:
    """The first address of a part as a number; None for what is no part of anything."""
    try:
        return int(ipaddress.IPv4Network(subnet).network_address)
    except ValueError:
        return None


def is_part(network: ClusterNetwork, subnet: str) -> bool:
    """Whether a node may have `subnet`: it is one of the parts of this very range."""
    try:
        found = ipaddress.IPv4Network(subnet)
    except ValueError:
        return False
    whole = ipaddress.IPv4Network(network.pod_range)
    return found.prefixlen == network.node_prefix and found.subnet_of(whole)


def part_with(network: ClusterNetwork, address: str) -> str:
    """The part that holds an address; empty for one that is of no pod."""
    try:
        found = ipaddress.IPv4Address(address)
    except ValueError:
        return ""
    if found not in ipaddress.IPv4Network(network.pod_range):
        return ""
    return str(ipaddress.IPv4Network((found, network.node_prefix), strict=False))


def is_address(text: str) -> bool:
    """Of IPv4; a node may be known by a name."""
    return _number(text) is not None


def is_within(address: str, subnet: str) -> bool:
    """Whether a pod may have `address` on the node whose part `subnet` is."""
    number, first = _number(address), first_address(subnet)
    if number is None or first is None:
        return False
    length = int(subnet.partition("/")[2] or 32)
    return number >> (32 - length) == first >> (32 - length)


def next_part(network: ClusterNetwork, taken: Collection[int]) -> str | None:
    """A free part; None when all are given.

    Args:
        network: for the range of pods.
        taken: first addresses of the parts in use, as numbers.
    """
    whole = ipaddress.IPv4Network(network.pod_range)
    first, size, count = int(whole.network_address), _part_size(network), parts(network)
    index = (max(taken, default=first - size) - first) // size + 1
    if not 0 <= index < count:  # Only then all parts in use must be looked at.
        in_use = {(each - first) // size for each in taken if 0 <= each - first < size * count}
        if len(in_use) >= count:
            return None
        index = max(in_use, default=-1) + 1
        while index % count in in_use:
            index += 1
        index %= count
    return str(ipaddress.IPv4Network((first + index * size, network.node_prefix)))


def _number(address: str) -> int | None:
    try:
        return int(ipaddress.IPv4Address(address))
    except ValueError:
        return None


def _part_size(network: ClusterNetwork) -> int:
    return 1 << (32 - network.node_prefix)
