"""The client: one method a call, frozen values in and out, errors named by what to do."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Self

from bayplan.client import insecure, wire
from bayplan.client.access import AccessCalls
from bayplan.client.documents import DocumentCalls
from bayplan.client.errors import ContextError
from bayplan.client.managers import Managers, RepeatedNotFoundError
from bayplan.client.pods import PodCalls
from bayplan.client.policies import PolicyCalls
from bayplan.client.registries import RegistryCalls
from bayplan.client.traffic import TrafficCalls
from bayplan.client.types import (
    Adopted,
    Event,
    Manager,
    Mark,
    Node,
    Version,
)
from bayplan.model.nodes import Taint
from bayplan.transport.addresses import MANAGER_PORT, addresses
from bayplan.transport.port import Transport
from bayplan.v1 import control_pb2 as control

if TYPE_CHECKING:
    from bayplan.client.renewal import Renewal

DEFAULT_MANAGER = f"127.0.0.1:{MANAGER_PORT}"
MANAGERS_VARIABLE = "BAYPLAN_MANAGERS"


class Client(DocumentCalls, PodCalls, TrafficCalls, PolicyCalls, RegistryCalls, AccessCalls):
    """Speaks to a cluster through any of its managers. `Client.from_context` makes it as `bay` does.

    Args:
        managers: addresses, "host:port". One that answers is enough; more let it go on when one dies.
        transport: how to reach them, and as whom. None: without encryption and identity, which is
            for loopback addresses alone, and where BAYPLAN_INSECURE_LOOPBACK allows it.
        timeout_s: how long a call may try, all managers and repetitions together.
        renewal: keeps the identity of `transport` fresh.

    Raises: ContextError without a `transport`.

    Every method may raise UnavailableError, AccessDeniedError and ManagerFailedError.
    `mark` tells how recent the last answer was, and whether it was complete.
    """

    def __init__(
        self,
        managers: Sequence[str] = (DEFAULT_MANAGER,),
        *,
        transport: Transport | None = None,
        timeout_s: float = 10.0,
        renewal: Renewal | None = None,
    ) -> None:
        if transport is None:
            transport = _insecure_transport(managers)
        super().__init__(Managers(managers, transport, timeout_s=timeout_s, renewal=renewal))

    @classmethod
    def from_context(
        cls,
        name: str | None = None,
        *,
        managers: Sequence[str] = (),
        timeout_s: float = 10.0,
        may_renew: bool = True,
    ) -> Self:
        """A client with the identity that `bay login` got.

        Args:
            name: of the context; None: BAYPLAN_CONTEXT, or the current one.
            managers: instead of the context's; without: BAYPLAN_MANAGERS, if it is set.
            timeout_s: how long a call may try.
            may_renew: get new certificates as the old ones age; False: for what must not take long.

        Raises: ContextError: nobody has logged in, there is no such context, or its files are damaged.
        """
        given = tuple(managers) or addresses(os.environ.get(MANAGERS_VARIABLE, ""))
        if insecure.is_insecure():
            return cls(given or (DEFAULT_MANAGER,), timeout_s=timeout_s)
        from bayplan.client import contexts
        from bayplan.client.renewal import Renewal
        from bayplan.transport.grpc import GrpcTransport

        file = contexts.config_file()
        context = contexts.choose(contexts.read_config(file), name)
        own = contexts.own_identity(file, context)
        asked = given or context.managers
        renewal = Renewal(file, context, own, asked) if may_renew else None
        return cls(asked, transport=GrpcTransport(own), timeout_s=timeout_s, renewal=renewal)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._managers.aclose()

    @property
    def mark(self) -> Mark:
        return self._managers.mark

    # Workloads

    async def wait_ready(
        self, kind: str, name: str, *, namespace: str = "default", timeout_s: float = 300.0
    ) -> None:
        """Wait until a workload runs as it was applied, with all of its pods ready.

        Raises:
            NotReadyError: its pods keep failing, or the time is over. The text says which and why.
            NotFoundError: it is not there, or was deleted meanwhile.
        """
        from bayplan.client import progress  # Most programs, and most of the commands of `bay`, never wait.

        await progress.wait_ready(self, progress.Target(kind, namespace, name), timeout_s=timeout_s)

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

    async def adopt(self, *, dry_run: bool = False, without: Iterable[str] = ()) -> Adopted:
        """The store is from the past: take over what runs into it.

        Raises: ForbiddenStateError, also while nodes other than `without` were not heard.
        """
        request = control.AdoptRequest(dry_run=dry_run, without=without)
        reply = await self._ask(lambda stub: stub.Adopt, request)
        return Adopted(pods=reply.pods, documents=tuple(reply.documents), unheard=tuple(reply.unheard))

    async def accept_restore(self) -> None:
        """The store is from the past, and right: what it does not know is stopped. Raises: ForbiddenStateError."""
        await self._ask(lambda stub: stub.AcceptRestore, control.AcceptRestoreRequest())


def _insecure_transport(managers: Sequence[str]) -> Transport:
    if not insecure.is_insecure():
        raise ContextError(
            "a client needs an identity: make it with `Client.from_context()`, after `bay login` or `bay init`"
        )
    insecure.check_loopback(managers)
    from bayplan.transport.grpc import GrpcTransport

    return GrpcTransport()
