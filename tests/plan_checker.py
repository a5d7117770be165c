"""What must hold for every plan, whatever it decides: asserted for each of its prefixes.

Written from the rules, not from the planner: it keeps its own books.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bayplan.model.names import PodId
from bayplan.model.nodes import Amounts
from bayplan.model.placements import Want
from bayplan.model.states import PodState
from manager.planning.changes import Change, PlacePod, Plan, RemovePlacement, RemoveWorkload, SetWant
from manager.planning.plan import plan
from manager.planning.view import ClusterView, PodView, WorkloadView

_ENDED = {PodState.SUCCEEDED, PodState.FAILED, PodState.STOPPED}

# LOST → HANDOVER: a copy that came back serves on until its successor is ready.
_TRANSITIONS = {
    Want.RUN: {Want.HANDOVER, Want.STOP, Want.LOST},
    Want.HANDOVER: {Want.RUN, Want.STOP, Want.LOST},
    Want.LOST: {Want.RUN, Want.HANDOVER, Want.STOP},
    Want.STOP: set(),
}


def planned(workloads: Sequence[WorkloadView], cluster: ClusterView) -> Plan:
    """The plan of these views, checked."""
    made = plan(workloads, cluster)
    check_plan(workloads, cluster, made)
    return made


def check_plan(workloads: Sequence[WorkloadView], cluster: ClusterView, made: Plan) -> None:
    """Raise AssertionError, naming the change, if a prefix of the plan is illegal."""
    books = _Books(workloads, cluster)
    for change in made.changes:
        assert change.reason, change
        books.follow(change)
    pending = {(unplaced.workload_uid, unplaced.slot) for unplaced in made.unplaced}
    assert len(pending) == len(made.unplaced), "a slot is unplaced once"
    assert all(unplaced.reason for unplaced in made.unplaced)
    for uid, workload in books.workloads.items():
        wanted = set() if workload.deleting else set(range(workload.replicas))
        running = {pod.id.slot for pod in books.of(uid) if pod.want is Want.RUN}
        missing = {(uid, slot) for slot in wanted - running}
        assert missing == {slot for slot in pending if slot[0] == uid}, "every empty slot says why"


class _Books:
    def __init__(self, workloads: Sequence[WorkloadView], cluster: ClusterView) -> None:
        self.workloads = {workload.uid: workload for workload in workloads}
        self.cluster = cluster
        self.pods: dict[PodId, PodView] = {pod.id: pod for each in workloads for pod in each.pods}
        self.booked = {name: cluster.reserved.get(name, Amounts()) for name in cluster.nodes}
        self.removed: set[str] = set()

    def of(self, uid: str) -> list[PodView]:
        return [pod for pod in self.pods.values() if pod.id.workload_uid == uid]

    def follow(self, change: Change) -> None:
        match change:
            case SetWant():
                pod = self.pods[change.pod]
                assert change.want in _TRANSITIONS[pod.want], (pod.want, change)
                self.pods[change.pod] = replace(pod, want=change.want)
                self._check_one_running(change.pod.workload_uid, change.pod.slot, change)
            case PlacePod():
                self._place(change)
            case RemovePlacement():
                self._remove(change)
            case RemoveWorkload():
                assert self.workloads[change.workload_uid].deleting, change
                assert not self.of(change.workload_uid), change
                self.removed.add(change.workload_uid)

    def _check_one_running(self, uid: str, slot: int, change: Change) -> None:
        running = [pod for pod in self.of(uid) if pod.id.slot == slot and pod.want is Want.RUN]
        assert len(running) <= 1, (change, running)

    def _place(self, change: PlacePod) -> None:
        workload = self.workloads[change.workload_uid]
        assert not workload.deleting, change
        assert change.workload_uid not in self.removed, change
        assert 0 <= change.slot < workload.replicas, change
        assert change.revision == workload.revision, change
        self._check_node(workload, change)
        incarnations = [pod.id.incarnation for pod in self.of(change.workload_uid)]
        pod = PodId(change.workload_uid, change.slot, max(incarnations, default=0) + 1)
        assert pod not in self.pods, change
        self.pods[pod] = PodView(
            id=pod,
            node=change.node,
            revision=change.revision,
            want=Want.RUN,
            cause=change.cause,
            state=None,
            ready=None,
        )
        self._check_one_running(change.workload_uid, change.slot, change)

    def _check_node(self, workload: WorkloadView, change: PlacePod) -> None:
        node = self.cluster.nodes[change.node]
        needs = workload.requirements[change.revision]
        assert node.takes_pods, change
        assert all(node.labels.get(key) == value for key, value in needs.node_selector), change
        for taint in node.taints:
            is_tolerated = any(each.tolerates(taint) for each in needs.tolerations)
            assert taint.effect == "PreferNoSchedule" or is_tolerated, change
        booked = self.booked[change.node] = self.booked[change.node] + needs.requests
        for name in ("cpu_millis", "memory_bytes", "pods"):
            fits = getattr(booked, name) <= getattr(node.capacity, name)
            assert fits or not getattr(needs.requests, name), f"{name} of {change.node}: {change}"

    def _remove(self, change: RemovePlacement) -> None:
        pod = self.pods.pop(change.pod)
        has_ended = pod.state in _ENDED
        assert pod.want in (Want.STOP, Want.LOST), change
        assert has_ended or pod.is_gone or pod.node not in self.cluster.nodes, change
        requirements = self.workloads[change.pod.workload_uid].requirements.get(pod.revision)
        if not has_ended and pod.node in self.booked and requirements is not None:
            requests = requirements.requests
            booked = self.booked[pod.node]
            self.booked[pod.node] = Amounts(
                cpu_millis=booked.cpu_millis - requests.cpu_millis,
                memory_bytes=booked.memory_bytes - requests.memory_bytes,
                pods=booked.pods - requests.pods,
            )
