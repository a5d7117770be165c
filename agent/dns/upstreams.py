"""The host's name servers: whom to ask first, and when to ask the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import structlog

from agent.dns.messages import UDP_MAX_BYTES
from agent.dns.question import Question

log = structlog.get_logger(__name__)

TRY_S = 1.0
ROUNDS = 2
# Clients wait 5 s (the C library's default) and then ask again: better a plain failure before.
PATIENCE_S = 4.0
# Who did not answer is asked last for so long.
SHUNNED_S = 10.0
# What another server may do better.
_NO_HELP = frozenset({dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.FORMERR, dns.rcode.NOTIMP})

Exchange = Callable[[str, dns.message.Message], Awaitable[dns.message.Message]]


class NoAnswerError(Exception):
    """Nobody could tell. The text says what each of them did."""


class Upstreams:
    """Asks them in the order in which the host names them, those that fail last.

    Args:
        exchange: one question to one server; raises OSError.
        servers: their addresses.
    """

    def __init__(self, exchange: Exchange, servers: Sequence[str] = ()) -> None:
        self._exchange = exchange
        self._shunned_until_s: dict[str, float] = {}
        self.servers = tuple(servers)

    def use(self, servers: Sequence[str]) -> None:
        """Ask these from now on."""
        if tuple(servers) != self.servers:
            log.info("resolvers.changed", servers=list(servers))
        self.servers = tuple(servers)
        self._shunned_until_s.clear()

    async def ask(self, question: Question) -> dns.message.Message:
        """What is, or that it is not. Raises NoAnswerError."""
        if not self.servers:
            raise NoAnswerError("the host's resolv.conf names no other server")
        said: dict[str, str] = {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                for server in self._in_order() * ROUNDS:
                    answer = await self._try(server, question, said)
                    if answer is not None:
                        return answer
        except TimeoutError:
            pass
        raise NoAnswerError("; ".join(f"{server}: {words}" for server, words in said.items()))

    async def _try(self, server: str, question: Question, said: dict[str, str]) -> dns.message.Message | None:
        try:
            async with asyncio.timeout(TRY_S):
                answer = await self._exchange(server, _query(question))
                if answer.rcode() == dns.rcode.FORMERR:
                    # Old ones do not know EDNS.
                    answer = await self._exchange(server, _query(question, edns=False))
        except TimeoutError:
            said[server] = "no answer"
        except OSError as error:
            said[server] = error.strerror or str(error)
        else:
            if answer.rcode() not in _NO_HELP:
                self._shunned_until_s.pop(server, None)
                return answer
            # It lives, and it may be the name: the others are asked, but it stays where it is.
            said[server] = dns.rcode.to_text(answer.rcode())
            return None
        self._shunned_until_s[server] = asyncio.get_running_loop().time() + SHUNNED_S
        return None

    def _in_order(self) -> list[str]:
        now_s = asyncio.get_running_loop().time()
        return sorted(self.servers, key=lambda server: self._shunned_until_s.get(server, 0.0) > now_s)


def _query(question: Question, *, edns: bool = True) -> dns.message.Message:
    """With a random id, which dnspython takes from the system's randomness."""
    query = dns.message.make_query(
        question.name,
        question.kind,
        use_edns=0 if edns else -1,
        want_dnssec=edns and question.wants_dnssec,
        payload=UDP_MAX_BYTES,
    )
    if question.is_unchecked:
        query.flags |= dns.flags.CD
    return query
