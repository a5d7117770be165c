"""The one nftables table of the pods' network, as text. Pure.

What it does, in the order in which a packet meets it:

- Pods speak for themselves: what comes from the bridge with an address of no pod of this node is dropped.
- Tunnel packets that do not come from a node are dropped, and nobody's packets are routed to another
  node's tunnel port: whoever could send there would speak for any pod.
- Services' addresses are for the cluster: what comes to one from elsewhere than pods and this host is dropped.
- A new connection to the service range goes on only if the service has that port. Looked at before any
  other NAT: a port that the host itself listens on, or that Docker publishes, must not answer on a service.
- TCP to a service goes to this node's proxy, which asks the kernel for the first destination. UDP goes
  straight to a ready pod: there are no connections that a proxy could count.
- Into pods go connections of pods, of this host and of services; nobody else's, whatever the engine allows.
- What pods send out of the cluster leaves with this host's address. Within it, addresses stay as they
  are; but where the answer would not come back through this host, its sender is made to be the gateway.

Only parsed addresses and numbers stand in the text: nothing that a user wrote can change its meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

from agent.network.links import LOOPBACK, Wanted
from agent.traffic import ports
from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as pb

# Just before everybody else's: nft's own "dstnat" is -100, "srcnat" 100. The first NAT of a connection counts.
_BEFORE_DNAT, _BEFORE_SNAT = -110, 90
_PORT_MAX = 65_535

Frontend = tuple[IPv4Address, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpFront:
    """A UDP port of a service, where it is asked for and which pods answer there."""

    at: tuple[Frontend, ...]
    is_published: bool  # Reached from outside the cluster.
    pods: tuple[Frontend, ...]  # Ready ones, at least one.
    is_sticky: bool  # One client, one pod.

    @property
    def chain(self) -> str:
        """That chooses among so many pods. Shared by all fronts that have as many."""
        return f"{'stick' if self.is_sticky else 'spread'}_{len(self.pods)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fronts:
    """What services offer on this node, by where it leads."""

    tcp: tuple[Frontend, ...] = ()
    http: tuple[Frontend, ...] = ()
    udp: tuple[UdpFront, ...] = ()

    def udp_paths(self) -> dict[Frontend, frozenset[Frontend]]:
        """Where a packet may go, by where it was sent."""
        return {at: frozenset(front.pods) for front in self.udp for at in front.at}


def fronts(traffic: TrafficTable, *, node: str, publish_addresses: Sequence[IPv4Address]) -> Fronts:
    """What the firewall needs to know of services.

    Args:
        traffic: what the leader says of services.
        node: this one: with the policy Local only its own pods answer.
        publish_addresses: of this host, where ports are published.
    """
    tcp: list[Frontend] = []
    http: list[Frontend] = []
    udp: list[UdpFront] = []
    for key, service in sorted(traffic.services.items()):
        vip = _address(service.vip)
        for index, port in enumerate(service.ports):
            if not 0 < port.port <= _PORT_MAX:
                continue
            if port.udp:
                endpoints = [each for each in traffic.endpoints.get(key, {}).values() if each.ready]
                udp += _udp_fronts(service, index, endpoints, node=node, publish_addresses=publish_addresses)
            elif vip is not None:
                (http if port.http else tcp).append((vip, port.port))
    return Fronts(tcp=tuple(tcp), http=tuple(http), udp=tuple(udp))


def _udp_fronts(
    service: pb.Service,
    index: int,
    endpoints: Iterable[pb.Endpoint],
    *,
    node: str,
    publish_addresses: Sequence[IPv4Address],
) -> Iterator[UdpFront]:
    port, vip = service.ports[index], _address(service.vip)
    endpoints = sorted(endpoints, key=lambda each: each.id)
    published = {port.node_port} | ({port.port} if port.load_balancer else set())
    outside = tuple(
        (address, number)
        for address in publish_addresses
        for number in sorted(published)
        if 0 < number <= _PORT_MAX
    )
    for is_published, at, is_local in (
        (False, ((vip, port.port),) if vip is not None else (), service.internal_local),
        (True, outside, service.external_local),
    ):
        pods = tuple(
            dict.fromkeys(
                (address, each.ports[index])
                for each in endpoints
                if not is_local or each.node == node
                if len(each.ports) > index and 0 < each.ports[index] <= _PORT_MAX
                if (address := _address(each.address)) is not None
            )
        )
        if at and pods:
            yield UdpFront(
                at=at,
                is_published=is_published,
                pods=pods,
                is_sticky=service.affinity_s > 0,
            )


def changed_paths(
    before: Mapping[Frontend, frozenset[Frontend]], after: Mapping[Frontend, frozenset[Frontend]]
) -> dict[Frontend, frozenset[Frontend]]:
    """Where remembered flows may lead astray now: fronts whose pods are others than before, and who answers there now."""
    return {
        at: after.get(at, frozenset())
        for at in sorted(before.keys() | after.keys())
        if before.get(at) != after.get(at)
    }


def render_table(wanted: Wanted, offered: Fronts, *, proxy_port: int) -> str:
    """The whole table, as `nft -f` reads it; what was in it before goes in the same transaction."""
    name = f"inet {wanted.bridge}"
    lines = [f"add table {name}", f"delete table {name}", f"table {name} {{"]
    lines += _sets(wanted, offered)
    lines += _pod_chain(wanted)
    lines += _tunnel_chains(wanted)
    lines += _guard_chains(wanted)
    lines += _service_chains(wanted, offered, proxy_port)
    lines += _forward_chain(wanted)
    lines += _source_chain(wanted)
    lines.append("}")
    return "\n".join(lines) + "\n"


def _sets(wanted: Wanted, offered: Fronts) -> Iterator[str]:
    yield from _set("nodes", "ipv4_addr", sorted({str(peer.address) for peer in wanted.peers}))
    inside = [at for front in offered.udp if not front.is_published for at in front.at]
    outside = [at for front in offered.udp if front.is_published for at in front.at]
    for set_name, elements in (
        ("tcp_ports", offered.tcp),
        ("http_ports", offered.http),
        ("udp_ports", inside),
        ("published_udp_ports", outside),
    ):
        yield from _set(set_name, "ipv4_addr . inet_service", _joined(elements))
    chains = [f"{each} : goto {front.chain}" for front in offered.udp for each in _joined(front.at)]
    yield from _set("udp_fronts", "ipv4_addr . inet_service : verdict", chains, kind="map")
    # One map for all, since a chain with a map of its own for each front takes a kernel half a millisecond.
    pods = [
        f"{each} . {index} : {pod}"
        for front in offered.udp
        for each in _joined(front.at)
        for index, pod in enumerate(_joined(front.pods))
    ]
    key = "ip daddr . udp dport . numgen random mod 65536 : ip daddr . udp dport"
    yield from _set("udp_pods", key, pods, kind="map", word="typeof")


def _set(
    name: str, key: str, elements: Sequence[str], *, kind: str = "set", word: str = "type"
) -> Iterator[str]:
    yield f"  {kind} {name} {{"
    yield f"    {word} {key}"
    if elements:
        yield f"    elements = {{ {', '.join(elements)} }}"
    yield "  }"


def _pod_chain(wanted: Wanted) -> Iterator[str]:
    # Before anything is remembered of the packet. 0.0.0.0 too: nobody here gives addresses to those who have none.
    yield from _chain(
        "pods_out",
        "filter hook prerouting priority raw",
        f'iifname "{wanted.bridge}" ip saddr != {wanted.gateway.network} drop',
    )


def _tunnel_chains(wanted: Wanted) -> Iterator[str]:
    if wanted.mode != pb.NETWORK_MODE_VXLAN:
        return
    # Not tracked: the packets inside are, and one flow per node would only fill the table.
    yield from _chain(
        "tunnel_in",
        "filter hook prerouting priority raw",
        f"udp dport {wanted.port} fib daddr type local ip saddr != @nodes drop",
        f"udp dport {wanted.port} fib daddr type local notrack",
    )
    yield from _chain(
        "tunnel_out",
        "filter hook output priority raw",
        f"udp dport {wanted.port} ip daddr @nodes notrack",
    )


def _guard_chains(wanted: Wanted) -> Iterator[str]:
    to_service = f"ip daddr {wanted.service_range} ct state new jump service_ports"
    yield from _chain(
        "service_ports",
        "",
        "ip daddr . tcp dport @tcp_ports return",
        "ip daddr . tcp dport @http_ports return",
        "ip daddr . udp dport @udp_ports return",
        "meta l4proto tcp reject with tcp reset",
        "reject",
    )
    yield from _chain(
        "services_in",
        "filter hook prerouting priority mangle",
        f"ip daddr {wanted.service_range} {_from_outside(wanted)} drop",
        to_service,
    )
    yield from _chain("services_out", "filter hook output priority mangle", to_service)


def _service_chains(wanted: Wanted, offered: Fronts, proxy_port: int) -> Iterator[str]:
    gateway = wanted.gateway.ip
    choosing = {front.chain: front for front in offered.udp}
    for name, front in sorted(choosing.items()):
        index = "jhash ip saddr" if front.is_sticky else "numgen random"
        key = f"ip daddr . udp dport . {index} mod {len(front.pods)}"
        yield from _chain(name, "", f"dnat ip to {key} map @udp_pods")
    yield from _chain(
        "services",
        "",
        f"ip daddr . tcp dport @tcp_ports dnat ip to {gateway}:{proxy_port + ports.TCP}",
        f"ip daddr . tcp dport @http_ports dnat ip to {gateway}:{proxy_port + ports.HTTP}",
        "ip daddr . udp dport vmap @udp_fronts",
    )
    yield from _chain("dnat_in", f"nat hook prerouting priority {_BEFORE_DNAT}", "jump services")
    yield from _chain("dnat_out", f"nat hook output priority {_BEFORE_DNAT}", "jump services")


def _forward_chain(wanted: Wanted) -> Iterator[str]:
    rules = []
    if wanted.mode == pb.NETWORK_MODE_VXLAN:
        rules.append(f"udp dport {wanted.port} ip daddr @nodes ip saddr != @nodes drop")
    rules.append(f'oifname "{wanted.bridge}" {_from_outside(wanted)} ct state new ct status & dnat == 0 drop')
    # Pods have IPv4 alone, so what they send beyond their bridge over IPv6 bears an address that nobody gave them.
    rules.append(f'iifname "{wanted.bridge}" oifname != "{wanted.bridge}" meta nfproto ipv6 drop')
    yield from _chain("forward", "filter hook forward priority filter", *rules)


def _from_outside(wanted: Wanted) -> str:
    """Neither of this host, nor through its bridge, nor of another node's pods."""
    if wanted.mode == pb.NETWORK_MODE_OFF:
        return f'iifname != {{ "{LOOPBACK}", "{wanted.bridge}" }} ip saddr != {wanted.pod_range}'
    return f'iifname != {{ "{LOOPBACK}", "{wanted.bridge}", "{wanted.tunnel}" }}'


