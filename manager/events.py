"""Events: what happened and why, for people.

Decisions are durable (they are committed with what they decide, and a new leader reads them
back); what agents report about their pods is kept here only, bounded, and is in the logs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bayplan.v1 import control_pb2 as api

EVENTS_MAX = 5000
# An event that repeats within this time is counted, not added.
_REPEAT_MS = 10 * 60 * 1000
# … and is among so many of the last.
_REPEAT_AMONG = 20
_WARNINGS = frozenset(
    {
        "PodLost",
        "NodeDown",
        "NodeSuspect",
        "NodeAgentLost",
        "Unplaced",
        "PodFailed",
        "PodUnready",
        "ProxyProblem",
        "Quarantined",
        "ServiceProblem",
        "IngressProblem",
        "PortTaken",
        "PodDrainCut",
        "Alarm",
    }
)
# A watcher that reads slower than this many events behind is cut off; it lists again.
_WATCHER_LAG_MAX = 1000


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event with what it is about."""

    event: api.Event
    workload_uid: str = ""
    slot: int = -1


class EventLog:
    """The last events, oldest first.

    Args:
        source: who says what is added without a source: the leader that keeps this log.
    """

    def __init__(self, wall_s: Callable[[], float], *, source: str = "") -> None:
        self._wall_s = wall_s
        self._source = source
        self._events: deque[LoggedEvent] = deque(maxlen=EVENTS_MAX)
        self._watchers: set[asyncio.Queue[LoggedEvent | None]] = set()
        self._is_closed = False

    def add(
        self,
        reason: str,
        message: str,
        *,
        obj: str,
        namespace: str = "",
        source: str | None = None,
        workload_uid: str = "",
        slot: int = -1,
        at_ms: int = 0,
    ) -> None:
        """Add one; the same words about the same object in a row are counted."""
        at_ms = at_ms or int(self._wall_s() * 1000)
        for logged in islice(reversed(self._events), _REPEAT_AMONG):
            seen = logged.event
            if (seen.reason, seen.message, seen.object, seen.namespace) == (
                reason,
                message,
                obj,
                namespace,
            ) and at_ms - seen.at_ms < _REPEAT_MS:
                seen.count += 1
                seen.at_ms = at_ms
                self._publish(logged)
                return
        event = api.Event(
            at_ms=at_ms,
            type="Warning" if reason in _WARNINGS else "Normal",
            reason=reason,
            namespace=namespace,
            object=obj,
            message=message,
            count=1,
            **{"from": self._source if source is None else source},
        )
        logged = LoggedEvent(event, workload_uid, slot)
        self._events.append(logged)
        self._publish(logged)

    def add_decisions(self, batch: Mapping[str, Any], *, source: str | None = None) -> None:
        """Add a batch of decisions as it was committed. Raises KeyError on what no leader wrote."""
        for entry in batch["decisions"]:
            self.add(
                entry["reason"],
                entry["message"],
                obj=f"Pod/{entry['pod']}" if "pod" in entry else entry.get("workload", ""),
                namespace=entry.get("namespace", ""),
                source=source,
                workload_uid=entry.get("uid", ""),
                slot=entry.get("slot", -1),
                at_ms=batch["at_ms"],
            )

    def select(self, *, namespace: str = "", obj: str = "", since_ms: int = 0) -> list[api.Event]:
        """Those that match, oldest first. `obj` is kind/name, or a name of any kind."""
        return [logged.event for logged in self._events if _matches(logged, namespace, obj, since_ms)]

    def about_slot(self, workload_uid: str, slot: int) -> list[api.Event]:
        """All that is known of a slot's pods, oldest first."""
        return [
            logged.event
            for logged in self._events
            if logged.workload_uid == workload_uid and logged.slot in (slot, -1)
        ]

    async def watch(self, *, namespace: str = "", obj: str = "") -> AsyncGenerator[api.Event, None]:
        """New events that match, until the log is closed, or the reader falls too far behind."""
        if self._is_closed:
            return
        queue: asyncio.Queue[LoggedEvent | None] = asyncio.Queue(_WATCHER_LAG_MAX)
        self._watchers.add(queue)
        try:
            while (logged := await queue.get()) is not None:
                if _matches(logged, namespace, obj, 0):
                    yield logged.event
        finally:
            self._watchers.discard(queue)

    def _publish(self, logged: LoggedEvent) -> None:
        for queue in list(self._watchers):
            try:
                queue.put_nowait(logged)
            except asyncio.QueueFull:
                self._end(queue)

    def close(self) -> None:
        """The term is over: nothing will be added that a watcher should wait for."""
        self._is_closed = True
        for queue in list(self._watchers):
            self._end(queue)

    def _end(self, queue: asyncio.Queue[LoggedEvent | None]) -> None:
        self._watchers.discard(queue)
        if queue.full():
            queue.get_nowait()
        queue.put_nowait(None)

    def __iter__(self) -> Iterator[LoggedEvent]:
        return iter(self._events)


def _matches(logged: LoggedEvent, namespace: str, obj: str, since_ms: int) -> bool:
    event = logged.event
    if namespace and event.namespace not in ("", namespace):
        return False
    if obj and event.object.lower() != obj.lower() and event.object.partition("/")[2] != obj:
        return False
    return event.at_ms >= since_ms
