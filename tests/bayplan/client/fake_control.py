"""A manager's API over plain lists, to see what clients make of its answers."""

# ruff: noqa: N802 - the methods bear the wire's names
from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import grpc.aio

from bayplan.resources.secret import hidden
from bayplan.transport.errors import Problem, problems_to_metadata
from bayplan.transport.port import Register, Transport
from bayplan.v1 import agent_link_pb2 as agent
from bayplan.v1 import control_pb2 as control
from bayplan.v1.control_pb2_grpc import ControlServicer, add_ControlServicer_to_server

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class FakeControl(ControlServicer):
    """Set what it holds, and what it should fail with; `requests` is what it was asked."""

    documents: list[control.Document] = field(default_factory=list)
    pods: list[control.Pod] = field(default_factory=list)
    nodes: list[control.Node] = field(default_factory=list)
    events: list[control.Event] = field(default_factory=list)
    services: list[control.ServiceEndpoints] = field(default_factory=list)
    logins: dict[str, tuple[str, str]] = field(default_factory=dict)  # User name and password, by registry.
    service_tops: list[control.ServiceTop] = field(default_factory=list)
    network_check: control.CheckNetworkReply = field(default_factory=control.CheckNetworkReply)
    policies: dict[str, str] = field(default_factory=dict)  # Level, by namespace.
    chunks: dict[str, list[control.LogChunk]] = field(default_factory=dict)  # By pod, or "node/<name>".
    mark: control.Mark = field(
        default_factory=lambda: control.Mark(store="s1", revision=7, epoch=3, complete=True)
    )
    failures: list[tuple[grpc.StatusCode, str]] = field(default_factory=list)  # One a call, then none.
    problems: tuple[Problem, ...] = ()
    requests: list[Any] = field(default_factory=list)
    settles: bool = True  # Deployments are ready as soon as they are applied.
    hangs: bool = False
    break_streams: int = 0  # That many watches end with `break_code` after their first message.
    break_code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    exit_code: int = 0

    async def _begin(self, request: Any, context: Context) -> None:
        self.requests.append(request)
        if self.hangs:
            await asyncio.sleep(3600)
        if self.failures:
            await context.abort(*self.failures.pop(0))

    async def Apply(self, request: control.ApplyRequest, context: Context) -> control.ApplyReply:
        await self._begin(request, context)
        if self.problems:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "the document is not valid",
                trailing_metadata=problems_to_metadata(self.problems),
            )
        reply = control.ApplyReply(mark=self.mark)
        for text in request.documents:
            body = json.loads(text)
            metadata = body["metadata"]
            name, namespace = metadata["name"], metadata.get("namespace", "default")
            old = self._find(body["kind"], namespace, name)
            result = (
                "created" if old is None else "unchanged" if json.loads(old.json) == body else "configured"
            )
            new = document(body, generation=1 if old is None else old.generation + (result == "configured"))
            if not request.dry_run:
                self.documents = [one for one in self.documents if one is not old] + [new]
                if self.settles and body["kind"] == "Deployment":
                    self.settle(new)
            reply.applied.add(
                kind=body["kind"], namespace=namespace, name=name, result=result, generation=new.generation
            )
            if request.expected_version < 0 and old is not None:
                await context.abort(
                    grpc.StatusCode.ABORTED, f"{body['kind']} {namespace}/{name} exists already"
                )
            if body["kind"] == "Secret":
                reply.applied[-1].warnings.append("pods cannot use them yet")
            if body["kind"] == "Service":
                reply.applied[-1].warnings.append("something harmless")
        return reply

    def settle(self, deployment: control.Document) -> None:
        """All pods of `deployment` run."""
        count = json.loads(deployment.json)["spec"].get("replicas", 1)
        deployment.status_json = json.dumps(
            {
                "observedGeneration": deployment.generation,
                "replicas": count,
                "updatedReplicas": count,
                "readyReplicas": count,
                "availableReplicas": count,
            }
        )
        others = [one for one in self.pods if one.workload != deployment.name]
        self.pods = others + [pod(deployment.name, slot) for slot in range(count)]

    def _find(self, kind: str, namespace: str, name: str) -> control.Document | None:
        wanted = (kind, namespace, name)
        return next((d for d in self.documents if (d.kind, d.namespace, d.name) == wanted), None)

    async def Get(self, request: control.GetRequest, context: Context) -> control.GetReply:
        await self._begin(request, context)
        found = self._find(request.kind, request.namespace, request.name)
        near = [
            one for one in self.documents if one.kind == request.kind and one.name.startswith(request.name)
        ]
        if found is None and len(near) == 1:
            found = near[0]
        if found is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f'{request.kind.lower()} "{request.name}" not found'
            )
        return control.GetReply(mark=self.mark, document=self._seen(found, request.show_secrets))

    @staticmethod
    def _seen(found: control.Document | None, show_secrets: bool) -> control.Document:  # noqa: FBT001 - the request's field
        assert found is not None
        seen = control.Document()
        seen.CopyFrom(found)
        if seen.kind == "Secret" and not show_secrets:
            seen.json = json.dumps(hidden(json.loads(seen.json)))
        return seen

    def _list(self, request: control.ListRequest) -> list[control.Document]:
        return [
            self._seen(one, request.show_secrets)
            for one in self.documents
            if request.kind in {"", one.kind} and request.namespace in {"", one.namespace}
        ]

    async def List(self, request: control.ListRequest, context: Context) -> control.ListReply:
        await self._begin(request, context)
        return control.ListReply(mark=self.mark, documents=self._list(request))

    async def Watch(
        self, request: control.ListRequest, context: Context
    ) -> AsyncIterator[control.WatchEvent]:
        await self._begin(request, context)
        yield control.WatchEvent(mark=self.mark, initial=True, documents=self._list(request))

    async def Delete(self, request: control.DeleteRequest, context: Context) -> control.DeleteReply:
        await self._begin(request, context)
        found = self._find(request.kind, request.namespace, request.name)
        if found is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f'{request.kind.lower()} "{request.name}" not found'
            )
        assert found is not None
        self.documents.remove(found)
        self.pods = [one for one in self.pods if one.workload != found.name]
        return control.DeleteReply(mark=self.mark, uid=found.uid)

    async def Scale(self, request: control.ScaleRequest, context: Context) -> control.ScaleReply:
        await self._begin(request, context)
        found = self._find(request.kind, request.namespace, request.name)
        assert found is not None
        body = json.loads(found.json)
        before = body["spec"].get("replicas", 1)
        body["spec"]["replicas"] = request.replicas
        found.json = json.dumps(body)
        found.generation += 1
        self.settle(found)
        return control.ScaleReply(mark=self.mark, before=before, generation=found.generation)

    async def UpdateNode(
        self, request: control.UpdateNodeRequest, context: Context
    ) -> control.UpdateNodeReply:
        await self._begin(request, context)
        node = next((one for one in self.nodes if one.name == request.name), None)
        if node is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f'node "{request.name}" not found')
        assert node is not None
        before = node.SerializeToString(deterministic=True)
        if request.HasField("unschedulable"):
            node.unschedulable = request.unschedulable
        if request.HasField("drain"):
            node.drain = request.drain
            if request.drain:
                self.pods = [one for one in self.pods if one.node != node.name]
        node.labels.update(request.set_labels)
        for key in request.remove_labels:
            node.labels.pop(key, None)
        return control.UpdateNodeReply(
            mark=self.mark, changed=node.SerializeToString(deterministic=True) != before
        )

    def _pods(self, request: control.ListPodsRequest) -> list[control.Pod]:
        return [
            one
            for one in self.pods
            if request.namespace in {"", one.namespace}
            and request.workload in {"", one.workload}
            and request.node in {"", one.node}
            and (one.current or request.attempts)
        ]

    async def ListPods(self, request: control.ListPodsRequest, context: Context) -> control.ListPodsReply:
        await self._begin(request, context)
        return control.ListPodsReply(mark=self.mark, pods=self._pods(request))

    async def WatchPods(
        self, request: control.ListPodsRequest, context: Context
    ) -> AsyncIterator[control.PodsEvent]:
        await self._begin(request, context)
        yield control.PodsEvent(mark=self.mark, initial=True, pods=self._pods(request))
        if self.break_streams:
            self.break_streams -= 1
            await context.abort(self.break_code, "the leader changed")
        await asyncio.sleep(3600)

    async def ListNodes(self, request: control.ListNodesRequest, context: Context) -> control.ListNodesReply:
        await self._begin(request, context)
        return control.ListNodesReply(mark=self.mark, nodes=self.nodes)

    async def ListEndpoints(
        self, request: control.ListEndpointsRequest, context: Context
    ) -> control.ListEndpointsReply:
        await self._begin(request, context)
        found = [
            one
            for one in self.services
            if request.namespace in {"", one.namespace} and request.service in {"", one.name}
        ]
        return control.ListEndpointsReply(mark=self.mark, services=found)

    async def ListEvents(
        self, request: control.ListEventsRequest, context: Context
    ) -> control.ListEventsReply:
        await self._begin(request, context)
        return control.ListEventsReply(mark=self.mark, events=self.events)

    async def WatchEvents(
        self, request: control.ListEventsRequest, context: Context
    ) -> AsyncIterator[control.Event]:
        await self._begin(request, context)
        for event in self.events:
            yield event
        await asyncio.sleep(3600)

    async def Why(self, request: control.WhyRequest, context: Context) -> control.WhyReply:
        await self._begin(request, context)
        found = next((one for one in self.pods if one.name.startswith(request.pod)), None)
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f'pod "{request.pod}" not found')
        return control.WhyReply(
            mark=self.mark, pod=found, summary=f"{request.pod} runs on n1.", decisions=self.events
        )

    async def Logs(self, request: control.LogsRequest, context: Context) -> AsyncIterator[control.LogChunk]:
        await self._begin(request, context)
        key = request.pod or f"node/{request.node}"
        if key not in self.chunks:
            await context.abort(grpc.StatusCode.NOT_FOUND, f'pod "{key}" not found')
        for chunk in self.chunks[key]:
            yield chunk
        if self.break_streams:
            self.break_streams -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the leader changed")

    async def Exec(
        self, requests: AsyncIterator[control.ExecInput], context: Context
    ) -> AsyncIterator[control.ExecOutput]:
        """Says its input back in capitals."""
        start = await anext(requests)
        await self._begin(start.start, context)
        yield control.ExecOutput(stderr=b"started\n")
        if start.start.options.stdin:
            async for request in requests:
                if request.WhichOneof("kind") == "stdin_end" or request.stdin == b"\x04":
                    break
                if request.WhichOneof("kind") == "resize":
                    yield control.ExecOutput(stdout=f"{request.resize.rows}\n".encode())
                yield control.ExecOutput(stdout=request.stdin.upper())
        yield control.ExecOutput(exit_code=self.exit_code)

    async def PortForward(
        self, requests: AsyncIterator[control.PortForwardInput], context: Context
    ) -> AsyncIterator[control.PortForwardOutput]:
        """Says what it gets back in capitals, then goodbye."""
        start = await anext(requests)
        await self._begin(start.start, context)
        if start.start.port == 81:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "port 81 of the pod: Connection refused")
        async for request in requests:
            if request.end:
                break
            yield control.PortForwardOutput(data=request.data.upper())
        yield control.PortForwardOutput(data=b"goodbye\n")

    async def TopServices(
        self, request: control.TopServicesRequest, context: Context
    ) -> control.TopServicesReply:
        await self._begin(request, context)
        return control.TopServicesReply(mark=self.mark, services=self.service_tops)

    async def CheckNetwork(
        self, request: control.CheckNetworkRequest, context: Context
    ) -> control.CheckNetworkReply:
        await self._begin(request, context)
        return self.network_check

    async def SetPolicy(self, request: control.SetPolicyRequest, context: Context) -> control.SetPolicyReply:
        await self._begin(request, context)
        policy = request.policy
        result = "unchanged" if self.policies.get(policy.namespace) == policy.level else "configured"
        self.policies[policy.namespace] = policy.level
        return control.SetPolicyReply(mark=self.mark, result=result)

    async def ListPolicies(
        self, request: control.ListPoliciesRequest, context: Context
    ) -> control.ListPoliciesReply:
        await self._begin(request, context)
        found = [control.Policy(namespace=name, level=level) for name, level in self.policies.items()]
        return control.ListPoliciesReply(mark=self.mark, policies=found)

    async def SetRegistry(
        self, request: control.SetRegistryRequest, context: Context
    ) -> control.SetRegistryReply:
        await self._begin(request, context)
        result = "configured" if request.registry in self.logins else "created"
        self.logins[request.registry] = (request.username, request.password)
        return control.SetRegistryReply(mark=self.mark, result=result, registry=request.registry)

    async def DeleteRegistry(
        self, request: control.DeleteRegistryRequest, context: Context
    ) -> control.DeleteRegistryReply:
        await self._begin(request, context)
        if self.logins.pop(request.registry, None) is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"there is no login for registry {request.registry}"
            )
        return control.DeleteRegistryReply(mark=self.mark, registry=request.registry)

    async def ListRegistries(
        self, request: control.ListRegistriesRequest, context: Context
    ) -> control.ListRegistriesReply:
        await self._begin(request, context)
        found = [
            control.Registry(registry=registry, username=username)
            for registry, (username, _) in self.logins.items()
        ]
        return control.ListRegistriesReply(mark=self.mark, registries=found)

    async def ListManagers(
        self, request: control.ListManagersRequest, context: Context
    ) -> control.ListManagersReply:
        await self._begin(request, context)
        manager = control.Manager(
            id="m1", address="10.0.0.1:7400", leader=True, version="0.1.0", state="Leading"
        )
        return control.ListManagersReply(mark=self.mark, managers=[manager])

    async def Version(self, request: control.VersionRequest, context: Context) -> control.VersionReply:
        await self._begin(request, context)
        return control.VersionReply(
            mark=self.mark, version="0.1.0", manager="m1", cluster="c1", etcd_version="3.4.23"
        )

    async def Adopt(self, request: control.AdoptRequest, context: Context) -> control.AdoptReply:
        await self._begin(request, context)
        unheard = {"n4"} - set(request.without) if request.dry_run else ()
        return control.AdoptReply(
            mark=self.mark, pods=2, documents=["Deployment/default/web"], unheard=unheard
        )

    async def AcceptRestore(
        self, request: control.AcceptRestoreRequest, context: Context
    ) -> control.AcceptRestoreReply:
        await self._begin(request, context)
        return control.AcceptRestoreReply(mark=self.mark)


