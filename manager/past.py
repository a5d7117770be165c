"""A store from the past: wiped, or restored from an older snapshot.

Agents remember the highest epoch and revision they have obeyed. When one remembers more
than the store holds, following the store would stop what runs. So nothing is stopped or
started until an operator decides which is right: what runs (`bay adopt`), or the store
(`bay admin accept-restore`). Either way the store gets a new incarnation, and what agents
remember is noted as superseded by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from bayplan.model.names import PodId
from bayplan.model.placements import Cause, Placement, Want
from bayplan.model.states import PodState
from bayplan.v1 import agent_link_pb2 as wire
from manager.cluster_state import ClusterState
from manager.dispatcher.session import NodeSession
from manager.store import keys, records
from manager.store.port import Operation, Put


@dataclass(slots=True)
class Adoption:
    """What to write so that the store wants what runs."""

    operations: list[Operation] = field(default_factory=list)
    pods: int = 0
    documents: list[str] = field(default_factory=list)  # kind/namespace/name, made again or changed.
    unheard: list[str] = field(default_factory=list)  # Nodes that are waited for.


def renewed_meta(
    state: ClusterState, visitors: Iterable[NodeSession], *, store: str, incarnation: str
) -> records.Meta:
    """The store's new identity, superseding its own and every one that agents remember.

    The cluster keeps the id that the agents' containers carry.
    """
    superseded = {*state.meta.accepted, store}
    cluster = state.meta.cluster_id
    for session in visitors:
        superseded.add(session.hello.highest_epoch.store)
        cluster = session.hello.cluster or cluster
    return replace(
        state.meta,
        cluster_id=cluster,
        incarnation=incarnation,
        accepted=tuple(sorted(superseded - {""})),
    )


def unheard_nodes(state: ClusterState, visitors: Iterable[NodeSession]) -> list[str]:
    """Nodes that the store or an agent knows of, and whose pods nobody has told yet.

    Each agent remembers its next few peers in the ring of names, so that one that is heard leads to the others.
    """
    known, heard = set(state.nodes), set()
    for session in visitors:
        known.update(session.hello.peers)
        if session.reported is not None:
            heard.add(session.node)
    return sorted(known - heard)


def plan_adoption(
    state: ClusterState, visitors: Iterable[NodeSession], *, now_ms: int, is_dry: bool = False
) -> Adoption:
    """Placements for every pod that runs, and documents for workloads that the store does not know.

    A workload whose name the store gives to another document keeps its pods only until that one's run.
    `state` must know every visitor as a node, unless `is_dry`: then nothing is packed.
    """
    adoption = Adoption()
    found: dict[tuple[str, int], dict[PodId, Placement]] = {}
    templates: dict[tuple[str, str], str] = {}
    owners: dict[str, list[wire.Assignment]] = {}
    sessions = tuple(visitors)
    told = _templates(sessions)
    for session in sessions:
        for status in session.reported or ():
            assignment = status.assignment
            template = told.get((assignment.workload_uid, assignment.revision), "")
            if PodState(status.state).is_terminal or not template:
                continue
            if assignment.want not in (wire.WANT_RUN, wire.WANT_HANDOVER):
                continue
            pod = PodId.parse(status.uid)
            placement = Placement(
                pod=pod,
                node=session.node,
                revision=assignment.revision,
                want=Want(assignment.want),
                cause=Cause.ADOPTED,
            )
            chunk = records.chunk_of(pod.slot)
            found.setdefault((pod.workload_uid, chunk), {})[pod] = placement
            templates[pod.workload_uid, assignment.revision] = template
            owners.setdefault(pod.workload_uid, []).append(assignment)
            adoption.pods += 1
    _put_documents(adoption, state, owners, templates, now_ms)
    for (uid, revision), template in templates.items():
        if (uid, revision) not in state.revisions:
            adoption.operations.append(Put(key=keys.revision(uid, revision), value=template.encode()))
    if is_dry:
        return adoption
    numbers = {name: entry.facts.number for name, entry in state.nodes.items()}
    for (uid, index), pods in found.items():
        # What the store itself says of this chunk is the past: the agents' word replaces it.
        highest = max(pod.incarnation for pod in pods)
        chunk_record = records.Chunk(
            next_incarnation=max(highest + 1, state.next_incarnation.get((uid, index), 1)),
            placements=tuple(pods.values()),
        )
        value = records.encode_chunk(chunk_record, numbers)
        adoption.operations.append(Put(key=keys.placements(uid, index), value=value))
    return adoption


def _templates(sessions: Iterable[NodeSession]) -> dict[tuple[str, str], str]:
    """By (workload uid, revision). An agent says each once, with the first of its pods."""
    return {
        (status.assignment.workload_uid, status.assignment.revision): status.assignment.template_json
        for session in sessions
        for status in session.reported or ()
        if status.assignment.template_json
    }


def _put_documents(
    adoption: Adoption,
    state: ClusterState,
    owners: dict[str, list[wire.Assignment]],
    templates: dict[tuple[str, str], str],
    now_ms: int,
) -> None:
    """Documents that want what runs: made again, or changed where they want something older."""
    for uid, assignments in owners.items():
        newest = max(assignments, key=lambda assignment: assignment.incarnation)
        place = (newest.workload_kind, newest.namespace, newest.workload)
        entry = state.resources.get(place)
        if entry is not None and entry.stored.uid != uid:
            continue
        replicas = 1 + max(assignment.slot for assignment in assignments)
        template = json.loads(templates[uid, newest.revision])
        document = _document(place, replicas, template) if entry is None else entry.stored.document
        spec = {**document["spec"], "replicas": replicas, "template": template}
        if entry is not None and spec == document["spec"]:
            continue
        stored = records.StoredDocument(
            uid=uid,
            generation=1 if entry is None else entry.stored.generation + 1,
            created_ms=now_ms if entry is None else entry.stored.created_ms,
            deleting=False,
            document={**document, "spec": spec},
        )
        adoption.operations.append(Put(key=keys.resource(*place), value=records.encode_document(stored)))
        adoption.documents.append("/".join(place))


def _document(place: tuple[str, str, str], replicas: int, template: dict[str, Any]) -> dict[str, Any]:
    labels = template.get("metadata", {}).get("labels", {})
    return {
        "apiVersion": "apps/v1",
        "kind": place[0],
        "metadata": {"name": place[2], "namespace": place[1]},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }
