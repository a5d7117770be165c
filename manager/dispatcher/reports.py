"""What agents report of their nodes and pods, folded into the cluster state.

Decides nothing about pods: it marks workloads dirty, and tells of what a person asks about first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from bayplan.model.names import PodId
from bayplan.model.placements import Want
from bayplan.model.states import UNREADY
from bayplan.v1 import agent_link_pb2 as wire
from manager.cluster_state import ClusterState
from manager.dispatcher.liveness import Liveness
from manager.dispatcher.spoken import spoken
from manager.events import EventLog

log = structlog.get_logger(__name__)

# With the last lines that a container wrote, which agents cut at half of this.
STATUS_WORDS_MAX = 4096


class Reports:
    """Takes in status reports and heartbeats of nodes that are registered."""

    def __init__(
        self,
        state: ClusterState,
        *,
        liveness: Liveness,
        events: EventLog,
        mark: Callable[[Iterable[str]], None],
    ) -> None:
        self._state = state
        self._liveness = liveness
        self._events = events
        self._mark = mark

    def apply_status(self, node: str, report: wire.StatusReport, now_s: float) -> bool:
        """Fold in what runs on a node; returns whether it was told in full, so that the node can be synced."""
        state = self._state
        entry = state.nodes[node]
        before = dict(entry.statuses)
        _shorten(report)
        condition = report.condition
        if (report.HasField("condition") or report.full) and entry.condition != condition:
            if condition.proxy_problem not in ("", entry.condition.proxy_problem):
                self._events.add("ProxyProblem", condition.proxy_problem, obj=f"Node/{node}", source=node)
            entry.condition = condition
            self._mark(["*"])
        valid = [status for status in report.pods if _is_pod_uid(status.uid)]
        if report.full:
            if not condition.engine_ok:
                # It could not look: what it leaves out may run all the same.
                self._mark(state.apply_statuses(node, valid, now_s))
                return False
            dirty = state.apply_full_report(node, valid, now_s)
        else:
            dirty = state.apply_statuses(node, valid, now_s)
        for uid in report.forgotten:
            if entry.statuses.pop(uid, None) is not None:
                state.touched.pod(PodId.parse(uid))
        for status in valid:
            self._log_status(node, before.get(status.uid), status)
        self._mark(dirty)
        if report.full:
            self._mark(["*"])
        return report.full

    def _log_status(self, node: str, before: wire.PodStatus | None, status: wire.PodStatus) -> None:
        """Pods' own small events: what a person asks about first."""
        pod = PodId.parse(status.uid)
        if pod not in self._state.placements.get(pod.workload_uid, {}):
            return
        _, namespace, _ = self._state.workload_name(pod.workload_uid)

        def add(reason: str, message: str) -> None:
            self._events.add(
                reason,
                message,
                obj=f"Pod/{self._state.pod_name(pod)}",
                namespace=namespace,
                source=node,
                workload_uid=pod.workload_uid,
                slot=pod.slot,
            )

        placement = self._state.placements[pod.workload_uid][pod]
        if placement.node != node:
            return  # Of another node's pod it is no witness.
        if placement.want is Want.STOP:
            # That it stops was decided, and said; but not that its preStop hook failed.
            is_stopping = status.reason in ("Terminating", "Stopped")
            if is_stopping and status.message and (before is None or before.message != status.message):
                add("PodStopping", status.message)
            return
        was_ready = before is not None and before.ready
        if status.ready and not was_ready:
            add("PodReady", f"running on {node}")
        elif status.reason == UNREADY:
            if was_ready:
                add("PodUnready", status.message)
        elif status.reason and (
            before is None or (before.reason, before.message) != (status.reason, status.message)
        ):
            add("PodFailed", f"{status.reason}: {status.message}" if status.message else status.reason)

    def apply_heartbeat(self, node: str, beat: wire.Heartbeat, now_s: float) -> None:
        """Fold in whom a node reached, and what its pods use."""
        self._liveness.witnessed(node, beat.witnessed, now_s)
        if beat.usage or beat.HasField("node_used"):
            entry = self._state.nodes[node]
            entry.usage = {usage.uid: usage for usage in beat.usage}
            entry.used = beat.node_used


def _shorten(report: wire.StatusReport) -> None:
    """What an agent says is kept, and sent to whoever asks."""
    for status in report.pods:
        if len(status.message) > STATUS_WORDS_MAX:
            status.message = status.message[:STATUS_WORDS_MAX]
    if report.HasField("condition"):
        condition = report.condition
        condition.message = spoken(condition.message)
        condition.network_problem = spoken(condition.network_problem)
        condition.proxy_problem = spoken(condition.proxy_problem)


def _is_pod_uid(uid: str) -> bool:
    try:
        PodId.parse(uid)
    except ValueError:
        log.warning("pod_status.ignored", pod=uid[:200])
        return False
    return True
