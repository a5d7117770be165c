from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import dns.message
import dns.rcode
import dns.rrset
import pytest

from agent.dns.forwarder import ASKED_MAX, STALE_AFTER_S, Forwarded, Forwarder
from agent.dns.found import (
    BYTES_MAX,
    ENTRIES_MAX,
    STALE_MAX_S,
    STALE_TTL_S,
    TTL_MAX_S,
    FoundAnswers,
    to_found,
)
from agent.dns.stats import Counters
from agent.dns.upstreams import Upstreams
from tests.agent.dns.fake_resolver import NAME, FakeResolvers, a_question, an_answer

pytestmark = pytest.mark.virtual_time

SERVER = "192.0.2.53"


@pytest.fixture
def resolvers() -> FakeResolvers:
    found = FakeResolvers()
    found.addresses = {SERVER: "192.0.2.1"}
    return found


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
async def forwarder(resolvers: FakeResolvers, counters: Counters) -> AsyncIterator[Forwarder]:
    async with asyncio.TaskGroup() as parts:
        yield Forwarder(Upstreams(resolvers.ask, [SERVER]), counters, parts.create_task)


def said(forwarded: Forwarded) -> tuple[str, list[tuple[str, int]]]:
    """The code, and each value with its time to live."""
    return dns.rcode.to_text(forwarded.sections.rcode), [
        (data.to_text(), rrset.ttl) for rrset in forwarded.sections.answer for data in rrset
    ]


class TestRemembering:
    async def test_asks_once_for_as_long_as_the_answer_holds(
        self, forwarder: Forwarder, resolvers: FakeResolvers
    ) -> None:
        assert said(await forwarder.find(a_question())) == ("NOERROR", [("192.0.2.1", 60)])
        await asyncio.sleep(20)
        assert said(await forwarder.find(a_question())) == ("NOERROR", [("192.0.2.1", 40)])
        assert len(resolvers.asked) == 1

        await asyncio.sleep(40)
        assert said(await forwarder.find(a_question())) == ("NOERROR", [("192.0.2.1", 60)])
        assert len(resolvers.asked) == 2

    async def test_the_case_of_a_name_does_not_matter(
        self, forwarder: Forwarder, resolvers: FakeResolvers
    ) -> None:
        await forwarder.find(a_question("www.example.org."))
        await forwarder.find(a_question("WWW.example.ORG."))

        assert len(resolvers.asked) == 1

    async def test_long_times_are_cut(self, forwarder: Forwarder, resolvers: FakeResolvers) -> None:
        resolvers.ttl_s = 86_400

        assert said(await forwarder.find(a_question()))[1] == [("192.0.2.1", TTL_MAX_S)]
        await asyncio.sleep(TTL_MAX_S)
        await forwarder.find(a_question())
        assert len(resolvers.asked) == 2

    async def test_what_must_not_be_remembered_is_not(
        self, forwarder: Forwarder, resolvers: FakeResolvers
    ) -> None:
        resolvers.ttl_s = 0

        for _ in range(2):
            forwarded = await forwarder.find(a_question())
            assert (said(forwarded)[1], forwarded.held_s) == ([("192.0.2.1", 0)], 0)
        assert len(resolvers.asked) == 2

    async def test_that_there_is_nothing_holds_as_long_as_the_zone_says(
        self, forwarder: Forwarder, resolvers: FakeResolvers
    ) -> None:
        resolvers.addresses, resolvers.rcodes = {}, {SERVER: dns.rcode.NXDOMAIN}
        for soa_ttl_s, times in ((30, 1), (None, 2)):
            resolvers.soa_ttl_s = soa_ttl_s
            resolvers.asked.clear()
            for _ in range(2):
                assert said(await forwarder.find(a_question(f"{soa_ttl_s}.example.org."))) == ("NXDOMAIN", [])
            assert len(resolvers.asked) == times

    async def test_an_alias_to_nothing_holds_no_longer_than_the_alias(self) -> None:
        answer = an_answer(dns.message.make_query(NAME, "AAAA"), soa_ttl_s=300)
        answer.answer = [dns.rrset.from_text(NAME, 20, "IN", "CNAME", "other.example.org.")]

        assert to_found(answer, a_question(kind="AAAA"), 0).ttl_s == 20

    async def test_a_reply_is_not_kept_longer_than_what_it_says(
        self, forwarder: Forwarder, resolvers: FakeResolvers
    ) -> None:
        resolvers.ttl_s = 60
        await forwarder.find(a_question())
        await asyncio.sleep(59.5)

        assert (await forwarder.find(a_question())).held_s == pytest.approx(0.5)


