"""The part of HAProxy's configuration that is the same for every service, and its numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from agent.network.table import NetworkTable
from agent.traffic import ports
from agent.traffic.haproxy_backends import server_id
from agent.traffic.haproxy_words import word
from agent.traffic.ingress_maps import lookup_lines
from agent.traffic.places import CONNECTIONS_MAX, LOG_SOCKET, METRICS_SOCKET, STATS_SOCKET
from agent.traffic.published_ports import PublishedPort
from bayplan.model.services import INGRESS
from bayplan.v1 import agent_link_pb2 as pb

PORTS_FILE = "ports.map"
CERTIFICATES_FILE = "certificates.list"
# They stand for the frame's directory and digest until these are known.
DIRECTORY = "@frame@"
DIGEST = "@digest@"
# A dead node is out after three attempts to connect in a row, of which each waits as long as the pause
# between two: 0.9 s after its death at most. They are spread so that a moment's stall or loss fails one, and
# a proxy there that restarts within 0.3 s is back before the third. No HTTP: the kernel of a busy node accepts
# while its processes wait their turn.
CHECK_EVERY_MS = 150
CHECK_FALL = 3
# Of all peers together: a node of a large cluster looks at each more seldom.
CHECKS_PER_S_MAX = 1000
# A connection of a day keeps an old worker for a day, and one of 2,000 services has 150 MiB. So old workers
# end, and what they carry, after so many reloads: fewer where each is large.
RELOADS_SURVIVED_MAX = 32
RELOADS_SURVIVED_MIN = 8
BACKENDS_OF_A_LARGE_WORKER = 250
# Of the requests, as 1 in so many, whose latency HAProxy tells; as many times fewer above each of these rates, so
# that the agent never has more than some 100 a second to read. To write a line for each request and tell one in
# ten took a sixth of the throughput; to read 250 a second, 2 % of a processor.
SAMPLE_OF = 10
BUSY_REQUESTS_PER_S = (1000, 10_000)
# A proxy of eight threads fills 10 Gbit/s; more would only take processors away from pods.
THREADS_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyHost:
    """What the host gives, and the operator chose."""

    node: str
    directory: Path  # Of sockets and files, on a tmpfs.
    proxy_port: int
    publish_addresses: tuple[str, ...]
    threads: int
    user: str = ""  # Whom the workers run as; empty: as they were started.
    group: str = ""


def head_text(
    host: ProxyHost,
    network: NetworkTable,
    peers: Mapping[str, pb.NetworkPeer],
    published: Iterable[PublishedPort],
    *,
    backends: int,
) -> str:
    """All but the services' backends, with placeholders where the digest is to be."""
    sections = [
        _global(host, backends),
        *_defaults(),
        *_frontends(host, network, tuple(published)),
        _nodes(host, peers),
    ]
    return "\n".join("\n    ".join(section) + "\n" for section in sections)


def _global(host: ProxyHost, backends: int) -> list[str]:
    survived = RELOADS_SURVIVED_MAX * BACKENDS_OF_A_LARGE_WORKER // max(backends, BACKENDS_OF_A_LARGE_WORKER)
    lines = [
        "# Written by bayplan-agent, which replaces it.",
        "global",
        f"description {DIGEST}",
        f"stats socket {host.directory / STATS_SOCKET} mode 600 level admin expose-fd listeners",
        f"nbthread {min(max(host.threads, 1), THREADS_MAX)}",
        f"maxconn {CONNECTIONS_MAX}",
        # No hard-stop-after: it would cut every long connection some time after each reload.
        f"mworker-max-reloads {max(survived, RELOADS_SURVIVED_MIN)}",
        "spread-checks 20",
        "ssl-default-bind-options ssl-min-ver TLSv1.2",
        "tune.ssl.default-dh-param 2048",
    ]
    lines += [f"user {word(host.user)}"] if host.user else []
    lines += [f"group {word(host.group)}"] if host.group else []
    return [lines[0] + "\n" + lines[1], *lines[2:]]


