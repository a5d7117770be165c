"""What only the leader can answer: pods, nodes, events, and the status of documents.

An answer is given from memory once memory has come to the revision that the client has
seen elsewhere; what the leader does not know yet is said (`complete: false`), not guessed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import TypeVar

from google.protobuf.message import Message

from bayplan.model.nodes import NodeState
from bayplan.v1 import control_pb2 as api
from manager.control_api.documents import Found, NotFoundError, kind_named, to_api
from manager.errors import RefusedError
from manager.leader import Leadership
from manager.pods import node_of
from manager.store.port import StoreUnavailableError

# The watch is milliseconds behind the store; longer means that it is broken.
CATCH_UP_S = 3.0
# Watchers see changes in batches: a burst of a thousand pods is a handful of messages.
WATCH_EVERY_S = 0.1

_Key = TypeVar("_Key", str, tuple[str, str, str])
_Shown = TypeVar("_Shown", bound=Message)


async def caught_up(leadership: Leadership, seen: api.Mark) -> None:
    """Wait until this leader knows what the client has seen. Raises StoreUnavailableError."""
    if seen.store == leadership.store_id and seen.epoch > leadership.term.epoch.revision:
        raise StoreUnavailableError("another manager leads by now; try again")
    if seen.store != leadership.store_id:
        return  # Another history, or a client that has seen nothing yet.
    try:
        async with asyncio.timeout(CATCH_UP_S):
            while leadership.state.watched_revision < seen.revision:
                await leadership.loop.wait_changed()
    except TimeoutError:
        raise StoreUnavailableError(
            f"the leader has not caught up with revision {seen.revision} of the store"
        ) from None
    if leadership.term.is_suspended:
        raise StoreUnavailableError("the leader has lost touch with the store; try again")


# -- documents with their status ---------------------------------------------------------------


def documents(leadership: Leadership, request: api.ListRequest) -> list[api.Document]:
    """Those that match, by kind, namespace and name."""
    kind = kind_named(request.kind) if request.kind else ""
    return [
        document_at(leadership, place, show_secrets=request.show_secrets)
        for place, entry in sorted(leadership.state.resources.items())
        if (not kind or place[0] == kind)
        and (not request.namespace or place[1] == request.namespace)
        and _has_labels(entry.resource.metadata.labels, request.selector)
    ]


def document_at(leadership: Leadership, place: tuple[str, str, str], *, show_secrets: bool) -> api.Document:
    """One document with its status."""
    entry = leadership.state.resources[place]
    found = Found(place=place, stored=entry.stored, version=entry.version)
    return to_api(found, leadership.status_of(place), show_secrets=show_secrets)


def document(leadership: Leadership, request: api.GetRequest) -> api.Document:
    """By exact name, or a unique prefix of name or uid. Raises NotFoundError."""
    kind = kind_named(request.kind)
    namespace = request.namespace or "default"
    exact = (kind, namespace, request.name)
    if exact in leadership.state.resources:
        return document_at(leadership, exact, show_secrets=request.show_secrets)
    near = [
        place
        for place, entry in leadership.state.resources.items()
        if place[:2] == (kind, namespace)
        and (place[2].startswith(request.name) or entry.stored.uid.startswith(request.name))
    ]
    place = _only(near, f"{kind} {namespace}/{request.name}")
    return document_at(leadership, place, show_secrets=request.show_secrets)


def _has_labels(labels: Iterable[tuple[str, str]] | dict[str, str], wanted: object) -> bool:
    return dict(wanted).items() <= dict(labels).items()  # type: ignore[call-overload, no-any-return]  # protobuf maps


def _only(found: list[tuple[str, str, str]], words: str) -> tuple[str, str, str]:
    if len(found) == 1:
        return found[0]
    if not found or not words:
        raise NotFoundError(f"{words} does not exist")
    names = ", ".join(sorted(place[2] for place in found)[:5])
    raise NotFoundError(f"{words} could be any of {names}: say more of the name")


# -- pods --------------------------------------------------------------------------------------


def pods(leadership: Leadership, request: api.ListPodsRequest) -> list[api.Pod]:
    """Those that match, by namespace, workload, slot, newest first; earlier attempts if asked for."""
    kind = kind_named(request.workload_kind) if request.workload_kind else ""
    state = leadership.state
    chosen: list[api.Pod] = []
    uids = sorted(state.workloads.keys() | state.placements.keys(), key=state.workload_name)
    for uid in uids:
        found_kind, namespace, name = state.workload_name(uid)
        if (
            (kind and found_kind != kind)
            or (request.workload and name != request.workload)
            or (request.namespace and namespace != request.namespace)
        ):
            continue
        listed = leadership.pods_of_workload(uid)
        if request.attempts or request.name:
            listed = sorted([*listed, *state.attempts_of(uid)], key=lambda pod: (pod.slot, -pod.incarnation))
        chosen.extend(
            pod
            for pod in listed
            if (not request.node or pod.node == request.node)
            and _has_labels(dict(pod.labels), request.selector)
        )
    return _named(chosen, request.name) if request.name else chosen


def _named(listed: list[api.Pod], name: str) -> list[api.Pod]:
    exact = [pod for pod in listed if name in (pod.name, pod.uid)]
    return exact or [pod for pod in listed if pod.name.startswith(name)]


def one_pod(leadership: Leadership, namespace: str, name: str) -> api.Pod:
    """By name or unique prefix; the current one of a slot wins over its earlier attempts."""
    found = pods(leadership, api.ListPodsRequest(namespace=namespace or "default", name=name, attempts=True))
    if not found:
        # A pod that was pending under this name was placed by now: its slot says which it is.
        slot = name.rpartition("-")[0]
        found = [
            pod
            for pod in pods(leadership, api.ListPodsRequest(namespace=namespace or "default"))
            if slot and pod.name.rpartition("-")[0] == slot
        ]
    exact = [pod for pod in found if pod.name == name]
    current = exact or [pod for pod in found if pod.current] or found
    if not current:
        raise NotFoundError(f"pod {namespace or 'default'}/{name} does not exist")
    if len(current) > 1:
        names = ", ".join(pod.name for pod in current[:5])
        raise NotFoundError(f"pod {name} could be any of {names}: say more of the name")
    return current[0]


async def watch_pods(
    leadership: Leadership, request: api.ListPodsRequest
) -> AsyncGenerator[api.PodsEvent, None]:
    """All that match first, then what changes."""
    looks = _changes(leadership, lambda: {pod.uid: pod for pod in pods(leadership, request)})
    async with aclosing(looks):
        async for is_initial, changed, deleted in looks:
            yield api.PodsEvent(mark=leadership.mark(), initial=is_initial, pods=changed, deleted=deleted)


async def watch_documents(
    leadership: Leadership, request: api.ListRequest
) -> AsyncGenerator[api.WatchEvent, None]:
    """All that match first, then what changes."""
    looks = _changes(
        leadership,
        lambda: {(each.kind, each.namespace, each.name): each for each in documents(leadership, request)},
    )
    async with aclosing(looks):
        async for is_initial, changed, gone in looks:
            deleted = [
                api.Document(kind=kind, namespace=namespace, name=name) for kind, namespace, name in gone
            ]
            yield api.WatchEvent(
                mark=leadership.mark(), initial=is_initial, documents=changed, deleted=deleted
            )


async def _changes(
    leadership: Leadership, look: Callable[[], dict[_Key, _Shown]]
) -> AsyncGenerator[tuple[bool, list[_Shown], list[_Key]], None]:
    """(is it the first, what is new or changed, what is gone) whenever `look` shows something else."""
    known: dict[_Key, bytes] = {}
    is_initial = True
    while not leadership.is_over:
        shown = look()
        packed = {key: each.SerializeToString(deterministic=True) for key, each in shown.items()}
        changed = [each for key, each in shown.items() if known.get(key) != packed[key]]
        gone = sorted(known.keys() - shown.keys())
        if is_initial or changed or gone:
            yield is_initial, changed, gone
        known, is_initial = packed, False
        await leadership.loop.wait_changed()
        await asyncio.sleep(WATCH_EVERY_S)


# -- nodes, events, why ------------------------------------------------------------------------


def nodes(leadership: Leadership, name: str) -> list[api.Node]:
    """All, or by name or unique prefix. Raises NotFoundError."""
    names = sorted(leadership.state.nodes)
    if name and name in leadership.state.nodes:
        names = [name]
    elif name:
        names = [found for found in names if found.startswith(name)]
        if len(names) != 1:
            words = f"could be any of {', '.join(names[:5])}" if names else "does not exist"
            raise NotFoundError(f"node {name} {words}")
    listed: list[api.Node] = []
    for found in names:
        node = node_of(leadership.state, leadership.dispatcher, found)
        session = leadership.dispatcher.sessions.get(found)
        if session is not None:
            node.via, node.last_heard_ms = session.via, session.last_heard_ms
        listed.append(node)
    return listed


def check_silent(leadership: Leadership, name: str) -> None:
    """Raise RefusedError when a node that is to be declared dead is heard this moment."""
    if name not in leadership.state.nodes:
        raise NotFoundError(f"node {name} does not exist")
    if leadership.dispatcher.node_state(name)[0] is NodeState.READY:
        raise RefusedError(
            f"node {name} is Ready: its agent answers, so its host is not dead."
            f" To empty it use `bay drain {name}`"
        )


def check_removable(leadership: Leadership, name: str) -> None:
    """Raise RefusedError unless the node may be forgotten."""
    if name not in leadership.state.nodes:
        raise NotFoundError(f"node {name} does not exist")
    node_state, _, _ = leadership.dispatcher.node_state(name)
    intent = leadership.state.nodes[name].intent
    is_lost = intent.lost_boot_id == leadership.state.nodes[name].facts.boot_id != ""
    if node_state is not NodeState.DOWN and not is_lost:
        raise RefusedError(
            f"node {name} is {node_state}: stop its agent first, or swear that the host is dead with"
            f" `bay node lost {name}`"
        )


def why(leadership: Leadership, request: api.WhyRequest) -> api.WhyReply:
    """The decisions about a pod's slot, and one sentence."""
    pod = one_pod(leadership, request.namespace, request.pod)
    decisions = leadership.events.about_slot(pod.workload_uid, pod.slot)
    if not pod.node:
        summary = f"{pod.name} is pending: {pod.why}"
    else:
        placed = [event for event in decisions if event.object == f"Pod/{pod.name}"]
        reason = next((event.message for event in placed if event.reason == "PodPlaced"), "")
        summary = f"{pod.name} is {pod.status} on {pod.node}" + (f": {pod.why}" if pod.why else "")
        summary += f"; placed there because: {reason}" if reason else ""
    return api.WhyReply(mark=leadership.mark(), pod=pod, decisions=decisions, summary=summary)
