"""HAProxy's whole configuration, from what the leader says. Pure.

Two frontends carry every VIP: the firewall sends a connection to one of them, `dst` and `dst_port` give
its first destination (SO_ORIGINAL_DST), and a map leads from there to the backend. Published ports are
more addresses of the same two, in the same map. So a service costs a backend and a line of the map.

What is served comes in two parts. The servers of the services' backends may change over the runtime
socket; all else is the frame, and a reload replaces it. The frame is known by a digest of itself, which
HAProxy repeats in `show info`: so a running one tells what it was loaded with. Maps and certificates of
a frame lie in a directory named by the digest, that one rename of the configuration swaps them all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.network.table import NetworkTable
from agent.traffic.haproxy_backends import (
    Backend,
    Place,
    backends_of,
    entry_of,
    ingress_entry_of,
)
from agent.traffic.haproxy_head import CERTIFICATES_FILE, DIGEST, DIRECTORY, PORTS_FILE, ProxyHost, head_text
from agent.traffic.haproxy_words import fault_of, is_host, is_path
from agent.traffic.ingress_maps import EXACT_FILE, PREFIX_FILE, ingress_maps, map_text
from agent.traffic.published_ports import PublishedPort, published_ports
from agent.traffic.table import TrafficTable
from bayplan.model.names import is_name
from bayplan.model.services import INGRESS
from bayplan.v1 import agent_link_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacles:
    """What was found not to go, by trying."""

    taken: Mapping[tuple[str, int], str] = field(default_factory=dict)  # By address and port: why.
    # By name of the certificate: why HAProxy does not take it.
    unusable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One service's backends, and what they were made of: unchanged objects are not rendered again."""

    service: pb.Service
    endpoints: Mapping[str, pb.Endpoint]
    place: Place
    from_ingress: frozenset[int]
    backends: tuple[Backend, ...]
    frames: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All that HAProxy reads."""

    head: str  # Global, defaults and frontends.
    backends: Mapping[str, Backend]
    place: Place
    files: Mapping[str, bytes]  # Maps and certificates, by name within the frame's directory.
    digest: str
    ports: tuple[PublishedPort, ...]
    problems: tuple[pb.PortProblem, ...]
    parts: Mapping[str, Part] = field(repr=False, compare=False)  # By service.

    @property
    def text(self) -> str:
        """The file."""
        return "\n".join((self.head, *(each.text for each in self.backends.values())))


def configuration(
    host: ProxyHost,
    network: NetworkTable,
    traffic: TrafficTable,
    obstacles: Obstacles,
    *,
    before: Configuration | None = None,
) -> Configuration:
    """The configuration for these tables; `network.settings` is set.

    From `before`, an earlier one, parts are taken over where nothing changed.
    """
    services, problems = _renderable(traffic.services)
    peers = {name: peer for name, peer in sorted(network.peers.items()) if is_name(name)}
    place = Place(node=host.node, peers=frozenset(peers))
    if before is not None and before.place == place:
        place = before.place
    from_ingress = _ingress_ports(traffic.ingress)
    known = before.parts if before is not None else {}
    parts = {
        key: _part(
            known.get(key),
            service,
            traffic.endpoints.get(key, {}),
            place,
            from_ingress.get(key, frozenset()),
        )
        for key, service in sorted(services.items())
    }
    certificates = [each for each in traffic.ingress.certificates if each.name not in obstacles.unusable]
    published = published_ports(
        services,
        traffic.ingress,
        addresses=host.publish_addresses,
        taken=obstacles.taken,
        with_tls=bool(certificates),
    )
    problems += published.problems
    problems += [
        pb.PortProblem(service=name, port=443, message=f"the certificate cannot be used: {why}")
        for name, why in sorted(obstacles.unusable.items())
    ]
    files = {PORTS_FILE: _ports_map(services, published.ports).encode()}
    if any(port.service == INGRESS for port in published.ports):
        files |= _ingress_files(services, traffic.ingress, certificates)
    backends = sum(len(part.backends) for part in parts.values())
    head = head_text(host, network, peers, published.ports, backends=backends)
    digest = _digest(head, files, (part.frames for part in parts.values()))
    return Configuration(
        head=head.replace(DIRECTORY, str(host.directory / digest)).replace(DIGEST, digest),
        backends={each.name: each for part in parts.values() for each in part.backends},
        place=place,
        files={
            name: text.replace(DIRECTORY.encode(), str(host.directory / digest).encode())
            for name, text in files.items()
        },
        digest=digest,
        ports=published.ports,
        problems=tuple(problems),
        parts=parts,
    )


def _renderable(known: Mapping[str, pb.Service]) -> tuple[dict[str, pb.Service], list[pb.PortProblem]]:
    services, problems = {}, []
    for key, service in known.items():
        fault = fault_of(key, service)
        if fault:
            problems.append(pb.PortProblem(service=key, message=f"not served: {fault}"))
        else:
            services[key] = service
    return services, problems


def _part(
    known: Part | None,
    service: pb.Service,
    endpoints: Mapping[str, pb.Endpoint],
    place: Place,
    from_ingress: frozenset[int],
) -> Part:
    if (
        known is not None
        and known.service is service
        and known.endpoints is endpoints
        and known.place is place
        and known.from_ingress == from_ingress
    ):
        return known
    backends = backends_of(service, endpoints.values(), place, from_ingress=from_ingress)
    return Part(
        service=service,
        endpoints=endpoints,
        place=place,
        from_ingress=from_ingress,
        backends=backends,
        frames="\n".join(each.frame for each in backends),
    )


def _digest(head: str, files: Mapping[str, bytes], frames: Iterable[str]) -> str:
    digest = hashlib.sha256(head.encode())
    for name, content in sorted(files.items()):
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    for frame in frames:
        digest.update(frame.encode() + b"\0")
    return digest.hexdigest()[:16]


def _ingress_ports(ingress: pb.Ingress) -> dict[str, frozenset[int]]:
    led: dict[str, frozenset[int]] = {}
    for rule in ingress.rules:
        if is_path(rule.path or "/"):
            led[rule.service] = led.get(rule.service, frozenset()) | {rule.port}
    return led


def _ports_map(services: Mapping[str, pb.Service], published: Iterable[PublishedPort]) -> str:
    entries = {}
    for service in services.values():
        for port in service.ports:
            if service.vip and not port.udp:
                entries[f"{service.vip}:{port.port}"] = entry_of(service, port, is_published=False)
    for each in published:
        if each.service == INGRESS:
            continue
        service = services[each.service]
        port = next(port for port in service.ports if port.port == each.service_port and not port.udp)
        entries[f"{each.address}:{each.port}"] = entry_of(service, port, is_published=True)
    return map_text(entries)


def _ingress_files(
    services: Mapping[str, pb.Service],
    ingress: pb.Ingress,
    certificates: Iterable[pb.IngressCertificate],
) -> dict[str, bytes]:
    def backend_of(key: str, number: int) -> str:
        for port in services[key].ports if key in services else ():
            if port.port == number and not port.udp:
                return ingress_entry_of(services[key], port)
        return ""

    maps = ingress_maps(ingress, backend_of)
    files = {EXACT_FILE: map_text(maps.exact).encode(), PREFIX_FILE: map_text(maps.prefix).encode()}
    listed = ""
    for certificate in sorted(certificates, key=lambda each: each.name):
        # By its content: no name of a secret becomes a name of a file.
        pem = pem_of(certificate)
        name = f"{hashlib.sha256(pem).hexdigest()[:32]}.pem"
        files[name] = pem
        listed += f"{DIRECTORY}/{name}{_server_names(certificate)}\n"
    if listed:
        files[CERTIFICATES_FILE] = listed.encode()
    return files


def pem_of(certificate: pb.IngressCertificate) -> bytes:
    """Chain and key, as HAProxy reads them from one file."""
    return certificate.chain_pem.rstrip(b"\n") + b"\n" + certificate.key_pem


def _server_names(certificate: pb.IngressCertificate) -> str:
    """None given: those in the certificate."""
    hosts = [host.lower() for host in certificate.hosts if host and is_host(host.lower())]
    return " " + " ".join(hosts) if hosts else ""
