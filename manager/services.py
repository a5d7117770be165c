"""The status of Services and Ingresses as users see it: what they were given, and where they are published."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from bayplan.model.nodes import NodeState
from bayplan.model.services import INGRESS, Allocation
from bayplan.resources.service import Service
from manager.cluster_state import ClusterState, StoredResource
from manager.control_loop import Nodes

# Addresses that a status names: more help nobody, and every answer about the document carries them.
PUBLISHED_MAX = 100


def service_status(state: ClusterState, nodes: Nodes, entry: StoredResource) -> dict[str, Any]:
    """In Kubernetes' shape, with what Kubernetes writes into the document itself, and `problem`."""
    allocation = state.allocations.get(entry.stored.uid, Allocation())
    assert isinstance(entry.resource, Service)
    status: dict[str, Any] = {}
    if entry.resource.spec.is_headless:
        status["clusterIP"] = "None"
    elif allocation.vip:
        status["clusterIP"] = allocation.vip
    if allocation.node_ports:
        status["nodePorts"] = allocation.node_ports
    metadata = entry.resource.metadata
    return {**status, **_published(state, nodes, allocation, f"{metadata.namespace}/{metadata.name}")}


def ingress_status(state: ClusterState, nodes: Nodes, entry: StoredResource) -> dict[str, Any]:
    """In Kubernetes' shape, with `problem`."""
    return _published(state, nodes, state.allocations.get(entry.stored.uid, Allocation()), INGRESS)


def _published(state: ClusterState, nodes: Nodes, allocation: Allocation, service: str) -> dict[str, Any]:
    status: dict[str, Any] = {}
    if allocation.published:
        ports = [int(key.partition("/")[0]) for key in allocation.published]
        addresses = islice(_publish_addresses(state, nodes, service, ports), PUBLISHED_MAX)
        status["loadBalancer"] = {"ingress": [_named(address) for address in addresses]}
    if allocation.problem:
        status["problem"] = allocation.problem
    return status


def _publish_addresses(
    state: ClusterState, nodes: Nodes, service: str, ports: Sequence[int]
) -> Iterator[str]:
    """Where published ports are bound now, as far as is known: on nodes that are Ready, and had them free."""
    for name, entry in sorted(state.nodes.items()):
        if nodes.node_state(name)[0] is not NodeState.READY:
            continue
        for address in entry.facts.publish_addresses or (entry.facts.address,):
            if not any(nodes.is_port_taken(service, name, address, port) for port in ports):
                yield address


def _named(address: str) -> dict[str, str]:
    try:
        return {"ip": str(ipaddress.ip_address(address))}
    except ValueError:
        return {"hostname": address}
