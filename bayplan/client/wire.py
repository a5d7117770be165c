"""From the wire's generated messages to the client's types, and back: the border where protobuf ends."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast, get_args

from bayplan.client.types import (
    Applied,
    Container,
    Document,
    Endpoint,
    Event,
    Exit,
    Manager,
    Mark,
    NetworkCheck,
    NetworkPath,
    Node,
    Pod,
    ServiceEndpoints,
    ServicePort,
    ServiceTop,
)
from bayplan.model.nodes import Amounts, Taint, TaintEffect
from bayplan.v1 import agent_link_pb2, control_pb2

_WANTS = {1: "Run", 2: "Handover", 3: "Stop", 4: "Lost"}


def from_mark(message: control_pb2.Mark) -> Mark:
    """The wire's message as a value."""
    return Mark(
        store=message.store,
        revision=message.revision,
        epoch=message.epoch,
        complete=message.complete,
        notice=message.notice,
    )


def to_mark(mark: Mark) -> control_pb2.Mark:
    """The value as the wire's message."""
    return control_pb2.Mark(store=mark.store, revision=mark.revision, epoch=mark.epoch)


def _from_json(text: str) -> dict[str, Any]:
    """A JSON object; anything else reads as empty, so that one odd document harms only itself."""
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def from_document(message: control_pb2.Document) -> Document:
    """The wire's message as a value."""
    return Document(
        kind=message.kind,
        namespace=message.namespace,
        name=message.name,
        body=_from_json(message.json),
        status=_from_json(message.status_json),
        version=message.version,
        uid=message.uid,
        created_ms=message.created_ms,
        generation=message.generation,
        deleting=message.deleting,
    )


def from_documents(messages: Iterable[control_pb2.Document]) -> tuple[Document, ...]:
    """The wire's message as a value."""
    return tuple(from_document(message) for message in messages)


def from_applied(message: control_pb2.Applied) -> Applied:
    """The wire's message as a value."""
    return Applied(
        kind=message.kind,
        namespace=message.namespace,
        name=message.name,
        result=message.result,
        version=message.version,
        generation=message.generation,
        warnings=tuple(message.warnings),
    )


def _from_exit(message: agent_link_pb2.Exit) -> Exit:
    return Exit(
        code=message.code,
        reason=message.reason,
        message=message.message,
        started_ms=message.started_ms,
        finished_ms=message.finished_ms,
        last_log_lines=message.last_log_lines,
    )


def _from_container(message: agent_link_pb2.ContainerStatus) -> Container:
    return Container(
        name=message.name,
        image=message.image,
        image_digest=message.image_digest,
        container_id=message.container_id,
        restarts=message.restarts,
        running=message.running,
        started_ms=message.started_ms,
        ready=message.ready,
        reason=message.reason,
        message=message.message,
        last_exit=_from_exit(message.last_exit) if message.HasField("last_exit") else None,
    )


def from_pod(message: control_pb2.Pod) -> Pod:
    """The wire's message as a value."""
    detail = message.detail
    usage = None
    if message.HasField("usage"):
        usage = Amounts(cpu_millis=message.usage.cpu_millis, memory_bytes=message.usage.memory_bytes)
    return Pod(
        uid=message.uid,
        name=message.name,
        namespace=message.namespace,
        workload_kind=message.workload_kind,
        workload=message.workload,
        workload_uid=message.workload_uid,
        slot=message.slot,
        incarnation=message.incarnation,
        revision=message.revision,
        want=_WANTS.get(message.want, ""),
        node=message.node,
        status=message.status or "Unknown",
        ready=message.ready,
        why=message.why,
        created_ms=message.created_ms,
        ended_ms=message.ended_ms,
        labels=dict(message.labels),
        current=message.current,
        address=detail.address,
        reason=detail.reason,
        message=detail.message,
        started_ms=detail.started_ms,
        containers=tuple(_from_container(container) for container in detail.containers),
        usage=usage,
        template=_from_json(message.template_json),
    )