class TestAskedAtOnce:
    async def test_the_same_is_asked_once(self, forwarder: Forwarder, resolvers: FakeResolvers) -> None:
        found = await asyncio.gather(*(forwarder.find(a_question()) for _ in range(50)))

        assert {said(each)[0] for each in found} == {"NOERROR"}
        assert len(resolvers.asked) == 1

    async def test_who_goes_away_does_not_take_it_from_others(
        self, forwarder: Forwarder, resolvers: FakeResolvers
    ) -> None:
        async with asyncio.TaskGroup() as clients:
            first = clients.create_task(forwarder.find(a_question()))
            second = clients.create_task(forwarder.find(a_question()))
            await asyncio.sleep(0)
            first.cancel()

        assert said(second.result())[0] == "NOERROR"
        assert len(resolvers.asked) == 1

    async def test_no_more_than_there_are_sockets_for(
        self, forwarder: Forwarder, resolvers: FakeResolvers, counters: Counters
    ) -> None:
        names = [f"{number}.example.org." for number in range(ASKED_MAX + 50)]

        found = await asyncio.gather(*(forwarder.find(a_question(name)) for name in names))

        assert resolvers.at_a_time_max == ASKED_MAX
        assert [said(each)[0] for each in found].count("SERVFAIL") == counters.refused == 50

    async def test_a_loop_through_another_server_ends(self, counters: Counters) -> None:
        """The host's own server asks us for what we ask it for: both wait, nobody asks again."""
        asked = 0

        async def back(_: str, query: dns.message.Message) -> dns.message.Message:
            nonlocal asked
            asked += 1
            await ours[0].find(a_question())
            return an_answer(query, rcode=dns.rcode.SERVFAIL)

        ours: list[Forwarder] = []
        async with asyncio.TaskGroup() as parts:
            ours.append(Forwarder(Upstreams(back, [SERVER]), counters, parts.create_task))

            assert said(await ours[0].find(a_question())) == ("SERVFAIL", [])
        assert asked == 2


class TestWhenNobodyAnswers:
    async def test_clients_are_told_and_it_is_remembered_for_a_moment(
        self, forwarder: Forwarder, resolvers: FakeResolvers, counters: Counters
    ) -> None:
        resolvers.silent = {SERVER}
        forwarded = await forwarder.find(a_question())

        assert said(forwarded) == ("SERVFAIL", [])
        assert forwarded.held_s > 0
        assert counters.upstream_failures == 1

    async def test_what_was_known_serves_on(
        self, forwarder: Forwarder, resolvers: FakeResolvers, counters: Counters
    ) -> None:
        await forwarder.find(a_question())
        resolvers.silent = {SERVER}
        await asyncio.sleep(120)
        began_s = asyncio.get_running_loop().time()

        forwarded = await forwarder.find(a_question())

        assert said(forwarded) == ("NOERROR", [("192.0.2.1", STALE_TTL_S)])
        assert asyncio.get_running_loop().time() - began_s == pytest.approx(STALE_AFTER_S)
        assert counters.stale == 1

    async def test_but_not_for_ever(self, forwarder: Forwarder, resolvers: FakeResolvers) -> None:
        await forwarder.find(a_question())
        resolvers.silent = {SERVER}
        await asyncio.sleep(60 + STALE_MAX_S)

        assert said(await forwarder.find(a_question())) == ("SERVFAIL", [])

    async def test_an_answer_that_comes_too_late_for_one_is_there_for_the_next(
        self, resolvers: FakeResolvers, counters: Counters
    ) -> None:
        async with asyncio.TaskGroup() as parts:
            upstreams = Upstreams(resolvers.ask, [SERVER])
            forwarder = Forwarder(upstreams, counters, parts.create_task)
            await forwarder.find(a_question())
            await asyncio.sleep(60)
            upstreams.use(["silent", SERVER])
            resolvers.silent, resolvers.delays_s = {"silent"}, {SERVER: 0.9}

            assert said(await forwarder.find(a_question()))[1] == [("192.0.2.1", STALE_TTL_S)]
            await asyncio.sleep(0.2)
            assert said(await forwarder.find(a_question()))[1] == [("192.0.2.1", 60)]

    async def test_an_answer_that_cannot_be_understood_is_none(self, counters: Counters) -> None:
        async def strange(_: str, query: dns.message.Message) -> dns.message.Message:
            raise RuntimeError(str(query.id))

        async with asyncio.TaskGroup() as parts:
            forwarder = Forwarder(Upstreams(strange, [SERVER]), counters, parts.create_task)

            assert said(await forwarder.find(a_question())) == ("SERVFAIL", [])
        assert counters.failed == 1


class TestBounds:
    def test_of_number(self) -> None:
        answers = FoundAnswers()
        found = to_found(an_answer(dns.message.make_query(NAME, "A"), "192.0.2.1"), a_question(), 0)
        for number in range(ENTRIES_MAX + 10):
            answers.put(a_question(f"{number}.example.org."), found)

        assert len(answers) <= ENTRIES_MAX
        assert answers.get(a_question("0.example.org."), 0) is None
        assert answers.get(a_question(f"{ENTRIES_MAX + 9}.example.org."), 0) is not None

    def test_of_bytes(self) -> None:
        """Somebody's zone has answers of 60 KiB."""
        answer = an_answer(dns.message.make_query(NAME, "TXT"))
        text = " ".join(['"' + "x" * 250 + '"'] * 240)
        answer.answer = [dns.rrset.from_text(NAME, 60, "IN", "TXT", text)]
        found = to_found(answer, a_question(kind="TXT"), 0)
        answers = FoundAnswers()
        for number in range(1000):
            answers.put(a_question(f"{number}.example.org.", "TXT"), found)

        assert len(answers) * len(found.wire) < BYTES_MAX

    def test_what_was_asked_for_longest_ago_goes_first(self) -> None:
        answers = FoundAnswers()
        found = to_found(an_answer(dns.message.make_query(NAME, "A"), "192.0.2.1"), a_question(), 0)
        for number in range(ENTRIES_MAX):
            answers.put(a_question(f"{number}.example.org."), found)
            answers.get(a_question("0.example.org."), 0)
        answers.put(a_question("one-more.example.org."), found)

        assert answers.get(a_question("0.example.org."), 0) is not None