def _defaults() -> list[list[str]]:
    both = [
        # Four attempts at most, each at another pod: together within the 2 s that a caller waits. Nothing
        # is sent twice: only what found no connection is tried again.
        "timeout connect 500ms",
        "retries 3",
        "retry-on conn-failure",
        "option redispatch 1",
        "timeout queue 10s",
        # Peers that vanished: after two hours, as the kernel's own settings are. Closer ones cost three system
        # calls more for each connection, a seventh of what a short one costs at all.
        "option clitcpka",
        "option srvtcpka",
    ]
    tcp = [
        "defaults tcp",
        "mode tcp",
        *both,
        # The most that HAProxy knows: a database's connection may idle for a weekend. One whose peer has
        # vanished ends after 90 s all the same.
        "timeout client 24d",
        "timeout server 24d",
        *(f"{side}tcpka-{what}" for side in ("cli", "srv") for what in ("idle 60s", "intvl 10s", "cnt 3")),
    ]
    http = [
        "defaults http",
        "mode http",
        *both,
        "timeout client 5m",
        "timeout server 5m",
        "timeout tunnel 24d",
        "timeout http-request 10s",
        "timeout http-keep-alive 75s",
        "http-reuse safe",
        # A reload ends a kept connection with an answer, and not just when the next request is under way.
        "option idle-close-on-response",
        "option forwardfor",
        "option dontlognull",
        'http-error status 503 content-type text/plain string "No pod of this service can answer.\\n"',
    ]
    return [tcp, http]


def _frontends(
    host: ProxyHost, network: NetworkTable, published: tuple[PublishedPort, ...]
) -> list[list[str]]:
    gateway, base = network.gateway, host.proxy_port
    # Once for a connection: with each request it took a sixth of the throughput.
    lookup = [
        "tcp-request connection set-var(sess.port) dst_port",
        f"tcp-request connection set-var(sess.backend) dst,concat(:,sess.port),map_str({DIRECTORY}/{PORTS_FILE})",
    ]
    to_backend = "use_backend %[var(sess.backend)]"
    is_no_sample = f"{{ rand({SAMPLE_OF}) gt 0 }}"
    where_busy = [f"{{ fe_req_rate gt {rate} }} {is_no_sample}" for rate in BUSY_REQUESTS_PER_S]
    log = [
        f"log {host.directory / LOG_SOCKET} len 512 format raw local0",
        'log-format "%b %ST %Ta"',
        f"http-request set-log-level silent if {' || '.join([is_no_sample, *where_busy])}",
    ]
    services = [each for each in published if each.service != INGRESS]
    ingress = [each for each in published if each.service == INGRESS]
    sections = [
        [
            "frontend tcp from tcp",
            _bind(gateway, base + ports.TCP),
            *(_bind(each.address, each.port) for each in services if not each.is_http),
            *lookup,
            to_backend,
        ],
        [
            "frontend http from http",
            _bind(gateway, base + ports.HTTP),
            *(_bind(each.address, each.port) for each in services if each.is_http),
            *lookup,
            *log,
            to_backend,
        ],
        [
            "frontend health from http",
            _bind(gateway, base + ports.HEALTH),
            "http-request return status 200",
        ],
        [
            "frontend metrics from http",
            f"bind unix@{host.directory / METRICS_SOCKET} mode 600",
            "http-request use-service prometheus-exporter if { path /metrics }",
            "http-request return status 404",
        ],
    ]
    if ingress:
        tls = f" ssl crt-list {DIRECTORY}/{CERTIFICATES_FILE} alpn h2,http/1.1"
        sections.append(
            [
                "frontend ingress from http",
                *(_bind(each.address, each.port) + (tls if each.is_tls else "") for each in ingress),
                *log,
                "http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]",
                *lookup_lines(DIRECTORY),
            ]
        )
    return sections


def _bind(address: object, port: int) -> str:
    # Transparent: HAProxy starts before the bridge is made, or before the host has its address.
    text = f"[{address}]" if ":" in str(address) else str(address)
    return f"bind {text}:{port} transparent"


def _nodes(host: ProxyHost, peers: Mapping[str, pb.NetworkPeer]) -> list[str]:
    every_ms = max(CHECK_EVERY_MS, len(peers) * 1000 // CHECKS_PER_S_MAX)
    lines = [
        "backend nodes from tcp",
        # What falls is told at once.
        f"log {host.directory / LOG_SOCKET} len 512 format raw local0 alert",
    ]
    for name, peer in peers.items():
        gateway = IPv4Network(peer.subnet)[1]
        lines.append(
            f"server {word(name)} {gateway}:{host.proxy_port + ports.HEALTH} id {server_id(name)}"
            f" check inter {every_ms}ms fastinter {CHECK_EVERY_MS}ms fall {CHECK_FALL} rise 1"
        )
    return lines
