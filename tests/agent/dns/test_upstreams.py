from __future__ import annotations

import asyncio

import dns.flags
import dns.message
import dns.rcode
import pytest

from agent.dns.question import Question
from agent.dns.upstreams import PATIENCE_S, SHUNNED_S, TRY_S, NoAnswerError, Upstreams
from tests.agent.dns.builders import values
from tests.agent.dns.fake_resolver import FakeResolvers, a_question, an_answer

pytestmark = pytest.mark.virtual_time


@pytest.fixture
def resolvers() -> FakeResolvers:
    found = FakeResolvers()
    found.addresses = {"a": "192.0.2.1", "b": "192.0.2.2"}
    return found


@pytest.fixture
def upstreams(resolvers: FakeResolvers) -> Upstreams:
    return Upstreams(resolvers.ask, ["a", "b"])


def now_s() -> float:
    return asyncio.get_running_loop().time()


class TestAsking:
    async def test_the_first_is_asked_first(self, upstreams: Upstreams, resolvers: FakeResolvers) -> None:
        assert values(await upstreams.ask(a_question())) == ["192.0.2.1"]
        assert resolvers.asked == ["a"]

    async def test_the_next_when_it_is_silent(self, upstreams: Upstreams, resolvers: FakeResolvers) -> None:
        resolvers.silent = {"a"}
        began_s = now_s()

        assert values(await upstreams.ask(a_question())) == ["192.0.2.2"]
        assert now_s() - began_s == pytest.approx(TRY_S, abs=0.1)

    async def test_the_next_at_once_when_it_refuses_the_connection(
        self, upstreams: Upstreams, resolvers: FakeResolvers
    ) -> None:
        resolvers.errors = {"a": ConnectionRefusedError(111, "Connection refused")}
        began_s = now_s()

        assert values(await upstreams.ask(a_question())) == ["192.0.2.2"]
        assert now_s() - began_s < 0.1

    @pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP])
    async def test_the_next_when_it_cannot_tell(
        self, upstreams: Upstreams, resolvers: FakeResolvers, rcode: dns.rcode.Rcode
    ) -> None:
        resolvers.rcodes = {"a": rcode}

        assert values(await upstreams.ask(a_question())) == ["192.0.2.2"]

    async def test_that_there_is_no_such_name_is_an_answer(
        self, upstreams: Upstreams, resolvers: FakeResolvers
    ) -> None:
        resolvers.rcodes = {"a": dns.rcode.NXDOMAIN}

        assert (await upstreams.ask(a_question())).rcode() == dns.rcode.NXDOMAIN
        assert resolvers.asked == ["a"]

    async def test_who_was_silent_is_asked_last_for_a_while(
        self, upstreams: Upstreams, resolvers: FakeResolvers
    ) -> None:
        resolvers.silent = {"a"}
        await upstreams.ask(a_question())
        resolvers.silent = set()
        resolvers.asked.clear()

        await upstreams.ask(a_question())
        await asyncio.sleep(SHUNNED_S)
        await upstreams.ask(a_question())

        assert resolvers.asked == ["b", "a"]

    async def test_gives_up_before_clients_do(self, upstreams: Upstreams, resolvers: FakeResolvers) -> None:
        resolvers.silent = {"a", "b"}
        began_s = now_s()

        with pytest.raises(NoAnswerError, match="a: no answer; b: no answer"):
            await upstreams.ask(a_question())
        assert now_s() - began_s <= PATIENCE_S < 5
        assert resolvers.asked == ["a", "b", "a", "b"]

    async def test_without_a_server_there_is_no_answer(self, resolvers: FakeResolvers) -> None:
        with pytest.raises(NoAnswerError, match="names no other server"):
            await Upstreams(resolvers.ask).ask(a_question())

    async def test_servers_that_do_not_know_edns_are_asked_without(self) -> None:
        edns = []

        async def old(_: str, query: dns.message.Message) -> dns.message.Message:
            edns.append(query.edns)
            if query.edns >= 0:
                return an_answer(query, rcode=dns.rcode.FORMERR)
            return an_answer(query, "192.0.2.1")

        assert values(await Upstreams(old, ["a"]).ask(a_question())) == ["192.0.2.1"]
        assert edns == [0, -1]

    async def test_ids_cannot_be_foretold(self, upstreams: Upstreams, resolvers: FakeResolvers) -> None:
        for _ in range(100):
            await upstreams.ask(a_question())

        assert len({query.id for query in resolvers.queries}) > 90

    async def test_what_the_client_wants_is_asked_for(
        self, upstreams: Upstreams, resolvers: FakeResolvers
    ) -> None:
        plain = a_question()
        await upstreams.ask(plain)
        await upstreams.ask(Question(name=plain.name, kind=plain.kind, wants_dnssec=True, is_unchecked=True))

        assert [bool(query.ednsflags & dns.flags.DO) for query in resolvers.queries] == [False, True]
        assert [bool(query.flags & dns.flags.CD) for query in resolvers.queries] == [False, True]
        assert all(query.flags & dns.flags.RD for query in resolvers.queries)
