"""What `bay describe` says of services, endpoints and ingresses: kubectl's lines, and why something is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bayplan.cli import columns
from bayplan.cli.text import pairs, table

if TYPE_CHECKING:
    from bayplan.client import Document, ServiceEndpoints

Line = tuple[str, str]  # Label, and what it says.


def of_service(document: Document, endpoints: ServiceEndpoints | None) -> Iterator[Line]:
    """The lines of a service; `endpoints` None: the leader does not know it yet."""
    spec = _mapping(document.body.get("spec"))
    _, kind, address, external, _, _ = columns.SERVICE.row(document)
    yield "Selector", pairs(spec.get("selector") or {})
    yield "Type", kind
    yield "Cluster IP", address
    yield "External IP", external
    for index, (port, node_port) in enumerate(columns.ports_of(document)):
        protocol = port.get("protocol", "TCP")
        spoken = f" ({port['appProtocol']})" if port.get("appProtocol") else ""
        yield "Port", f"{port.get('name') or '<unset>'}  {port.get('port')}/{protocol}{spoken}"
        yield "Target port", f"{port.get('targetPort') or port.get('port')}/{protocol}"
        if node_port:
            yield "Node port", f"{node_port}/{protocol}"
        if endpoints is not None:
            yield "Endpoints", _at_port(endpoints, index)
    if endpoints is None:
        yield "Endpoints", "<unknown>"
    elif endpoints.why:
        yield "Endpoints why", endpoints.why
    yield "Affinity", _affinity(spec)
    if kind in {"NodePort", "LoadBalancer"}:
        yield "External to", str(spec.get("externalTrafficPolicy", "Cluster"))
    yield "Internal to", str(spec.get("internalTrafficPolicy", "Cluster"))
    if problem := columns.problem_of(document):
        yield "Problem", problem


def of_ingress(document: Document) -> Iterator[Line]:
    """The lines of an ingress, but for its rules."""
    spec = _mapping(document.body.get("spec"))
    _, name, _, address, _, _ = columns.INGRESS.row(document)
    yield "Class", name
    yield "Address", address
    yield "Default", _backend(spec.get("defaultBackend")) if spec.get("defaultBackend") else "<none>"
    if problem := columns.problem_of(document):
        yield "Problem", problem


def tls_of(document: Document) -> list[str]:
    """A line for each certificate of an ingress."""
    return [
        f"{entry.get('secretName', '')} for {', '.join(entry.get('hosts') or ()) or 'the hosts that it names'}"
        for entry in _mapping(document.body.get("spec")).get("tls") or ()
    ]


def rules_of(document: Document) -> list[str]:
    """A table of hosts, paths and services; empty if there are none."""
    rows = []
    for rule in _mapping(document.body.get("spec")).get("rules") or ():
        host = str(rule.get("host") or "*")
        paths = _mapping(rule.get("http")).get("paths") or ()
        rows += [
            (host, str(path.get("path", "/")), str(path.get("pathType", "")), _backend(path.get("backend")))
            for path in paths
        ] or [(host, "/", "", "the default")]
    return table(("HOST", "PATH", "TYPE", "SERVICE"), rows) if rows else []


def of_endpoints(service: ServiceEndpoints) -> list[str]:
    """A table of what answers for a service; empty if there is nothing."""
    names = [port.name or str(port.port) for port in service.ports]
    rows = [
        (
            each.address,
            ",".join(f"{name}:{port}" for name, port in zip(names, each.ports, strict=False) if port)
            or "<none>",
            "yes" if each.ready else "no",
            each.node or "<none>",
            each.name or "<none>",
        )
        for each in service.endpoints
    ]
    return table(("ADDRESS", "PORTS", "READY", "NODE", "POD"), rows) if rows else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _at_port(service: ServiceEndpoints, index: int) -> str:
    places = [
        f"{each.address}:{each.ports[index]}"
        for each in service.endpoints
        if each.ready and index < len(each.ports) and each.ports[index]
    ]
    return columns.some(places) or "<none>"


def _affinity(spec: Mapping[str, Any]) -> str:
    if spec.get("sessionAffinity", "None") == "None":
        return "None"
    given = _mapping(_mapping(spec.get("sessionAffinityConfig")).get("clientIP")).get("timeoutSeconds")
    return f"ClientIP ({given or 10800} s)"


def _backend(backend: Any) -> str:
    service = _mapping(_mapping(backend).get("service"))
    port = _mapping(service.get("port"))
    return f"{service.get('name', '')}:{port.get('number') or port.get('name', '')}"
