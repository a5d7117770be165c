"""Counts of latencies that can be added up: over time, and over nodes.

A mean of percentiles means nothing, but counts by fixed bounds may be summed by whoever has them. The
bounds grow by the same factor each, so that an estimate is wrong by a part of itself, not by
milliseconds. They are part of the wire: changing them makes old and new counts incomparable.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

_FIRST_MS = 0.25
_LAST_MS = 60_000.0
_BOUNDS = 24

BOUNDS_MS: tuple[float, ...] = tuple(
    _FIRST_MS * (_LAST_MS / _FIRST_MS) ** (index / (_BOUNDS - 1)) for index in range(_BOUNDS)
)
"""Upper bounds, inclusive: 0.25 ms to 60 s, each 1.7 times the one before."""

COUNTS = len(BOUNDS_MS) + 1
"""One more than there are bounds: the last is of what took longer than a minute."""


def count_into(counts: list[int], latency_ms: float) -> None:
    """Add one to the count that `latency_ms` belongs to. `counts` has `COUNTS` entries."""
    counts[bisect_left(BOUNDS_MS, latency_ms)] += 1


def merged(many: Iterable[Sequence[int]]) -> list[int]:
    """Sums. What has another number of counts is of another version, and left out."""
    total = [0] * COUNTS
    for counts in many:
        if len(counts) == COUNTS:
            total = [before + count for before, count in zip(total, counts, strict=True)]
    return total


def quantile_ms(counts: Sequence[int], quantile: float) -> float:
    """An estimate, e.g. of the median with 0.5; -1 where nothing was counted.

    Within its bounds a count is taken to be spread evenly. What is beyond the last bound is said to be there.
    """
    rank = quantile * sum(counts)
    if not rank:
        return -1.0
    below = 0
    for index, count in enumerate(counts[: len(BOUNDS_MS)]):
        if below + count >= rank and count:
            lower_ms = BOUNDS_MS[index - 1] if index else 0.0
            return lower_ms + (BOUNDS_MS[index] - lower_ms) * (rank - below) / count
        below += count
    return BOUNDS_MS[-1]
