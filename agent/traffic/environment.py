"""Kubernetes' environment variables of services, for a pod that starts. Pure.

Programs that were written for them look for `WEB_SERVICE_HOST`, and older ones for Docker's `WEB_PORT`.
A pod has those of the services of its namespace that were there before it.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as pb


def service_variables(traffic: TrafficTable, namespace: str) -> dict[str, str]:
    """Of every service of `namespace` that has a virtual address."""
    variables: dict[str, str] = {}
    for _, service in sorted(traffic.services.items()):
        if service.namespace == namespace and service.vip and service.ports:
            variables |= _of(service)
    return variables


def _of(service: pb.Service) -> Mapping[str, str]:
    prefix = _shouted(service.name)
    first = service.ports[0]
    variables = {
        f"{prefix}_SERVICE_HOST": service.vip,
        f"{prefix}_SERVICE_PORT": str(first.port),
        f"{prefix}_PORT": _url(service, first),
    }
    for port in service.ports:
        if port.name:
            variables[f"{prefix}_SERVICE_PORT_{_shouted(port.name)}"] = str(port.port)
        link = f"{prefix}_PORT_{port.port}_{_protocol(port).upper()}"
        variables |= {
            link: _url(service, port),
            f"{link}_PROTO": _protocol(port),
            f"{link}_PORT": str(port.port),
            f"{link}_ADDR": service.vip,
        }
    return variables


def _shouted(name: str) -> str:
    return name.upper().replace("-", "_")


def _protocol(port: pb.ServicePort) -> str:
    return "udp" if port.udp else "tcp"


def _url(service: pb.Service, port: pb.ServicePort) -> str:
    return f"{_protocol(port)}://{service.vip}:{port.port}"
