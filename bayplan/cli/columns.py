"""The columns of each kind: kubectl's, and with `-o wide` those that help further."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bayplan.cli import kinds, shapes
from bayplan.cli.text import age, memory, pairs

if TYPE_CHECKING:
    from bayplan.client import Document, Event, Node, Pod, ServiceEndpoints
    from bayplan.resources.kinds import Kind

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class View(Generic[_Item]):
    """How items of one kind are shown."""

    headers: tuple[str, ...]
    row: Callable[[_Item], tuple[str, ...]]
    wide_headers: tuple[str, ...]
    wide_row: Callable[[_Item], tuple[str, ...]]
    namespace: Callable[[_Item], str] | None
    key: Callable[[_Item], str]  # Tells items of a watch apart.
    name: Callable[[_Item], str]  # kind/name
    bare_name: Callable[[_Item], str]
    shape: Callable[[_Item], dict[str, Any]]


def _spec(document: Document) -> Mapping[str, Any]:
    spec = document.body.get("spec")
    return spec if isinstance(spec, dict) else {}


def pod_status(pod: Pod) -> str:
    """kubectl's word where there is one: why a pod is not running says more than that it is not."""
    if pod.reason and not pod.ready and pod.status not in {"Running", "Stopping", "Stopped", "Lost"}:
        return pod.reason
    return {"CrashLoop": "CrashLoopBackOff", "Stopping": "Terminating"}.get(pod.status, pod.status)


def _containers(pod: Pod) -> int:
    spec = pod.template.get("spec")
    wanted = len(spec.get("containers") or ()) if isinstance(spec, dict) else 0
    return wanted or len(pod.containers) or 1


def _pod_row(pod: Pod) -> tuple[str, ...]:
    total = _containers(pod)
    # Agents from before pods of several containers say it of the pod alone.
    ready = total if pod.ready else min(sum(container.ready for container in pod.containers), total - 1)
    return (pod.name, f"{ready}/{total}", pod_status(pod), str(pod.restarts), age(pod.created_ms))


def _pod_wide(pod: Pod) -> tuple[str, ...]:
    return (pod.address or "<none>", pod.node or "<none>", pod.why or pod.message or "<none>")


POD: View[Pod] = View(
    headers=("NAME", "READY", "STATUS", "RESTARTS", "AGE"),
    row=_pod_row,
    wide_headers=("IP", "NODE", "WHY"),
    wide_row=_pod_wide,
    namespace=lambda pod: pod.namespace,
    key=lambda pod: pod.uid,
    name=lambda pod: f"pod/{pod.name}",
    bare_name=lambda pod: pod.name,
    shape=shapes.of_pod,
)


def _status_count(document: Document, key: str) -> str:
    """`?` where the cluster does not know: a count that is not known is not zero."""
    return str(document.status.get(key, 0)) if document.status else "?"


def _deployment_row(document: Document) -> tuple[str, ...]:
    return (
        document.name,
        f"{_status_count(document, 'readyReplicas')}/{_spec(document).get('replicas', 1)}",
        _status_count(document, "updatedReplicas"),
        _status_count(document, "availableReplicas"),
        age(document.created_ms),
    )


def _deployment_wide(document: Document) -> tuple[str, ...]:
    containers = ((_spec(document).get("template") or {}).get("spec") or {}).get("containers") or ()
    selector = (_spec(document).get("selector") or {}).get("matchLabels") or {}
    return (
        ",".join(str(container.get("name", "")) for container in containers),
        ",".join(str(container.get("image", "")) for container in containers),
        pairs(selector),
    )


def _document_view(
    headers: tuple[str, ...],
    row: Callable[[Document], tuple[str, ...]],
    wide_headers: tuple[str, ...] = (),
    wide_row: Callable[[Document], tuple[str, ...]] = lambda _: (),
) -> View[Document]:
    return View(
        headers=headers,
        row=row,
        wide_headers=wide_headers,
        wide_row=wide_row,
        namespace=lambda document: document.namespace,
        key=lambda document: f"{document.kind}/{document.namespace}/{document.name}",
        name=lambda document: kinds.display(document.kind, document.name),
        bare_name=lambda document: document.name,
        shape=shapes.of_document,
    )


