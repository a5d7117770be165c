"""What users ask about traffic: endpoints, what went through the proxies, whether nodes reach each other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bayplan.model.nodes import NodeState
from bayplan.v1 import control_pb2 as api
from manager.control_api.documents import NotFoundError
from manager.dispatcher.traffic_wire import endpoint_of, service_of
from manager.errors import RefusedError
from manager.leader import Leadership
from manager.planning.endpoints import BackendView, EndpointSet, ServiceView

_NAMED_MAX = 5
# Services that are looked at before the loop has a turn: heartbeats are answered meanwhile.
_AT_A_STRETCH = 50


# -- endpoints ---------------------------------------------------------------------------------


async def endpoints(leadership: Leadership, request: api.ListEndpointsRequest) -> list[api.ServiceEndpoints]:
    """Of the services that match. Raises NotFoundError when one is named that does not exist."""
    traffic = leadership.dispatcher.traffic
    listed: list[api.ServiceEndpoints] = []
    for kind, namespace, name in sorted(leadership.state.services.values()):
        if (
            kind != "Service"
            or (request.namespace and namespace != request.namespace)
            or (request.service and name != request.service)
        ):
            continue
        if len(listed) % _AT_A_STRETCH == _AT_A_STRETCH - 1:
            await asyncio.sleep(0)
        entry = leadership.state.resources.get((kind, namespace, name))
        if entry is None:
            continue  # It went just now.
        shown = api.ServiceEndpoints(namespace=namespace, name=name, created_ms=entry.stored.created_ms)
        found = traffic.services(namespace, name)
        if found:
            (view,) = found
            known = traffic.endpoints(view)
            shown.ports.extend(service_of(view).ports)
            shown.endpoints.extend(endpoint_of(each) for each in known.endpoints)
            shown.why = why_so_few(view, known, traffic.backends(view), leadership)
        else:
            shown.why = "it has no address yet: see its status"
        listed.append(shown)
    if request.service and not listed:
        raise NotFoundError(f"Service {request.namespace or 'default'}/{request.service} does not exist")
    return listed


def why_so_few(
    view: ServiceView, known: EndpointSet, pods: Sequence[BackendView], leadership: Leadership
) -> str:
    """Why there are no endpoints, or not all are known, in words; empty if all is well."""
    if not known.is_whole:
        nodes = sorted({pod.node for pod in pods if pod.uid in known.unknown})
        if not nodes:
            return "not all of them are known: a workload's document cannot be read"
        return f"not all of them are known: {_names(nodes)} did not report to this leader yet"
    if known.endpoints:
        return ""
    if view.external_name:
        return f"it is a name for {view.external_name}"
    if not view.selector:
        return "it has no selector, and there are no Endpoints of its name with an address that is ready and is no service's"
    return _why_none(view, pods, leadership)


def _why_none(view: ServiceView, pods: Sequence[BackendView], leadership: Leadership) -> str:
    """Why none of its pods is an endpoint."""
    waiting = [pod for pod in pods if not pod.is_leaving]
    ready = [pod.name for pod in waiting if pod.ready]
    if ready:
        return (
            f"{_names(ready)} {'is' if len(ready) == 1 else 'are'} ready, but not at an address of the pods' network:"
            " a pod that is older than the network gets one when it is replaced"
        )
    if len(waiting) == 1:
        return f"{waiting[0].name} is not ready"
    if waiting:
        return f"none of {len(waiting)} pods is ready"
    if not pods:
        selector = ",".join(f"{key}={value}" for key, value in view.selector)
        return f"no pod in {view.namespace} has the labels {selector}"
    node_state = leadership.dispatcher.node_state
    down = sorted({pod.node for pod in pods if node_state(pod.node)[0] is NodeState.DOWN})
    return f"its pods are lost with {_names(down)}" if down else "its pods are stopping"


# -- use ---------------------------------------------------------------------------------------


def top(leadership: Leadership, request: api.TopServicesRequest) -> list[api.ServiceTop]:
    """Ports of services that nodes reported lately, by name; a service that is gone is left out."""
    dispatcher = leadership.dispatcher
    told = dispatcher.traffic.ledger.services
    ready = {
        view.key: sum(each.ready for each in told[view.key].endpoints) if view.key in told else 0
        for view in dispatcher.traffic.services(request.namespace)
    }
    return [
        api.ServiceTop(
            namespace=use.service.partition("/")[0],
            name=use.service.partition("/")[2],
            port=use.port,
            requests_per_s=use.requests_per_s,
            errors_per_s=use.errors_per_s,
            p50_ms=use.p50_ms,
            p99_ms=use.p99_ms,
            connections=use.connections,
            endpoints=ready[use.service],
        )
        for use in dispatcher.service_uses.over_all(asyncio.get_running_loop().time())
        if use.service in ready
    ]


# -- the network -------------------------------------------------------------------------------


async def check_network(leadership: Leadership) -> api.CheckNetworkReply:
    """Have every node try every other; where there are many, what works is counted alone. Raises RefusedError when there is nobody to ask."""
    nodes = sorted(leadership.state.nodes)
    if not nodes:
        raise RefusedError("no node has joined the cluster")
    found = await leadership.dispatcher.network_checks.check(nodes)
    return api.CheckNetworkReply(
        mark=leadership.mark(),
        paths=found.paths,
        silent=found.silent,
        healthy=found.healthy,
        failed=found.failed,
    )


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more
