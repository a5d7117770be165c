"""What the leader gives a service for its life: an address, and ports on every node."""

from __future__ import annotations

from dataclasses import dataclass, field

# Published ports of all Ingresses together are told of under this name, where services' are under "namespace/name".
INGRESS = "ingress"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Of one Service or Ingress, by its uid. Written by the leader alone, kept in etcd."""

    owner: str = ""  # "Service shop/web": for words, also when the document is gone.
    vip: str = ""  # Empty: headless, ExternalName, or none is free.
    # By "<port>/<protocol>" of the service, e.g. {"80/TCP": 30080}: ports of the node-port range.
    node_ports: dict[str, int] = field(default_factory=dict)
    # Ports that every node publishes under their own number, e.g. ("80/TCP",): of a LoadBalancer, or an Ingress.
    published: tuple[str, ...] = ()
    problem: str = ""  # Why something is missing, e.g. "10.96.0.10 is the address of Service shop/db already"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """What was given last. The search for something free goes on behind it, so that what was given back rests."""

    vip: str = ""
    node_port: int = 0
