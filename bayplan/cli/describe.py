"""`bay describe`: all that is known of one thing, in sections that end with its events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bayplan.cli import columns, describe_traffic, kinds, ps
from bayplan.cli.failures import CommandError
from bayplan.cli.run import say
from bayplan.cli.text import age, clean, memory, pairs, table, timestamp

if TYPE_CHECKING:
    from bayplan.client import Client, Container, Document, Event, Node, Pod, ServiceEndpoints

_WIDTH = 16


async def describe(client: Client, reference: kinds.Reference, *, namespace: str) -> None:
    """Print it."""
    if not reference.name:
        raise CommandError("name one thing: bay describe KIND NAME")
    kind = reference.kind
    if kind is kinds.POD:
        pods = await client.pods(namespace=namespace, attempts=True)
        pod = kinds.pick_pod(pods, reference.name)
        _pod(pod)
        _events(await client.events(namespace=namespace, object=f"pod/{pod.name}"))
    elif kind is kinds.NODE:
        node = kinds.pick(await client.nodes(), reference.name, kind)
        pods = await client.pods(namespace="", node=node.name)
        _node(node, pods)
        _events(await client.events(object=f"node/{node.name}"))
    elif kind is kinds.ENDPOINTS:
        services = await client.endpoints(namespace=namespace)
        _endpoints(kinds.pick(services, reference.name, kind))
    elif kind.is_applied:
        document = await client.get(kind.name, reference.name, namespace=namespace)
        pods = ()
        if kind in kinds.WORKLOADS:
            pods = await client.pods(
                namespace=namespace, workload_kind=document.kind, workload=document.name, attempts=True
            )
        _document(document, pods)
        if kind is kinds.SERVICE:
            known = await client.endpoints(namespace=document.namespace, service=document.name)
            for label, value in describe_traffic.of_service(document, known[0] if known else None):
                _line(label, value)
        # What happens to a workload happens to its pods.
        about = {f"{document.kind.lower()}/{document.name}", *(f"pod/{pod.name}" for pod in pods)}
        events = await client.events(namespace=namespace)
        _events([event for event in events if columns.event_object(event) in about], with_object=True)
    else:
        raise CommandError(f"a {kind.full_name} cannot be described")


def _line(label: str, value: object) -> None:
    say(f"{label + ':':<{_WIDTH}} {clean(str(value))}".rstrip())


def _section(title: str, lines: Sequence[str]) -> None:
    if not lines:
        say(f"{title + ':':<{_WIDTH}} <none>")
        return
    say(f"{title}:")
    for line in lines:
        say(f"  {line}")


def _pod(pod: Pod) -> None:
    _line("Name", pod.name)
    _line("Namespace", pod.namespace)
    _line("UID", pod.uid)
    _line("Workload", kinds.display(pod.workload_kind, pod.workload))
    _line("Slot", f"{pod.slot}{'' if pod.current else ' (an earlier attempt)'}")
    _line("Revision", pod.revision)
    _line("Node", pod.node or "<none>")
    _line("Address", pod.address or "<none>")
    _line("Labels", pairs(pod.labels))
    _line("Status", pod.status)
    _line("Ready", pod.ready)
    if why := ps.why(pod):
        _line("Why", why)
    if pod.message and pod.message != pod.why:
        _line("Message", pod.message)
    _line("Created", _time(pod.created_ms))
    if pod.started_ms:
        _line("Started", _time(pod.started_ms))
    if pod.ended_ms:
        _line("Ended", _time(pod.ended_ms))
    say("Containers:")
    for container in pod.containers:
        _container(container)
    if not pod.containers:
        for wanted in (pod.template.get("spec") or {}).get("containers") or ():
            say(
                f"  {clean(str(wanted.get('name', '')))}: image {clean(str(wanted.get('image', '')))}, not there yet"
            )


def _container(container: Container) -> None:
    say(f"  {clean(container.name)}:")
    for label, value in (
        ("Image", container.image),
        ("Digest", container.image_digest),
        ("Container ID", container.container_id),
        ("State", "Running" if container.running else "Not running"),
        ("Ready", container.ready),
        ("Why", ": ".join(filter(None, (container.reason, container.message)))),
        ("Started", _time(container.started_ms)),
        ("Restarts", container.restarts),
    ):
        if label == "Why" and not value:
            continue
        say(f"    {label + ':':<14} {clean(str(value))}".rstrip())
    end = container.last_exit
    if end is None:
        return
    message = f": {end.message}" if end.message else ""
    say(f"    {'Last exit:':<14} {clean(f'{end.code} ({end.reason}){message}')}, {_time(end.finished_ms)}")
    if end.last_log_lines:
        say("    Last lines:")
        for line in end.last_log_lines.splitlines():
            say(f"      | {clean(line)}")


def _node(node: Node, pods: Sequence[Pod]) -> None:
    _line("Name", node.name)
    _line("Status", columns.node_status(node))
    if node.why:
        _line("Why", node.why)
    if not node.engine_ok or node.condition:
        _line("Engine says", node.condition or "not well")
    if node.disk_pressure:
        _line("Disk", "nearly full: takes no new pods")
    _line("Draining", node.drain)
    _line("Labels", pairs(node.labels))
    _line(
        "Taints",
        ", ".join(f"{taint.key}={taint.value}:{taint.effect}".replace("=:", ":") for taint in node.taints)
        or "<none>",
    )
    _line("Address", node.address)
    _line("Agent", node.version)
    _line("Engine", node.engine)
    _line("Boot ID", node.boot_id)
    _line("Joined", _time(node.joined_ms))
    _line("Last heard", f"{age(node.last_heard_ms)} ago" if node.last_heard_ms else "<unknown>")
    if node.via:
        _line("Relayed by", node.via)
    rows = [
        (
            "capacity",
            f"{node.capacity.cpu_millis}m",
            memory(node.capacity.memory_bytes),
            str(node.capacity.pods),
        ),
        ("requested", f"{node.reserved.cpu_millis}m", memory(node.reserved.memory_bytes), str(node.pods)),
    ]
    if node.used is not None:
        rows.append(("used", f"{node.used.cpu_millis}m", memory(node.used.memory_bytes), ""))
    _section("Resources", table(("", "CPU", "MEMORY", "PODS"), rows))
    view = columns.POD
    _section(
        "Pods",
        table(("NAMESPACE", *view.headers), [(pod.namespace, *view.row(pod)) for pod in pods])
        if pods
        else [],
    )


def _document(document: Document, pods: Sequence[Pod]) -> None:
    body: Any = document.body
    metadata = body.get("metadata") or {}
    spec = body.get("spec") or {}
    _line("Name", document.name)
    _line("Namespace", document.namespace)
    _line("Kind", document.kind)
    _line("UID", document.uid)
    _line("Labels", pairs(metadata.get("labels") or {}))
    _line("Annotations", pairs(metadata.get("annotations") or {}))
    _line("Created", _time(document.created_ms))
    _line("Generation", document.generation)
    if document.deleting:
        _line("Deleting", "its pods are being stopped")
    if document.kind == "Deployment":
        status = document.status
        ready = status.get("readyReplicas", 0) if status else "?"
        updated = status.get("updatedReplicas", 0) if status else "?"
        _line("Selector", pairs((spec.get("selector") or {}).get("matchLabels") or {}))
        _line("Replicas", f"{spec.get('replicas', 1)} desired, {updated} updated, {ready} ready")
        containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or ()
        _section(
            "Containers",
            [clean(f"{box.get('name', '')}: image {box.get('image', '')}") for box in containers],
        )
        for condition in status.get("conditions") or ():
            text = (
                f"{condition.get('status', '')} {condition.get('reason', '')} {condition.get('message', '')}"
            )
            _line(str(condition.get("type", "")), text.strip())
        _section("Pods", ps.lines(pods) if pods else [])
    elif document.kind == "Ingress":
        for label, value in describe_traffic.of_ingress(document):
            _line(label, value)
        _section("TLS", [clean(line) for line in describe_traffic.tls_of(document)])
        _section("Rules", describe_traffic.rules_of(document))
    elif document.kind == "Secret":
        _line("Type", body.get("type", "Opaque"))
        _line("Immutable", body.get("immutable", False))
        # The keys alone, whoever asks.
        _section("Data", [clean(str(key)) for key in body.get("data") or ()])


def _endpoints(service: ServiceEndpoints) -> None:
    _line("Name", service.name)
    _line("Namespace", service.namespace)
    _line("Created", _time(service.created_ms))
    if service.why:
        _line("Why", service.why)
    _section("Endpoints", describe_traffic.of_endpoints(service))


def _events(events: Sequence[Event], *, with_object: bool = False) -> None:
    headers = ["TYPE", "REASON", "AGE", "FROM", "MESSAGE"]
    rows = [[event.type, event.reason, age(event.at_ms), event.source, event.message] for event in events]
    if with_object:
        headers.insert(2, "OBJECT")
        for row, event in zip(rows, events, strict=True):
            row.insert(2, columns.event_object(event))
    _section("Events", table(headers, rows) if rows else [])


def _time(at_ms: int) -> str:
    return f"{timestamp(at_ms)} ({age(at_ms)} ago)" if at_ms else "<none>"
