from __future__ import annotations

import asyncio

import dns.flags
import dns.message
import pytest

from agent.dns.exchange import ask_server
from tests.agent.dns.builders import values
from tests.agent.dns.fake_resolver import NAME, an_answer
from tests.agent.dns.fake_server import HOST, a_server


def a_query() -> dns.message.Message:
    return dns.message.make_query(NAME, "A", use_edns=0)


def right(query: dns.message.Message) -> bytes:
    return an_answer(query, "192.0.2.1").to_wire()


def cut(query: dns.message.Message) -> bytes:
    answer = an_answer(query)
    answer.flags |= dns.flags.TC
    return answer.to_wire()


class TestExchange:
    async def test_gives_the_answer(self) -> None:
        async with a_server(lambda query: [right(query)]) as server:
            assert values(await ask_server(HOST, a_query(), port=server.port)) == ["192.0.2.1"]

    async def test_what_does_not_fit_the_question_is_passed_over(self) -> None:
        """Somebody guesses ids, or names, or answers with a question."""

        def forged(query: dns.message.Message) -> list[bytes]:
            other = dns.message.make_query("other.example.org.", "A", id=query.id)
            wrong_id = dns.message.make_query(NAME, "A", id=query.id ^ 1)
            return [
                b"junk",
                query.to_wire(),
                an_answer(wrong_id, "192.0.2.66").to_wire(),
                an_answer(other, "192.0.2.66").to_wire(),
                right(query),
            ]

        async with a_server(forged) as server:
            assert values(await ask_server(HOST, a_query(), port=server.port)) == ["192.0.2.1"]

    async def test_who_sends_nothing_else_is_given_up(self) -> None:
        async with a_server(lambda _: [b"junk"] * 100) as server:
            with pytest.raises(OSError, match="do not fit the question"):
                await ask_server(HOST, a_query(), port=server.port)

    async def test_each_question_has_a_port_of_its_own(self) -> None:
        async with a_server(lambda query: [right(query)]) as server:
            for _ in range(20):
                await ask_server(HOST, a_query(), port=server.port)

            assert len({port for _, port in server.datagrams}) > 15

    async def test_a_reply_that_is_cut_short_is_fetched_over_tcp(self) -> None:
        async with a_server(lambda query: [cut(query)], tcp=lambda query: [right(query)]) as server:
            assert values(await ask_server(HOST, a_query(), port=server.port)) == ["192.0.2.1"]
            assert server.connections == 1

    @pytest.mark.parametrize("answers", [[], [b"junk"], [b""]])
    async def test_a_connection_that_brings_nothing_is_a_failure(self, answers: list[bytes]) -> None:
        async with a_server(lambda query: [cut(query)], tcp=lambda _: answers) as server:
            with pytest.raises(OSError, match=r"closed before|does not fit"):
                await ask_server(HOST, a_query(), port=server.port)

    async def test_where_nobody_listens_it_is_known_at_once(self) -> None:
        async with a_server(lambda _: []) as server:
            port = server.port

        async with asyncio.timeout(1):
            with pytest.raises(ConnectionRefusedError):
                await ask_server(HOST, a_query(), port=port)

    async def test_may_come_from_an_address_of_ours(self) -> None:
        async with a_server(lambda query: [right(query)]) as server:
            await ask_server(HOST, a_query(), port=server.port, source="127.0.0.77")

            assert server.datagrams[0][0] == "127.0.0.77"
