"""A name server of the outside, without a network: what it answers, and how often it was asked."""

from __future__ import annotations

import asyncio

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from agent.dns.question import Question

NAME = "www.example.org."


def a_question(name: str = NAME, kind: str = "A") -> Question:
    return Question(name=dns.name.from_text(name), kind=dns.rdatatype.from_text(kind))


def an_answer(
    query: dns.message.Message,
    *addresses: str,
    ttl_s: int = 60,
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
    soa_ttl_s: int | None = None,
) -> dns.message.Message:
    answer = dns.message.make_response(query, recursion_available=True)
    answer.set_rcode(rcode)
    if addresses:
        answer.answer = [dns.rrset.from_text(query.question[0].name, ttl_s, "IN", "A", *addresses)]
    if soa_ttl_s is not None:
        soa = f"ns.example.org. root.example.org. 1 2 3 4 {soa_ttl_s}"
        answer.authority = [dns.rrset.from_text("example.org.", 3600, "IN", "SOA", soa)]
    return answer


class FakeResolvers:
    """Everything by server: how long it takes, what it says, or how it fails."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.queries: list[dns.message.Message] = []
        self.delays_s: dict[str, float] = {}
        self.addresses: dict[str, str] = {}
        self.errors: dict[str, OSError] = {}
        self.rcodes: dict[str, dns.rcode.Rcode] = {}
        self.silent: set[str] = set()
        self.soa_ttl_s: int | None = None
        self.ttl_s = 60
        self.at_a_time = 0
        self.at_a_time_max = 0

    async def ask(self, server: str, query: dns.message.Message) -> dns.message.Message:
        """As `agent.dns.exchange.ask_server`."""
        self.asked.append(server)
        self.queries.append(query)
        self.at_a_time += 1
        self.at_a_time_max = max(self.at_a_time, self.at_a_time_max)
        try:
            if server in self.silent:
                await asyncio.Event().wait()
            await asyncio.sleep(self.delays_s.get(server, 0.01))
        finally:
            self.at_a_time -= 1
        if server in self.errors:
            raise self.errors[server]
        addresses = [self.addresses[server]] if server in self.addresses else []
        rcode = self.rcodes.get(server, dns.rcode.NOERROR)
        return an_answer(query, *addresses, ttl_s=self.ttl_s, rcode=rcode, soa_ttl_s=self.soa_ttl_s)
