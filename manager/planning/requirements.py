"""What a pod template asks of a node: read from the document in Kubernetes' shape.

Limits do not book: they only stand in for a request that is not given, as in Kubernetes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bayplan.model.nodes import Amounts
from bayplan.resources.quantity import parse_cpu_millis, parse_memory_bytes
from manager.planning.view import HostPort, Requirements, Toleration


def requirements_of(template: Mapping[str, Any]) -> Requirements:
    """The requirements of one pod.

    Args:
        template: a PodTemplateSpec as JSON, `{"metadata": …, "spec": {"containers": […], …}}`.

    Raises:
        QuantityError (a ValueError): a request or limit is no quantity.
    """
    spec = template.get("spec") or {}
    containers = spec.get("containers") or ()
    return Requirements(
        requests=Amounts(
            cpu_millis=sum(_request(container, "cpu", parse_cpu_millis) for container in containers),
            memory_bytes=sum(_request(container, "memory", parse_memory_bytes) for container in containers),
            pods=1,
        ),
        host_ports=tuple(sorted(_host_ports(spec))),
        node_selector=tuple(sorted((spec.get("nodeSelector") or {}).items())),
        tolerations=tuple(
            Toleration(
                key=toleration.get("key") or "",
                operator=toleration.get("operator") or "Equal",
                value=toleration.get("value") or "",
                effect=toleration.get("effect") or "",
            )
            for toleration in spec.get("tolerations") or ()
        ),
    )


def _host_ports(spec: Mapping[str, Any]) -> set[HostPort]:
    """Of a pod on the host's network every port that its containers say they listen on."""
    if not spec.get("hostNetwork"):
        return set()
    return {
        (int(port["containerPort"]), str(port.get("protocol") or "TCP"))
        for container in spec.get("containers") or ()
        for port in container.get("ports") or ()
    }


def _request(container: Mapping[str, Any], resource: str, parse: Callable[[str | float], int]) -> int:
    resources = container.get("resources") or {}
    for wanted in (resources.get("requests") or {}, resources.get("limits") or {}):
        if wanted.get(resource) is not None:
            return parse(wanted[resource])
    return 0
