"""Lengths of time in words, for messages."""

from __future__ import annotations


def age(ms: float) -> str:
    """`45 s`, `3 h`, `12 d`: the largest unit of which there is at least one."""
    seconds = max(ms / 1000, 0)
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds // length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
