"""Services: a stable name and address for pods. Stored; they carry no traffic yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bayplan.resources.metadata import Document, Metadata
from bayplan.resources.model import Part
from bayplan.resources.problems import Problem
from bayplan.resources.syntax import Integer, Labels, Name, PortOrName


class ServicePort(Part):
    """A port of a service and where it leads."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"appProtocol"})

    port: Annotated[Integer, Field(ge=1, le=65535)]
    target_port: PortOrName | None = None  # None: the same number.
    protocol: Literal["TCP", "UDP"] = "TCP"
    node_port: Annotated[Integer, Field(ge=1, le=65535)] | None = None
    name: Name | None = None


class ServiceSpec(Part):
    """What a user wants of a service."""

    not_yet: ClassVar[frozenset[str]] = frozenset(
        {
            "allocateLoadBalancerNodePorts",
            "clusterIP",
            "clusterIPs",
            "externalIPs",
            "externalName",
            "externalTrafficPolicy",
            "healthCheckNodePort",
            "internalTrafficPolicy",
            "ipFamilies",
            "ipFamilyPolicy",
            "loadBalancerClass",
            "loadBalancerIP",
            "loadBalancerSourceRanges",
            "publishNotReadyAddresses",
            "sessionAffinity",
            "sessionAffinityConfig",
            "trafficDistribution",
        }
    )

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    selector: Labels = Field(default_factory=dict)
    ports: Annotated[tuple[ServicePort, ...], Field(min_length=1)]

    def problems(self) -> Iterator[Problem]:
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
            if port.node_port is not None and self.type == "ClusterIP":
                yield Problem(("ports", index, "nodePort"), "needs the type NodePort or LoadBalancer")


class Service(Document):
    """A stable name and address for the pods that its selector finds."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["Service"] = "Service"
    metadata: Metadata
    spec: ServiceSpec
