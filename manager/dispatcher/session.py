"""One agent's stream, seen from the leader: what it was told, and what waits to be sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bayplan.model.placements import Want
from bayplan.v1 import agent_link_pb2 as wire
from manager.dispatcher.release import ProxyView

# Messages an agent may be behind before its stream is cut: it reconnects and is told everything at once.
OUTBOX_MAX = 1000
# Assignments in one message: a template is a few KiB, a message may be 16 MiB.
ASSIGNMENTS_PER_MESSAGE = 500


@dataclass(slots=True, eq=False)
class NodeSession:
    """Lives as long as the stream. Sends never block: a slow agent fills its own outbox only."""

    node: str
    hello: wire.Hello
    epoch: wire.Epoch
    via: str = ""  # The manager that relays it; empty: direct.
    is_synced: bool = False  # Full assignments were sent.
    is_visitor: bool = False  # Connected while the store is held to be from the past: told nothing.
    reported: list[wire.PodStatus] | None = None  # A visitor's last full report.
    peers: wire.Peers | None = None  # As they were sent.
    credentials: tuple[wire.RegistryCredential, ...] = field(default=(), repr=False)  # As they were sent.
    traffic_version: int = 0  # Up to which it was sent the traffic.
    proxy: ProxyView = field(default_factory=ProxyView)  # As it said last.
    last_heard_s: float = 0.0
    last_heard_ms: int = 0
    # A callable stands for what it makes when its turn has come.
    _outbox: asyncio.Queue[wire.ManagerMessage | Callable[[], Sequence[wire.ManagerMessage]] | None] = field(
        default_factory=lambda: asyncio.Queue(OUTBOX_MAX)
    )
    _has_place: bool = False
    is_closed: bool = False

    def send(self, message: wire.ManagerMessage) -> None:
        """Queue a message under this leader's epoch."""
        if self.is_closed:
            return
        message.epoch.CopyFrom(self.epoch)
        try:
            self._outbox.put_nowait(message)
        except asyncio.QueueFull:
            self.close()

    def send_in_turn(self, make: Callable[[], Sequence[wire.ManagerMessage]]) -> None:
        """Keep a place in the queue for what `make` says when its turn has come, under this epoch already.

        While it has a place nothing is added: a slow agent is sent one newer state, not every one before it.
        """
        if self.is_closed or self._has_place:
            return
        try:
            self._outbox.put_nowait(make)
        except asyncio.QueueFull:
            self.close()
        else:
            self._has_place = True

    def close(self, goodbye: str = "") -> None:
        """End the stream, after a Goodbye if there are words for it."""
        if self.is_closed:
            return
        if goodbye and not self._outbox.full():
            self.send(wire.ManagerMessage(goodbye=wire.Goodbye(reason=goodbye)))
        self.is_closed = True
        if self._outbox.full():
            self._outbox.get_nowait()
        self._outbox.put_nowait(None)

    async def outgoing(self) -> AsyncIterator[wire.ManagerMessage]:
        """What to send, until the session is closed."""
        while (queued := await self._outbox.get()) is not None:
            if isinstance(queued, wire.ManagerMessage):
                yield queued
                continue
            self._has_place = False
            for message in queued():
                yield message

    def tell(
        self,
        desired: Mapping[str, wire.Assignment],
        told: dict[str, Want],
        commit_sequence: int,
    ) -> None:
        """Send what of `desired` the agent does not know, and what it may forget; updates `told`."""
        changed = [
            assignment
            for uid, assignment in desired.items()
            if not self.is_synced or told.get(uid) != Want(assignment.want)
        ]
        forget = [uid for uid in told if uid not in desired]
        is_full = not self.is_synced
        if not changed and not forget and not is_full:
            return
        # A full set replaces all the agent has, so it goes as one message.
        parts = [changed] if is_full else list(batched(changed, ASSIGNMENTS_PER_MESSAGE)) or [[]]
        for index, part in enumerate(parts):
            assignments = wire.Assignments(
                full=is_full,
                pods=part,
                forget=forget if index == 0 else (),
                commit_sequence=commit_sequence,
            )
            self.send(wire.ManagerMessage(assignments=assignments))
        told.clear()
        told.update({uid: Want(assignment.want) for uid, assignment in desired.items()})
        self.is_synced = True


def batched(assignments: list[wire.Assignment], size: int) -> Iterator[list[wire.Assignment]]:
    """Cut into lists of at most `size`."""
    for start in range(0, len(assignments), size):
        yield assignments[start : start + size]
