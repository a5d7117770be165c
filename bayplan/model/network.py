"""The pods' network as the cluster was founded with: ranges, and what joins the nodes."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Literal

from bayplan.model.names import is_name

NetworkMode = Literal["vxlan", "wireguard", "off"]

# What managers found a cluster with, and agents believe.
VNI_MAX = 2**24 - 1
# The largest range for private use, 10.0.0.0/8, has room for 65,536 nodes.
POD_PREFIX_MIN = 8
# 1,048,576 services are more than one cluster holds; a larger range is a typing error.
SERVICE_PREFIX_MIN = 12
# Of four addresses one is left for a pod: first, last and gateway are not.
PREFIX_MAX = 30
# The longest name of a pod, four labels of 63 and `svc`, leaves so many of DNS's 253 characters.
DOMAIN_MAX = 57
# Addresses that no host in a network has.
UNFIT_RANGES = tuple(
    IPv4Network(each) for each in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
)


def is_domain(text: str) -> bool:
    """Whether all names of a cluster may end in `text`."""
    return len(text) <= DOMAIN_MAX and all(is_name(label) for label in text.split("."))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNetwork:
    """Written once, by the first leader. 512 nodes of 253 pods, unless the operator chose otherwise."""

    pod_range: str = "10.42.0.0/15"
    node_prefix: int = 24  # Length of each node's part of it.
    service_range: str = "10.96.0.0/16"
    domain: str = "cluster.local"
    mode: NetworkMode = "vxlan"  # off: the hosts' own network routes the subnets.
    id: int = 1  # VXLAN's VNI; names bridge and devices: bay1.
    # Not 4789 or 8472, which Swarm and flannel use.
    port: int = 7472
