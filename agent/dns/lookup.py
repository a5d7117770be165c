"""What the zone says about a name. Pure.

The names are those of Kubernetes' specification of service discovery (github.com/kubernetes/dns,
docs/specification.md, 1.1.0). A name is taken apart and looked for among the services, so nothing
has to be spread out beforehand, and a node with thousands of pods holds each of them once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address
from typing import Any

import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.NS
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.SRV
import dns.rrset
from dns.rdataclass import IN
from dns.rdatatype import CNAME, NS, PTR, SOA, SRV, TXT, A

from agent.dns.zone import NamedEndpoint, ServiceNames, Zone

# Also of "there is no such name". Pods come and go, and who waits for one should not wait for a cache.
TTL_S = 5
SCHEMA = "1.1.0"  # Of the specification: dns-version.<domain> says it.
# Of names that lead on to another name; more is a circle.
ALIASES_MAX = 8
# Refresh, retry, expiry: for secondary servers, of which there are none.
_SECONDARIES_S = (7200, 1800, 86_400)
_REVERSE = dns.name.from_text("in-addr.arpa.")

_Records = Mapping[
    dns.rdatatype.RdataType, Sequence[dns.rdata.Rdata]
]  # Empty: the name is there, without any.
_NOTHING: _Records = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes into the reply. `leads_to` is a name outside, which somebody else knows."""

    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    answer: tuple[dns.rrset.RRset, ...] = ()
    authority: tuple[dns.rrset.RRset, ...] = ()
    additional: tuple[dns.rrset.RRset, ...] = ()
    leads_to: dns.name.Name | None = None


def look_up(
    zone: Zone, name: dns.name.Name, kind: dns.rdatatype.RdataType, *, aliases_left: int = ALIASES_MAX
) -> Answer | None:
    """None: the name is none of ours."""
    origin = _origin(zone.domain)
    if name.is_subdomain(_REVERSE):
        return _look_up_address(zone, name, kind)
    if not name.is_subdomain(origin):
        return None
    path = _path(name, origin)
    if not zone.is_known and path[:1] == ["svc"]:
        # No answer is right here: "there is no such name" would be remembered.
        return Answer(rcode=dns.rcode.SERVFAIL)
    records = _records(zone, path)
    if records and CNAME in records and kind != CNAME:
        return _follow(zone, _rrset(name, records[CNAME]), kind, aliases_left=aliases_left)
    return _answer(zone, name, kind, records, apex=origin)


def _answer(
    zone: Zone,
    name: dns.name.Name,
    kind: dns.rdatatype.RdataType,
    records: _Records | None,
    *,
    apex: dns.name.Name,
) -> Answer:
    if records is None:
        return Answer(rcode=dns.rcode.NXDOMAIN, authority=(_soa(zone, apex),))
    if kind not in records:
        return Answer(authority=(_soa(zone, apex),))
    rrset = _rrset(name, records[kind])
    return Answer(answer=(rrset,), additional=_additional(zone, rrset) if kind == SRV else ())


def _follow(
    zone: Zone, alias: dns.rrset.RRset, kind: dns.rdatatype.RdataType, *, aliases_left: int
) -> Answer:
    if not aliases_left:
        return Answer(rcode=dns.rcode.SERVFAIL)
    target = alias[0].target
    end = look_up(zone, target, kind, aliases_left=aliases_left - 1)
    if end is None:
        return Answer(answer=(alias,), leads_to=target)
    return replace(end, answer=(alias, *end.answer))


def _records(zone: Zone, path: list[str]) -> _Records | None:  # noqa: PLR0911 - a line for each shape of name
    """What stands at the name that `path` leads to, down from the domain. None: there is no such name."""
    match path:
        case []:
            return {
                SOA: [_soa_data(zone.domain, zone.serial)],
                NS: [_data(dns.rdtypes.ANY.NS.NS, NS, _server(zone.domain))],
            }
        case ["dns-version"]:
            return {TXT: [_data(dns.rdtypes.ANY.TXT.TXT, TXT, [SCHEMA.encode()])]}
        case ["dns"] | ["svc"] | ["pod"]:
            return _NOTHING
        case ["dns", "ns"]:
            return {A: [_a(str(zone.gateway))]}
        case ["svc", namespace]:
            return _NOTHING if namespace in zone.namespaces else None
        case ["svc", namespace, name, *rest]:
            service = zone.services.get((namespace, name))
            return _records_of_service(zone, service, rest) if service is not None else None
        case ["pod", _]:
            return _NOTHING
        case ["pod", _, dashed]:
            return _records_of_pod(zone, dashed)
        case _:
            return None


def _records_of_service(  # noqa: PLR0911 - a line for each shape of name
    zone: Zone, service: ServiceNames, path: list[str]
) -> _Records | None:
    if service.external_name:
        return _alias(service.external_name) if not path else None
    if not service.vip and not service.endpoints:
        # As the specification wants it of a headless service without a ready endpoint.
        return None
    match path:
        case []:
            return {A: [_a(service.vip)] if service.vip else _addresses(service.endpoints)}
        case ["_tcp" | "_udp" as protocol]:
            return _NOTHING if any(f"_{port.protocol}" == protocol for port in service.ports) else None
        case ["_tcp" | "_udp" as protocol, port] if port.startswith("_"):
            return _records_of_port(zone, service, protocol[1:], port[1:])
        case [hostname]:
            endpoints = [endpoint for endpoint in service.endpoints if endpoint.hostname == hostname]
            return {A: _addresses(endpoints)} if endpoints else None
        case _:
            return None


