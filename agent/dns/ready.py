"""Replies that were made already, by the very bytes of the query.

Reading a query and making its reply takes some 200 µs; finding both here takes one, and pods ask the
same few things again and again. Everything in it is dropped when the zone changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ENTRIES_MAX = 4096
# Of replies longer than that there are few, and each would take the place of many.
REPLY_BYTES_MAX = 4096
# A set of endpoints begins with another one each time: so many orders of it are kept.
TURNS_MAX = 8
ID_BYTES = 2


@dataclass(slots=True)
class _Entry:
    until_s: float
    turns: int
    replies: list[bytes] = field(default_factory=list)
    next: int = 0


class ReadyReplies:
    """Times are monotonic seconds."""

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, wire: bytes, now_s: float) -> bytes | None:
        """The reply to this query. None: it has to be made, in its next turn."""
        entry = self._entries.get(wire[ID_BYTES:])
        if entry is None or now_s >= entry.until_s or len(entry.replies) < entry.turns:
            return None
        reply = entry.replies[entry.next]
        entry.next = (entry.next + 1) % entry.turns
        return wire[:ID_BYTES] + reply

    def turn(self, wire: bytes) -> int:
        """Which turn of this query's reply is to be made next."""
        entry = self._entries.get(wire[ID_BYTES:])
        return len(entry.replies) if entry is not None else 0

    def put(self, wire: bytes, reply: bytes, *, now_s: float, until_s: float, turns: int = 1) -> None:
        """Keep `reply` for queries like this one. `turns`: how many different ones there can be."""
        if until_s <= now_s or len(reply) > REPLY_BYTES_MAX:
            return
        key = wire[ID_BYTES:]
        entry = self._entries.get(key)
        if entry is None or now_s >= entry.until_s or len(entry.replies) >= entry.turns:
            self._entries.pop(key, None)
            entry = _Entry(until_s=until_s, turns=min(turns, TURNS_MAX))
            while len(self._entries) >= ENTRIES_MAX:
                # The oldest. To move those that are used to the end would cost more, each time, than to make them anew.
                del self._entries[next(iter(self._entries))]
            self._entries[key] = entry
        entry.replies.append(reply[ID_BYTES:])

    def clear(self) -> None:
        self._entries.clear()
