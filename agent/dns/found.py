"""What others answered, for as long as they allow, and a while longer for when nobody answers.

Kept as bytes: a message as objects is twenty times as large. Times are monotonic seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from agent.dns.messages import Sections
from agent.dns.question import Question

TTL_MAX_S = 300
# Old is better than nothing (RFC 8767), but not after hours: what it leads to may be somebody else's by then.
STALE_MAX_S = 3600
# Of an answer that is too old; short, so that the new one is soon asked for.
STALE_TTL_S = 5
ENTRIES_MAX = 10_000
BYTES_MAX = 8 * 2**20
# What an entry costs beyond its bytes: objects, names, its place in the table.
_ENTRY_BYTES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An answer of theirs."""

    wire: bytes
    at_s: float
    ttl_s: int

    def is_fresh(self, now_s: float) -> bool:
        return now_s < self.at_s + self.ttl_s

    def is_usable(self, now_s: float) -> bool:
        """If need be."""
        return now_s < self.at_s + self.ttl_s + STALE_MAX_S

    def sections(self, now_s: float) -> Sections:
        """As it is to be given on while it is fresh: with what is left of each record's time."""
        age_s = int(now_s - self.at_s)
        return self._sections(lambda ttl_s: max(0, min(ttl_s, TTL_MAX_S) - age_s))

    def stale_sections(self) -> Sections:
        """As it is to be given on when there is nothing better."""
        return self._sections(lambda _: STALE_TTL_S)

    def _sections(self, ttl_s: Callable[[int], int]) -> Sections:
        message = dns.message.from_wire(self.wire)
        for rrset in (*message.answer, *message.authority):
            rrset.ttl = ttl_s(rrset.ttl)
        return Sections(rcode=message.rcode(), answer=message.answer, authority=message.authority)


def to_found(answer: dns.message.Message, question: Question, now_s: float) -> Found:
    """Without what clients of ours never need."""
    kept = dns.message.Message(id=0)
    kept.flags = answer.flags
    kept.set_rcode(answer.rcode())
    kept.question = answer.question
    kept.answer, kept.authority = answer.answer, answer.authority
    return Found(wire=bytes(kept.to_wire()), at_s=now_s, ttl_s=_ttl_s(answer, question))


class FoundAnswers:
    """Bounded in number and in bytes; what was not asked for longest goes first."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Question, Found] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, question: Question, now_s: float) -> Found | None:
        """Fresh or stale; not what is too old for either."""
        found = self._answers.get(question)
        if found is None:
            return None
        if not found.is_usable(now_s):
            self._drop(question)
            return None
        self._answers.move_to_end(question)
        return found

    def put(self, question: Question, found: Found) -> None:
        self._drop(question)
        if not found.ttl_s:
            return
        self._answers[question] = found
        self._bytes += len(found.wire) + _ENTRY_BYTES
        while len(self._answers) > ENTRIES_MAX or self._bytes > BYTES_MAX:
            self._drop(next(iter(self._answers)))

    def _drop(self, question: Question) -> None:
        found = self._answers.pop(question, None)
        if found is not None:
            self._bytes -= len(found.wire) + _ENTRY_BYTES


def _ttl_s(answer: dns.message.Message, question: Question) -> int:
    times_s = [rrset.ttl for rrset in answer.answer]  # Of aliases too.
    is_there = any(rrset.rdtype == question.kind for rrset in answer.answer)
    if answer.rcode() != dns.rcode.NOERROR or not is_there:
        # That there is nothing holds as long as the zone's SOA says (RFC 2308); without one it is not remembered.
        soas = [rrset for rrset in answer.authority if rrset.rdtype == dns.rdatatype.SOA and len(rrset)]
        times_s += [min(rrset.ttl, rrset[0].minimum) for rrset in soas] or [0]
    return min(TTL_MAX_S, *times_s)
