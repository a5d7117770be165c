"""Zones and questions in few words."""

from __future__ import annotations

from collections.abc import Sequence

import dns.message
import dns.name
import dns.rdatatype

from agent.dns.lookup import Answer, look_up
from agent.dns.tables_to_zone import ZoneLines
from agent.dns.zone import Zone
from agent.network.table import NetworkTable
from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as pb

WEB = "web.default.svc.cluster.local."


def a_network(subnet: str = "127.42.3.0/24", *, domain: str = "cluster.local") -> NetworkTable:
    """Below 127, where every address of every subnet can be bound."""
    settings = pb.NetworkSettings(
        pod_range="127.42.0.0/15", service_range="10.96.0.0/16", domain=domain, id=1, port=7472
    )
    return NetworkTable().fold(pb.Network(full=True, subnet=subnet, settings=settings))


def a_service(name: str = "web", *, namespace: str = "default", vip: str = "", **facts: object) -> pb.Service:
    return pb.Service(namespace=namespace, name=name, uid=name, vip=vip, **facts)  # type: ignore[arg-type]


def a_port(name: str = "http", port: int = 80, *, udp: bool = False) -> pb.ServicePort:
    return pb.ServicePort(name=name, port=port, udp=udp)


def an_endpoint(
    address: str, *, hostname: str = "", ports: Sequence[int] = (8080,), ready: bool = True
) -> pb.Endpoint:
    return pb.Endpoint(
        id=address, node="n1", address=address, hostname=hostname, ports=ports, ready=ready, weight=1
    )


def a_traffic(*services: pb.Service, version: int = 1, **endpoints: Sequence[pb.Endpoint]) -> TrafficTable:
    """`endpoints` by the name of a service in `default`."""
    changes = [
        pb.EndpointChanges(service=f"default/{name}", full=True, put=put) for name, put in endpoints.items()
    ]
    return TrafficTable().fold(pb.Traffic(version=version, full=True, services=services, endpoints=changes))


def lines_of(traffic: TrafficTable, network: NetworkTable | None = None) -> list[str]:
    return ZoneLines().of(network or a_network(), traffic)


def asked(zone: Zone, name: str, kind: str = "A") -> Answer | None:
    return look_up(zone, dns.name.from_text(name), dns.rdatatype.from_text(kind))


def records(answer: Answer | None) -> list[str]:
    """`name kind value` of the answer, without the trailing dots."""
    assert answer is not None
    return [
        f"{str(rrset.name).rstrip('.')} {dns.rdatatype.to_text(rrset.rdtype)} {data.to_text().rstrip('.')}"
        for rrset in answer.answer
        for data in rrset
    ]


def a_query(name: str = WEB, kind: str = "A", *, payload: int = 0, **flags: object) -> bytes:
    """On the wire. `payload`: with EDNS."""
    edns = 0 if payload else -1
    return bytes(
        dns.message.make_query(name, kind, use_edns=edns, payload=payload or None, **flags).to_wire()  # type: ignore[arg-type]
    )


def read(wire: object) -> dns.message.Message:
    assert isinstance(wire, bytes)
    return dns.message.from_wire(wire)


def values(message: dns.message.Message) -> list[str]:
    """Of the answer's records, in their order."""
    return [data.to_text() for rrset in message.answer for data in rrset]