def _source_chain(wanted: Wanted) -> Iterator[str]:
    gateway, subnet = wanted.gateway.ip, wanted.gateway.network
    published = "meta l4proto udp ct original ip daddr . ct original proto-dst @published_udp_ports"
    yield from _chain(
        "sources",
        f"nat hook postrouting priority {_BEFORE_SNAT}",
        # Two pods on one bridge would answer each other directly, past the NAT that brought them together.
        f"meta l4proto udp ct status dnat ip saddr {subnet} ip daddr {subnet} snat ip to {gateway}",
        # From outside, through this host, to a pod of another: it is to answer through this host.
        f"{published} ip saddr != {wanted.pod_range} ip daddr {subnet} return",
        f"{published} ip saddr != {wanted.pod_range} ip daddr {wanted.pod_range} snat ip to {gateway}",
        f"{published} ip saddr != {wanted.pod_range} masquerade",
        f'ip saddr {subnet} ip daddr != {{ {wanted.pod_range}, {wanted.service_range} }} oifname != "{wanted.bridge}"'
        " masquerade",
    )


def _chain(name: str, hook: str, *rules: str) -> Iterator[str]:
    yield f"  chain {name} {{"
    if hook:
        yield f"    type {hook}; policy accept;"
    yield from (f"    {rule}" for rule in rules)
    yield "  }"


def _joined(elements: Iterable[Frontend]) -> list[str]:
    return [f"{address} . {port}" for address, port in dict.fromkeys(elements)]


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None
