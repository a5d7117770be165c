"""What on this host stands in the way of the pods' network, by name. Pure.

Nothing is guessed around: two things that share a range or a port fail later, and in a way that nobody
can read. So it is refused beforehand, with what is in the way and whose it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from agent.network.links import LOOPBACK, Wanted, is_ours
from agent.network.observed import Observed
from bayplan.v1 import agent_link_pb2 as pb

# Not only 0.0.0.0/0: VPNs split the default route into two or four halves, so as to be more specific.
_DEFAULT_PREFIX_MAX = 2


def find_conflicts(wanted: Wanted, observed: Observed) -> list[str]:
    """In words for the operator; empty: nothing is in the way."""
    return [*_taken_names(wanted, observed), *_taken_port(wanted, observed), *_taken_ranges(wanted, observed)]


def has_foreign_device(wanted: Wanted, observed: Observed) -> bool:
    """Whether a name of ours belongs to somebody else: then nothing may be planned at all."""
    return any(True for _ in _taken_names(wanted, observed))


def _taken_names(wanted: Wanted, observed: Observed) -> Iterator[str]:
    names = (wanted.bridge,) if wanted.mode == pb.NETWORK_MODE_OFF else (wanted.bridge, wanted.tunnel)
    for name in names:
        device = observed.device(name)
        if device is not None and not is_ours(device, wanted, observed):
            kind = f" ({device.kind})" if device.kind else ""
            yield f"a device {name}{kind} is there that is not Bayplan's: remove or rename it"


def _taken_port(wanted: Wanted, observed: Observed) -> Iterator[str]:
    if wanted.mode == pb.NETWORK_MODE_OFF:
        return
    for device in observed.devices:
        # Two VXLAN networks may share a port if their numbers differ, but then each drops the other's packets as
        # foreign. The same number on another port is no conflict: the kernel tells them apart.
        if device.kind == "vxlan" and device.port == wanted.port and device.name != wanted.tunnel:
            yield f"UDP port {wanted.port} is used by the device {device.name} (VXLAN {device.vni})"
            return
    if observed.port_taker:
        yield f"UDP port {wanted.port} is used by {observed.port_taker}"


def _taken_ranges(wanted: Wanted, observed: Observed) -> Iterator[str]:
    # Where the hosts' own network routes the subnets, routes to them are what makes it work.
    is_routed = wanted.mode == pb.NETWORK_MODE_OFF
    subnet = wanted.gateway.network
    ranges = (
        ("the subnet of this node", subnet) if is_routed else ("the pod range", wanted.pod_range),
        ("the service range", wanted.service_range),
    )
    ours = (wanted.bridge, wanted.tunnel)
    for words, wanted_range in ranges:
        for network, device in _networks(observed, without=ours):
            if device == LOOPBACK and network == wanted.service_range:
                continue  # Our own route to it.
            if is_routed and network.supernet_of(subnet):
                continue
            if network.overlaps(wanted_range):
                yield f"{words} {wanted_range} overlaps {network}, which is reached through {_whose(device)}"
                break


def _networks(observed: Observed, *, without: tuple[str, ...]) -> Iterator[tuple[IPv4Network, str]]:
    for route in observed.routes:
        is_default = route.destination.prefixlen <= _DEFAULT_PREFIX_MAX
        # Of the local table only what somebody has put there: the rest are single addresses, seen below.
        is_seen_below = route.is_local and route.is_kernels
        if route.device not in without and not is_default and not is_seen_below:
            yield route.destination, route.device
    for address in observed.addresses:
        if address.device not in without:
            yield IPv4Network(address.interface.ip), address.device


def _whose(device: str) -> str:
    if device == "docker0" or device.startswith("br-"):
        return f"{device} (a network of Docker's: see `docker network ls`)"
    if device.startswith("bay") and device[3:].partition("-")[0].isdecimal():
        return f"{device} (another Bayplan cluster's)"
    return device
