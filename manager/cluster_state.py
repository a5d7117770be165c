"""What the leader knows: the store's durable facts in memory, and what agents have reported.

Rebuilt by every new leader: the durable part from one listing of the store, the live part
from the agents' full reports. Folding in (`apply_*`, `load`) and looking (`*_view`) only: it
decides nothing and does no I/O.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from bayplan.model.names import PodId, pod_name
from bayplan.model.nodes import Amounts, NodeFacts, NodeIntent, NodeState
from bayplan.model.placements import Placement, Want
from bayplan.model.states import PodState
from bayplan.resources.document import Resource, parse_document
from bayplan.resources.pods import template_hash, template_json
from bayplan.resources.problems import DocumentError
from bayplan.resources.workloads import Deployment
from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from manager.planning.requirements import requirements_of
from manager.planning.view import PodView, Requirements, WorkloadView
from manager.store import keys, records
from manager.store.port import KeyChange, KeyValue, Listing

log = structlog.get_logger(__name__)

# A node may carry this many pods unless it says otherwise: Kubernetes' default.
PODS_PER_NODE = 110
# Earlier pods of a slot that `bay ps` can show.
ATTEMPTS_KEPT = 5


@dataclass(slots=True)
class StoredResource:
    """A document as it stands in the store."""

    resource: Resource
    stored: records.StoredDocument
    version: int  # mod-revision


@dataclass(slots=True)
class NodeEntry:
    """One node: registered facts, users' intent, and what its agent last reported."""

    facts: NodeFacts
    intent: NodeIntent = field(default_factory=NodeIntent)
    # Pods by uid as reported in this term; kept when the stream breaks, for it is the last that is known.
    statuses: dict[str, wire.PodStatus] = field(default_factory=dict)
    has_reported: bool = False  # In full, to this leader.
    # What the present session was sent: a pod absent from its report may merely not be done yet.
    told: dict[str, Want] = field(default_factory=dict)
    condition: wire.NodeCondition = field(default_factory=lambda: wire.NodeCondition(engine_ok=True))
    usage: dict[str, wire.Usage] = field(default_factory=dict)
    used: wire.Amounts = field(default_factory=wire.Amounts)

    @property
    def labels(self) -> dict[str, str]:
        """The host's own labels under those of users."""
        return {**self.facts.labels, **self.intent.labels}

    @property
    def refuses(self) -> str:
        """Why it takes no new pods, in its agent's words; empty if it does."""
        if self.condition.engine_ok and not self.condition.disk_pressure:
            return ""
        return self.condition.message or "its agent says so"


