"""DNS messages: queries in, replies out. Pure; dnspython reads and writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

# What passes everywhere without fragments (dnsflagday.net/2020), the tunnel between nodes included.
UDP_MAX_BYTES = 1232
UDP_MIN_BYTES = 512  # Without EDNS; musl asks so.
TCP_MAX_BYTES = 65535
HEADER_BYTES = 12
# A name that is a reference, type, class, time, length, and something.
RECORD_MIN_BYTES = 13
_QUESTION_END_BYTES = 5  # After its labels: the root, type and class.
_EDNS = b"\0\0\x29"  # How its record begins: of the root, type OPT.
_IS_REPLY = 0x80  # In the third byte.
_ROTATED = frozenset({dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.SRV})


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question of a client that can be answered."""

    message: dns.message.Message = field(repr=False)
    name: dns.name.Name
    kind: dns.rdatatype.RdataType
    size_max: int  # Of the reply, if it goes over UDP.

    @property
    def wants_recursion(self) -> bool:
        return bool(self.message.flags & dns.flags.RD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sections:
    """What a reply holds."""

    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    answer: Sequence[dns.rrset.RRset] = ()
    authority: Sequence[dns.rrset.RRset] = ()
    additional: Sequence[dns.rrset.RRset] = ()
    is_authoritative: bool = False

    @property
    def turns(self) -> int:
        """In how many orders the records of the answer can stand."""
        return max((len(rrset) for rrset in self.answer if rrset.rdtype in _ROTATED), default=1)


def read_query(wire: bytes) -> Query | bytes | None:
    """A query, or the reply to what is none, or None: what gets no reply at all."""
    # A reply is never answered: two servers would go on for ever.
    if len(wire) < HEADER_BYTES or wire[2] & _IS_REPLY:
        return None
    if dns.opcode.from_flags(int.from_bytes(wire[2:4])) != dns.opcode.QUERY:
        return _header_alone(wire, dns.rcode.NOTIMP)
    if not _is_one_question(wire):
        return _header_alone(wire, dns.rcode.FORMERR)
    try:
        message = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError):
        return _header_alone(wire, dns.rcode.FORMERR)
    question = message.question[0]
    query = Query(message=message, name=question.name, kind=question.rdtype, size_max=_size_max(message))
    refusal = _refusal(message, question)
    if refusal is not None:
        return write_reply(query, Sections(rcode=refusal), size_max=UDP_MIN_BYTES)
    return query


def _is_one_question(wire: bytes) -> bool:
    """Whether nothing stands beside it but EDNS.

    Looked at before dnspython reads it: names take it milliseconds, and a packet of 4 KB can hold so many that
    everybody would wait for seconds.
    """
    end = HEADER_BYTES
    while end < len(wire) and wire[end]:
        end += 1 + wire[end]
    rest = wire[end + _QUESTION_END_BYTES :]
    match tuple(wire[4:HEADER_BYTES]):
        case (0, 1, 0, 0, 0, 0, 0, 0):
            return not rest
        case (0, 1, 0, 0, 0, 0, 0, 1):
            return rest.startswith(_EDNS)
        case _:
            return False


def _refusal(message: dns.message.Message, question: dns.rrset.RRset) -> dns.rcode.Rcode | None:
    if message.edns > 0:
        return dns.rcode.BADVERS
    if question.rdclass != dns.rdataclass.IN:
        return dns.rcode.REFUSED
    # Transfers, and ANY (RFC 8482): nothing that pods need, and answers that are large.
    if dns.rdatatype.is_metatype(question.rdtype):
        return dns.rcode.NOTIMP
    return None


def write_reply(query: Query, sections: Sections, *, size_max: int, turn: int = 0) -> bytes:
    """The reply in at most `size_max` bytes. What does not fit is left out, and the reply says so (TC).

    The records of the answer begin with another one each `turn`.
    """
    reply = dns.message.make_response(query.message, recursion_available=True, our_payload=UDP_MAX_BYTES)
    reply.set_rcode(sections.rcode)
    if sections.is_authoritative:
        reply.flags |= dns.flags.AA
    # Ours are never verified, and of others' that somebody verified them is not for us to say.
    reply.flags &= ~dns.flags.AD
    reply.answer = [_turned(rrset, turn) for rrset in sections.answer]
    reply.authority = list(sections.authority)
    reply.additional = list(sections.additional)
    return _fitted(reply, size_max)


def _fitted(reply: dns.message.Message, size_max: int) -> bytes:
    """Part of the answer rather than none: musl's resolver before 1.2.4 takes what it gets over UDP, and knows no TCP."""
    while True:
        try:
            return bytes(reply.to_wire(max_size=size_max, want_shuffle=False))
        except dns.exception.TooBig:
            pass
        if reply.additional:
            # It was only offered: nothing is cut short by leaving it out.
            reply.additional = []
            continue
        reply.flags |= dns.flags.TC
        largest = max(reply.answer, key=len, default=None)
        if largest is None or len(largest) == 1:
            reply.answer, reply.authority = [], []
            continue
        kept = list(largest)[: min(len(largest) * 3 // 4, size_max // RECORD_MIN_BYTES)]
        reply.answer[reply.answer.index(largest)] = dns.rrset.from_rdata_list(largest.name, largest.ttl, kept)


def _turned(rrset: dns.rrset.RRset, turn: int) -> dns.rrset.RRset:
    if rrset.rdtype not in _ROTATED or len(rrset) < 2:
        return rrset
    records = list(rrset)
    first = turn % len(records)
    return dns.rrset.from_rdata_list(rrset.name, rrset.ttl, [*records[first:], *records[:first]])


def _size_max(message: dns.message.Message) -> int:
    if message.edns < 0:
        return UDP_MIN_BYTES
    return min(UDP_MAX_BYTES, max(UDP_MIN_BYTES, message.payload))


def _header_alone(wire: bytes, rcode: dns.rcode.Rcode) -> bytes:
    reply = dns.message.Message(id=int.from_bytes(wire[:2]))
    # What was asked to be done, and whether recursion was wanted, are given back.
    reply.flags = dns.flags.QR | (int.from_bytes(wire[2:4]) & (0x7800 | dns.flags.RD))
    reply.set_rcode(rcode)
    return bytes(reply.to_wire())
