"""What the commit key holds: how far each term came. Pure.

Agents remember the last commit that they were told of. If the store does not know that commit,
the store has lost it: it was wiped or restored from a backup. Revisions cannot tell that: a
restored store gives them a second time, and elections alone soon carry it past the old ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from manager.store.records import DamagedRecordError

# Terms remembered. Agents that were away for longer than so many elections are believed.
TERMS_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The last commit, and the last one of each term before."""

    epoch: int = 0
    sequence: int = 0  # Counts commits since the store was made.
    earlier: tuple[tuple[int, int], ...] = ()  # (epoch, sequence), oldest first.

    def next(self, epoch: int) -> History:
        """With one more commit, made in `epoch`."""
        earlier = self.earlier
        if self.epoch and self.epoch != epoch:
            earlier = (*earlier, (self.epoch, self.sequence))[-TERMS_MAX:]
        return History(epoch=epoch, sequence=self.sequence + 1, earlier=earlier)

    def lacks(self, epoch: int, sequence: int) -> str:
        """Why this cannot be the store in which commit `sequence` was made in `epoch`; empty if it may be."""
        if epoch > self.epoch:
            return f"epoch {epoch}, this store has come to {self.epoch} only"
        known = dict((*self.earlier, (self.epoch, self.sequence)))
        if epoch in known:
            if sequence <= known[epoch]:
                return ""
            return f"commit {sequence} of epoch {epoch}, this store has {known[epoch]} only"
        if len(self.earlier) >= TERMS_MAX and epoch < self.earlier[0][0]:
            return ""
        return f"epoch {epoch}, which this store does not know"

    def encode(self) -> bytes:
        """As the key's value."""
        content = {"epoch": self.epoch, "sequence": self.sequence, "earlier": self.earlier}
        return json.dumps(content).encode()


def decode_history(value: bytes | None) -> History:
    """Of a store that has no such key: nothing was ever committed. Raises DamagedRecordError."""
    if value is None:
        return History()
    try:
        content = json.loads(value)
        earlier = tuple((int(epoch), int(sequence)) for epoch, sequence in content.get("earlier", ()))
        return History(epoch=int(content["epoch"]), sequence=int(content["sequence"]), earlier=earlier)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedRecordError("the commit key is damaged") from error
