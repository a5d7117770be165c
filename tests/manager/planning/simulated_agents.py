"""A cluster without wires: plans are committed, whole or cut, and agents obey a step at a time."""

from __future__ import annotations

from dataclasses import replace

from bayplan.model.names import PodId
from bayplan.model.nodes import NodeState
from bayplan.model.placements import Cause, Want
from bayplan.model.states import PodState
from manager.planning.changes import Change, PlacePod, Plan, RemovePlacement, RemoveWorkload, SetWant
from manager.planning.view import ClusterView, NodeView, PodView, WorkloadView
from tests.builders import NOW_S, a_cluster
from tests.plan_checker import planned


class SimulatedCluster:
    """Holds what the store, the agents and the users hold; plans are checked as they are made."""

    def __init__(self, nodes: list[NodeView], workloads: list[WorkloadView]) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.workloads = {workload.uid: workload for workload in workloads}
        self.now_s = NOW_S
        self._incarnation = max((pod.id.incarnation for each in workloads for pod in each.pods), default=0)

    def view(self) -> ClusterView:
        return a_cluster(*self.nodes.values(), workloads=list(self.workloads.values()), now_s=self.now_s)

    def plan(self) -> Plan:
        return planned(list(self.workloads.values()), self.view())

    def commit(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            match change:
                case SetWant():
                    pod = self._pod(change.pod)
                    self._put(replace(pod, want=change.want))
                case RemovePlacement():
                    self._drop(change.pod)
                case RemoveWorkload():
                    del self.workloads[change.workload_uid]
                case PlacePod():
                    self._incarnation += 1
                    self._place(change)

    def step_agents(self) -> None:
        """Every node in reach does what it was told, one state further, and reports."""
        for workload in self.workloads.values():
            for pod in workload.pods:
                node = self.nodes.get(pod.node)
                if node is not None and node.state is NodeState.READY and not pod.is_gone:
                    self._put(_obey(pod, self.now_s))

    def settle(self, passes: int = 200) -> Plan:
        """Plan, commit and obey until nothing changes. The last plan."""
        for _ in range(passes):
            before = self.workloads
            made = self.plan()
            self.commit(made.changes)
            self.step_agents()
            if made.wake_at_s:
                self.now_s = max(self.now_s, made.wake_at_s)
            elif not made.changes and self.workloads == before:
                return made
        raise AssertionError(f"never settles: {made}")

    def fail(self, pod: PodView) -> None:
        """Its agent gives up on a pod."""
        if not _has_ended(pod):
            self._put(replace(pod, state=PodState.FAILED, ready=False, ended_s=self.now_s))

    def set_node(self, name: str, **changes: object) -> None:
        self.nodes = {**self.nodes, name: replace(self.nodes[name], **changes)}  # type: ignore[arg-type]  # any field

    def forget(self, name: str) -> None:
        """A new leader: what runs on this node is not known."""
        for workload in self.workloads.values():
            for pod in workload.pods:
                if pod.node == name and not _has_ended(pod):
                    self._put(replace(pod, state=None, ready=None))

    def set_workload(self, uid: str, **changes: object) -> None:
        workload = replace(self.workloads[uid], **changes)  # type: ignore[arg-type]  # any field
        known = next(iter(workload.requirements.values()))
        revisions = {workload.revision, *workload.requirements}
        self.workloads = {
            **self.workloads,
            uid: replace(workload, requirements=dict.fromkeys(sorted(revisions), known)),
        }

    def _pod(self, pod: PodId) -> PodView:
        return next(each for each in self.workloads[pod.workload_uid].pods if each.id == pod)

    def _put(self, pod: PodView) -> None:
        workload = self.workloads[pod.id.workload_uid]
        others = tuple(each for each in workload.pods if each.id != pod.id)
        pods = tuple(sorted((*others, pod), key=lambda each: each.id))
        self.workloads = {**self.workloads, workload.uid: replace(workload, pods=pods)}

    def _drop(self, pod: PodId) -> None:
        workload = self.workloads[pod.workload_uid]
        pods = tuple(each for each in workload.pods if each.id != pod)
        self.workloads = {**self.workloads, workload.uid: replace(workload, pods=pods)}

    def _place(self, change: PlacePod) -> None:
        self._put(
            PodView(
                id=PodId(change.workload_uid, change.slot, self._incarnation),
                node=change.node,
                revision=change.revision,
                want=Want.RUN,
                cause=Cause(change.cause),
                state=PodState.ASSIGNED,
                ready=False,
            )
        )


def _has_ended(pod: PodView) -> bool:
    return pod.state in (PodState.SUCCEEDED, PodState.FAILED, PodState.STOPPED)


def _obey(pod: PodView, now_s: float) -> PodView:
    if _has_ended(pod):
        return pod
    if pod.want is Want.STOP:
        return replace(pod, state=PodState.STOPPED, ready=False, ended_s=now_s)
    if pod.state is None or pod.state is PodState.STARTING:
        return replace(pod, state=PodState.RUNNING, ready=True)
    if pod.state < PodState.STARTING:
        return replace(pod, state=PodState.STARTING, ready=False)
    return pod
