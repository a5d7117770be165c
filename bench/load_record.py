"""What a load saw, one record each, and what follows from all of them. Pure.

A load is open: requests are due at fixed times, whether earlier ones were answered or not, and are judged from
the time they were due. So a service that stands still for a second costs the three hundred requests of that
second, not the one that was waited for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

LIMIT_S = 2.0
"""What is not answered by then has failed."""

# A generator that is itself late says more about its machine than about what it measures.
LAG_P99_MAX_S = 0.1
LAG_MAX_S = 0.5
# Of all that was due; the rest was not sent.
SENT_MIN = 0.99
FAILURES_KEPT_MAX = 100_000


class Kind(StrEnum):
    """What was done."""

    GET = "get"
    POST = "post"
    WEBSOCKET = "websocket"  # A ping, or the try to connect.
    DOWNLOAD = "download"  # A whole one.


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One of them. Times are seconds since the load began."""

    kind: Kind
    target: str
    began_s: float  # When it was due.
    ended_s: float
    opened_s: float  # Its connection; of requests: when they were due.
    is_new: bool = True  # On a connection of its own.
    failure: str = ""  # In words; empty: it went well.
    pod: str = ""  # Who answered, as far as it is known.
    node: str = ""
    id: str = ""  # Of a POST.

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Record:
        return cls(**{**fields, "kind": Kind(fields["kind"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What the n-th request is to be."""

    target: str
    is_new: bool
    is_post: bool


def plan_request(number: int, targets: Sequence[str]) -> Planned:
    """Each target in turn; of each one's requests half on new connections, a tenth POSTs, of either half alike."""
    turn, index = divmod(number, len(targets))
    return Planned(
        target=targets[index],
        is_new=(turn + turn // 10) % 2 == 0,
        # Shifted by target, so that not all POSTs come at once.
        is_post=(turn + 3 * index) % 10 == 0,
    )


@dataclass(slots=True)
class Durations:
    """Of any number of them, to a millisecond, in bounded memory."""

    _counts: Counter[int] = field(default_factory=Counter)
    count: int = 0
    max_s: float = 0.0

    def add(self, duration_s: float) -> None:
        # A day of milliseconds at the very most.
        self._counts[min(round(duration_s * 1000), 86_400_000)] += 1
        self.count += 1
        self.max_s = max(self.max_s, duration_s)

    def quantile_s(self, share: float) -> float:
        """0 when there are none."""
        left = share * self.count
        for duration_ms in sorted(self._counts):
            left -= self._counts[duration_ms]
            if left <= 0:
                return duration_ms / 1000
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The whole load in numbers."""

    seconds: float
    due: int  # Requests; streams come on top of it.
    sent: int
    well: Mapping[str, int]  # By kind.
    failed: Mapping[str, int]
    reasons: Mapping[str, int]
    pods: Mapping[str, int]  # Answers by pod.
    p50_s: float
    p99_s: float
    max_s: float
    lag_p99_s: float  # Of the generator itself.
    lag_max_s: float
    reconnects: int  # WebSockets that a pod ended politely.

    @property
    def failures(self) -> int:
        return sum(self.failed.values())

    def doubts(self) -> list[str]:
        """Why this load proves nothing, in words; empty: it does."""
        found = []
        if self.lag_p99_s > LAG_P99_MAX_S or self.lag_max_s > LAG_MAX_S:
            found.append(
                f"the generator itself was late: {self.lag_p99_s:.3f} s in 1 of 100, {self.lag_max_s:.3f} s at most"
            )
        if self.sent < self.due * SENT_MIN:
            found.append(f"only {self.sent} of {self.due} requests were sent")
        return found

    def lines(self) -> list[str]:
        """For people."""
        rate = self.sent / self.seconds if self.seconds else 0.0
        found = [f"{self.sent} requests in {self.seconds:.0f} s ({rate:.0f}/s): {self.failures} failed"]
        found += [
            f"  {kind:9}  {self.well.get(kind, 0):7} well  {self.failed.get(kind, 0):5} failed"
            for kind in Kind
        ]
        found += [
            f"  {count} x {reason}" for reason, count in sorted(self.reasons.items(), key=lambda it: -it[1])
        ]
        found.append(
            f"  answered in {self.p50_s:.3f} s (p50), {self.p99_s:.3f} s (p99), {self.max_s:.3f} s (max) by {len(self.pods)} pods; "
            f"{self.reconnects} WebSockets were ended politely"
        )
        return found + [f"  proves nothing: {doubt}" for doubt in self.doubts()]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "failures": self.failures, "doubts": self.doubts()}


def late_failures(
    failures: Iterable[Record], *, fault_s: float, allowed_s: float, dead: Sequence[str] = ()
) -> list[Record]:
    """Those that a node's end does not excuse.

    Excused: what was sent to it (`dead`: its targets), what began up to `allowed_s` after the fault, and
    streams that were open when it struck: they may have ended on the dead node.
    """
    return [
        failure
        for failure in failures
        if failure.target not in dead
        and failure.began_s > fault_s + allowed_s
        and not (failure.kind in (Kind.WEBSOCKET, Kind.DOWNLOAD) and failure.opened_s <= fault_s + allowed_s)
    ]


def executed_twice(ids: Iterable[str]) -> dict[str, int]:
    """Id → how often, of those that were executed more than once, wherever."""
    return {identifier: count for identifier, count in Counter(ids).items() if count > 1}
