"""What the leader knows: the store's durable facts in memory, and what agents have reported.

Rebuilt by every new leader: the durable part from one listing of the store, the live part
from the agents' full reports. It keeps these consistent with each other, decides nothing and
does no I/O. The store's facts are folded in by `store_to_state` and `changes_to_records`, agents'
reports here; `views` shows planning what it needs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from bayplan.model.names import PodId, pod_name
from bayplan.model.network import ClusterNetwork
from bayplan.model.nodes import Amounts, NodeFacts, NodeIntent, NodeState
from bayplan.model.placements import Placement, Want
from bayplan.model.policy import PolicyLevel
from bayplan.model.services import Allocation, Cursor
from bayplan.model.states import PodState
from bayplan.resources.document import Resource
from bayplan.resources.pods import template_hash, template_json
from bayplan.resources.workloads import Deployment
from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from manager.attempts import Attempts
from manager.planning.requirements import requirements_of
from manager.planning.subnets import first_address
from manager.planning.view import HostPort, Requirements
from manager.store import keys, records
from manager.touched import Touched

log = structlog.get_logger(__name__)


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
    has_reported: bool = False  # In full, to this leader, since its stream began.
    was_known: bool = (
        False  # The same, ever: `statuses` is all that was last seen, also when the stream breaks.
    )
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
        if not self.condition.engine_ok or self.condition.disk_pressure:
            return self.condition.message or "its agent says so"
        return self.condition.network_problem


class ClusterState:
    """Mutable, owned by the control loop's task; everybody else reads between its awaits."""

    def __init__(self) -> None:
        self.meta = records.Meta(format_version=records.FORMAT_VERSION, cluster_id="", incarnation="")
        self.network = ClusterNetwork()
        self.is_founded = False  # `network` stands in the store.
        self.revision = 0  # The store's: the highest of what was listed, watched and committed.
        # Up to which everything that others wrote is known: a commit may be ahead of the watch.
        self.watched_revision = 0
        self.commit_value: bytes | None = None
        self.resources: dict[tuple[str, str, str], StoredResource] = {}
        # Deployments by uid; the value is the key into `resources`.
        self.workloads: dict[str, tuple[str, str, str]] = {}
        # Deployments that this manager cannot read, likewise: what runs of them runs on, and serves.
        self.unreadable: dict[str, tuple[str, str, str]] = {}
        # Services and Ingresses by uid, likewise; and what they were given.
        self.services: dict[str, tuple[str, str, str]] = {}
        self.allocations: dict[str, Allocation] = {}
        # Grows with every change of what services ask for and were given: all of them are planned together.
        self.claims_version = 0
        self.cursor = Cursor()
        self.broken: dict[str, str] = {}  # Store key of an unreadable document, and why it is.
        self.nodes: dict[str, NodeEntry] = {}
        self.subnets: dict[int, str] = {}  # First address, as a number → node.
        self.placements: dict[str, dict[PodId, Placement]] = defaultdict(dict)
        self.by_node: dict[str, dict[PodId, Placement]] = defaultdict(dict)
        self.next_incarnation: dict[tuple[str, int], int] = {}
        self.revisions: dict[tuple[str, str], dict[str, Any]] = {}
        self.reserved: dict[str, Amounts] = defaultdict(Amounts)
        # Failed attempts in a row of a slot, and when the last ended (loop time).
        self.failures: dict[str, dict[int, tuple[int, float]]] = defaultdict(dict)
        self._booked: dict[PodId, Requirements] = {}
        self.host_ports: dict[str, set[HostPort]] = defaultdict(set)  # That pods use, by node.
        self.ended_s: dict[str, float] = {}  # By the pod's uid, in loop time.
        self._requirements: dict[tuple[str, str], Requirements] = {}
        self._texts: dict[tuple[str, str], str] = {}
        self.intents: dict[str, NodeIntent] = {}
        # mod-revision of every key held, for the sweep and to skip what the watch brings late.
        self.key_revisions: dict[str, int] = {}
        # Keys that are gone, and since when: a listing or a watch may bring them back from before.
        self._gone_keys: dict[str, int] = {}
        # What agents pull images with. Never changed, only replaced: another object means that it changed.
        self.credentials: tuple[wire.RegistryCredential, ...] = ()
        # By namespace; one that is not in it is "baseline".
        self.policies: dict[str, PolicyLevel] = {}
        self.attempts = Attempts()
        self.decisions: list[str] = []  # Keys, oldest first.
        self.touched = Touched()

    # -- keys and nodes ------------------------------------------------------------------------

    def known_revision(self, key: str) -> int:
        """Up to which a key is known: when it was last written or deleted; 0 if never heard of."""
        return max(self.key_revisions.get(key, 0), self._gone_keys.get(key, 0))

    def forget_key(self, key: str, revision: int) -> None:
        """A key was deleted at a revision."""
        self.key_revisions.pop(key, None)
        self._gone_keys[key] = revision

    def settle_gone_keys(self, revision: int) -> None:
        """A listing of this revision is folded in: what was gone by then is not brought back any more."""
        self._gone_keys = {key: at for key, at in self._gone_keys.items() if at > revision}

    def put_node(self, facts: NodeFacts) -> None:
        """Add or change what a node registered."""
        entry = self.nodes.get(facts.name)
        if entry is None:
            intent = self.intents.get(facts.name, NodeIntent())
            self.nodes[facts.name] = NodeEntry(facts=facts, intent=intent)
        else:
            self._drop_subnet(entry.facts)
            entry.facts = facts
        subnet = first_address(facts.subnet)
        if subnet is not None:
            self.subnets[subnet] = facts.name

    def _drop_subnet(self, facts: NodeFacts) -> None:
        subnet = first_address(facts.subnet)
        if subnet is not None and self.subnets.get(subnet) == facts.name:
            del self.subnets[subnet]

    def drop_node(self, name: str) -> None:
        """Forget a node; its placements were removed before."""
        entry = self.nodes.pop(name, None)
        if entry is not None:
            self._drop_subnet(entry.facts)
        self.by_node.pop(name, None)
        self.reserved.pop(name, None)
        self.host_ports.pop(name, None)

    def is_unreadable(self, place: tuple[str, str, str]) -> bool:
        """Whether there is a document that this leader could never read."""
        return place not in self.resources and keys.resource(*place) in self.broken

    def put_credential(self, registry: str, *, username: str, password: str) -> None:
        """Add or change what is shown to a registry."""
        self.drop_credential(registry)
        credential = wire.RegistryCredential(registry=registry, username=username, password=password)
        self.credentials = (*self.credentials, credential)

    def drop_credential(self, registry: str) -> None:
        """Forget it."""
        self.credentials = tuple(each for each in self.credentials if each.registry != registry)

    # -- placements ----------------------------------------------------------------------------

    def put_placement(self, placement: Placement) -> None:
        """Add or change one; books its room when it is new."""
        mine = self.placements[placement.pod.workload_uid]
        before = mine.get(placement.pod)
        mine[placement.pod] = placement
        self.touched.pod(placement.pod)
        self.by_node[placement.node][placement.pod] = placement
        if before is None:
            self._book(placement)

    def drop_placement(self, pod: PodId) -> Placement | None:
        """Remove one; its room is free again."""
        placement = self.placements[pod.workload_uid].pop(pod, None)
        if placement is None:
            return None
        self.by_node[placement.node].pop(pod, None)
        self.touched.pod(pod)
        self._unbook(placement)
        self.ended_s.pop(str(pod), None)
        self.attempts.drop_pod(pod)
        entry = self.nodes.get(placement.node)
        if entry is not None:
            entry.statuses.pop(str(pod), None)
            entry.usage.pop(str(pod), None)
        return placement

    def _book(self, placement: Placement) -> None:
        requirements = self.requirements(placement.pod.workload_uid, placement.revision)
        self._booked[placement.pod] = requirements
        self.reserved[placement.node] += requirements.requests
        self.host_ports[placement.node].update(requirements.host_ports)

    def _unbook(self, placement: Placement) -> None:
        """An ended pod uses nothing any more, though its record is still there."""
        requirements = self._booked.pop(placement.pod, None)
        if requirements is not None:
            self.reserved[placement.node] -= requirements.requests
            # A node has one pod on each of them at most.
            self.host_ports[placement.node].difference_update(requirements.host_ports)

    def drop_workload(self, uid: str) -> None:
        """Forget everything of a workload that is gone, its document too.

        The watch will say so later; until then the same name may have been given to a new document.
        """
        place = self.workloads.pop(uid, None)
        if place is not None:
            del self.resources[place]
            self.touched.document(place)
        self.placements.pop(uid, None)
        self.failures.pop(uid, None)
        self.attempts.drop_workload(uid)
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

    def learn_requirements(self, uid: str, revision: str, template: Mapping[str, Any]) -> None:
        """Work out, once, what a template asks for that may not be in the store yet."""
        if (uid, revision) not in self._requirements:
            self._requirements[uid, revision] = requirements_of(template)

    # -- agents → memory -----------------------------------------------------------------------

    def apply_full_report(self, node: str, statuses: Iterable[wire.PodStatus], now_s: float) -> set[str]:
        """Replace all that is known of a node's pods; returns the workloads concerned."""
        entry = self.nodes[node]
        entry.statuses = {}
        entry.has_reported = entry.was_known = True
        for pod in self.by_node[node]:
            self.touched.pod(pod)
        dirty = {pod.workload_uid for pod in self.by_node[node]}
        return dirty | self.apply_statuses(node, statuses, now_s)

    def apply_statuses(self, node: str, statuses: Iterable[wire.PodStatus], now_s: float) -> set[str]:
        """Fold in what changed on a node; returns the workloads concerned. Raises ValueError on nonsense."""
        entry = self.nodes[node]
        dirty: set[str] = set()
        for status in statuses:
            now = PodState(status.state)  # Before it is kept: what is kept is read again and again.
            before = entry.statuses.get(status.uid)
            if before is not None and not PodState(before.state).may_become(now):
                log.warning("pod_status.ignored", pod=status.uid, was=before.state, now=status.state)
                continue
            entry.statuses[status.uid] = status
            pod = PodId.parse(status.uid)
            self.touched.pod(pod)
            dirty.add(pod.workload_uid)
            placement = self.placements.get(pod.workload_uid, {}).get(pod)
            if placement is None or placement.node != node:
                continue  # Its record is gone already; or of another node's pod it is no witness.
            if now.is_terminal and status.uid not in self.ended_s:
                self._ended(placement, now_s)
            if status.ready:
                self.failures.get(pod.workload_uid, {}).pop(pod.slot, None)
        return dirty

    def _ended(self, placement: Placement, now_s: float) -> None:
        pod = placement.pod
        self.ended_s[str(pod)] = now_s
        self._unbook(placement)
        if placement.want is not Want.RUN:
            return
        count, _ = self.failures[pod.workload_uid].get(pod.slot, (0, 0.0))
        self.failures[pod.workload_uid][pod.slot] = (count + 1, now_s)

    def status(self, placement: Placement) -> wire.PodStatus | None:
        """What its agent last said of a placed pod; None while that is unknown."""
        entry = self.nodes.get(placement.node)
        return entry.statuses.get(str(placement.pod)) if entry is not None else None

    # -- templates and names -----------------------------------------------------------------

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

    def note_decisions(self, batch: Mapping[str, Any]) -> None:
        """Keep what a committed batch tells of pods. Raises KeyError or TypeError on what no leader wrote."""
        self.attempts.note_decisions(batch, placements=self.placements, workloads=self.workloads)

    def attempts_of(self, uid: str) -> list[api.Pod]:
        """Earlier pods of the slots that are wanted now, whose records are gone."""
        place = self.workloads.get(uid)
        if place is None:
            return []
        resource = self.resources[place].resource
        assert isinstance(resource, Deployment)
        return self.attempts.earlier(uid, slots=resource.spec.replicas)

    def unreported_nodes(self, states: Mapping[str, NodeState]) -> list[str]:
        """Nodes that this leader has neither heard in full nor judged: it is still learning."""
        return [
            name
            for name, entry in self.nodes.items()
            if not entry.has_reported and states.get(name) is not NodeState.DOWN
        ]
