"""From a query to its reply: made already, from the zone, or from others."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import dns.flags
import dns.rcode
import structlog

from agent.dns.forwarder import Forwarder
from agent.dns.lookup import Answer, look_up
from agent.dns.messages import TCP_MAX_BYTES, Query, Sections, read_query, write_reply
from agent.dns.question import Question
from agent.dns.ready import ReadyReplies
from agent.dns.stats import Counters
from agent.dns.zone import Zone

log = structlog.get_logger(__name__)

# Only a change of the zone makes them wrong, and then all of them go.
_UNTIL_THE_ZONE_CHANGES_S = float("inf")

Reply = bytes | None | Coroutine[Any, Any, bytes]
"""None: none. A coroutine: others must be asked first."""


class Responder:
    """One per process."""

    def __init__(self, forwarder: Forwarder, counters: Counters) -> None:
        self._forwarder = forwarder
        self._counters = counters
        self._ready = ReadyReplies()
        self._zone: Zone | None = None

    def use(self, zone: Zone) -> None:
        """Answer from it from now on."""
        self._zone = zone
        self._ready.clear()

    def respond(self, wire: bytes, now_s: float, *, is_tcp: bool = False) -> Reply:
        """The reply to what a client sent. Whatever it was, nothing is raised."""
        self._counters.queries += 1
        if not is_tcp:
            ready = self._ready.get(wire, now_s)
            if ready is not None:
                self._counters.ready += 1
                return ready
        try:
            return self._make(wire, now_s, is_tcp=is_tcp)
        except Exception:
            # One query must not take away everybody's names.
            self._counters.failed += 1
            log.exception("query.failed", query=wire[:512].hex())
            return None

    def _make(self, wire: bytes, now_s: float, *, is_tcp: bool) -> Reply:
        query = read_query(wire)
        if not isinstance(query, Query):
            self._counters.malformed += 1
            return query
        answer = look_up(self._zone, query.name, query.kind) if self._zone is not None else None
        if answer is None or answer.leads_to is not None:
            if not query.wants_recursion:
                sections = _sections(answer) if answer is not None else Sections(rcode=dns.rcode.REFUSED)
                return write_reply(query, sections, size_max=TCP_MAX_BYTES if is_tcp else query.size_max)
            return self._ask(wire, query, answer, is_tcp=is_tcp)
        self._counters.own += 1
        self._counters.no_such_name += answer.rcode == dns.rcode.NXDOMAIN
        return self._write(
            wire, query, _sections(answer), is_tcp=is_tcp, now_s=now_s, until_s=_UNTIL_THE_ZONE_CHANGES_S
        )

    async def _ask(self, wire: bytes, query: Query, begun: Answer | None, *, is_tcp: bool) -> bytes:
        """`begun`: aliases of ours that lead outside."""
        name = begun.leads_to if begun is not None and begun.leads_to is not None else query.name
        zone = self._zone
        forwarded = await self._forwarder.find(
            Question(
                name=name,
                kind=query.kind,
                wants_dnssec=bool(query.message.ednsflags & dns.flags.DO),
                is_unchecked=bool(query.message.flags & dns.flags.CD),
            )
        )
        sections = forwarded.sections
        if begun is not None:
            sections = replace(sections, answer=[*begun.answer, *sections.answer])
        now_s = asyncio.get_running_loop().time()
        # The alias may have been changed meanwhile.
        held_s = forwarded.held_s if zone is self._zone else 0.0
        return self._write(wire, query, sections, is_tcp=is_tcp, now_s=now_s, until_s=now_s + held_s)

    def _write(
        self, wire: bytes, query: Query, sections: Sections, *, is_tcp: bool, now_s: float, until_s: float
    ) -> bytes:
        if is_tcp:
            return write_reply(query, sections, size_max=TCP_MAX_BYTES)
        reply = write_reply(query, sections, size_max=query.size_max, turn=self._ready.turn(wire))
        self._ready.put(wire, reply, now_s=now_s, until_s=until_s, turns=sections.turns)
        return reply


def _sections(answer: Answer) -> Sections:
    return Sections(
        rcode=answer.rcode,
        answer=answer.answer,
        authority=answer.authority,
        additional=answer.additional,
        is_authoritative=True,
    )
