"""Services: a stable name and address for pods, or for what runs outside of the cluster.

Addresses and node ports that a document leaves open are the leader's to choose; they are never written into
the document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, Strict, ValidationInfo, model_validator

from bayplan.resources import annotations as ours
from bayplan.resources import traffic
from bayplan.resources.addresses import HostName, address_of
from bayplan.resources.metadata import Document, Metadata
from bayplan.resources.model import Part, warn
from bayplan.resources.problems import Problem, quote
from bayplan.resources.syntax import Boolean, Integer, LabelKey, Labels, Name, PortOrName

_NO_OTHER_ADDRESS = (
    "not supported: ports of the types NodePort and LoadBalancer are bound at each node's publish addresses"
)
_NEEDS_PUBLISHED = "needs the type NodePort or LoadBalancer"
_AFFINITY_DEFAULT_S = 10_800

# Each is a rule and a backend on every node; nobody has written as many by hand.
PORTS_MAX = 250


def _cluster_ip(value: str) -> str:
    return value if value in {"", "None"} else address_of(value)


def _single_stack(value: str | None, info: ValidationInfo) -> None:
    """What means the default is not kept, so that equal documents are equal."""
    if value == "PreferDualStack":
        warn(
            info.context,
            "ipFamilyPolicy is left out: the cluster has IPv4 alone, which PreferDualStack allows",
        )


ClusterIp = Annotated[str, Strict(), AfterValidator(_cluster_ip)]
PortNumber = Annotated[Integer, Field(ge=1, le=65535)]


class ServicePort(Part):
    """A port of a service and where it leads."""

    port: PortNumber
    target_port: PortOrName | None = None  # None: the same number.
    protocol: Literal["TCP", "UDP"] = "TCP"
    node_port: PortNumber | None = None  # None: the leader chooses one, where one is needed.
    name: Name | None = None
    app_protocol: LabelKey | None = None  # What programs speak there; see traffic.is_http.


class ClientIpAffinity(Part):
    """How long a client that comes back finds the pod it had."""

    timeout_seconds: Annotated[Integer, Field(ge=1, le=86_400)] = _AFFINITY_DEFAULT_S


class SessionAffinityConfig(Part):
    """What the affinity needs to know."""

    client_ip: ClientIpAffinity = Field(default=ClientIpAffinity(), alias="clientIP")


class ServiceSpec(Part):
    """What a user wants of a service."""

    refused: ClassVar[Mapping[str, str]] = {
        "externalIPs": _NO_OTHER_ADDRESS,
        "healthCheckNodePort": "not supported: let the balancer in front of the nodes try the published port itself",
        # Who names another balancer, one within a private network for instance, may not want these ports at all.
        "loadBalancerClass": "not supported: there is one way to publish ports, which is at each node's publish addresses",
        "loadBalancerIP": _NO_OTHER_ADDRESS,
        "loadBalancerSourceRanges": "not supported, and without them the ports are open to everybody: use a firewall",
    }
    harmless: ClassVar[Mapping[str, str]] = {
        "trafficDistribution": "it is a wish, and every ready pod gets traffic",
    }

    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    selector: Labels = Field(default_factory=dict)  # Empty: its endpoints are a document of their own.
    ports: Annotated[tuple[ServicePort, ...], Field(max_length=PORTS_MAX)] = ()
    # "None": headless. Empty: the leader chooses.
    cluster_ip: ClusterIp = Field(default="", alias="clusterIP")
    # Kubernetes' list of the same; empty once it is read.
    cluster_ips: tuple[ClusterIp, ...] = Field(default=(), alias="clusterIPs")
    external_name: HostName | None = None
    session_affinity: Literal["None", "ClientIP"] = "None"
    session_affinity_config: SessionAffinityConfig = SessionAffinityConfig()
    external_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    internal_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    publish_not_ready_addresses: Boolean = False
    allocate_load_balancer_node_ports: Boolean = True
    ip_families: Annotated[tuple[Literal["IPv4"], ...], AfterValidator(lambda _: ())] = ()
    ip_family_policy: Annotated[
        Literal["SingleStack", "PreferDualStack"] | None, AfterValidator(_single_stack)
    ] = None

    @property
    def is_headless(self) -> bool:
        """A name for each pod, and no address of its own."""
        return "None" in {self.cluster_ip, *self.cluster_ips}

    @property
    def has_address(self) -> bool:
        """Whether the leader gives it an address of the service range."""
        return self.type != "ExternalName" and not self.is_headless

    @property
    def is_published(self) -> bool:
        """Whether nodes listen for it."""
        return self.type in {"NodePort", "LoadBalancer"}

    @property
    def needs_node_ports(self) -> bool:
        """Whether the leader gives each port one of the node-port range, unless the document names one."""
        return self.type == "NodePort" or (
            self.type == "LoadBalancer" and self.allocate_load_balancer_node_ports
        )

    @property
    def affinity_s(self) -> int:
        """How long clients stay with their pod; 0: they do not."""
        if self.session_affinity == "None":
            return 0
        return self.session_affinity_config.client_ip.timeout_seconds

    @model_validator(mode="after")
    def _merge_addresses(self) -> Self:
        if len(self.cluster_ips) == 1 and self.cluster_ip in {"", *self.cluster_ips}:
            # The model is frozen for everybody else; nobody has seen it yet.
            object.__setattr__(self, "cluster_ip", self.cluster_ips[0])
            object.__setattr__(self, "cluster_ips", ())
        return self

    def problems(self) -> Iterator[Problem]:
        yield from self._problems_of_the_address()
        yield from self._problems_of_the_type()
        yield from self._problems_of_the_ports()
        yield from self._problems_of_the_node_ports()

    def _problems_of_the_address(self) -> Iterator[Problem]:
        # Not merged yet while problems are looked for.
        if len(self.cluster_ips) > 1 or len({self.cluster_ip, *self.cluster_ips} - {""}) > 1:
            yield Problem(
                ("clusterIPs",), "must be the one address that clusterIP has too: IPv4 alone is supported"
            )
        if self.type == "ExternalName":
            if self.cluster_ip or self.cluster_ips:
                yield Problem(("clusterIP",), "must be left out where the type is ExternalName")
            if self.external_name is None:
                yield Problem(("externalName",), "is required where the type is ExternalName")
        elif self.external_name is not None:
            yield Problem(("externalName",), "needs the type ExternalName")
        if self.is_headless and self.is_published:
            yield Problem(
                ("clusterIP",), f"None needs the type ClusterIP: a {self.type} service has an address"
            )

    def _problems_of_the_type(self) -> Iterator[Problem]:
        if self.external_traffic_policy != "Cluster" and not self.is_published:
            yield Problem(("externalTrafficPolicy",), _NEEDS_PUBLISHED)
        if not self.allocate_load_balancer_node_ports and self.type != "LoadBalancer":
            yield Problem(("allocateLoadBalancerNodePorts",), "needs the type LoadBalancer")
        if self.session_affinity == "None" and self.session_affinity_config != SessionAffinityConfig():
            yield Problem(("sessionAffinityConfig",), "needs sessionAffinity: ClientIP")

    def _problems_of_the_ports(self) -> Iterator[Problem]:
        if not self.ports and self.has_address:
            yield Problem(("ports",), "is required, unless the service is headless (clusterIP: None)")
        names: dict[str, int] = {}
        numbers: dict[tuple[int, str], int] = {}
        for index, port in enumerate(self.ports):
            if port.name is None and len(self.ports) > 1:
                yield Problem(("ports", index), "needs a name where there are several ports")
            if port.name is not None and names.setdefault(port.name, index) != index:
                yield Problem(("ports", index, "name"), f"is the name of ports[{names[port.name]}] too")
            number = (port.port, port.protocol)
            if numbers.setdefault(number, index) != index:
                yield Problem(("ports", index, "port"), f"is in ports[{numbers[number]}] already")

    def _problems_of_the_node_ports(self) -> Iterator[Problem]:
        # Both are bound at the same addresses.
        balanced = {(port.port, port.protocol): index for index, port in enumerate(self.ports)}
        taken: dict[tuple[int, str], int] = {}
        for index, port in enumerate(self.ports):
            if port.node_port is None:
                continue
            loc = ("ports", index, "nodePort")
            number = (port.node_port, port.protocol)
            if not self.is_published:
                yield Problem(loc, _NEEDS_PUBLISHED)
            if taken.setdefault(number, index) != index:
                yield Problem(loc, f"is in ports[{taken[number]}] already")
            if self.type == "LoadBalancer" and number in balanced:
                yield Problem(loc, f"is published as the port of ports[{balanced[number]}] already")


class Service(Document):
    """A stable name and address for the pods that its selector finds."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["Service"] = "Service"
    metadata: Metadata
    spec: ServiceSpec

    def warnings(self) -> Iterator[str]:
        yield from ours.foreign(self.metadata.annotations)
        yield from self._without_meaning()
        if self.spec.affinity_s not in {0, _AFFINITY_DEFAULT_S}:
            yield "sessionAffinityConfig means nothing: the client's address decides the pod, and nothing is remembered"
        for port in self.spec.ports:
            if not self.spec.has_address:
                continue
            if traffic.is_plain_http2(port):
                yield (
                    f"port {port.port}: {port.app_protocol} is carried as plain TCP, so that pods are chosen by"
                    " connection, and not by request"
                )
            if self.spec.is_published and self._hides_clients(port):
                yield (
                    f"port {port.port}: pods see a node's address in place of the client's, for this is plain TCP. "
                    "If they speak HTTP, say appProtocol: http, and find it in X-Forwarded-For; if they understand "
                    f'the PROXY protocol, set the annotation {ours.PROXY_PROTOCOL}: "v2"'
                )

    def _hides_clients(self, port: ServicePort) -> bool:
        annotations = self.metadata.annotations
        return (
            # Who asks for Local does so for the clients' addresses.
            self.spec.external_traffic_policy == "Local"
            and port.protocol == "TCP"
            and not traffic.is_http(port, annotations)
            and not traffic.proxy_protocol_of(port, annotations)
        )

    def _without_meaning(self) -> Iterator[str]:
        """What Kubernetes takes and does not follow either, where a service is a name alone."""
        spec = self.spec
        if spec.has_address:
            return
        what = "an ExternalName" if spec.type == "ExternalName" else "a headless"
        if spec.type == "ExternalName" and spec.selector:
            yield "selector means nothing: an ExternalName service is a name for another name"
        if spec.session_affinity != "None":
            yield f"sessionAffinity means nothing: no proxy stands before {what} service"
        for key in self.metadata.annotations:
            if key.startswith(ours.PREFIX):
                yield f"the annotation {quote(key)} means nothing: no proxy stands before {what} service"
