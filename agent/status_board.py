"""What is to be reported: the last status of every pod, and which of them the manager has not heard.

Runners publish, the session takes. Nothing queues up: a pod that changed ten times while the
manager was away is reported once, as it is now.
"""

from __future__ import annotations

import asyncio

from bayplan.v1 import agent_link_pb2 as pb

# A message must stay far below the transport's limit, whatever the error texts are.
PODS_PER_REPORT = 500


class StatusBoard:
    """One per agent."""

    def __init__(self) -> None:
        self._statuses: dict[str, pb.PodStatus] = {}
        self._changed: dict[str, None] = {}  # In the order they changed.
        self._forgotten: dict[str, None] = {}
        # Until the engine was seen, it is not claimed to work.
        self._condition = pb.NodeCondition(engine_ok=False, message="the container engine was not seen yet")
        self._condition_changed = False
        self.is_dirty = asyncio.Event()

    def publish(self, status: pb.PodStatus) -> None:
        """The pod is so now."""
        if self._statuses.get(status.uid) == status:
            return
        self._statuses[status.uid] = status
        # Last in line: reports keep the order in which things became what they are.
        self._changed.pop(status.uid, None)
        self._changed[status.uid] = None
        self._forgotten.pop(status.uid, None)
        self.is_dirty.set()

    def statuses(self) -> list[pb.PodStatus]:
        """Of every pod, now."""
        return list(self._statuses.values())

    def drop(self, uid: str) -> None:
        """The agent no longer knows this pod."""
        self._changed.pop(uid, None)
        if self._statuses.pop(uid, None) is not None:
            self._forgotten[uid] = None
            self.is_dirty.set()

    def set_condition(self, condition: pb.NodeCondition) -> None:
        if condition != self._condition:
            self._condition = condition
            self._condition_changed = True
            self.is_dirty.set()

    def take_all(self) -> pb.StatusReport:
        """A full report; nothing is left to tell then."""
        self._changed.clear()
        self._forgotten.clear()
        self._condition_changed = False
        self.is_dirty.clear()
        return pb.StatusReport(full=True, pods=list(self._statuses.values()), condition=self._condition)

    def take_changes(self) -> pb.StatusReport | None:
        """What changed since the last take, at most `PODS_PER_REPORT` pods; None: nothing."""
        uids = list(self._changed)[:PODS_PER_REPORT]
        report = pb.StatusReport(
            pods=[self._statuses[uid] for uid in uids],
            forgotten=list(self._forgotten),
            condition=self._condition if self._condition_changed else None,
        )
        for uid in uids:
            del self._changed[uid]
        self._forgotten.clear()
        self._condition_changed = False
        if not self._changed:
            self.is_dirty.clear()
        has_news = bool(report.pods or report.forgotten or report.HasField("condition"))
        return report if has_news else None