class ClusterState:
    """Mutable, owned by the control loop's task; everybody else reads between its awaits."""

    def __init__(self) -> None:
        self.meta = records.Meta(format_version=1, cluster_id="", incarnation="")
        self.revision = 0  # The store's: the highest of what was listed, watched and committed.
        # Up to which everything that others wrote is known: a commit may be ahead of the watch.
        self.watched_revision = 0
        self.commit_value: bytes | None = None
        self.resources: dict[tuple[str, str, str], StoredResource] = {}
        # Deployments by uid; the value is the key into `resources`.
        self.workloads: dict[str, tuple[str, str, str]] = {}
        self.broken: dict[str, str] = {}  # Store key of an unreadable document, and why it is.
        self.nodes: dict[str, NodeEntry] = {}
        self.placements: dict[str, dict[PodId, Placement]] = defaultdict(dict)
        self.by_node: dict[str, dict[PodId, Placement]] = defaultdict(dict)
        self.next_incarnation: dict[tuple[str, int], int] = {}
        self.revisions: dict[tuple[str, str], dict[str, Any]] = {}
        self.reserved: dict[str, Amounts] = defaultdict(Amounts)
        # Failed attempts in a row of a slot, and when the last ended (loop time).
        self.failures: dict[str, dict[int, tuple[int, float]]] = defaultdict(dict)
        self._booked: set[PodId] = set()
        self._ended_s: dict[str, float] = {}
        self._placed_ms: dict[PodId, int] = {}
        self._requirements: dict[tuple[str, str], Requirements] = {}
        self._texts: dict[tuple[str, str], str] = {}
        self.intents: dict[str, NodeIntent] = {}
        # mod-revision of every key held, for the sweep and to skip what the watch brings late.
        self.key_revisions: dict[str, int] = {}
        # Keys that are gone, and since when: a listing or a watch may bring them back from before.
        self._gone_keys: dict[str, int] = {}
        self._attempts: dict[tuple[str, int], deque[api.Pod]] = {}
        self.decisions: list[str] = []  # Keys, oldest first.

    # -- the store → memory ------------------------------------------------------------------

    def load(self, items: Iterable[KeyValue], revision: int) -> None:
        """Fold in a whole listing of the store.

        Nodes and templates first: placements name nodes by number, and book what templates ask for.
        Raises DamagedRecordError for damage that is not one document's own.
        """
        for item in sorted(items, key=lambda item: not item.key.startswith((keys.NODES, keys.REVISIONS))):
            self._put(item.key, item.value, item.mod_revision)
        self.revision = self.watched_revision = revision

    def apply_watched(self, changes: Iterable[KeyChange], revision: int) -> set[str]:
        """Fold in what the watch brought; returns the uids of workloads that it concerns, "*" for all.

        Keys that only the leader writes were folded in when they were committed: what the watch
        says of them is old news. The sweep finds what a stranger did to them.
        """
        dirty: set[str] = set()
        for change in changes:
            if not change.key.startswith((keys.NODE_INTENTS, keys.RESOURCES)):
                continue
            if change.mod_revision <= self._known_revision(change.key):
                continue  # A sweep was faster.
            if change.key.startswith(keys.NODE_INTENTS):
                self.key_revisions[change.key] = change.mod_revision
                dirty |= self._put_intent(change.key, change.value)
            elif change.value is None:
                dirty |= self._drop_resource(change.key)
                self.forget_key(change.key, change.mod_revision)
            else:
                dirty |= self._put_resource(change.key, change.value, change.mod_revision)
        self.watched_revision = max(self.watched_revision, revision)
        self.revision = max(self.revision, revision)
        return dirty

    def repair(self, listing: Listing) -> set[str]:
        """Compare a listing with memory and fold in what differs: what a watch has missed.

        Old etcd versions lose watch events. Returns the workloads concerned. Keys that were committed
        after the listing was made are newer in memory and stay.
        """
        dirty: set[str] = set()
        listed = {item.key: item for item in listing.items if self._is_held(item.key)}
        for key in self.key_revisions.keys() - listed.keys():
            if self.key_revisions[key] <= listing.revision and key.startswith(keys.RESOURCES):
                log.warning("watch.missed", key=key, what="deleted")
                dirty |= self._drop_resource(key)
        for key, item in listed.items():
            if self._known_revision(key) >= item.mod_revision:
                continue
            log.warning("watch.missed", key=key, what="changed")
            if key.startswith(keys.PLACEMENTS):
                # Only leaders write these, one at a time: a stranger did. What memory holds is told
                # to agents, so it is what counts; the next commit of the chunk writes it again.
                continue
            self._put(key, item.value, item.mod_revision)
            dirty.add("*")
        self.watched_revision = max(self.watched_revision, listing.revision)
        self.revision = max(self.revision, listing.revision)
        self._gone_keys = {key: at for key, at in self._gone_keys.items() if at > listing.revision}
        return dirty

    def _known_revision(self, key: str) -> int:
        return max(self.key_revisions.get(key, 0), self._gone_keys.get(key, 0))

    def forget_key(self, key: str, revision: int) -> None:
        """A key was deleted at a revision."""
        self.key_revisions.pop(key, None)
        self._gone_keys[key] = revision

    @staticmethod
    def _is_held(key: str) -> bool:
        return key.startswith(
            (keys.RESOURCES, keys.PLACEMENTS, keys.NODES, keys.NODE_INTENTS, keys.REVISIONS)
        )

    def _put(self, key: str, value: bytes, mod_revision: int) -> None:
        for prefix, fold in (
            (keys.RESOURCES, partial(self._put_resource, mod_revision=mod_revision)),
            (keys.NODES, self._put_facts),
            (keys.NODE_INTENTS, self._put_intent),
            (keys.PLACEMENTS, self._put_chunk),
            (keys.REVISIONS, self._put_revision),
            (keys.COMMIT, self._put_commit),
            (keys.META, self._put_meta),
            (keys.DECISIONS, self._put_decisions),
        ):
            if key.startswith(prefix):
                fold(key, value)
                break
        else:
            if not key.startswith(keys.OTHERS):
                log.warning("store_key.ignored", key=key)
        if self._is_held(key):
            self.key_revisions[key] = mod_revision

    def _put_facts(self, key: str, value: bytes) -> None:
        try:
            facts = records.decode_node(value)
        except records.DamagedRecordError as error:
            # If a placement names it, that cannot be read, and that is an error.
            log.warning("store_key.ignored", key=key, error=str(error))
            return
        self.put_node(facts)

    def _put_revision(self, key: str, value: bytes) -> None:
        parsed = keys.parse_revision(key)
        if parsed is None:
            log.warning("store_key.ignored", key=key)
            return
        self.revisions[parsed] = records.decode_json(value)

    def _put_commit(self, _key: str, value: bytes) -> None:
        self.commit_value = value

    def _put_meta(self, _key: str, value: bytes) -> None:
        self.meta = records.decode_meta(value)

    def _put_decisions(self, key: str, _value: bytes) -> None:
        if keys.parse_decisions(key) is None:
            log.warning("store_key.ignored", key=key)
            return
        self.decisions.append(key)

    def put_node(self, facts: NodeFacts) -> None:
        """Add or change what a node registered."""
        entry = self.nodes.get(facts.name)
        if entry is None:
            intent = self.intents.get(facts.name, NodeIntent())
            self.nodes[facts.name] = NodeEntry(facts=facts, intent=intent)
        else:
            entry.facts = facts

    def drop_node(self, name: str) -> None:
        """Forget a node; its placements were removed before."""
        self.nodes.pop(name, None)
        self.by_node.pop(name, None)
        self.reserved.pop(name, None)

    def _put_chunk(self, key: str, value: bytes) -> None:
        parsed = keys.parse_placements(key)
        if parsed is None:
            log.warning("store_key.ignored", key=key)
            return
        uid, index = parsed
        names = {entry.facts.number: name for name, entry in self.nodes.items()}
        chunk = records.decode_chunk(uid, index, value, names)
        self.next_incarnation[uid, index] = chunk.next_incarnation
        for placement in chunk.placements:
            self.put_placement(placement)

    def _put_resource(self, key: str, value: bytes, mod_revision: int) -> set[str]:
        self.key_revisions[key] = mod_revision
        place = keys.parse_resource(key)
        if place is None:
            log.warning("store_key.ignored", key=key)
            return set()
        try:
            stored = records.decode_document(value)
            resource = parse_document(stored.document).resource
        except (DocumentError, records.DamagedRecordError) as error:
            # A document that cannot be read harms only itself: what runs of it is left alone.
            self.broken[key] = str(error)
            log.warning("document.unreadable", key=key, error=str(error))
            return set()
        self.broken.pop(key, None)
        before = self.resources.get(place)
        self.resources[place] = StoredResource(resource, stored, mod_revision)
        dirty: set[str] = set()
        if before is not None and before.stored.uid != stored.uid:
            self.workloads.pop(before.stored.uid, None)
        if isinstance(resource, Deployment):
            self.workloads[stored.uid] = place
            dirty.add(stored.uid)
        elif stored.deleting:
            dirty.add(stored.uid)
        return dirty

    def _put_intent(self, key: str, value: bytes | None) -> set[str]:
        name = keys.parse_node_intent(key)
        if name is None:
            log.warning("store_key.ignored", key=key)
            return set()
        try:
            intent = NodeIntent() if value is None else records.decode_node_intent(value)
        except records.DamagedRecordError as error:
            log.warning("store_key.ignored", key=key, error=str(error))
            return set()
        self.intents[name] = intent
        if name in self.nodes:
            self.nodes[name].intent = intent
        return {"*"}

    def _drop_resource(self, key: str) -> set[str]:
        self.key_revisions.pop(key, None)
        was_broken = self.broken.pop(key, None) is not None
        place = keys.parse_resource(key)
        if place is None:
            return set()
        entry = self.resources.pop(place, None)
        if entry is None:
            # What belonged to an unreadable document was left alone until now.
            return {"*"} if was_broken else set()
        self.workloads.pop(entry.stored.uid, None)
        # Somebody removed the document without waiting for its pods: they are stopped all the same.
        return {entry.stored.uid}

    # -- placements ----------------------------------------------------------------------------

    def put_placement(self, placement: Placement) -> None:
        """Add or change one; books its room when it is new."""
        mine = self.placements[placement.pod.workload_uid]
        before = mine.get(placement.pod)
        mine[placement.pod] = placement
        self.by_node[placement.node][placement.pod] = placement
        if before is None:
            self._book(placement, 1)
            self._booked.add(placement.pod)

    def drop_placement(self, pod: PodId) -> Placement | None:
        """Remove one; its room is free again."""
        placement = self.placements[pod.workload_uid].pop(pod, None)
        if placement is None:
            return None
        self.by_node[placement.node].pop(pod, None)
        self._unbook(placement)
        self._ended_s.pop(str(pod), None)
        self._placed_ms.pop(pod, None)
        entry = self.nodes.get(placement.node)
        if entry is not None:
            entry.statuses.pop(str(pod), None)
            entry.usage.pop(str(pod), None)
        return placement

    def _book(self, placement: Placement, sign: int) -> None:
        requests = self.requirements(placement.pod.workload_uid, placement.revision).requests
        now = self.reserved[placement.node]
        self.reserved[placement.node] = Amounts(
            cpu_millis=now.cpu_millis + sign * requests.cpu_millis,
            memory_bytes=now.memory_bytes + sign * requests.memory_bytes,
            pods=now.pods + sign * requests.pods,
        )

    def _unbook(self, placement: Placement) -> None:
        """An ended pod uses nothing any more, though its record is still there."""
        if placement.pod in self._booked:
            self._booked.discard(placement.pod)
            self._book(placement, -1)

    def drop_workload(self, uid: str) -> None:
        """Forget everything of a workload that is gone, its document too.

        The watch will say so later; until then the same name may have been given to a new document.
        """
        place = self.workloads.pop(uid, None)
        if place is not None:
            del self.resources[place]
        self.placements.pop(uid, None)
        self.failures.pop(uid, None)
        for slot in [held for held in self._attempts if held[0] == uid]:
            del self._attempts[slot]
        for held in [held for held in self.next_incarnation if held[0] == uid]:
            del self.next_incarnation[held]
            self.key_revisions.pop(keys.placements(*held), None)
        for held_revision in [held for held in self.revisions if held[0] == uid]:
            self.drop_revision(*held_revision)
        for cached in [held for held in self._requirements if held[0] == uid]:
            del self._requirements[cached]
        for cached in [held for held in self._texts if held[0] == uid]:
            del self._texts[cached]

    def uses_revision(self, uid: str, revision: str, *, without: Collection[PodId]) -> bool:
        """Whether a template is still needed: by the document, or by a pod other than these."""
        place = self.workloads.get(uid)
        if place is not None:
            resource = self.resources[place].resource
            assert isinstance(resource, Deployment)
            if template_hash(resource.spec.template) == revision:
                return True
        return any(
            placement.revision == revision and pod not in without
            for pod, placement in self.placements.get(uid, {}).items()
        )

    def drop_revision(self, uid: str, revision: str) -> None:
        """Forget a template that nothing uses."""
        self.revisions.pop((uid, revision), None)
        self._requirements.pop((uid, revision), None)
        self._texts.pop((uid, revision), None)
        self.key_revisions.pop(keys.revision(uid, revision), None)

    def requirements(self, uid: str, revision: str) -> Requirements:
        """What a pod of this revision needs; nothing, when its template is not known any more."""
        found = self._requirements.get((uid, revision))
        if found is None:
            template = self.revisions.get((uid, revision))
            if template is None:
                return Requirements(requests=Amounts(pods=1))
            found = self._requirements[uid, revision] = requirements_of(template)
        return found

    # -- agents → memory -----------------------------------------------------------------------

    def apply_full_report(self, node: str, statuses: Iterable[wire.PodStatus], now_s: float) -> set[str]:
        """Replace all that is known of a node's pods; returns the workloads concerned."""
        entry = self.nodes[node]
        entry.statuses = {}
        entry.has_reported = True
        dirty = {pod.workload_uid for pod in self.by_node[node]}
        return dirty | self.apply_statuses(node, statuses, now_s)

    def apply_statuses(self, node: str, statuses: Iterable[wire.PodStatus], now_s: float) -> set[str]:
        """Fold in what changed on a node; returns the workloads concerned."""
        entry = self.nodes[node]
        dirty: set[str] = set()
        for status in statuses:
            before = entry.statuses.get(status.uid)
            if before is not None and not PodState(before.state).may_become(PodState(status.state)):
                log.warning("pod_status.ignored", pod=status.uid, was=before.state, now=status.state)
                continue
            entry.statuses[status.uid] = status
            pod = PodId.parse(status.uid)
            if PodState(status.state).is_terminal and status.uid not in self._ended_s:
                self._ended(pod, now_s)
            if status.ready:
                self.failures.get(pod.workload_uid, {}).pop(pod.slot, None)
            dirty.add(pod.workload_uid)
        return dirty

    def _ended(self, pod: PodId, now_s: float) -> None:
        placement = self.placements.get(pod.workload_uid, {}).get(pod)
        if placement is None:
            return  # Its record is gone already.
        self._ended_s[str(pod)] = now_s
        self._unbook(placement)
        if placement.want is not Want.RUN:
            return
        count, _ = self.failures[pod.workload_uid].get(pod.slot, (0, 0.0))
        self.failures[pod.workload_uid][pod.slot] = (count + 1, now_s)

    def status(self, placement: Placement) -> wire.PodStatus | None:
        """What its agent last said of a placed pod; None while that is unknown."""
        entry = self.nodes.get(placement.node)
        return entry.statuses.get(str(placement.pod)) if entry is not None else None

    # -- memory → planning ---------------------------------------------------------------------

    def workload_view(self, uid: str) -> WorkloadView | None:
        """The whole of one workload now; None when the store has nothing of it."""
        pods = tuple(self._pod_view(placement) for placement in self.placements.get(uid, {}).values())
        place = self.workloads.get(uid)
        if place is None:
            if not pods or self.broken:
                # Pods of an unreadable document are left alone, and it cannot be told which those are.
                return None
            # Its document is gone: what is left is stopped.
            return WorkloadView(
                uid=uid, kind="", namespace="", name=uid, replicas=0, revision="",
                requirements={}, pods=pods, deleting=True,
            )  # fmt: skip
        entry = self.resources[place]
        assert isinstance(entry.resource, Deployment)
        template = template_json(entry.resource.spec.template)
        revision = template_hash(entry.resource.spec.template)
        if (uid, revision) not in self._requirements:
            self._requirements[uid, revision] = requirements_of(template)
        used = {revision} | {pod.revision for pod in pods}
        return WorkloadView(
            uid=uid,
            kind=place[0],
            namespace=place[1],
            name=place[2],
            replicas=entry.resource.spec.replicas,
            revision=revision,
            requirements={used_one: self.requirements(uid, used_one) for used_one in used},
            pods=pods,
            deleting=entry.stored.deleting,
            generation=entry.stored.generation,
            failures=dict(self.failures.get(uid, {})),
        )

    def _pod_view(self, placement: Placement) -> PodView:
        entry = self.nodes.get(placement.node)
        uid = str(placement.pod)
        status = entry.statuses.get(uid) if entry is not None else None
        state: PodState | None = None
        ready: bool | None = None
        is_gone = False
        if status is not None:
            state, ready = PodState(status.state), status.ready
        elif entry is not None and entry.has_reported:
            # It reported in full, and not this pod: it has not begun, or it has nothing of it left.
            state, ready = PodState.ASSIGNED, False
            is_gone = placement.want in (Want.STOP, Want.LOST) and uid not in entry.told
        return PodView(
            id=placement.pod,
            node=placement.node,
            revision=placement.revision,
            want=placement.want,
            cause=placement.cause,
            state=state,
            ready=ready,
            is_gone=is_gone,
            message=status.message if status is not None else "",
            ended_s=self._ended_s.get(uid, 0.0),
        )

    def template(self, uid: str, revision: str) -> Mapping[str, Any] | None:
        """The pod template of a revision: from history, or the document's present one."""
        found = self.revisions.get((uid, revision))
        if found is not None:
            return found
        place = self.workloads.get(uid)
        if place is None:
            return None
        resource = self.resources[place].resource
        assert isinstance(resource, Deployment)
        if template_hash(resource.spec.template) != revision:
            return None
        return template_json(resource.spec.template)

    def template_text(self, uid: str, revision: str) -> str:
        """The same as JSON, made once per revision: agents are sent it with every pod."""
        found = self._texts.get((uid, revision))
        if found is None:
            found = self._texts[uid, revision] = json.dumps(self.template(uid, revision) or {})
        return found

    def workload_name(self, uid: str) -> tuple[str, str, str]:
        """(kind, namespace, name); of a document that is gone its uid serves as the name."""
        return self.workloads.get(uid, ("Deployment", "", uid))

    def upcoming_incarnation(self, uid: str, slot: int) -> int:
        """What a pod placed next in this slot would be, if no neighbour is placed before it."""
        return self.next_incarnation.get((uid, records.chunk_of(slot)), 1)

    def pod_name(self, pod: PodId) -> str:
        """As users see it."""
        return pod_name(self.workload_name(pod.workload_uid)[2], pod)

    def created_ms(self, pod: PodId) -> int:
        """When a pod was placed; 0 if that decision is not kept any more."""
        return self._placed_ms.get(pod, 0)

    def note_decisions(self, batch: Mapping[str, Any]) -> None:
        """Keep what a committed batch of decisions says of pods that are there, and of the last ones gone.

        Raises KeyError or TypeError on what no leader wrote.
        """
        for entry in batch["decisions"]:
            if "pod" not in entry:
                continue
            pod = PodId(entry["uid"], entry["slot"], entry["incarnation"])
            if entry["reason"] == "PodPlaced" and pod in self.placements.get(pod.workload_uid, {}):
                self._placed_ms[pod] = batch["at_ms"]
            elif entry["reason"] == "PodRemoved" and pod.workload_uid in self.workloads:
                kind, namespace, workload = self.workload_name(pod.workload_uid)
                self._remember_attempt(
                    api.Pod(
                        uid=str(pod),
                        name=entry["pod"],
                        namespace=namespace,
                        workload_kind=kind,
                        workload=workload,
                        workload_uid=pod.workload_uid,
                        slot=pod.slot,
                        incarnation=pod.incarnation,
                        node=entry["node"],
                        status=entry["status"],
                        why=entry["why"],
                        ended_ms=batch["at_ms"],
                    )
                )

    def attempts_of(self, uid: str) -> list[api.Pod]:
        """Earlier pods of the slots that are wanted now, whose records are gone."""
        place = self.workloads.get(uid)
        if place is None:
            return []
        resource = self.resources[place].resource
        assert isinstance(resource, Deployment)
        return [
            pod
            for (held, slot), attempts in self._attempts.items()
            if held == uid and slot < resource.spec.replicas
            for pod in attempts
        ]

    def _remember_attempt(self, pod: api.Pod) -> None:
        self._attempts.setdefault((pod.workload_uid, pod.slot), deque(maxlen=ATTEMPTS_KEPT)).append(pod)

    def unreported_nodes(self, states: Mapping[str, NodeState]) -> list[str]:
        """Nodes that this leader has neither heard in full nor judged: it is still learning."""
        return [
            name
            for name, entry in self.nodes.items()
            if not entry.has_reported and states.get(name) is not NodeState.DOWN
        ]