@asynccontextmanager
async def served(
    fake: FakeControl, transport: Transport, host: str, port: int = 0, *, more: Sequence[Register] = ()
) -> AsyncIterator[str]:
    """Serve `fake`, and `more` services; yields its address."""
    register = partial(add_ControlServicer_to_server, fake)
    listener = await transport.serve(host, port, [register, *more], ["bayplan.v1.Control"])
    try:
        yield f"{host}:{listener.port}"
    finally:
        await listener.stop(0)


def deployment(name: str = "web", *, replicas: int = 2, namespace: str = "default") -> dict[str, Any]:
    """A small Deployment as a user writes it."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "app:1"}]},
            },
        },
    }


def document(body: dict[str, Any], *, generation: int = 1, created_ms: int = 0) -> control.Document:
    """As the store holds it."""
    metadata = body["metadata"]
    return control.Document(
        kind=body["kind"],
        namespace=metadata.get("namespace", "default"),
        name=metadata["name"],
        json=json.dumps(body),
        uid=f"uid-{metadata['name']}",
        version=5,
        generation=generation,
        created_ms=created_ms,
    )


def pod(workload: str = "web", slot: int = 0, **changes: Any) -> control.Pod:
    """A running pod; `changes` are fields of the message."""
    fields: dict[str, Any] = {
        "uid": f"uid-{workload}.{slot}.{changes.get('incarnation', 1)}",
        "name": f"{workload}-{slot}-x7k4q",
        "namespace": "default",
        "workload_kind": "Deployment",
        "workload": workload,
        "workload_uid": f"uid-{workload}",
        "slot": slot,
        "incarnation": 1,
        "revision": "1a2b3c4d",
        "want": agent.WANT_RUN,
        "node": "n1",
        "status": "Running",
        "ready": True,
        "current": True,
        "template_json": json.dumps(
            {
                "metadata": {"labels": {"app": workload}},
                "spec": {"containers": [{"name": "main", "image": "app:1"}]},
            }
        ),
    }
    return control.Pod(**(fields | changes))


def node(name: str = "n1", **changes: Any) -> control.Node:
    """A node that is well."""
    fields: dict[str, Any] = {
        "name": name,
        "status": "Ready",
        "version": "0.1.0",
        "address": "10.0.0.11",
        "engine": "Docker 20.10.24",
        "capacity": agent.Amounts(cpu_millis=4000, memory_bytes=8 << 30, pods=110),
    }
    return control.Node(**(fields | changes))
