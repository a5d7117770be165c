"""Which manager to dial next, and how soon. Pure: no clock, no network.

Any manager knows the leader and sends the agent on to it. If the leader cannot be reached from
here, a manager that can be reached relays.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

# An agent that lost its leader asks at once; two thousand that did must not ask in step.
BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 2.0
REFUSED_FINALLY_S = 30.0
REDIRECTS_AT_ONCE = 2
# A manager list is a handful; a false one must not grow without end.
MANAGERS_MAX = 32


@dataclass(frozen=True, slots=True)
class Dial:
    """What to try next."""

    address: str
    relay: bool
    wait_s: float  # Before dialling.


class Route:
    """Remembers who was tried. `managers` is never empty."""

    def __init__(self, managers: Iterable[str], rng: random.Random) -> None:
        self.managers = list(dict.fromkeys(managers))[:MANAGERS_MAX]
        if not self.managers:
            raise ValueError("an agent needs the address of at least one manager")
        self._random = rng
        self._turn = rng.randrange(len(self.managers))
        self._leader = ""  # Where the last redirect points; dialled next.
        self._unreachable = ""  # A leader that did not answer us.
        self._relays_refused = 0  # Since then.
        self._backoff_s = 0.0
        self._redirects = 0  # Since the last session.
        self._wait_s = 0.0

    def next(self) -> Dial:
        """Where to go now."""
        wait_s, self._wait_s = self._wait_s, 0.0
        if self._leader:
            return Dial(self._leader, relay=False, wait_s=wait_s)
        return Dial(self.managers[self._turn], relay=bool(self._unreachable), wait_s=wait_s)

    def learn(self, managers: Iterable[str]) -> None:
        """A leader said who manages. What the operator gave stays: it may be all that is right after a move."""
        current = self.managers[self._turn]
        self.managers = list(dict.fromkeys([*managers, *self.managers]))[:MANAGERS_MAX]
        self._turn = self.managers.index(current) if current in self.managers else 0

    def welcomed(self) -> None:
        """A session stands."""
        self._backoff_s = 0.0
        self._redirects = 0

    def redirected(self, leader: str, *, was_relay: bool) -> None:
        """The manager that was dialled says who leads; empty: it knows none."""
        if not leader:
            self._try_next()
        elif leader == self._unreachable and was_relay:
            # It knows that we cannot reach that leader, and does not relay: ask another. When all were
            # asked, try the leader itself again.
            self._relays_refused += 1
            if self._relays_refused >= len(self.managers):
                self._unreachable = ""
            self._try_next()
        else:
            self._leader = leader
            self._redirects += 1
            # Managers that point at each other, during an election, are not asked in a tight loop.
            self._wait_s = 0.0 if self._redirects <= REDIRECTS_AT_ONCE else self._longer()

    def lost(self, address: str, *, was_welcome: bool) -> None:
        """The connection did not come about, or ended."""
        if address == self._leader:
            self._leader = ""
            if was_welcome:
                # It led until now: whoever leads next is known to another manager.
                self._unreachable = ""
                self._turn_away_from(address)
                self._wait_s = self._jittered(BACKOFF_MIN_S)
            else:
                # Back to the manager that named it: it may reach the leader and relay.
                self._unreachable = address
                self._relays_refused = 0
                self._wait_s = self._longer()
            return
        if was_welcome:
            self._unreachable = ""
        self._try_next()

    def refused(self, *, is_final: bool) -> None:
        """In words; the operator has to do something, unless it is passing."""
        self._leader = ""
        self._try_next()
        if is_final:
            self._wait_s = REFUSED_FINALLY_S

    def _try_next(self) -> None:
        self._leader = ""
        self._turn_away_from(self._unreachable)
        self._wait_s = self._longer()

    def _turn_away_from(self, address: str) -> None:
        """The next manager in turn, not this one if there is another."""
        for _ in self.managers:
            self._turn = (self._turn + 1) % len(self.managers)
            if self.managers[self._turn] != address:
                return

    def _longer(self) -> float:
        self._backoff_s = min(max(self._backoff_s * 2, BACKOFF_MIN_S), BACKOFF_MAX_S)
        return self._jittered(self._backoff_s)

    def _jittered(self, seconds: float) -> float:
        return seconds * self._random.uniform(0.5, 1.0)
