"""Names that are not ours: remembered, or asked of the host's name servers; the same thing only once at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import dns.rcode
import structlog

from agent.dns.found import STALE_TTL_S, Found, FoundAnswers, to_found
from agent.dns.messages import Sections
from agent.dns.question import Question
from agent.dns.stats import Counters
from agent.dns.upstreams import NoAnswerError, Upstreams

log = structlog.get_logger(__name__)

# Each has a socket; 1,024 is what a process may usually have open.
ASKED_MAX = 256
# Who has an old answer is not made to wait longer for a new one (RFC 8767).
STALE_AFTER_S = 1.8
# That nobody could tell is remembered for a moment (RFC 9520): clients ask again and again.
FAILURE_HELD_S = 1.0
# An answer's remaining time changes each second.
ANSWER_HELD_S = 1.0

Spawn = Callable[[Coroutine[Any, Any, Found | None]], asyncio.Task[Found | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """`held_s`: how long the same may be said to others."""

    sections: Sections
    held_s: float


_FAILED = Forwarded(sections=Sections(rcode=dns.rcode.SERVFAIL), held_s=FAILURE_HELD_S)


class Forwarder:
    """One per process.

    Args:
        spawn: starts a task that ends with the server.
    """

    def __init__(self, upstreams: Upstreams, counters: Counters, spawn: Spawn) -> None:
        self._upstreams = upstreams
        self._counters = counters
        self._spawn = spawn
        self._answers = FoundAnswers()
        self._asked: dict[Question, asyncio.Task[Found | None]] = {}

    async def find(self, question: Question) -> Forwarded:
        """Never raises: who cannot be answered is told so."""
        loop = asyncio.get_running_loop()
        known = self._answers.get(question, loop.time())
        if known is not None and known.is_fresh(loop.time()):
            self._counters.cache_hits += 1
            return _as_fresh(known, loop.time())
        task = self._asked.get(question)
        if task is None and len(self._asked) < ASKED_MAX:
            task = self._asked[question] = self._spawn(self._ask(question))
        elif task is None:
            self._counters.refused += 1
        found = None
        if task is not None:
            # A client that goes away must not end what others wait for: `wait` cancels nothing.
            await asyncio.wait([task], timeout=STALE_AFTER_S if known is not None else None)
            found = task.result() if task.done() and not task.cancelled() else None
        if found is not None:
            return _as_fresh(found, loop.time())
        if known is None:
            return _FAILED
        self._counters.stale += 1
        return Forwarded(sections=known.stale_sections(), held_s=STALE_TTL_S)

    async def _ask(self, question: Question) -> Found | None:
        """None: nobody could tell."""
        self._counters.upstream_queries += 1
        try:
            answer = await self._upstreams.ask(question)
            found = to_found(answer, question, asyncio.get_running_loop().time())
        except NoAnswerError as error:
            self._counters.upstream_failures += 1
            log.debug("name.not_found_out", name=str(question.name), error=str(error))
            return None
        except Exception:
            # One strange answer must not take away everybody's names.
            self._counters.failed += 1
            log.exception("answer.not_understood", name=str(question.name))
            return None
        finally:
            del self._asked[question]
        self._answers.put(question, found)
        return found


def _as_fresh(found: Found, now_s: float) -> Forwarded:
    left_s = max(0.0, found.at_s + found.ttl_s - now_s)
    return Forwarded(sections=found.sections(now_s), held_s=min(ANSWER_HELD_S, left_s))
