"""What the derivation of traffic sees: documents, placements and reports as frozen views.

Says what is not known rather than guess: a pod that no agent has spoken of to this leader has no state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import structlog

from bayplan.model.placements import Placement
from bayplan.model.services import Allocation
from bayplan.model.states import PodState
from bayplan.resources import traffic
from bayplan.resources.endpoints import Endpoints
from bayplan.resources.ingress import Ingress
from bayplan.resources.pods import template_from_json
from bayplan.resources.service import Service
from bayplan.v1 import agent_link_pb2 as wire
from manager.cluster_state import ClusterState, NodeEntry
from manager.planning.endpoints import BackendView, Endpoint, PortView, ServiceView, TemplateView
from manager.planning.ingress import IngressView, PathView, TlsView
from manager.planning.subnets import is_address, is_within

log = structlog.get_logger(__name__)


def service_view(state: ClusterState, namespace: str, name: str) -> ServiceView | None:
    """A service; None while there is none, or while nothing leads to it for want of an address.

    One that is published is served at those ports all the same.
    """
    entry = state.resources.get(("Service", namespace, name))
    if entry is None or entry.stored.deleting:
        return None
    service = entry.resource
    assert isinstance(service, Service)
    spec, annotations = service.spec, service.metadata.annotations
    given = state.allocations.get(entry.stored.uid)
    published = given.published if given is not None else ()
    node_ports = given.node_ports if given is not None else {}
    lacks_vip = spec.has_address and (given is None or not given.vip)
    if lacks_vip and not published and not node_ports:
        return None
    return ServiceView(
        namespace=namespace,
        name=name,
        uid=entry.stored.uid,
        vip=given.vip if given is not None and spec.has_address else "",
        lacks_vip=lacks_vip,
        external_name=spec.external_name or "",
        ports=tuple(
            PortView(
                name=port.name or "",
                port=port.port,
                target=port.target_port or port.port,
                udp=port.protocol == "UDP",
                http=traffic.is_http(port, annotations),
                node_port=node_ports.get(f"{port.port}/{port.protocol}", 0),
                load_balancer=f"{port.port}/{port.protocol}" in published,
                proxy_protocol=traffic.proxy_protocol_of(port, annotations),
            )
            for port in spec.ports
        ),
        selector=tuple(sorted(spec.selector.items())),
        by_hand=tuple(_by_hand(state, service)) if not spec.selector else (),
        balance=traffic.balance_of(annotations),
        affinity_s=spec.affinity_s,
        external_local=spec.external_traffic_policy == "Local",
        internal_local=spec.internal_traffic_policy == "Local",
        publish_not_ready=spec.publish_not_ready_addresses,
        max_connections_per_pod=traffic.max_connections_of(annotations),
        queue_timeout_ms=traffic.queue_timeout_ms_of(annotations),
        request_timeout_ms=traffic.request_timeout_ms_of(annotations),
    )


def _by_hand(state: ClusterState, service: Service) -> Iterator[Endpoint]:
    entry = state.resources.get(("Endpoints", service.metadata.namespace, service.metadata.name))
    if entry is None:
        return
    assert isinstance(entry.resource, Endpoints)
    for written in entry.resource.at(service.spec.ports):
        if is_within(written.address, state.network.service_range):
            # It leads back into the proxies, perhaps to this very service: each connection would make another.
            continue
        yield Endpoint(
            id=written.address,
            address=written.address,
            hostname=written.hostname,
            ports=written.ports,
            ready=written.is_ready,
        )


def template_view(template: Mapping[str, Any] | None) -> TemplateView:
    """What a revision says of its pods; of one that cannot be read the labels, that it runs on where it is."""
    if template is None:
        return TemplateView()
    try:
        read = template_from_json(dict(template))
    except ValueError as error:  # pydantic's is one as well.
        log.warning("template.unreadable", error=str(error))
        return TemplateView(labels=_labels_of(template))
    return TemplateView(
        labels=read.metadata.labels,
        ports={
            (port.name, port.protocol == "UDP"): port.container_port
            for container in read.spec.containers
            for port in container.ports
            if port.name is not None
        },
        hostname=read.spec.hostname or "",
        subdomain=read.spec.subdomain or "",
        capacity=traffic.capacity_of(read),
        drain_s=traffic.drain_s_of(read),
        host_network=read.spec.host_network,
    )


def _labels_of(template: Mapping[str, Any]) -> dict[str, str]:
    """As they stand in a template of another version."""
    metadata = template.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    return {str(name): str(value) for name, value in labels.items()} if isinstance(labels, Mapping) else {}


def backend_view(
    state: ClusterState, placement: Placement, template: TemplateView, *, is_node_down: bool
) -> BackendView:
    """A pod as it was last reported."""
    entry = state.nodes.get(placement.node)
    status = state.status(placement)
    found: PodState | None = None
    if status is not None and status.state:
        found = PodState(status.state)
    elif status is None and entry is not None and entry.was_known:
        # Its node has told of all that it has: it has not begun, or nothing of it is left.
        found = PodState.ASSIGNED
    return BackendView(
        uid=str(placement.pod),
        name=state.pod_name(placement.pod),
        node=placement.node,
        want=placement.want,
        template=template,
        state=found,
        ready=status is not None and status.ready,
        address=_address_of(entry, status, template),
        is_node_down=is_node_down,
    )


def _address_of(entry: NodeEntry | None, status: wire.PodStatus | None, template: TemplateView) -> str:
    """Where every node reaches a pod; empty while there is no such place.

    An address that is none of its node's part is one of the engine's own, from before there was a pods'
    network, or somebody else's.
    """
    if entry is None or status is None:
        return ""
    if template.host_network:
        return entry.facts.address if is_address(entry.facts.address) else ""
    return status.address if is_within(status.address, entry.facts.subnet) else ""


def _ports_of(given: Allocation) -> tuple[int, ...]:
    return tuple(int(key.partition("/")[0]) for key in given.published)


def ingress_views(state: ClusterState) -> list[IngressView]:
    """All Ingress documents."""
    views = []
    for uid, (kind, namespace, name) in state.services.items():
        entry = state.resources[kind, namespace, name]
        if kind != "Ingress" or entry.stored.deleting:
            continue
        assert isinstance(entry.resource, Ingress)
        spec = entry.resource.spec
        views.append(
            IngressView(
                namespace=namespace,
                name=name,
                created_ms=entry.stored.created_ms,
                ports=_ports_of(state.allocations.get(uid, Allocation())),
                paths=tuple(
                    PathView(
                        host=route.host,
                        path=route.path,
                        exact=route.is_exact,
                        service=route.service,
                        port=route.port,
                    )
                    for route in spec.routes
                ),
                tls=tuple(TlsView(secret=tls.secret_name, hosts=tls.hosts) for tls in spec.tls),
            )
        )
    return views
