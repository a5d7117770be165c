from __future__ import annotations

import time

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dns.messages import TCP_MAX_BYTES, UDP_MAX_BYTES, Query, Sections, read_query, write_reply
from tests.agent.dns.builders import WEB, a_query, read, values


def a_question(*, payload: int = 0, name: str = WEB) -> Query:
    query = read_query(a_query(name, payload=payload))
    assert isinstance(query, Query)
    return query


def addresses(count: int) -> Sections:
    return Sections(
        answer=[
            dns.rrset.from_text(WEB, 5, "IN", "A", *(f"10.42.{n // 250}.{n % 250}" for n in range(count)))
        ]
    )


class TestReading:
    def test_a_query(self) -> None:
        query = a_question(payload=4096)

        assert (str(query.name), query.wants_recursion, query.size_max) == (WEB, True, UDP_MAX_BYTES)

    @pytest.mark.parametrize(
        ("payload", "size_max"), [(0, 512), (100, 512), (1000, 1000), (1232, 1232), (65535, 1232)]
    )
    def test_how_large_a_reply_may_be(self, payload: int, size_max: int) -> None:
        assert a_question(payload=payload).size_max == size_max

    def test_replies_are_never_answered(self) -> None:
        """Two servers would go on for ever."""
        assert read_query(dns.message.make_response(dns.message.make_query(WEB, "A")).to_wire()) is None

    def test_what_has_no_header_is_not_answered(self) -> None:
        assert [read_query(bytes(length)) for length in range(12)] == [None] * 12

    @pytest.mark.parametrize(
        ("wire", "rcode"),
        [
            (a_query()[:-1], "FORMERR"),
            (a_query() + b"junk", "FORMERR"),
            (a_query()[:12].replace(b"\0\1", b"\0\0"), "FORMERR"),  # No question.
            (a_query()[:12] + b"\xc0\x0c" * 200, "FORMERR"),  # A name that points at itself.
            (a_query(kind="ANY"), "NOTIMP"),
            (a_query(kind="AXFR"), "NOTIMP"),
            (bytes(dns.message.make_query("version.bind", "TXT", "CH").to_wire()), "REFUSED"),
            (bytes(dns.message.make_query(WEB, "A", use_edns=1).to_wire()), "BADVERS"),
        ],
    )
    def test_what_is_no_query_for_us_is_told_so(self, wire: bytes, rcode: str) -> None:
        reply = read(read_query(wire))

        assert (reply.id, dns.rcode.to_text(reply.rcode())) == (int.from_bytes(wire[:2]), rcode)
        assert reply.flags & dns.flags.QR

    def test_other_operations_are_not_done(self) -> None:
        message = dns.message.make_query(WEB, "A")
        message.set_opcode(dns.opcode.NOTIFY)

        reply = read(read_query(message.to_wire()))

        assert (reply.rcode(), reply.opcode()) == (dns.rcode.NOTIMP, dns.opcode.NOTIFY)

    @pytest.mark.parametrize("section", [1, 2, 3])
    def test_what_brings_records_along_is_not_read_at_all(self, section: int) -> None:
        """270 records with names of 127 labels keep dnspython busy for more than a second."""
        name = b"\1a" * 126 + b"\0"
        counts = [b"\0\0"] * 3
        counts[section - 1] = (270).to_bytes(2)
        record = b"\xc0\x0c" + b"\0\2\0\1" + bytes(4) + b"\0\2" + b"\xc0\x0c"
        wire = b"\0\7\1\0\0\1" + b"".join(counts) + name + b"\0\1\0\1" + record * 270
        began_s = time.process_time()

        assert read(read_query(wire)).rcode() == dns.rcode.FORMERR
        assert time.process_time() - began_s < 0.1

    @given(st.binary(max_size=600))
    def test_nothing_makes_it_fail(self, wire: bytes) -> None:
        reply = read_query(wire)

        assert reply is None or isinstance(reply, Query) or reply[:2] == wire[:2]

    @given(st.data())
    def test_nor_does_a_query_that_was_damaged(self, data: st.DataObject) -> None:
        wire = bytearray(a_query(payload=1232))
        for _ in range(data.draw(st.integers(1, 8))):
            wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))

        read_query(bytes(wire))


class TestReply:
    def test_keeps_id_question_and_the_case_of_the_name(self) -> None:
        """Resolvers check that what they wrote in mixed case comes back so."""
        query = a_question(name="wEb.DeFault.svc.cluster.local")
        reply = read(write_reply(query, addresses(1), size_max=512))

        assert reply.id == query.message.id
        assert str(reply.question[0].name) == "wEb.DeFault.svc.cluster.local."
        assert str(reply.answer[0].name) == "wEb.DeFault.svc.cluster.local."

    @pytest.mark.parametrize(("payload", "edns"), [(0, -1), (1232, 0)])
    def test_speaks_edns_with_those_who_do(self, payload: int, edns: int) -> None:
        assert read(write_reply(a_question(payload=payload), addresses(1), size_max=512)).edns == edns

    def test_says_whose_word_it_is(self) -> None:
        query = a_question()

        for is_ours in (True, False):
            reply = read(write_reply(query, Sections(is_authoritative=is_ours), size_max=512))
            assert bool(reply.flags & dns.flags.AA) == is_ours
            assert reply.flags & dns.flags.RA

    def test_begins_with_another_address_each_turn(self) -> None:
        query = a_question()
        turns = [values(read(write_reply(query, addresses(3), size_max=512, turn=turn))) for turn in range(4)]

        assert [turn[0] for turn in turns] == ["10.42.0.0", "10.42.0.1", "10.42.0.2", "10.42.0.0"]
        assert {frozenset(turn) for turn in turns} == {frozenset(turns[0])}

    @pytest.mark.parametrize("payload", [0, 700, 1232])
    def test_that_does_not_fit_holds_a_part_and_says_so(self, payload: int) -> None:
        query = a_question(payload=payload)
        wire = write_reply(query, addresses(1000), size_max=query.size_max)

        assert len(wire) <= query.size_max
        assert read(wire).flags & dns.flags.TC
        assert len(values(read(wire))) > query.size_max // 16 // 2

    def test_over_tcp_is_whole(self) -> None:
        reply = read(write_reply(a_question(), addresses(1000), size_max=TCP_MAX_BYTES))

        assert len(values(reply)) == 1000
        assert not reply.flags & dns.flags.TC

    def test_larger_than_any_message_is_cut_too(self) -> None:
        wire = write_reply(a_question(), addresses(5000), size_max=TCP_MAX_BYTES)

        assert len(values(read(wire))) > 3000

    def test_what_was_only_offered_goes_first(self) -> None:
        """Additional records are no part of the answer: without them it is whole."""
        extra = [dns.rrset.from_text(f"{n}.{WEB}", 5, "IN", "A", "10.42.0.1") for n in range(40)]
        sections = Sections(answer=addresses(20).answer, additional=extra)
        reply = read(write_reply(a_question(), sections, size_max=512))

        assert (len(values(reply)), reply.additional) == (20, [])
        assert not reply.flags & dns.flags.TC

    def test_one_record_that_is_too_large_is_left_out(self) -> None:
        text = dns.rrset.from_text(WEB, 5, "IN", "TXT", " ".join(['"' + "x" * 250 + '"'] * 4))
        reply = read(write_reply(a_question(), Sections(answer=[text]), size_max=512))

        assert reply.flags & dns.flags.TC
        assert reply.answer == []
