"""Which ports of this host lead to which services. Pure.

An address and port has one owner. Where several services ask for one the first by name has it, whoever
came first: so every node decides alike, and an agent that was restarted as before. Ingress asks last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.traffic.haproxy_words import is_address
from bayplan.model.services import INGRESS
from bayplan.v1 import agent_link_pb2 as pb

HTTP_PORT = 80
HTTPS_PORT = 443


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PublishedPort:
    """To be bound at `address`."""

    address: str
    port: int
    service: str  # namespace/name, or INGRESS.
    service_port: int = 0
    is_http: bool = False
    is_tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPorts:
    """What to bind, and what cannot be had."""

    ports: tuple[PublishedPort, ...] = ()
    problems: tuple[pb.PortProblem, ...] = ()


def published_ports(
    services: Mapping[str, pb.Service],
    ingress: pb.Ingress,
    *,
    addresses: Iterable[str],
    taken: Mapping[tuple[str, int], str],
    with_tls: bool,
) -> PublishedPorts:
    """What to bind now.

    Args:
        services: those that can be rendered, by key.
        ingress: asks for those of the web's two ports that it was given, where it has rules.
        addresses: of this host, for published ports.
        taken: by address and port, what stands in the way.
        with_tls: there are certificates.
    """
    owners: dict[tuple[str, int], PublishedPort] = {}
    problems = []
    for wanted in _wanted(services, ingress, tuple(addresses), with_tls=with_tls):
        place = wanted.address, wanted.port
        owner = owners.get(place)
        if not is_address(wanted.address):
            problems.append(
                _problem(wanted, "this is a name: say --publish-address with the addresses of this node")
            )
        elif owner is not None:
            if owner.service != wanted.service or owner.service_port != wanted.service_port:
                problems.append(_problem(wanted, f"taken by {_called(owner)}"))
        elif place in taken:
            problems.append(_problem(wanted, taken[place]))
        else:
            owners[place] = wanted
    return PublishedPorts(ports=tuple(owners.values()), problems=tuple(problems))


def _wanted(
    services: Mapping[str, pb.Service], ingress: pb.Ingress, addresses: tuple[str, ...], *, with_tls: bool
) -> Iterable[PublishedPort]:
    for key in sorted(services):
        for port in services[key].ports:
            if port.udp:
                continue
            numbers = [port.port] if port.load_balancer else []
            numbers += [port.node_port] if port.node_port else []
            for number in numbers:
                for address in addresses:
                    yield PublishedPort(
                        address=address, port=number, service=key, service_port=port.port, is_http=port.http
                    )
    if ingress.rules:
        for address in addresses:
            if HTTP_PORT in ingress.ports:
                yield PublishedPort(address=address, port=HTTP_PORT, service=INGRESS, is_http=True)
            if HTTPS_PORT in ingress.ports and with_tls:
                yield PublishedPort(
                    address=address, port=HTTPS_PORT, service=INGRESS, is_http=True, is_tls=True
                )


def _problem(wanted: PublishedPort, message: str) -> pb.PortProblem:
    return pb.PortProblem(service=wanted.service, address=wanted.address, port=wanted.port, message=message)


def _called(owner: PublishedPort) -> str:
    return "the ingress" if owner.service == INGRESS else f"service {owner.service}"
