"""The agent's own last log lines, for `bay logs node/n1`.

Kept in memory: the host's journal has them all, but it needs a login to read it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

LINES = 2000
LINE_MAX = 4096


class LogRing:
    """A structlog processor that keeps a copy of each event as one line of text."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, str]] = deque(maxlen=LINES)
        self._number = 0
        self._added: set[asyncio.Event] = set()

    def __call__(
        self, logger: object, method: str, event_dict: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        del logger
        known = ("timestamp", "level", "event")
        facts = " ".join(f"{key}={value}" for key, value in event_dict.items() if key not in known)
        when, level = event_dict.get("timestamp", ""), event_dict.get("level", method)
        line = f"{when} {level} {event_dict.get('event', '')} {facts}".strip()
        self._number += 1
        self._lines.append((self._number, line[:LINE_MAX].replace("\n", "\\n")))
        for added in self._added:
            added.set()
        return event_dict

    async def read(self, *, tail: int, follow: bool) -> AsyncIterator[str]:
        """The last `tail` lines (-1: all), then those to come if `follow`. A slow reader misses some."""
        added = asyncio.Event()
        self._added.add(added)
        try:
            kept = list(self._lines)
            pending = kept if tail < 0 else kept[len(kept) - min(tail, len(kept)) :]
            last = self._number
            while True:
                for _, line in pending:
                    yield line + "\n"
                if not follow:
                    return
                while not (pending := [each for each in self._lines if each[0] > last]):
                    added.clear()
                    await added.wait()
                last = pending[-1][0]
        finally:
            self._added.discard(added)