DEPLOYMENT = _document_view(
    ("NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"),
    _deployment_row,
    ("CONTAINERS", "IMAGES", "SELECTOR"),
    _deployment_wide,
)


def ports_of(document: Document) -> list[tuple[Mapping[str, Any], int]]:
    """The ports of a service as its document has them, each with the node port that it was given; 0: none.

    While the leader is silent, the one that the document asks for.
    """
    given = document.status.get("nodePorts")
    given = given if isinstance(given, dict) else {}
    return [
        (
            port,
            given.get(f"{port.get('port')}/{port.get('protocol', 'TCP')}", 0)
            if document.status
            else port.get("nodePort") or 0,
        )
        for port in _spec(document).get("ports") or ()
    ]


def _ports(document: Document) -> str:
    parts = []
    for port, node_port in ports_of(document):
        published = f":{node_port}" if node_port else ""
        parts.append(f"{port.get('port', '?')}{published}/{port.get('protocol', 'TCP')}")
    return ",".join(parts) or "<none>"


def _balancer(document: Document) -> str:
    """The addresses where it is reached from outside; empty while they are not known."""
    balancer = document.status.get("loadBalancer")
    entries = balancer.get("ingress") if isinstance(balancer, dict) else None
    return ",".join(str(entry.get("ip") or entry.get("hostname") or "") for entry in entries or ())


def _service_row(document: Document) -> tuple[str, ...]:
    spec = _spec(document)
    kind = str(spec.get("type", "ClusterIP"))
    external = "<none>"
    if kind == "LoadBalancer":
        external = _balancer(document) or "<pending>"
    elif kind == "ExternalName":
        external = str(spec.get("externalName") or "<none>")
    # What was given counts, not what was wished for.
    address = str(document.status.get("clusterIP") or "<pending>")
    if kind == "ExternalName" or spec.get("clusterIP") == "None":
        address = str(spec.get("clusterIP") or "<none>")
    return (document.name, kind, address, external, _ports(document), age(document.created_ms))


def problem_of(document: Document) -> str:
    """What the leader could not give, or find."""
    return str(document.status.get("problem") or "")


SERVICE = _document_view(
    ("NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"),
    _service_row,
    ("SELECTOR", "WHY"),
    lambda document: (pairs(_spec(document).get("selector") or {}), problem_of(document) or "<none>"),
)

# As many as kubectl shows before it only counts.
_SHOWN_MAX = 3


def some(values: Sequence[str]) -> str:
    """The first of them, and how many more there are; empty if there are none."""
    more = len(values) - _SHOWN_MAX
    return ",".join(values[:_SHOWN_MAX]) + (f" + {more} more..." if more > 0 else "")


def _ingress_row(document: Document) -> tuple[str, ...]:
    spec = _spec(document)
    hosts = dict.fromkeys(str(rule.get("host") or "*") for rule in spec.get("rules") or ())
    return (
        document.name,
        str(spec.get("ingressClassName") or "<none>"),
        some(list(hosts)) or "*",
        _balancer(document) or "<pending>",
        "80, 443" if spec.get("tls") else "80",
        age(document.created_ms),
    )


INGRESS = _document_view(
    ("NAME", "CLASS", "HOSTS", "ADDRESS", "PORTS", "AGE"),
    _ingress_row,
    ("WHY",),
    lambda document: (problem_of(document) or "<none>",),
)


