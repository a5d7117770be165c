"""Calls about traffic: what goes through the proxies, and whether nodes reach each other."""

from __future__ import annotations

from bayplan.client import wire
from bayplan.client.calls import Calls
from bayplan.client.forward import ForwardedConnection
from bayplan.client.types import NetworkCheck, ServiceEndpoints, ServiceTop
from bayplan.v1 import control_pb2 as control

# A manager waits so long for nodes that do not answer.
_CHECK_EXTRA_S = 15.0


class TrafficCalls(Calls):
    """Look at it, look whether it can flow, and be part of it."""

    async def endpoints(self, *, namespace: str = "", service: str = "") -> tuple[ServiceEndpoints, ...]:
        """Of each service ("": of all) in a namespace ("": in all) what answers for it, ready or not."""
        request = control.ListEndpointsRequest(namespace=namespace, service=service)
        reply = await self._ask(lambda stub: stub.ListEndpoints, request)
        return tuple(wire.from_service_endpoints(one) for one in reply.services)

    async def top_services(self, *, namespace: str = "") -> tuple[ServiceTop, ...]:
        """What went through all proxies in the last seconds, by service and port. `namespace` "": of each."""
        request = control.TopServicesRequest(namespace=namespace)
        reply = await self._ask(lambda stub: stub.TopServices, request)
        return tuple(wire.from_service_top(service) for service in reply.services)

    async def check_network(self) -> NetworkCheck:
        """Have every node try every other over the pods' network, now. Takes some seconds."""
        reply = await self._managers.call(
            lambda stub: stub.CheckNetwork,
            control.CheckNetworkRequest(),
            may_repeat=True,
            extra_s=_CHECK_EXTRA_S,
        )
        return wire.from_network_check(reply)

    def port_forward(self, pod: str, port: int, *, namespace: str = "default") -> ForwardedConnection:
        """One TCP connection to a port of a pod; see ForwardedConnection."""
        start = control.PortForwardStart(namespace=namespace, pod=pod, port=port, seen=self._managers.seen())
        return ForwardedConnection(lambda: self._managers.open(lambda stub: stub.PortForward), start)
