"""The client: one method a call, frozen values in and out, errors named by what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc.aio

from bayplan.client import progress, wire
from bayplan.client.exec import ExecSession
from bayplan.client.managers import ATTEMPT_S, Managers, RepeatedNotFoundError, StreamBrokenError
from bayplan.client.types import (
    Adopted,
    Applied,
    Document,
    DocumentsChange,
    Event,
    Explanation,
    Manager,
    Mark,
    Node,
    Output,
    Pod,
    PodsChange,
    Scaled,
    Version,
)
from bayplan.model.nodes import Taint
from bayplan.transport.port import Transport
from bayplan.v1 import agent_link_pb2 as agent
from bayplan.v1 import control_pb2 as control

if TYPE_CHECKING:
    from bayplan.v1.control_pb2_grpc import ControlAsyncStub  # exists in the .pyi alone

DEFAULT_MANAGER = "127.0.0.1:7400"

# Each document is a transaction of its own, and a slow etcd takes up to 800 ms for one.
_APPLY_EXTRA_S_PER_DOCUMENT = 0.8

# Before a watch is opened again, so that a manager that ends each at once is not stormed.
_REOPEN_PAUSE_S = 0.1

_Reply = TypeVar("_Reply")


class Client:
    """Speaks to a cluster through any of its managers.

    Args:
        managers: addresses, "host:port". One that answers is enough; more let it go on when one dies.
        transport: how to reach them; None: gRPC.
        timeout_s: how long a call may try, all managers and repetitions together.

    Every method may raise UnavailableError, AccessDeniedError and ManagerFailedError.
    `mark` tells how recent the last answer was, and whether it was complete.
    """

    def __init__(
        self,
        managers: Sequence[str] = (DEFAULT_MANAGER,),
        *,
        transport: Transport | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        if transport is None:
            from bayplan.transport.grpc import GrpcTransport

            transport = GrpcTransport()
        self._managers = Managers(managers, transport, timeout_s=timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._managers.aclose()

    @property
    def mark(self) -> Mark:
        return self._managers.mark

    # Documents

    async def apply(
        self, documents: Iterable[Mapping[str, Any]], *, dry_run: bool = False, expected_version: int = 0
    ) -> tuple[Applied, ...]:
        """Create or change documents, in order, each in a transaction of its own.

        Args:
            documents: in Kubernetes' shape. Without a namespace they go to "default".
            dry_run: check them only.
            expected_version: with one document: the version that it must still have; -1: it must be new;
                0: whatever is there.

        Raises:
            InvalidDocumentError: nothing was applied.
            ConflictError: it has another version.
        """
        texts = [json.dumps(document) for document in documents]
        reply = await self._managers.call(
            lambda stub: stub.Apply,
            control.ApplyRequest(documents=texts, dry_run=dry_run, expected_version=expected_version),
            may_repeat=dry_run or not expected_version,
            extra_s=_APPLY_EXTRA_S_PER_DOCUMENT * len(texts),
        )
        return tuple(wire.from_applied(applied) for applied in reply.applied)

    async def get(self, kind: str, name: str, *, namespace: str = "default") -> Document:
        """One document, by its name or a prefix of its name or uid that fits no other.

        Raises: NotFoundError.
        """
        request = control.GetRequest(kind=kind, namespace=namespace, name=name)
        reply = await self._ask(lambda stub: stub.Get, request)
        return wire.from_document(reply.document)

    async def list(
        self, kind: str = "", *, namespace: str = "", selector: Mapping[str, str] | None = None
    ) -> tuple[Document, ...]:
        """Documents of a kind ("": of each) in a namespace ("": in each) with these labels."""
        request = control.ListRequest(kind=kind, namespace=namespace, selector=selector or {})
        reply = await self._ask(lambda stub: stub.List, request)
        return wire.from_documents(reply.documents)

    async def watch(
        self, kind: str = "", *, namespace: str = "", selector: Mapping[str, str] | None = None
    ) -> AsyncGenerator[DocumentsChange, None]:
        """What there is, then each change. After a break it begins anew, with `initial` set."""
        request = control.ListRequest(kind=kind, namespace=namespace, selector=selector or {})
        stream = self._watch(lambda stub: stub.Watch, request, first_within_s=ATTEMPT_S)
        async with aclosing(stream):
            async for message in stream:
                yield DocumentsChange(
                    mark=wire.from_mark(message.mark),
                    initial=message.initial,
                    documents=wire.from_documents(message.documents),
                    deleted=wire.from_documents(message.deleted),
                )

    async def delete(
        self, kind: str, name: str, *, namespace: str = "default", expected_version: int = 0
    ) -> str:
        """Begin to delete a document and, with it, its pods; returns its uid, if known. It is gone once `get` says so.

        Raises: NotFoundError; ConflictError: it has another version.
        """
        request = control.DeleteRequest(
            kind=kind, namespace=namespace, name=name, expected_version=expected_version
        )
        try:
            reply = await self._managers.call(
                lambda stub: stub.Delete, request, may_repeat=not expected_version
            )
        except RepeatedNotFoundError:
            return ""  # The first attempt did it, its answer was lost.
        return reply.uid

    async def scale(
        self,
        kind: str,
        name: str,
        replicas: int,
        *,
        namespace: str = "default",
        expected_replicas: int | None = None,
    ) -> Scaled:
        """Set how many pods a workload has.

        Raises: NotFoundError; ConflictError: it has not `expected_replicas`.
        """
        request = control.ScaleRequest(
            kind=kind,
            namespace=namespace,
            name=name,
            replicas=replicas,
            expected_replicas=expected_replicas,
        )
        reply = await self._managers.call(
            lambda stub: stub.Scale, request, may_repeat=expected_replicas is None
        )
        return Scaled(before=reply.before, generation=reply.generation)

    async def wait_ready(
        self, kind: str, name: str, *, namespace: str = "default", timeout_s: float = 300.0
    ) -> None:
        """Wait until a workload runs as it was applied, with all of its pods ready.

        Raises:
            NotReadyError: its pods keep failing, or the time is over. The text says which and why.
            NotFoundError: it is not there, or was deleted meanwhile.
        """
        await progress.wait_ready(self, progress.Target(kind, namespace, name), timeout_s=timeout_s)

    # Pods

    async def pods(
        self,
        *,
        namespace: str = "default",
        workload_kind: str = "",
        workload: str = "",
        name: str = "",
        node: str = "",
        selector: Mapping[str, str] | None = None,
        attempts: bool = False,
    ) -> tuple[Pod, ...]:
        """Pods that fit everything given; `attempts`: with earlier attempts of their slots.

        `namespace` "": in each. `name` may be a prefix that fits no other pod.
        """
        request = _pods_request(
            namespace=namespace,
            workload_kind=workload_kind,
            workload=workload,
            name=name,
            node=node,
            selector=selector,
            attempts=attempts,
        )
        reply = await self._ask(lambda stub: stub.ListPods, request)
        return wire.from_pods(reply.pods)

    async def watch_pods(
        self,
        *,
        namespace: str = "default",
        workload_kind: str = "",
        workload: str = "",
        name: str = "",
        node: str = "",
        selector: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[PodsChange, None]:
        """What there is, then each change. After a break it begins anew, with `initial` set."""
        request = _pods_request(
            namespace=namespace,
            workload_kind=workload_kind,
            workload=workload,
            name=name,
            node=node,
            selector=selector,
        )
        stream = self._watch(lambda stub: stub.WatchPods, request, first_within_s=ATTEMPT_S)
        async with aclosing(stream):
            async for message in stream:
                yield PodsChange(
                    mark=wire.from_mark(message.mark),
                    initial=message.initial,
                    pods=wire.from_pods(message.pods),
                    deleted=tuple(message.deleted),
                )

    async def why(self, pod: str, *, namespace: str = "default") -> Explanation:
        """Why a pod is here, pending, or replaced. Raises: NotFoundError."""
        request = control.WhyRequest(namespace=namespace, pod=pod)
        reply = await self._ask(lambda stub: stub.Why, request)
        return Explanation(
            pod=wire.from_pod(reply.pod),
            summary=reply.summary,
            decisions=tuple(wire.from_event(event) for event in reply.decisions),
        )

    async def logs(
        self,
        pod: str = "",
        *,
        namespace: str = "default",
        node: str = "",
        container: str = "",
        follow: bool = False,
        previous: bool = False,
        tail: int = -1,
        since_ms: int = 0,
        timestamps: bool = False,
    ) -> AsyncGenerator[Output, None]:
        """What a pod has written; without a pod but with a node, its agent's own log.

        Args:
            pod: its name, or a prefix that fits no other.
            namespace: of the pod.
            node: instead of a pod.
            container: of a pod that has several.
            follow: go on until the container ends.
            previous: of the container before the last restart.
            tail: that many lines from the end; -1: all.
            since_ms: from this time on.
            timestamps: each line begins with its time.

        Raises: NotFoundError.
        """
        options = agent.LogOptions(
            container=container,
            follow=follow,
            previous=previous,
            tail=tail,
            since_ms=since_ms,
            timestamps=timestamps,
        )
        request = control.LogsRequest(
            namespace="" if node else namespace, pod=pod, node=node, options=options
        )
        stream = self._managers.stream(lambda stub: stub.Logs, request, first_within_s=None)
        async with aclosing(stream):
            async for chunk in stream:
                if chunk.stdout:
                    yield Output(data=chunk.stdout)
                if chunk.stderr:
                    yield Output(data=chunk.stderr, is_stderr=True)

    def exec(
        self,
        pod: str,
        command: Sequence[str],
        *,
        namespace: str = "default",
        container: str = "",
        tty: bool = False,
        stdin: bool = False,
        rows: int = 0,
        columns: int = 0,
    ) -> ExecSession:
        """Run a command in a pod; see ExecSession. It is never repeated on another manager."""
        options = agent.ExecOptions(
            container=container, command=command, tty=tty, stdin=stdin, rows=rows, columns=columns
        )
        start = control.ExecStart(namespace=namespace, pod=pod, options=options, seen=self._managers.seen())
        call, address = self._managers.open(lambda stub: stub.Exec)
        return ExecSession(call, start, address)

    # Nodes

    async def nodes(self, name: str = "") -> tuple[Node, ...]:
        """Every node, or the one of this name."""
        reply = await self._ask(lambda stub: stub.ListNodes, control.ListNodesRequest(name=name))
        return tuple(wire.from_node(node) for node in reply.nodes)

    async def update_node(
        self,
        name: str,
        *,
        unschedulable: bool | None = None,
        drain: bool | None = None,
        set_labels: Mapping[str, str] | None = None,
        remove_labels: Sequence[str] = (),
        set_taints: Sequence[Taint] = (),
        remove_taints: Sequence[str] = (),
        lost: bool = False,
        remove: bool = False,
    ) -> bool:
        """Change what is wanted of a node; whether that changed anything.

        Args:
            name: of the node.
            unschedulable: takes no new pods.
            drain: its pods move elsewhere.
            set_labels: added or replaced.
            remove_labels: by their keys.
            set_taints: added or replaced.
            remove_taints: "key", or "key:Effect" for that effect alone.
            lost: you swear that this host is dead, so that pods with data on it may run elsewhere.
            remove: forget the node; only once it is down and empty, or lost.

        Raises: NotFoundError, ForbiddenStateError.
        """
        removed = (taint.partition(":") for taint in remove_taints)
        request = control.UpdateNodeRequest(
            name=name,
            unschedulable=unschedulable,
            drain=drain,
            set_labels=set_labels or {},
            remove_labels=remove_labels,
            set_taints=[
                control.Taint(key=taint.key, value=taint.value, effect=taint.effect) for taint in set_taints
            ],
            remove_taints=[control.Taint(key=key, effect=effect) for key, _, effect in removed],
            lost=lost,
            remove=remove,
        )
        try:
            reply = await self._managers.call(lambda stub: stub.UpdateNode, request, may_repeat=True)
        except RepeatedNotFoundError:
            if remove:
                return True  # The first attempt did it, its answer was lost.
            raise
        return reply.changed

    # Events

    async def events(self, *, namespace: str = "", object: str = "", since_ms: int = 0) -> tuple[Event, ...]:  # noqa: A002  # Kubernetes' word
        """What happened, oldest first. `object`: kind/name, or a pod's name."""
        request = control.ListEventsRequest(namespace=namespace, object=object, since_ms=since_ms)
        reply = await self._ask(lambda stub: stub.ListEvents, request)
        return tuple(wire.from_event(event) for event in reply.events)

    async def watch_events(
        self,
        *,
        namespace: str = "",
        object: str = "",  # noqa: A002  # Kubernetes' word
        since_ms: int = 0,
    ) -> AsyncGenerator[Event, None]:
        """Events as they happen, from `since_ms` on. After a break some may come twice."""
        request = control.ListEventsRequest(namespace=namespace, object=object, since_ms=since_ms)
        stream = self._watch(lambda stub: stub.WatchEvents, request, first_within_s=None)
        async with aclosing(stream):
            async for message in stream:
                request.since_ms = max(request.since_ms, message.at_ms)
                yield wire.from_event(message)

    # The control plane

    async def managers(self) -> tuple[Manager, ...]:
        reply = await self._ask(lambda stub: stub.ListManagers, control.ListManagersRequest())
        return tuple(wire.from_manager(manager) for manager in reply.managers)

    async def version(self) -> Version:
        """Of the manager that answers."""
        reply = await self._ask(lambda stub: stub.Version, control.VersionRequest())
        return Version(
            version=reply.version,
            manager=reply.manager,
            cluster=reply.cluster,
            etcd_version=reply.etcd_version,
        )

    async def adopt(self, *, dry_run: bool = False) -> Adopted:
        """The store is from the past: take over what runs into it. Raises: ForbiddenStateError."""
        reply = await self._ask(lambda stub: stub.Adopt, control.AdoptRequest(dry_run=dry_run))
        return Adopted(pods=reply.pods, documents=tuple(reply.documents))

    async def accept_restore(self) -> None:
        """The store is from the past, and right: what it does not know is stopped. Raises: ForbiddenStateError."""
        await self._ask(lambda stub: stub.AcceptRestore, control.AcceptRestoreRequest())

    async def _ask(
        self,
        method: Callable[[ControlAsyncStub], Callable[..., grpc.aio.UnaryUnaryCall[Any, _Reply]]],
        request: Any,
    ) -> _Reply:
        return await self._managers.call(method, request, may_repeat=True)

    async def _watch(
        self,
        method: Callable[[ControlAsyncStub], Callable[..., grpc.aio.UnaryStreamCall[Any, _Reply]]],
        request: Any,
        *,
        first_within_s: float | None,
    ) -> AsyncGenerator[_Reply, None]:
        """A stream that is opened again whenever it ends; raises once nobody serves it any more."""
        while True:
            async with aclosing(
                self._managers.stream(method, request, first_within_s=first_within_s)
            ) as stream:
                try:
                    async for message in stream:
                        yield message
                except StreamBrokenError:
                    pass  # Usually the leader changed.
            await asyncio.sleep(_REOPEN_PAUSE_S)


def _pods_request(
    *,
    namespace: str,
    workload_kind: str,
    workload: str,
    name: str,
    node: str,
    selector: Mapping[str, str] | None,
    attempts: bool = False,
) -> control.ListPodsRequest:
    return control.ListPodsRequest(
        namespace=namespace,
        workload_kind=workload_kind,
        workload=workload,
        name=name,
        node=node,
        selector=selector or {},
        attempts=attempts,
    )