def _records_of_port(zone: Zone, service: ServiceNames, protocol: str, name: str) -> _Records | None:
    own = f"{service.name}.{service.namespace}.svc.{zone.domain}."
    for index, port in enumerate(service.ports):
        if port.name != name or port.protocol != protocol:
            continue
        if service.vip:
            return {SRV: [_srv(port.port, own)]}
        targets = [
            _srv(endpoint.ports[index], f"{endpoint.hostname}.{own}")
            for endpoint in service.endpoints
            if endpoint.ports[index]
        ]
        return {SRV: targets} if targets else None
    return None


def _records_of_pod(zone: Zone, dashed: str) -> _Records | None:
    address = _parsed(dashed.replace("-", "."))
    return {A: [_a(str(address))]} if address is not None and address in zone.pod_range else None


def _look_up_address(zone: Zone, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> Answer | None:
    """For names such as 7.0.96.10.in-addr.arpa. What is not in one of our ranges is none of ours."""
    octets = _path(name, _REVERSE)
    if len(octets) > 4 or not all(octet.isascii() and octet.isdecimal() for octet in octets):
        return None
    address = _parsed(".".join([*octets, *["0"] * (4 - len(octets))]))
    if address is None:
        return None
    for network in (zone.service_range, zone.pod_range):
        # A delegation ends at an octet, so a range of 10.42.0.0/15 is two zones.
        depth = -(-network.prefixlen // 8)
        if len(octets) < depth or address not in network:
            continue
        if not zone.is_known:
            return Answer(rcode=dns.rcode.SERVFAIL)
        apex = dns.name.Name([octet.encode() for octet in reversed(octets[:depth])]) + _REVERSE
        return _answer(zone, name, kind, _records_of_address(zone, octets, address), apex=apex)
    return None


def _records_of_address(zone: Zone, octets: list[str], address: IPv4Address) -> _Records | None:
    if len(octets) < 4:
        return _NOTHING
    names = zone.names_of_addresses.get(str(address))
    if not names:
        return None
    return {
        PTR: [
            _data(dns.rdtypes.ANY.PTR.PTR, PTR, dns.name.from_text(f"{own}.svc.{zone.domain}."))
            for own in names
        ]
    }


def _path(name: dns.name.Name, origin: dns.name.Name) -> list[str]:
    """The labels below `origin`, downwards. What is no ASCII equals none of ours."""
    below = name.labels[: len(name.labels) - len(origin.labels)]
    return [label.decode("ascii", "replace").lower() for label in reversed(below)]


def _parsed(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


def _alias(external_name: str) -> _Records:
    return {CNAME: [_data(dns.rdtypes.ANY.CNAME.CNAME, CNAME, dns.name.from_text(external_name))]}


def _additional(zone: Zone, rrset: dns.rrset.RRset) -> tuple[dns.rrset.RRset, ...]:
    """Addresses of what SRV records name, so that nobody has to ask again."""
    found = []
    for target in dict.fromkeys(data.target for data in rrset):
        records = _records(zone, _path(target, _origin(zone.domain)))
        if records and A in records:
            found.append(_rrset(target, records[A]))
    return tuple(found)


def _addresses(endpoints: Iterable[NamedEndpoint]) -> list[dns.rdata.Rdata]:
    return [_a(endpoint.address) for endpoint in endpoints]


def _rrset(name: dns.name.Name, records: Sequence[dns.rdata.Rdata]) -> dns.rrset.RRset:
    return dns.rrset.from_rdata_list(name, TTL_S, records)


def _a(address: str) -> dns.rdata.Rdata:
    return _data(dns.rdtypes.IN.A.A, A, address)


def _srv(port: int, target: str) -> dns.rdata.Rdata:
    return _data(dns.rdtypes.IN.SRV.SRV, SRV, 0, 100, port, dns.name.from_text(target))


def _data(make: Any, kind: dns.rdatatype.RdataType, *values: Any) -> dns.rdata.Rdata:
    """A record. dnspython gives no types for what makes them."""
    made: dns.rdata.Rdata = make(IN, kind, *values)
    return made


def _soa(zone: Zone, apex: dns.name.Name) -> dns.rrset.RRset:
    return _soa_of(zone.domain, zone.serial, apex)


@lru_cache(maxsize=64)  # It stands in every denial, and takes longer to make than all the rest.
def _soa_of(domain: str, serial: int, apex: dns.name.Name) -> dns.rrset.RRset:
    return _rrset(apex, [_soa_data(domain, serial)])


def _soa_data(domain: str, serial: int) -> dns.rdata.Rdata:
    mailbox = dns.name.from_text(f"hostmaster.{domain}.")
    return _data(dns.rdtypes.ANY.SOA.SOA, SOA, _server(domain), mailbox, serial, *_SECONDARIES_S, TTL_S)


def _server(domain: str) -> dns.name.Name:
    return dns.name.from_text(f"ns.dns.{domain}.")


@lru_cache(maxsize=4)
def _origin(domain: str) -> dns.name.Name:
    return dns.name.from_text(domain)
