"""What the results of probes mean: when the next check is due, what it changes, whether a container is ready. Pure.

Kubernetes' meanings. Readiness and liveness wait for the startup probe; a container with a readiness probe is not
ready before that has succeeded; a failed startup or liveness probe means that the container is stopped, and its restart
policy decides what follows. A verdict changes after as many equal results in a row as the probe's threshold says.

One thing is better here: Kubernetes looks at a starting container once a period, so that a server which is up after
half a second waits ten seconds for its first request. While nothing depends on a failure, it is asked sooner, with growing pauses;
such an early check can only succeed, its failure counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.probes.model import Hooks, Probe, Probes, Role
from agent.probes.port import Outcome, Result

EARLY_PAUSE_MIN_S = 0.25
# After an agent's restart, containers that it did not see starting are not all asked at once. Those that are not known
# to be ready are asked within this time, the others within their period.
SPREAD_UNREADY_S = 1.0
WORDS_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is known of one run of a container; another run begins anew. The journal keeps it.

    Times are seconds since the Unix epoch.
    """

    container_id: str
    started_s: float = 0.0
    is_post_started: bool = False  # The postStart hook has ended well.
    is_started: bool = False  # The startup probe has succeeded.
    is_ready: bool = False  # The readiness probe's verdict.
    words: str = ""  # Why it is not ready: "readiness probe failed: HTTP 503 at :8080/".
    broken: str = ""  # Why it must be stopped: "liveness probe failed: …"; empty: it need not.
    broken_grace_s: float | None = None  # The failed probe's own grace.
    pre_stop_began_s: float = 0.0
    is_pre_stopped: bool = False  # The preStop hook has ended, well or not.
    pre_stop_took_s: float = 0.0
    pre_stop_failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The results of one probe so far."""

    verdict: bool | None = None  # None: no threshold was reached yet.
    last: bool | None = None
    in_a_row: int = 0
    words: str = ""  # About the last failure.


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """When to check. Times are monotonic."""

    at_s: float  # The next check.
    due_s: float  # The next check that counts.
    pause_s: float = EARLY_PAUSE_MIN_S  # Before an early one.

    @property
    def is_early(self) -> bool:
        return self.at_s < self.due_s


def same_run(health: Health, container_id: str, started_s: float) -> bool:
    """Whether `health` is of this run. An engine that is in trouble may not know when the run began: 0."""
    return health.container_id == container_id and started_s <= health.started_s


def first_tally(role: Role, health: Health) -> Tally:
    """At the beginning of watching: readiness stays as it was known until a probe says otherwise."""
    return Tally(verdict=True if role is Role.READINESS and health.is_ready else None)


def first_time(
    role: Role, probe: Probe, health: Health, *, age_s: float, now_s: float, chance: float | None
) -> Timetable:
    """When to check first.

    Args:
        role: of the probe.
        probe: what is to be done.
        health: as it is known.
        age_s: since the container's start.
        now_s: monotonic.
        chance: between 0 and 1, for a container that was found running; None: it has just been started.
    """
    # The host's clock may have been set since the start.
    at_s = now_s + min(max(probe.initial_delay_s - age_s, 0.0), probe.initial_delay_s)
    if chance is not None:
        is_urgent = role is not Role.LIVENESS and not health.is_ready
        at_s += chance * (min(SPREAD_UNREADY_S, probe.period_s) if is_urgent else probe.period_s)
    return Timetable(at_s=at_s, due_s=at_s)


def next_time(table: Timetable, role: Role, probe: Probe, tally: Tally, *, now_s: float) -> Timetable:
    """When to check next, after the check of `table` ended at `now_s`."""
    # A check that took longer than the period is followed by the next at once, not by all that were missed.
    due_s = max(table.due_s if table.is_early else table.due_s + probe.period_s, now_s)
    may_be_early = role is not Role.LIVENESS and tally.verdict is None and tally.last is not True
    if not may_be_early or now_s + table.pause_s >= due_s:
        return replace(table, at_s=due_s, due_s=due_s)
    return Timetable(at_s=now_s + table.pause_s, due_s=due_s, pause_s=table.pause_s * 2)


def count(tally: Tally, probe: Probe, outcome: Outcome, *, is_early: bool) -> Tally:
    """Add a result."""
    if outcome.result is Result.UNKNOWN:
        return tally
    succeeded = outcome.result is Result.SUCCESS
    if is_early and not succeeded:
        return tally
    in_a_row = tally.in_a_row + 1 if tally.last is succeeded else 1
    needed = probe.success_threshold if succeeded else probe.failure_threshold
    return Tally(
        verdict=succeeded if in_a_row >= needed else tally.verdict,
        last=succeeded,
        in_a_row=in_a_row,
        words="" if succeeded else outcome.words[:WORDS_MAX],
    )


def judged(health: Health, role: Role, probe: Probe, tally: Tally) -> Health:
    """What a probe's results make of a container."""
    failed = f"{role.value} probe failed: {tally.words}" if tally.last is False else ""
    if role is Role.READINESS:
        is_ready = tally.verdict is True
        # While the verdict stands, one failure is not worth a word.
        return replace(health, is_ready=is_ready, words="" if is_ready else failed or health.words)
    if tally.verdict is False:
        return replace(health, broken=failed, broken_grace_s=probe.grace_s)
    if role is Role.STARTUP:
        return replace(health, is_started=tally.verdict is True, words=failed)
    return health


def unasked(health: Health, role: Role, words: str) -> Health:
    """A check could not be made: that changes nothing but what is told of a container that waits for it."""
    if role is Role.LIVENESS or (role is Role.READINESS and health.is_ready):
        return health
    return replace(health, words=f"{role.value} probe not made: {words[:WORDS_MAX]}")


def is_ready(probes: Probes, hooks: Hooks, health: Health | None) -> bool:
    """Whether a running container serves."""
    if health is None:
        # It was not looked at yet: only where nothing is asked there is nothing to wait for.
        return probes == Probes() and hooks.post_start is None
    return (
        not health.broken
        and (hooks.post_start is None or health.is_post_started)
        and (probes.startup is None or health.is_started)
        and (probes.readiness is None or health.is_ready)
    )


def why_unready(probes: Probes, hooks: Hooks, health: Health | None) -> str:
    """In words, of a running container that does not serve."""
    if health is None:
        return "it was not probed yet"
    if health.broken or health.words:
        return health.broken or health.words
    if hooks.post_start is not None and not health.is_post_started:
        return "its postStart hook has not ended yet"
    waits_for = Role.STARTUP if probes.startup is not None and not health.is_started else Role.READINESS
    return f"its {waits_for.value} probe has not succeeded yet"


def resumed(health: Health) -> Health:
    """A container goes on that was about to be stopped: its next end is another one."""
    return replace(
        health, pre_stop_began_s=0.0, is_pre_stopped=False, pre_stop_took_s=0.0, pre_stop_failure=""
    )