def endpoints_of(service: ServiceEndpoints, *, ready: bool = True) -> str:
    """`10.42.1.5:8080,10.42.2.7:8080`, as kubectl shows them."""
    found = [endpoint for endpoint in service.endpoints if endpoint.ready is ready]
    places = [
        f"{endpoint.address}:{port}" if port else endpoint.address
        for endpoint in found
        for port in endpoint.ports or (0,)
    ]
    return some(places) or "<none>"


ENDPOINTS: View[ServiceEndpoints] = View(
    headers=("NAME", "ENDPOINTS", "AGE"),
    row=lambda service: (service.name, endpoints_of(service), age(service.created_ms)),
    wide_headers=("NOT-READY", "WHY"),
    wide_row=lambda service: (endpoints_of(service, ready=False), service.why or "<none>"),
    namespace=lambda service: service.namespace,
    key=lambda service: f"{service.namespace}/{service.name}",
    name=lambda service: f"endpoints/{service.name}",
    bare_name=lambda service: service.name,
    shape=shapes.of_endpoints,
)
SECRET = _document_view(
    ("NAME", "TYPE", "DATA", "AGE"),
    lambda document: (
        document.name,
        str(document.body.get("type", "Opaque")),
        str(len(document.body.get("data") or ())),
        age(document.created_ms),
    ),
)
PLAIN = _document_view(("NAME", "AGE"), lambda document: (document.name, age(document.created_ms)))


def node_status(node: Node) -> str:
    """As kubectl says it: Ready,SchedulingDisabled."""
    return node.status + (",SchedulingDisabled" if node.unschedulable or node.drain else "")


def _node_row(node: Node) -> tuple[str, ...]:
    prefix = "node-role.kubernetes.io/"
    roles = ",".join(sorted(key.removeprefix(prefix) for key in node.labels if key.startswith(prefix)))
    return (node.name, node_status(node), roles or "<none>", age(node.joined_ms), node.version or "<unknown>")


def _node_wide(node: Node) -> tuple[str, ...]:
    return (
        node.address or "<none>",
        node.engine or "<unknown>",
        str(node.pods),
        f"{node.reserved.cpu_millis}m/{node.capacity.cpu_millis}m",
        f"{memory(node.reserved.memory_bytes)}/{memory(node.capacity.memory_bytes)}",
        node.why or node.condition or "<none>",
    )


NODE: View[Node] = View(
    headers=("NAME", "STATUS", "ROLES", "AGE", "VERSION"),
    row=_node_row,
    wide_headers=("INTERNAL-IP", "ENGINE", "PODS", "CPU", "MEMORY", "WHY"),
    wide_row=_node_wide,
    namespace=None,
    key=lambda node: node.name,
    name=lambda node: f"node/{node.name}",
    bare_name=lambda node: node.name,
    shape=shapes.of_node,
)


def event_object(event: Event) -> str:
    """What it is about, as kubectl says it: pod/web-0."""
    kind, slash, name = event.object.partition("/")
    return kind.lower() + slash + name


def _event_row(event: Event) -> tuple[str, ...]:
    count = f" (x{event.count})" if event.count > 1 else ""
    return (age(event.at_ms) + count, event.type, event.reason, event_object(event), event.message)


EVENT: View[Event] = View(
    headers=("LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"),
    row=_event_row,
    wide_headers=("FROM",),
    wide_row=lambda event: (event.source or "<none>",),
    namespace=lambda event: event.namespace,
    key=lambda event: f"{event.at_ms}/{event.object}/{event.reason}/{event.message}",
    name=event_object,
    bare_name=event_object,
    shape=shapes.of_event,
)


def of_kind(kind: Kind) -> View[Any]:
    """The view of a kind; a plain one for kinds that this version does not know."""
    views: dict[str, View[Any]] = {
        "Deployment": DEPLOYMENT,
        "Service": SERVICE,
        "Ingress": INGRESS,
        "Endpoints": ENDPOINTS,
        "Secret": SECRET,
        "Pod": POD,
        "Node": NODE,
        "Event": EVENT,
    }
    return views.get(kind.name, PLAIN)
