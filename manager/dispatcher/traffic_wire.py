"""Services, endpoints and rules in the words of the wire."""

from __future__ import annotations

from bayplan.v1 import agent_link_pb2 as wire
from manager.planning.endpoints import Endpoint, ServiceView
from manager.planning.ingress import IngressPlan

_BALANCES = {
    "least-connections": wire.BALANCE_LEAST_CONNECTIONS,
    "round-robin": wire.BALANCE_ROUND_ROBIN,
    "capacity": wire.BALANCE_CAPACITY,
}


def service_of(view: ServiceView) -> wire.Service:
    """What agents need to know of a service, endpoints apart."""
    if view.external_name:
        return wire.Service(
            namespace=view.namespace, name=view.name, uid=view.uid, external_name=view.external_name
        )
    return wire.Service(
        namespace=view.namespace,
        name=view.name,
        uid=view.uid,
        vip=view.vip,
        ports=[
            wire.ServicePort(
                name=port.name,
                port=port.port,
                udp=port.udp,
                http=port.http,
                node_port=port.node_port,
                load_balancer=port.load_balancer,
                proxy_protocol=port.proxy_protocol,
            )
            for port in view.ports
        ],
        balance=_BALANCES[view.balance],
        affinity_s=view.affinity_s,
        external_local=view.external_local,
        internal_local=view.internal_local,
        publish_not_ready=view.publish_not_ready,
        max_connections_per_pod=view.max_connections_per_pod,
        queue_timeout_ms=view.queue_timeout_ms,
        request_timeout_ms=view.request_timeout_ms,
        lacks_vip=view.lacks_vip,
    )


def endpoint_of(endpoint: Endpoint) -> wire.Endpoint:
    """One endpoint."""
    return wire.Endpoint(
        id=endpoint.id,
        node=endpoint.node,
        address=endpoint.address,
        name=endpoint.name,
        hostname=endpoint.hostname,
        ports=endpoint.ports,
        ready=endpoint.ready,
        weight=endpoint.weight,
    )


def ingress_of(plan: IngressPlan) -> wire.Ingress:
    """All rules, with their certificates; nothing while no port is theirs."""
    if not plan.ports:
        return wire.Ingress()
    return wire.Ingress(
        ports=plan.ports,
        rules=[
            wire.IngressRule(
                host=rule.host, path=rule.path, exact=rule.exact, service=rule.service, port=rule.port
            )
            for rule in plan.rules
        ],
        certificates=[
            wire.IngressCertificate(
                name=each.name, hosts=each.hosts, chain_pem=each.chain_pem, key_pem=each.key_pem
            )
            for each in plan.certificates
        ],
    )