def from_pods(messages: Iterable[control_pb2.Pod]) -> tuple[Pod, ...]:
    """The wire's message as a value."""
    return tuple(from_pod(message) for message in messages)


def from_service_endpoints(message: control_pb2.ServiceEndpoints) -> ServiceEndpoints:
    """The wire's message as a value."""
    return ServiceEndpoints(
        namespace=message.namespace,
        name=message.name,
        ports=tuple(
            ServicePort(
                name=port.name,
                port=port.port,
                protocol="UDP" if port.udp else "TCP",
                is_http=port.http,
                node_port=port.node_port,
            )
            for port in message.ports
        ),
        endpoints=tuple(
            Endpoint(
                id=each.id,
                node=each.node,
                address=each.address,
                name=each.name,
                hostname=each.hostname,
                ports=tuple(each.ports),
                ready=each.ready,
                weight=each.weight,
            )
            for each in message.endpoints
        ),
        created_ms=message.created_ms,
        why=message.why,
    )


def _from_amounts(message: agent_link_pb2.Amounts) -> Amounts:
    return Amounts(cpu_millis=message.cpu_millis, memory_bytes=message.memory_bytes, pods=message.pods)


def _from_taint(message: control_pb2.Taint) -> Taint:
    effect = message.effect if message.effect in get_args(TaintEffect) else "NoSchedule"
    return Taint(key=message.key, value=message.value, effect=cast("TaintEffect", effect))


def from_node(message: control_pb2.Node) -> Node:
    """The wire's message as a value."""
    has_condition = message.HasField("condition")
    return Node(
        name=message.name,
        status=message.status or "Unknown",
        why=message.why,
        unschedulable=message.unschedulable,
        drain=message.drain,
        labels=dict(message.labels),
        taints=tuple(_from_taint(taint) for taint in message.taints),
        address=message.address,
        version=message.version,
        engine=message.engine,
        capacity=_from_amounts(message.capacity),
        reserved=_from_amounts(message.reserved),
        used=_from_amounts(message.used) if message.HasField("used") else None,
        pods=message.pods,
        joined_ms=message.joined_ms,
        last_heard_ms=message.last_heard_ms,
        boot_id=message.boot_id,
        engine_ok=message.condition.engine_ok if has_condition else True,
        disk_pressure=message.condition.disk_pressure,
        condition=message.condition.message,
        via=message.via,
    )


def from_event(message: control_pb2.Event) -> Event:
    """The wire's message as a value."""
    return Event(
        at_ms=message.at_ms,
        type=message.type,
        reason=message.reason,
        namespace=message.namespace,
        object=message.object,
        message=message.message,
        count=message.count,
        # `from` is a keyword of Python's.
        source=str(getattr(message, "from")),
    )


def from_service_top(message: control_pb2.ServiceTop) -> ServiceTop:
    """The wire's message as a value."""
    return ServiceTop(
        namespace=message.namespace,
        name=message.name,
        port=message.port,
        requests_per_s=message.requests_per_s,
        errors_per_s=message.errors_per_s,
        p50_ms=message.p50_ms if message.p50_ms >= 0 else None,
        p99_ms=message.p99_ms if message.p99_ms >= 0 else None,
        connections=message.connections,
        endpoints=message.endpoints,
    )


def from_network_check(message: control_pb2.CheckNetworkReply) -> NetworkCheck:
    """The wire's message as a value."""
    paths = tuple(
        # `from` is a keyword of Python's.
        NetworkPath(
            source=str(getattr(path, "from")), target=path.to, what=path.what, ok=path.ok, detail=path.detail
        )
        for path in message.paths
    )
    return NetworkCheck(
        paths=paths, silent=tuple(message.silent), healthy=message.healthy, failed=message.failed
    )


def from_manager(message: control_pb2.Manager) -> Manager:
    """The wire's message as a value."""
    return Manager(
        id=message.id,
        address=message.address,
        leader=message.leader,
        version=message.version,
        state=message.state,
        alarms=tuple(message.alarms),
    )
