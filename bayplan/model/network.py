"""The pods' network as the cluster was founded with: ranges, and what joins the nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NetworkMode = Literal["vxlan", "wireguard", "off"]


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
