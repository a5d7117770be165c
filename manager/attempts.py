"""Ages and earlier attempts: what only the leader's committed decisions tell of pods.

Kept in memory, fed by each batch as it is committed, and after a leader change by those that the
store still holds. So it may be incomplete, and nothing is decided by it: it is for people to read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from bayplan.model.names import PodId
from bayplan.model.placements import Placement
from bayplan.v1 import control_pb2 as api

# Earlier pods of a slot that `bay ps` can show.
ATTEMPTS_KEPT = 5


class Attempts:
    """When pods were placed, and the last few that are gone of each slot."""

    def __init__(self) -> None:
        self._placed_ms: dict[PodId, int] = {}
        self._gone: dict[tuple[str, int], deque[api.Pod]] = {}

    def note_decisions(
        self,
        batch: Mapping[str, Any],
        *,
        placements: Mapping[str, Mapping[PodId, Placement]],
        workloads: Mapping[str, tuple[str, str, str]],
    ) -> None:
        """Keep what a committed batch of decisions says of pods that are there, and of the last ones gone.

        Args:
            batch: as `decisions_of` made it.
            placements: those that there are, by the workload's uid.
            workloads: (kind, namespace, name) by uid; what is gone with its workload is not kept.
        Raises KeyError or TypeError on what no leader wrote.
        """
        for entry in batch["decisions"]:
            if "pod" not in entry:
                continue
            pod = PodId(entry["uid"], entry["slot"], entry["incarnation"])
            if entry["reason"] == "PodPlaced" and pod in placements.get(pod.workload_uid, {}):
                self._placed_ms[pod] = batch["at_ms"]
            elif entry["reason"] == "PodRemoved" and pod.workload_uid in workloads:
                kind, namespace, workload = workloads[pod.workload_uid]
                gone = api.Pod(
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
                slot = (pod.workload_uid, pod.slot)
                self._gone.setdefault(slot, deque(maxlen=ATTEMPTS_KEPT)).append(gone)

    def created_ms(self, pod: PodId) -> int:
        """When a pod was placed; 0 if that decision is not kept any more."""
        return self._placed_ms.get(pod, 0)

    def earlier(self, uid: str, *, slots: int) -> list[api.Pod]:
        """Earlier pods of a workload's first `slots` slots, whose records are gone."""
        return [
            pod
            for (held, slot), attempts in self._gone.items()
            if held == uid and slot < slots
            for pod in attempts
        ]

    def drop_pod(self, pod: PodId) -> None:
        """A placement was removed: its age goes with it."""
        self._placed_ms.pop(pod, None)

    def drop_workload(self, uid: str) -> None:
        """Forget the attempts of a workload that is gone."""
        for slot in [held for held in self._gone if held[0] == uid]:
            del self._gone[slot]
