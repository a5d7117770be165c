"""What `-o json` and `-o yaml` print: everything in Kubernetes' shape, stable for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bayplan.cli.text import timestamp

if TYPE_CHECKING:
    from bayplan.client import (
        Amounts,
        Container,
        Document,
        Endpoint,
        Event,
        Exit,
        Node,
        Pod,
        ServiceEndpoints,
    )

_PHASES = {
    "Succeeded": "Succeeded",
    "Failed": "Failed",
    "Stopped": "Succeeded",
    "Lost": "Unknown",
    "Unknown": "Unknown",
}
_STARTED = {"Running", "CrashLoop", "Stopping"}


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, "", {}, [])}


def of_document(document: Document) -> dict[str, Any]:
    """As it was applied, with what the cluster added to its metadata, and its status."""
    body = dict(document.body)
    metadata = dict(body.pop("metadata", None) or {})
    metadata |= _without_empty(
        {
            "name": document.name,
            "namespace": document.namespace,
            "uid": document.uid,
            "resourceVersion": str(document.version) if document.version else "",
            "generation": document.generation or None,
            "creationTimestamp": timestamp(document.created_ms),
        }
    )
    head = {"apiVersion": body.pop("apiVersion", "v1"), "kind": body.pop("kind", document.kind)}
    status = {"status": dict(document.status)} if document.status else {}
    return {**head, "metadata": metadata, **body, **status}


def of_pod(pod: Pod) -> dict[str, Any]:
    """A v1 Pod: metadata, spec (its template, and its node), status."""
    template_metadata = pod.template.get("metadata") or {}
    labels = {**(template_metadata.get("labels") or {}), **pod.labels}
    annotations = {
        **(template_metadata.get("annotations") or {}),
        "bayplan.io/slot": str(pod.slot),
        "bayplan.io/incarnation": str(pod.incarnation),
        "bayplan.io/revision": pod.revision,
    }
    owner = {"kind": pod.workload_kind, "name": pod.workload, "uid": pod.workload_uid, "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _without_empty(
            {
                "name": pod.name,
                "namespace": pod.namespace,
                "uid": pod.uid,
                "labels": labels,
                "annotations": annotations,
                "creationTimestamp": timestamp(pod.created_ms),
                "ownerReferences": [owner] if pod.workload else [],
            }
        ),
        "spec": {**(pod.template.get("spec") or {}), **({"nodeName": pod.node} if pod.node else {})},
        "status": _without_empty(
            {
                "phase": _PHASES.get(pod.status, "Running" if pod.status in _STARTED else "Pending"),
                "state": pod.status,
                "reason": pod.reason,
                "message": pod.message or pod.why,
                "podIP": pod.address,
                "startTime": timestamp(pod.started_ms),
                "conditions": [{"type": "Ready", "status": "True" if pod.ready else "False"}],
                "containerStatuses": [
                    _of_container(container, ready=pod.ready or container.ready)
                    for container in pod.containers
                ],
            }
        ),
    }


def _of_container(container: Container, *, ready: bool) -> dict[str, Any]:
    state: dict[str, Any] = {
        "waiting": _without_empty({"reason": container.reason, "message": container.message})
    }
    last: dict[str, Any] = {}
    if container.running:
        state = {"running": {"startedAt": timestamp(container.started_ms)}}
    if container.last_exit is not None:
        ended = {"terminated": _of_exit(container.last_exit)}
        if container.running:
            last = ended
        else:
            state = ended
    return _without_empty(
        {
            "name": container.name,
            "image": container.image,
            "imageID": container.image_digest,
            "containerID": container.container_id,
        }
    ) | {
        "ready": ready and container.running,
        "restartCount": container.restarts,
        "state": state,
        "lastState": last,
    }


def _of_exit(end: Exit) -> dict[str, Any]:
    return {"exitCode": end.code} | _without_empty(
        {
            "reason": end.reason,
            "message": end.message,
            "startedAt": timestamp(end.started_ms),
            "finishedAt": timestamp(end.finished_ms),
        }
    )


def _of_amounts(amounts: Amounts) -> dict[str, str]:
    return {
        "cpu": f"{amounts.cpu_millis}m",
        "memory": str(amounts.memory_bytes),
        "pods": str(amounts.pods),
    }


def of_node(node: Node) -> dict[str, Any]:
    """A v1 Node."""
    ready = {"type": "Ready", "status": "True" if node.status == "Ready" else "False", "reason": node.status}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": _without_empty(
            {"name": node.name, "labels": dict(node.labels), "creationTimestamp": timestamp(node.joined_ms)}
        ),
        "spec": _without_empty(
            {
                "unschedulable": node.unschedulable or None,
                "drain": node.drain or None,
                "taints": [
                    _without_empty({"key": taint.key, "value": taint.value, "effect": taint.effect})
                    for taint in node.taints
                ],
            }
        ),
        "status": _without_empty(
            {
                "state": node.status,
                "message": node.why or node.condition,
                "addresses": [{"type": "InternalIP", "address": node.address}] if node.address else [],
                "capacity": _of_amounts(node.capacity),
                "reserved": _of_amounts(node.reserved),
                "used": _of_amounts(node.used) if node.used else None,
                "conditions": [_without_empty(ready | {"message": node.why})],
                "nodeInfo": _without_empty(
                    {"agentVersion": node.version, "engine": node.engine, "bootID": node.boot_id}
                ),
                "lastHeard": timestamp(node.last_heard_ms),
            }
        ),
    }


def of_event(event: Event) -> dict[str, Any]:
    """A v1 Event."""
    kind, _, name = event.object.partition("/")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": _without_empty({"namespace": event.namespace}),
        "type": event.type,
        "reason": event.reason,
        "message": event.message,
        "count": event.count,
        "lastTimestamp": timestamp(event.at_ms),
        "involvedObject": _without_empty({"kind": kind, "name": name, "namespace": event.namespace}),
        "reportingComponent": event.source,
    }


def of_endpoints(service: ServiceEndpoints) -> dict[str, Any]:
    """A v1 Endpoints: a subset for each set of ports that addresses have in common."""
    subsets: dict[tuple[int, ...], list[Endpoint]] = {}
    for endpoint in service.endpoints:
        subsets.setdefault(endpoint.ports, []).append(endpoint)
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": _without_empty(
            {
                "name": service.name,
                "namespace": service.namespace,
                "creationTimestamp": timestamp(service.created_ms),
            }
        ),
        "subsets": [
            _without_empty(
                {
                    "addresses": [_of_address(each, service.namespace) for each in endpoints if each.ready],
                    "notReadyAddresses": [
                        _of_address(each, service.namespace) for each in endpoints if not each.ready
                    ],
                    "ports": [
                        _without_empty({"name": port.name, "port": number, "protocol": port.protocol})
                        for port, number in zip(service.ports, ports, strict=False)
                        if number
                    ],
                }
            )
            for ports, endpoints in subsets.items()
        ],
    }


def _of_address(endpoint: Endpoint, namespace: str) -> dict[str, Any]:
    pod = {"kind": "Pod", "name": endpoint.name, "namespace": namespace, "uid": endpoint.id}
    return _without_empty(
        {
            "ip": endpoint.address,
            "hostname": endpoint.hostname,
            "nodeName": endpoint.node,
            "targetRef": pod if endpoint.name else None,
        }
    )


def text_of(items: Sequence[Mapping[str, Any]], *, output: str, single: bool) -> str:
    """JSON or YAML: the item itself if one was asked for by name, else a List."""
    value: Mapping[str, Any]
    value = items[0] if single else {"apiVersion": "v1", "kind": "List", "items": list(items)}
    if output == "json":
        return json.dumps(value, indent=4)
    import yaml

    return yaml.safe_dump(value, sort_keys=False).rstrip("\n")
