"""A service's ports as HAProxy's backends: options, which only a reload changes, and servers. Pure.

One backend per port, named `<namespace>.<service>.<port>`: of labels that know no dot, so that no two
clash. A second one with `.local` has this node's pods alone (the policies Local), and a third with
`.http` speaks HTTP with a port that is TCP by its own word, because an Ingress leads to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.traffic.haproxy_words import WEIGHT_MAX, is_endpoint, is_port, word
from bayplan.v1 import agent_link_pb2 as pb

LOCAL = ".local"
AS_HTTP = ".http"
# Everybody's where weights mean nothing. Not 1: a consistent hash gives a server 16 points for each.
EVEN_WEIGHT = 100
_SERVER_ID_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """An endpoint at one port."""

    name: str  # The endpoint's id.
    id: int
    address: str
    port: int
    weight: int
    node: str  # Whose check it follows; empty: nobody's, it is on this node or outside the cluster.


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """`options` and `server_options` are the frame: the runtime socket cannot change them."""

    name: str
    service: str  # namespace/name
    port: int  # Of the service.
    is_http: bool
    options: tuple[str, ...]
    server_options: str
    servers: Mapping[str, Server]  # By name.

    @property
    def frame(self) -> str:
        """All that a reload is needed for."""
        return "\n".join((f"{self.name} {self.is_http}", *self.options, self.server_options))

    @property
    def text(self) -> str:
        """Its section of the configuration."""
        lines = [f"backend {word(self.name)} from {'http' if self.is_http else 'tcp'}"]
        lines += self.options
        lines += [f"server {self.server_text(each)}" for each in self.servers.values()]
        return "\n    ".join(lines) + "\n"

    def server_text(self, server: Server) -> str:
        """Its line in the file and its `add server` say the same: a dynamic server knows no defaults."""
        # No on-marked-down shutdown-sessions: it would fail whoever is about to try another pod, and end what
        # a living host's pods are in the middle of when only its proxy is gone. The agent ends what hangs.
        follows = f" track nodes/{word(server.node)}" if server.node else ""
        # Bracketed, for with a port added an IPv6 address would be read as another one.
        address = f"[{word(server.address)}]" if ":" in server.address else word(server.address)
        return (
            f"{word(server.name)} {address}:{server.port} id {server.id} weight {server.weight}"
            f"{follows}{self.server_options}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a proxy stands."""

    node: str
    peers: frozenset[str]  # Other nodes, each with its check.


def backends_of(
    service: pb.Service,
    endpoints: Iterable[pb.Endpoint],
    place: Place,
    *,
    from_ingress: frozenset[int] = frozenset(),
) -> tuple[Backend, ...]:
    """Those that something leads to; `from_ingress` are ports of it that an Ingress leads to."""
    ready = [each for each in endpoints if (each.ready or service.publish_not_ready) and is_endpoint(each)]
    made = []
    for index, port in enumerate(service.ports):
        if port.udp:
            continue
        servers = _servers(service, index, ready, place)
        own = {each.id for each in ready if each.node == place.node}
        for name, is_http in _wanted(service, port, from_ingress):
            made.append(
                Backend(
                    name=name,
                    service=f"{service.namespace}/{service.name}",
                    port=port.port,
                    is_http=is_http,
                    options=_options(service, is_http=is_http),
                    server_options=_server_options(service, port),
                    servers={key: one for key, one in servers.items() if key in own}
                    if name.endswith(LOCAL)
                    else servers,
                )
            )
    return tuple(made)


def name_of(service: pb.Service, port: pb.ServicePort) -> str:
    """Of the port's plain backend."""
    return f"{service.namespace}.{service.name}.{port.port}"


def entry_of(service: pb.Service, port: pb.ServicePort, *, is_published: bool) -> str:
    """The backend behind the port's VIP, or behind where it is published."""
    is_local = service.external_local if is_published else service.internal_local
    return name_of(service, port) + (LOCAL if is_local else "")


def ingress_entry_of(service: pb.Service, port: pb.ServicePort) -> str:
    """The backend for an Ingress, which speaks HTTP whatever the port is."""
    return name_of(service, port) + ("" if port.http else AS_HTTP)


def _wanted(
    service: pb.Service, port: pb.ServicePort, from_ingress: frozenset[int]
) -> list[tuple[str, bool]]:
    """Name and whether it speaks HTTP; each once."""
    names: dict[str, bool] = {}
    if service.vip:
        names[entry_of(service, port, is_published=False)] = port.http
    if port.load_balancer or port.node_port:
        names[entry_of(service, port, is_published=True)] = port.http
    if port.port in from_ingress:
        names[ingress_entry_of(service, port)] = True
    return list(names.items())


def _servers(
    service: pb.Service, index: int, endpoints: Iterable[pb.Endpoint], place: Place
) -> dict[str, Server]:
    servers: dict[str, Server] = {}
    ids: set[int] = set()
    for endpoint in sorted(endpoints, key=lambda each: each.id):
        port = endpoint.ports[index] if index < len(endpoint.ports) else 0
        is_own = endpoint.node in ("", place.node)
        # Without a peer there is no route to its pods: to offer them would cost every request a timeout.
        if not is_port(port) or not (is_own or endpoint.node in place.peers):
            continue
        number = server_id(endpoint.id)
        while number in ids:
            number = number % _SERVER_ID_MAX + 1
        ids.add(number)
        weight = endpoint.weight if service.balance == pb.BALANCE_CAPACITY else EVEN_WEIGHT
        servers[endpoint.id] = Server(
            name=endpoint.id,
            id=number,
            address=endpoint.address,
            port=port,
            weight=min(max(weight, 1), WEIGHT_MAX),
            node="" if is_own else endpoint.node,
        )
    return servers


def server_id(endpoint: str) -> int:
    """The same on every node, so that their consistent hashes agree. At least 1."""
    return int.from_bytes(hashlib.sha256(endpoint.encode()).digest()[:8], "big") % _SERVER_ID_MAX + 1


def _options(service: pb.Service, *, is_http: bool) -> tuple[str, ...]:
    options = list(_balance(service))
    if service.queue_timeout_ms > 0:
        options.append(f"timeout queue {service.queue_timeout_ms}ms")
    if service.request_timeout_ms > 0 and is_http:
        options.append(f"timeout server {service.request_timeout_ms}ms")
    return tuple(options)


def _balance(service: pb.Service) -> tuple[str, ...]:
    if service.affinity_s > 0:
        return ("balance source", "hash-type consistent")
    # Shares that follow weights exactly are round-robin's; least-connections leans to who is faster.
    if service.balance in (pb.BALANCE_ROUND_ROBIN, pb.BALANCE_CAPACITY):
        return ("balance roundrobin",)
    return ("balance leastconn",)


def _server_options(service: pb.Service, port: pb.ServicePort) -> str:
    # Both are HAProxy's own for servers of the file; a dynamic one without them keeps no connection.
    options = " pool-max-conn -1 pool-purge-delay 5s"
    if service.max_connections_per_pod:
        options += f" maxconn {service.max_connections_per_pod}"
    if port.proxy_protocol:
        options += " send-proxy-v2"
    return options
