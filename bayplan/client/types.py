"""What the client gives to its callers: frozen values, without the wire's generated classes.

Times are milliseconds since the Unix epoch, 0 where a thing has not happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bayplan.model.nodes import Amounts, Taint

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How recent an answer is."""

    store: str = ""
    revision: int = 0
    epoch: int = 0
    complete: bool = True  # False: no leader, or it is still learning what runs.
    notice: str = ""  # Why not complete, or an alarm that everybody should read.


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A resource as the user wrote it, and what is known of it now."""

    kind: str
    namespace: str
    name: str
    body: Mapping[str, Any]  # In Kubernetes' shape, without status.
    status: Mapping[str, Any]  # In Kubernetes' shape; empty if unknown.
    version: int = 0  # For compare-and-swap: `expected_version`.
    uid: str = ""
    created_ms: int = 0
    generation: int = 0
    deleting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentsChange:
    """One step of a watch. With `initial`, `documents` is everything there is."""

    mark: Mark
    initial: bool
    documents: tuple[Document, ...]
    deleted: tuple[Document, ...]  # Only kind, namespace and name are set.


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of one document."""

    kind: str
    namespace: str
    name: str
    result: str  # created, configured, unchanged
    version: int = 0
    generation: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """What became of a request to scale."""

    before: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """A registry that nodes have a login for."""

    registry: str  # host or host:port
    username: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryChange:
    """What became of a login."""

    registry: str  # As it is stored.
    result: str  # created, configured, unchanged


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """The end of a container."""

    code: int
    reason: str  # Completed, Error, OOMKilled, StartError
    message: str
    started_ms: int
    finished_ms: int
    last_log_lines: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container of a pod, as its agent saw it."""

    name: str
    image: str
    image_digest: str
    container_id: str
    restarts: int
    running: bool
    started_ms: int
    last_exit: Exit | None
    ready: bool = False
    reason: str = ""  # Why it does not run, or is not ready, one word.
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One incarnation of one slot of a workload."""

    uid: str
    name: str
    namespace: str
    workload_kind: str
    workload: str
    workload_uid: str
    slot: int
    incarnation: int
    revision: str
    want: str  # Run, Handover, Stop, Lost; empty while pending.
    node: str  # Empty while pending.
    # Pending, Pulling, Created, Starting, Running, Succeeded, Failed, Stopped, Stopping, Lost, Unknown, CrashLoop
    status: str
    ready: bool
    why: str  # One line: why pending, why failed, why replaced.
    created_ms: int
    ended_ms: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    current: bool = True  # False: an earlier attempt of the slot.
    address: str = ""
    reason: str = ""  # Why not running, one word: ImagePullBackOff, CrashLoopBackOff, …
    message: str = ""  # The true error text.
    started_ms: int = 0
    containers: tuple[Container, ...] = ()
    usage: Amounts | None = None  # None: not measured yet.
    template: Mapping[str, Any] = field(default_factory=dict)  # metadata and spec, in Kubernetes' shape.

    @property
    def container_names(self) -> tuple[str, ...]:
        """As its template names them, the one that is meant where none is named first."""
        spec, metadata = self.template.get("spec"), self.template.get("metadata")
        wanted = spec.get("containers") if isinstance(spec, dict) else None
        names = [str(each.get("name", "")) for each in wanted or () if isinstance(each, dict)]
        annotations = (metadata.get("annotations") if isinstance(metadata, dict) else None) or {}
        default = annotations.get(_DEFAULT_CONTAINER)
        return tuple(sorted(names, key=lambda name: name != default))

    @property
    def restarts(self) -> int:
        return sum(container.restarts for container in self.containers)

    @property
    def is_terminal(self) -> bool:
        return self.status in {"Succeeded", "Failed", "Stopped", "Lost"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PodsChange:
    """One step of a watch. With `initial`, `pods` is everything there is."""

    mark: Mark
    initial: bool
    pods: tuple[Pod, ...]
    deleted: tuple[str, ...]  # uids


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    """A port of a service."""

    name: str
    port: int
    protocol: str  # TCP, UDP
    is_http: bool
    node_port: int = 0  # 0: none.


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What answers for a service: a pod, or an address that was written by hand."""

    id: str  # Of a pod its uid.
    address: str
    ports: tuple[int, ...]  # One for each of the service's ports; 0: it has none of that name.
    ready: bool
    node: str = ""  # Empty: outside of the cluster.
    name: str = ""  # Of a pod.
    hostname: str = ""
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEndpoints:
    """A service with all that answers for it."""

    namespace: str
    name: str
    ports: tuple[ServicePort, ...]
    endpoints: tuple[Endpoint, ...]
    created_ms: int = 0
    why: str = ""  # Why there are none, or not all of them are known.


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A host that runs pods."""

    name: str
    status: str  # Ready, Suspect, AgentLost, Down, Unknown, Restarting
    why: str
    unschedulable: bool
    drain: bool
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    address: str
    version: str
    engine: str
    capacity: Amounts
    reserved: Amounts  # By pods' requests.
    used: Amounts | None  # Of the whole host; None: not measured yet.
    pods: int
    joined_ms: int
    last_heard_ms: int
    boot_id: str
    engine_ok: bool
    disk_pressure: bool
    condition: str  # Why the engine is not well, in its own words.
    via: str  # The manager that relays its stream, if any.


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, and why."""

    at_ms: int
    type: str  # Normal, Warning
    reason: str
    namespace: str
    object: str  # kind/name
    message: str
    count: int
    source: str  # The manager or node that says so.


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a pod is here, pending, or replaced."""

    pod: Pod
    summary: str  # One sentence.
    decisions: tuple[Event, ...]  # About its slot, newest last.


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTop:
    """What went through all proxies to one port of a service, lately."""

    namespace: str
    name: str
    port: int
    requests_per_s: float
    errors_per_s: float  # Answers of 5xx, and connections that no pod took.
    p50_ms: float | None  # Of a sample of the requests; None: there is none, as with plain TCP.
    p99_ms: float | None
    connections: int
    endpoints: int  # That are ready.


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPath:
    """One way that was tried from one node to another over the pods' network."""

    source: str
    target: str
    what: str  # address, name, tcp, udp, mtu
    ok: bool
    detail: str  # e.g. "0.4 ms", or what went wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCheck:
    """Every pair of nodes, every way. Where there are many, only what fails is listed, and not all of that."""

    paths: tuple[NetworkPath, ...]
    silent: tuple[str, ...]  # Nodes that did not answer in time.
    healthy: int  # Ways that work, beside those in `paths`.
    failed: int  # Ways that do not, likewise.


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager:
    """A control process."""

    id: str
    address: str
    leader: bool
    version: str
    state: str  # Leading, Suspended, Learning, Standby
    alarms: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Who answered, and which versions run."""

    version: str
    manager: str
    cluster: str
    etcd_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """What was taken over into the store, or would be."""

    pods: int
    documents: tuple[str, ...]  # kind/namespace/name
    unheard: tuple[str, ...]  # Of a dry run: nodes that would still be waited for.


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A piece of a container's or a command's output."""

    data: bytes
    is_stderr: bool = False
