"""The API's methods: each checks, asks the store or the leader, and marks how recent its answer is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import NoReturn, Protocol, TypeVar

import grpc
import grpc.aio

import bayplan
from bayplan.resources.document import parse_document
from bayplan.resources.problems import DocumentError
from bayplan.transport import errors
from bayplan.v1 import control_pb2 as api
from bayplan.v1.callers_pb2 import ROLE_OPERATOR
from manager.access.caller import DeniedError, current_caller, note_target, require_role
from manager.control_api import live
from manager.control_api.calls import Calls, Cluster, Context, abort
from manager.control_api.documents import Documents, NotFoundError, kind_named, parse_all, to_api
from manager.control_api.node_edits import edit_node
from manager.control_api.policies import PolicyMethods
from manager.control_api.registries import RegistryMethods
from manager.control_api.streams import exec_in, logs
from manager.control_api.traffic_methods import TrafficMethods
from manager.errors import RefusedError
from manager.leader import Leadership
from manager.store import records
from manager.store.port import Store

# One request; `bay apply` sends more documents in several.
DOCUMENTS_MAX = 500
WORKLOAD_KINDS = frozenset({"Deployment"})
NAMED_MAX = 5

_Reply = TypeVar("_Reply")


class _Asking(Protocol):
    """A request that says how recent an answer its client has seen."""

    @property
    def seen(self) -> api.Mark: ...


_Request = TypeVar("_Request", bound=_Asking)


class Identity(Cluster, Protocol):
    """What the servicer asks of its manager beside who leads."""

    @property
    def cluster_id(self) -> str: ...

    def mark(self, revision: int) -> api.Mark:
        """For an answer that came from the store."""
        ...

    def managers(self) -> list[api.Manager]:
        """Every living manager as far as this one knows."""
        ...

    async def etcd_version(self) -> str: ...

    async def forget_node(self, name: str) -> None:
        """Its certificates are void."""
        ...


class ControlServicer(TrafficMethods, RegistryMethods, PolicyMethods):
    """Served by every manager."""

    def __init__(self, manager: Identity, calls: Calls, documents: Documents, store: Store) -> None:
        RegistryMethods.__init__(self, store, manager.mark)
        PolicyMethods.__init__(self, store, manager.mark)
        self._manager = manager
        self._calls = calls
        self._documents = documents
        self._store = store

    # -- writes: by whichever manager is asked -------------------------------------------------

    async def Apply(self, request: api.ApplyRequest, context: Context) -> api.ApplyReply:
        """All documents are checked before the first is written."""
        if not request.documents:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "there is no document to apply")
        if len(request.documents) > DOCUMENTS_MAX:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"more than {DOCUMENTS_MAX} documents in one request"
            )
        parsed, problems = parse_all(dict(enumerate(request.documents)))
        if problems:
            await _refuse(context, problems)
        expected = request.expected_version if len(request.documents) == 1 else 0
        applied: list[api.Applied] = []
        try:
            refused = await self.policies.problems((at, each.resource) for at, each in parsed.items())
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await abort(context, error)
        if refused:
            await _refuse(context, refused)
        try:
            for _, each in sorted(parsed.items()):
                done = await self._documents.apply(
                    each.resource, each.warnings, expected_version=expected, dry_run=request.dry_run
                )
                applied.append(done)
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await abort(context, error, note="" if request.dry_run else _written_before(applied))
        revision = max(each.version for each in applied)
        return api.ApplyReply(mark=self._manager.mark(revision), applied=applied)

    async def Delete(self, request: api.DeleteRequest, context: Context) -> api.DeleteReply:
        """Mark a document as deleting; it goes when its last pod is gone."""
        try:
            place = (kind_named(request.kind), request.namespace or "default", request.name)
            if place[0] in WORKLOAD_KINDS:
                found, _, version = await self._documents.change(
                    place,
                    lambda stored: replace(stored, deleting=True),
                    expected_version=request.expected_version,
                )
            else:
                found = await self._documents.remove(place, request.expected_version)
                version = found.version
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await abort(context, error)
        return api.DeleteReply(mark=self._manager.mark(version), uid=found.stored.uid)

    async def Scale(self, request: api.ScaleRequest, context: Context) -> api.ScaleReply:
        """Change a workload's number of replicas, and nothing else of it."""
        before = 0

        def edit(stored: records.StoredDocument) -> records.StoredDocument:
            nonlocal before
            if stored.deleting:
                raise RefusedError(f"{request.name} is being deleted")
            before = int(stored.document["spec"].get("replicas", 1))
            if request.HasField("expected_replicas") and before != request.expected_replicas:
                raise RefusedError(f"{request.name} has {before} replicas, not {request.expected_replicas}")
            if before == request.replicas:
                return stored
            spec = {**stored.document["spec"], "replicas": request.replicas}
            document = parse_document({**stored.document, "spec": spec}).resource.to_json_dict()
            return replace(stored, generation=stored.generation + 1, document=document)

        try:
            kind = kind_named(request.kind or "Deployment")
            if kind not in WORKLOAD_KINDS:
                raise RefusedError(f"a {kind} has no replicas")  # noqa: TRY301 - ends in the same place
            place = (kind, request.namespace or "default", request.name)
            _, stored, version = await self._documents.change(place, edit)
        except DocumentError as error:
            await _refuse(context, [(0, problem.path, problem.message) for problem in error.problems])
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await abort(context, error)
        return api.ScaleReply(mark=self._manager.mark(version), before=before, generation=stored.generation)

    async def UpdateNode(self, request: api.UpdateNodeRequest, context: Context) -> api.UpdateNodeReply:
        """Cordon, drain, label, taint; removing a node is the leader's."""
        if request.remove:
            return await self._calls.led(
                context, "UpdateNode", request, lambda led: self._remove_node(led, request)
            )
        if request.lost:
            return await self._calls.led(
                context, "UpdateNode", request, lambda led: self._declare_lost(led, request)
            )
        try:
            changed, version = await edit_node(self._store, request)
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await abort(context, error)
        return api.UpdateNodeReply(mark=self._manager.mark(version), changed=changed)

    async def _declare_lost(
        self, leadership: Leadership, request: api.UpdateNodeRequest
    ) -> api.UpdateNodeReply:
        live.check_silent(leadership, request.name)
        changed, version = await edit_node(self._store, request)
        # The oath may be an old one that the node has disproved since: it counts anew.
        leadership.dispatcher.believe_oath(request.name)
        return api.UpdateNodeReply(mark=self._manager.mark(version), changed=changed)

    async def _remove_node(
        self, leadership: Leadership, request: api.UpdateNodeRequest
    ) -> api.UpdateNodeReply:
        live.check_removable(leadership, request.name)
        # First: whoever still has its key must not come back as a new node of the same name.
        await self._manager.forget_node(request.name)
        await leadership.remove_node(request.name, lambda: live.check_removable(leadership, request.name))
        return api.UpdateNodeReply(mark=leadership.mark(), changed=True)

    # -- documents: from the leader with their status, else from the store without -------------

    async def Get(self, request: api.GetRequest, context: Context) -> api.GetReply:
        """One document."""
        await _check_secrets(request, context)
        if self._is_led():
            return await self._answer(
                context,
                "Get",
                request,
                lambda led: api.GetReply(mark=led.mark(), document=live.document(led, request)),
            )
        try:
            place = (kind_named(request.kind), request.namespace or "default", request.name)
            found = await self._documents.find(place)
            if found is None:
                raise NotFoundError(f"{place[0]} {place[1]}/{place[2]} does not exist")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await abort(context, error)
        document = to_api(found, {}, show_secrets=request.show_secrets)
        return api.GetReply(mark=self._leaderless_mark(found.version), document=document)

    async def List(self, request: api.ListRequest, context: Context) -> api.ListReply:
        """Documents of a kind."""
        await _check_secrets(request, context)
        if self._is_led():
            return await self._answer(
                context,
                "List",
                request,
                lambda led: api.ListReply(mark=led.mark(), documents=live.documents(led, request)),
            )
        try:
            kind = kind_named(request.kind) if request.kind else ""
            found, revision = await self._documents.list_all(kind, request.namespace)
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await abort(context, error)
        selector = dict(request.selector).items()
        listed = [
            to_api(each, {}, show_secrets=request.show_secrets)
            for each in found
            if selector <= each.stored.document.get("metadata", {}).get("labels", {}).items()
        ]
        return api.ListReply(mark=self._leaderless_mark(revision), documents=listed)

    def _is_led(self) -> bool:
        return self._manager.leadership is not None or bool(self._manager.leader_address)

    def _leaderless_mark(self, revision: int) -> api.Mark:
        mark = self._manager.mark(revision)
        mark.complete, mark.notice = False, "no leader right now: documents only, status is not known"
        return mark

    async def Watch(self, request: api.ListRequest, context: Context) -> AsyncIterator[api.WatchEvent]:
        """Documents, as they change."""
        await _check_secrets(request, context)
        async with aclosing(self._watch(context, "Watch", request, live.watch_documents)) as events:
            async for event in events:
                yield event

    # -- what only the leader knows ------------------------------------------------------------

    async def ListPods(self, request: api.ListPodsRequest, context: Context) -> api.ListPodsReply:
        """Pods."""
        return await self._answer(
            context,
            "ListPods",
            request,
            lambda led: api.ListPodsReply(mark=led.mark(), pods=live.pods(led, request)),
        )

    async def WatchPods(self, request: api.ListPodsRequest, context: Context) -> AsyncIterator[api.PodsEvent]:
        """Pods, as they change."""
        async with aclosing(self._watch(context, "WatchPods", request, live.watch_pods)) as events:
            async for event in events:
                yield event

    async def ListNodes(self, request: api.ListNodesRequest, context: Context) -> api.ListNodesReply:
        """Nodes."""
        return await self._answer(
            context,
            "ListNodes",
            request,
            lambda led: api.ListNodesReply(mark=led.mark(), nodes=live.nodes(led, request.name)),
        )

    async def ListEvents(self, request: api.ListEventsRequest, context: Context) -> api.ListEventsReply:
        """Events, oldest first."""

        def answer(leadership: Leadership) -> api.ListEventsReply:
            listed = leadership.events.select(
                namespace=request.namespace, obj=request.object, since_ms=request.since_ms
            )
            return api.ListEventsReply(mark=leadership.mark(), events=listed)

        return await self._answer(context, "ListEvents", request, answer)

    async def WatchEvents(self, request: api.ListEventsRequest, context: Context) -> AsyncIterator[api.Event]:
        """New events."""
        stream = self._calls.led_stream(
            context,
            "WatchEvents",
            request,
            lambda led: led.events.watch(namespace=request.namespace, obj=request.object),
        )
        async with aclosing(stream) as events:
            async for event in events:
                yield event

    async def Why(self, request: api.WhyRequest, context: Context) -> api.WhyReply:
        """The decisions about a pod's slot."""
        return await self._answer(context, "Why", request, lambda led: live.why(led, request))

    async def _answer(
        self, context: Context, method: str, request: _Request, answer: Callable[[Leadership], _Reply]
    ) -> _Reply:
        """The leader's, given from memory once it knows what the client has seen."""

        async def when_caught_up(leadership: Leadership) -> _Reply:
            await live.caught_up(leadership, request.seen)
            return answer(leadership)

        return await self._calls.led(context, method, request, when_caught_up)

    async def _watch(
        self,
        context: Context,
        method: str,
        request: _Request,
        watch: Callable[[Leadership, _Request], AsyncGenerator[_Reply, None]],
    ) -> AsyncGenerator[_Reply, None]:
        """The same for a stream."""

        async def when_caught_up(leadership: Leadership) -> AsyncGenerator[_Reply, None]:
            await live.caught_up(leadership, request.seen)
            async with aclosing(watch(leadership, request)) as events:
                async for event in events:
                    yield event

        async with aclosing(self._calls.led_stream(context, method, request, when_caught_up)) as events:
            async for event in events:
                yield event

    async def Logs(self, request: api.LogsRequest, context: Context) -> AsyncIterator[api.LogChunk]:
        """Of a pod, or of a node's agent."""
        chunks = self._calls.led_stream(
            context, "Logs", request, lambda leadership: logs(leadership, request)
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def Exec(
        self, request_iterator: AsyncIterator[api.ExecInput], context: Context
    ) -> AsyncIterator[api.ExecOutput]:
        """A command in a pod's container."""
        first = await anext(aiter(request_iterator), None)
        if first is None or not first.HasField("start"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be `start`")

        async def whole() -> AsyncIterator[api.ExecInput]:
            yield first
            async for message in request_iterator:
                yield message

        outputs = self._calls.led_stream(
            context, "Exec", whole(), lambda led: exec_in(led, first.start, request_iterator)
        )
        async with aclosing(outputs):
            async for output in outputs:
                yield output

    # -- managers, and a store from the past ---------------------------------------------------

    async def ListManagers(self, request: api.ListManagersRequest, context: Context) -> api.ListManagersReply:
        """Every living manager."""
        del request, context
        return api.ListManagersReply(mark=self._manager.mark(0), managers=self._manager.managers())

    async def Version(self, request: api.VersionRequest, context: Context) -> api.VersionReply:
        """Of this manager and its etcd."""
        del request
        try:
            etcd_version = await self._manager.etcd_version()
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await abort(context, error)
        mark = self._manager.mark(0)
        return api.VersionReply(
            mark=mark,
            version=bayplan.__version__,
            manager=self._manager.manager_id,
            cluster=self._manager.cluster_id,
            etcd_version=etcd_version,
        )

    async def Adopt(self, request: api.AdoptRequest, context: Context) -> api.AdoptReply:
        """What runs is right."""

        async def answer(leadership: Leadership) -> api.AdoptReply:
            mark = leadership.mark()
            try:
                adoption = await leadership.adopt(dry_run=request.dry_run, without=request.without)
            except LookupError as error:
                raise RefusedError(str(error)) from None
            return api.AdoptReply(
                mark=mark, pods=adoption.pods, documents=adoption.documents, unheard=adoption.unheard
            )

        return await self._calls.led(context, "Adopt", request, answer)

    async def AcceptRestore(
        self, request: api.AcceptRestoreRequest, context: Context
    ) -> api.AcceptRestoreReply:
        """The store is right."""

        async def answer(leadership: Leadership) -> api.AcceptRestoreReply:
            mark = leadership.mark()
            try:
                await leadership.accept_restore()
            except LookupError as error:
                raise RefusedError(str(error)) from None
            return api.AcceptRestoreReply(mark=mark)

        return await self._calls.led(context, "AcceptRestore", request, answer)


def _written_before(applied: list[api.Applied]) -> str:
    """Which documents of the request were written before one failed, as the end of a sentence."""
    names = [f"{each.kind} {each.namespace}/{each.name}" for each in applied if each.result != "unchanged"]
    if not names:
        return ""
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return f" (already written by this request: {', '.join(names[:NAMED_MAX])}{more}; apply it again)"


async def _check_secrets(request: api.GetRequest | api.ListRequest, context: Context) -> None:
    """The values of secrets are for operators: whoever may only look sees which keys there are."""
    if not request.show_secrets:
        return
    try:
        require_role(ROLE_OPERATOR, "reading secrets")
        # For the record of the call: what was asked for, and that it was shown.
        note_target(f"{current_caller().target} with the values of secrets".lstrip())
    except DeniedError as error:
        await abort(context, error)


async def _refuse(context: Context, problems: list[tuple[int, str, str]]) -> NoReturn:
    listed = [errors.Problem(document=document, path=path, message=text) for document, path, text in problems]
    words = "; ".join(f"{problem.path or 'document'}: {problem.message}" for problem in listed[:3])
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, words[:2000], errors.problems_to_metadata(listed))
    raise AssertionError("abort returns never")
