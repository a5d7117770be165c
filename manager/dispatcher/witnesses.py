"""Who can testify whether a host lives, and what became of asking them.

Pure. A witness is a node that is well itself and has lately reached the port in question: one
that never could (a firewall, NAT) would call every host dead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

WITNESSES_MAX = 3
# Agents try their peers about every 15 s.
VALID_S = 60.0
# A witness makes five tries within 0.5 s; later than this it counts as not asked.
ANSWER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AskWitnesses:
    """Ask each of `witnesses` (1 to 3) whether it reaches `node`; answers bear `request`."""

    request: int
    node: str
    witnesses: tuple[str, ...]


class WitnessBook:
    """Which nodes said when that they reach which others."""

    def __init__(self) -> None:
        self._reached_s: dict[str, dict[str, float]] = {}  # node → witness → when it last said so

    def note(self, witness: str, node: str, now_s: float) -> None:
        self._reached_s.setdefault(node, {})[witness] = now_s

    def forget(self, name: str) -> None:
        self._reached_s.pop(name, None)
        for witnesses in self._reached_s.values():
            witnesses.pop(name, None)

    def valid(self, node: str, now_s: float, is_ready: Callable[[str], bool]) -> list[str]:
        """Whom to ask about `node`, the surest first."""
        reached_s = self._reached_s.get(node, {})
        for witness in [one for one, at_s in reached_s.items() if now_s - at_s > VALID_S]:
            del reached_s[witness]
        ready = [witness for witness in reached_s if witness != node and is_ready(witness)]
        return sorted(ready, key=lambda witness: (-reached_s[witness], witness))


@dataclass(slots=True)
class Inquiry:
    """One round of questions about one node. It is over when nobody is left to answer or to ask."""

    request: int
    started_s: float
    refused: list[str] = field(default_factory=list)  # Who could not reach it.
    is_answered: bool = False  # Somebody reached it: the others' word is void.
    _asked: set[str] = field(default_factory=set)
    _pending_s: dict[str, float] = field(default_factory=dict)  # Whose answer may still come, asked when.

    @property
    def is_over(self) -> bool:
        return not self._pending_s

    @property
    def expires_s(self) -> float:
        """When the next answer is too late. Infinite when none is awaited."""
        return min(self._pending_s.values(), default=float("inf")) + ANSWER_S

    def choose(self, valid: Iterable[str], now_s: float) -> tuple[str, ...]:
        """Drop who is late, and pick others in their place."""
        self._pending_s = {one: at_s for one, at_s in self._pending_s.items() if now_s < at_s + ANSWER_S}
        if self.is_answered:
            return ()
        missing = WITNESSES_MAX - len(self.refused) - len(self._pending_s)
        chosen = tuple(witness for witness in valid if witness not in self._asked)[: max(0, missing)]
        self._asked.update(chosen)
        self._pending_s.update(dict.fromkeys(chosen, now_s))
        return chosen

    def knows(self, witness: str) -> bool:
        return witness in self._asked

    def answer(self) -> None:
        """Somebody reaches the node."""
        self.is_answered = True
        self.refused.clear()
        self._pending_s.clear()

    def refuse(self, witness: str) -> None:
        """`witness` cannot reach the node. Too late, it counts as nothing."""
        if self._pending_s.pop(witness, None) is not None:
            self.refused.append(witness)

    def shift(self, pause_s: float) -> None:
        """Give everybody that much longer."""
        self.started_s += pause_s
        self._pending_s = {witness: at_s + pause_s for witness, at_s in self._pending_s.items()}
