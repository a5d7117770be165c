"""How traffic is to flow, as a Service's and a pod template's documents say it.

The one place where field, port name and annotation are weighed against each other, so that the leader, which
tells the proxies, and the warnings that users read never disagree. Pure, and total: what a document was
accepted with never raises here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, cast

from bayplan.resources import annotations as ours

if TYPE_CHECKING:
    from bayplan.resources.pods import PodTemplate
    from bayplan.resources.service import ServicePort

Balance = Literal["least-connections", "round-robin", "capacity"]

DRAIN_DEFAULT_S = 30
# Of a pod that says neither what it can do nor how much cpu it needs: as if it had one.
CAPACITY_DEFAULT_MILLIS = 1000

# WebSockets begin as a request of HTTP/1.1, which the proxy passes on.
_HTTP = frozenset({"http", "kubernetes.io/ws"})
# HTTP/2 without TLS: carried, but as plain TCP.
_HTTP2 = frozenset({"grpc", "h2c", "http2", "kubernetes.io/h2c"})


def is_http(port: ServicePort, annotations: Mapping[str, str]) -> bool:
    """Whether the proxy reads requests on this port, and not only connections.

    `appProtocol` decides, else the annotation, which is written for Bayplan on purpose, else the port's name, a
    mere custom. TCP otherwise: a proxy that takes anything else for HTTP breaks it, the other way round it works.
    """
    if port.protocol != "TCP":
        return False
    if port.app_protocol is not None:
        return port.app_protocol.lower() in _HTTP
    if ours.PROTOCOL in annotations:
        return annotations[ours.PROTOCOL] == "http"
    return port.name is not None and (port.name == "http" or port.name.startswith("http-"))


def is_plain_http2(port: ServicePort) -> bool:
    """Whether many requests share a connection here that the proxy does not look into."""
    return port.app_protocol is not None and port.app_protocol.lower() in _HTTP2


def proxy_protocol_of(port: ServicePort, annotations: Mapping[str, str]) -> bool:
    """Whether connections to the pods begin with a PROXY header (version 2), which tells the client's address."""
    return port.protocol == "TCP" and annotations.get(ours.PROXY_PROTOCOL) == "v2"


def balance_of(annotations: Mapping[str, str]) -> Balance:
    """How a Service's pods are chosen."""
    return cast("Balance", annotations.get(ours.BALANCE, "least-connections"))


def max_connections_of(annotations: Mapping[str, str]) -> int:
    """What a Service sends to one of its pods at a time; 0: no limit."""
    return (
        ours.max_connections(annotations[ours.MAX_CONNECTIONS]) if ours.MAX_CONNECTIONS in annotations else 0
    )


def queue_timeout_ms_of(annotations: Mapping[str, str]) -> int:
    """How long a request waits for a free pod of a Service; 0: the default."""
    return _duration_ms(annotations, ours.QUEUE_TIMEOUT)


def request_timeout_ms_of(annotations: Mapping[str, str]) -> int:
    """How long a pod of a Service may take to answer; 0: the default."""
    return _duration_ms(annotations, ours.REQUEST_TIMEOUT)


def capacity_of(template: PodTemplate) -> int:
    """What a pod can process beside others, in thousandths: its annotation, else the cpu that it requests."""
    given = template.metadata.annotations.get(ours.CAPACITY)
    if given is not None:
        return ours.capacity_millis(given)
    return template.spec.requested.cpu_millis or CAPACITY_DEFAULT_MILLIS


def drain_s_of(template: PodTemplate) -> int:
    """How long a pod that is to stop may go on with the requests it has."""
    given = template.metadata.annotations.get(ours.DRAIN_SECONDS)
    return DRAIN_DEFAULT_S if given is None else ours.drain_s(given)


def _duration_ms(annotations: Mapping[str, str], key: str) -> int:
    return ours.duration_ms(annotations[key]) if key in annotations else 0
