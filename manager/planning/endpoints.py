"""Which pods serve a service: its endpoints, as far as they are known.

A pod serves from the moment its agent calls it ready until it is wanted to stop, or its node is down.
What is silent but not judged serves on as it was last seen: a proxy's own checks are quicker than a
verdict, and a wrong verdict would empty a service that works. A pod of which nothing was heard since
the leader was elected is neither in nor out: the set is not known before all of them are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from bayplan.model.placements import Want
from bayplan.model.states import PodState

WEIGHT_MAX = 256  # HAProxy's.

Balance = Literal["least-connections", "round-robin", "capacity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PortView:
    """A port of a service, and where it leads."""

    port: int  # At the service's address.
    target: int | str  # Of the pods; a name is looked up in each pod's own template.
    name: str = ""
    udp: bool = False
    http: bool = False
    node_port: int = 0  # Published on every node under this number; 0: not.
    load_balancer: bool = False  # `port` itself is published on every node.
    proxy_protocol: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One place that takes a service's connections."""

    id: str  # The pod's uid; of endpoints by hand the address.
    address: str
    node: str = ""  # Empty: outside the cluster.
    name: str = ""
    hostname: str = ""
    ports: tuple[int, ...] = ()  # One for each of the service's ports; 0: it has none so named.
    ready: bool = True
    weight: int = WEIGHT_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceView:
    """A service, with what the leader gave it."""

    namespace: str
    name: str
    uid: str = ""
    vip: str = ""  # Empty: headless, or ExternalName, or it `lacks_vip`.
    lacks_vip: bool = False  # It needs one, and none is free: it is its published ports alone.
    external_name: str = ""  # A CNAME and nothing else.
    ports: tuple[PortView, ...] = ()
    selector: tuple[tuple[str, str], ...] = ()  # Sorted; empty: endpoints are written by hand.
    by_hand: tuple[Endpoint, ...] = ()
    balance: Balance = "least-connections"
    affinity_s: int = 0
    external_local: bool = False
    internal_local: bool = False
    publish_not_ready: bool = False
    max_connections_per_pod: int = 0
    queue_timeout_ms: int = 0
    request_timeout_ms: int = 0

    @property
    def key(self) -> str:
        """How it is called on the wire: `namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateView:
    """What a revision's template says of its pods to those who send them traffic."""

    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[tuple[str, bool], int] = field(default_factory=dict)  # (name, is it UDP) → number.
    hostname: str = ""
    subdomain: str = ""
    capacity: float = 0.0  # In any unit, the same for all pods of a service; 0: not said.
    drain_s: float = 30.0  # How long its last requests may take once it is to stop; 0: they are cut.
    host_network: bool = False  # Its address is its node's own.


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendView:
    """A pod that a service's selector finds, as it was last reported."""

    uid: str
    name: str
    node: str
    want: Want
    template: TemplateView
    state: PodState | None  # None: nothing was heard of it since this leader was elected.
    ready: bool = False
    address: str = ""  # Empty: no other node would reach it.
    is_node_down: bool = False  # Judged so, and nothing holds the verdict's consequences back.

    @property
    def is_leaving(self) -> bool:
        """Whether it is out whatever its agent says of it."""
        return self.want in (Want.STOP, Want.LOST) or self.is_node_down


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSet:
    """What is known of a service's endpoints."""

    endpoints: tuple[Endpoint, ...] = ()  # By id.
    absent: tuple[str, ...] = ()  # Pods that are known to be none.
    unknown: tuple[str, ...] = ()  # Pods of which nothing is known yet.

    @property
    def is_whole(self) -> bool:
        """Whether these are all of them."""
        return not self.unknown


def endpoints_of(service: ServiceView, pods: Iterable[BackendView]) -> EndpointSet:
    """The endpoints of one service.

    Args:
        service: of any type.
        pods: those of its namespace that its selector finds, in any order.
    """
    if service.external_name:
        return EndpointSet()
    if not service.selector:
        shown = [each for each in service.by_hand if each.ready or service.publish_not_ready]
        return EndpointSet(endpoints=tuple(sorted(shown, key=lambda each: each.id)))
    serving: list[BackendView] = []
    absent: list[str] = []
    unknown: list[str] = []
    for pod in sorted(pods, key=lambda each: each.uid):
        if not pod.is_leaving and pod.state is None:
            unknown.append(pod.uid)
        elif _serves(service, pod):
            serving.append(pod)
        else:
            absent.append(pod.uid)
    endpoints = [_endpoint(service, pod) for pod in serving]
    if service.balance == "capacity":
        weights = weights_of([pod.template.capacity for pod in serving])
        endpoints = [
            replace(endpoint, weight=weight) for endpoint, weight in zip(endpoints, weights, strict=True)
        ]
    return EndpointSet(endpoints=tuple(endpoints), absent=tuple(absent), unknown=tuple(unknown))


def weights_of(capacities: list[float]) -> list[int]:
    """Shares that follow what each pod can process: the largest gets 256, nobody less than 1.

    One that does not say counts as the smallest of those that do.
    """
    said = [capacity for capacity in capacities if capacity > 0]
    if not said:
        return [WEIGHT_MAX] * len(capacities)
    largest, smallest = max(said), min(said)
    return [
        max(1, round(WEIGHT_MAX * (capacity if capacity > 0 else smallest) / largest))
        for capacity in capacities
    ]


def _serves(service: ServiceView, pod: BackendView) -> bool:
    if pod.is_leaving or pod.state is None or pod.state.is_terminal or not pod.address:
        return False
    return pod.ready or service.publish_not_ready


def _endpoint(service: ServiceView, pod: BackendView) -> Endpoint:
    template = pod.template
    return Endpoint(
        id=pod.uid,
        address=pod.address,
        node=pod.node,
        name=pod.name,
        # Kubernetes' rule: a pod has a name of its own within the service that it names as its subdomain.
        hostname=template.hostname if template.subdomain == service.name else "",
        ports=tuple(_target(port, template) for port in service.ports),
        ready=pod.ready,
    )


def _target(port: PortView, template: TemplateView) -> int:
    if isinstance(port.target, int):
        return port.target
    return template.ports.get((port.target, port.udp), 0)
