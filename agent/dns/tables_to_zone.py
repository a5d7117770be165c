"""From what the leader says to what the name server answers. Pure.

Of a service with an address its endpoints do not matter, but for those with a hostname: so a pod that
becomes ready changes nothing here, and nothing is written, unless its service is headless.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import AddressValueError, IPv4Address

import dns.exception
import dns.name

from agent.dns.zone import NamedEndpoint, NamedPort, ServiceNames
from agent.dns.zone_file import Head, head_line, service_line
from agent.network.table import NetworkTable
from agent.traffic.table import TrafficTable
from bayplan.model.names import is_name
from bayplan.v1 import agent_link_pb2 as pb

_Line = tuple[pb.Service, Mapping[str, pb.Endpoint] | None, str]


class ZoneLines:
    """The lines of the file. It remembers each with what it was made of: tables share what did not change."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    def of(self, network: NetworkTable, traffic: TrafficTable) -> list[str]:
        """Empty while the node has no network."""
        if network.settings is None:
            return []
        lines: dict[str, _Line] = {}
        for key, service in traffic.services.items():
            if not _can_be_named(service):
                continue
            endpoints = traffic.endpoints.get(key)
            known = self._lines.get(key)
            if known is None or known[0] is not service or known[1] is not endpoints:
                known = (service, endpoints, service_line(to_names(service, (endpoints or {}).values())))
            lines[key] = known
        self._lines = lines
        return [head_line(_head(network, traffic)), *(line for _, _, line in lines.values())]


def is_known(traffic: TrafficTable) -> bool:
    """False on a node that has just joined: it knows its network before it knows of any service."""
    return traffic.version > 0 or bool(traffic.services)


def to_names(service: pb.Service, endpoints: Iterable[pb.Endpoint]) -> ServiceNames:
    """The service as far as names go."""
    if service.external_name:
        return ServiceNames(
            namespace=service.namespace,
            name=service.name,
            external_name=service.external_name if _is_name_of_dns(service.external_name) else "",
        )
    # No name leads to its pods: programs would take it for a headless service, and keep their addresses.
    endpoints = () if service.lacks_vip else endpoints
    named_ports = [index for index, port in enumerate(service.ports) if port.name]
    return ServiceNames(
        namespace=service.namespace,
        name=service.name,
        vip=service.vip,
        ports=tuple(_port(service.ports[index]) for index in named_ports),
        endpoints=tuple(
            NamedEndpoint(
                address=endpoint.address,
                hostname=endpoint.hostname if is_name(endpoint.hostname) else _dashed(endpoint.address),
                ports=tuple(
                    endpoint.ports[index] if index < len(endpoint.ports) else 0 for index in named_ports
                ),
            )
            for endpoint in sorted(endpoints, key=lambda each: each.id)
            if (endpoint.ready or service.publish_not_ready)
            and _is_address(endpoint.address)
            and (not service.vip or is_name(endpoint.hostname))
        ),
    )


def _can_be_named(service: pb.Service) -> bool:
    """Managers let no others through; one that came would damage the file for all."""
    is_named = is_name(service.namespace) and is_name(service.name)
    return is_named and (not service.vip or _is_address(service.vip))


def _head(network: NetworkTable, traffic: TrafficTable) -> Head:
    settings = network.settings
    assert settings is not None
    return Head(
        gateway=str(network.gateway),
        domain=settings.domain,
        pod_range=settings.pod_range,
        service_range=settings.service_range,
        is_known=is_known(traffic),
    )


def _port(port: pb.ServicePort) -> NamedPort:
    return NamedPort(name=port.name, protocol="udp" if port.udp else "tcp", port=port.port)


def _dashed(address: str) -> str:
    return address.replace(".", "-")


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def _is_name_of_dns(text: str) -> bool:
    try:
        dns.name.from_text(text)
    except (dns.exception.DNSException, UnicodeError):
        return False
    return True
