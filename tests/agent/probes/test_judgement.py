"""The table of probes' meanings."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.probes.judgement import (
    EARLY_PAUSE_MIN_S,
    SPREAD_UNREADY_S,
    WORDS_MAX,
    Health,
    Tally,
    Timetable,
    count,
    first_tally,
    first_time,
    is_ready,
    judged,
    next_time,
    same_run,
    unasked,
    why_unready,
)
from agent.probes.model import Hooks, Probe, Probes, Role, Sleep, TcpConnect
from agent.probes.port import SUCCESS, Outcome

NOW_S = 1000.0
CHECK = TcpConnect(port=80)
PROBE = Probe(check=CHECK)
FRESH = Health(container_id="c1", started_s=5.0)
REFUSED = Outcome.failure("connection refused at :80")
UNKNOWN = Outcome.unknown("the engine is away")


def counted(*outcomes: Outcome, probe: Probe = PROBE, tally: Tally | None = None) -> Tally:
    tally = tally or Tally()
    for outcome in outcomes:
        tally = count(tally, probe, outcome, is_early=False)
    return tally


class TestVerdicts:
    def test_a_failure_needs_three_in_a_row_by_default(self) -> None:
        assert counted(REFUSED, REFUSED).verdict is None
        assert counted(REFUSED, REFUSED, REFUSED).verdict is False

    def test_a_success_in_between_begins_anew(self) -> None:
        assert counted(SUCCESS, REFUSED, REFUSED, SUCCESS, REFUSED, REFUSED).verdict is True

    def test_one_success_is_enough_by_default(self) -> None:
        assert counted(REFUSED, REFUSED, REFUSED, SUCCESS).verdict is True

    def test_or_as_many_as_are_asked_for(self) -> None:
        probe = replace(PROBE, success_threshold=2)
        assert counted(SUCCESS, REFUSED, SUCCESS, probe=probe).verdict is None
        assert counted(SUCCESS, SUCCESS, probe=probe).verdict is True

    def test_a_check_that_was_not_made_counts_for_nothing(self) -> None:
        """Neither as a failure nor as the end of a row."""
        assert counted(REFUSED, UNKNOWN, REFUSED, UNKNOWN) == counted(REFUSED, REFUSED)
        assert counted(*[UNKNOWN] * 100) == Tally()

    def test_an_early_check_can_only_succeed(self) -> None:
        assert count(Tally(), PROBE, REFUSED, is_early=True) == Tally()
        assert count(Tally(), PROBE, SUCCESS, is_early=True).verdict is True

    def test_words_are_bounded(self) -> None:
        tally = counted(Outcome.failure("x" * 1_000_000))
        assert len(judged(FRESH, Role.READINESS, PROBE, tally).words) < WORDS_MAX + 100


class TestConsequences:
    def test_readiness_follows_its_verdict(self) -> None:
        ready = judged(FRESH, Role.READINESS, PROBE, counted(SUCCESS))
        assert ready.is_ready
        failing = judged(ready, Role.READINESS, PROBE, counted(SUCCESS, REFUSED, REFUSED))
        assert failing == ready
        failed = judged(ready, Role.READINESS, PROBE, counted(REFUSED, REFUSED, REFUSED))
        assert not failed.is_ready
        assert not failed.broken
        assert failed.words == "readiness probe failed: connection refused at :80"

    def test_one_that_was_never_ready_says_why_from_its_first_failure(self) -> None:
        waiting = judged(FRESH, Role.READINESS, PROBE, counted(REFUSED))
        assert waiting.words == "readiness probe failed: connection refused at :80"

    def test_liveness_condemns(self) -> None:
        probe = replace(PROBE, grace_s=4.0)
        assert judged(FRESH, Role.LIVENESS, probe, counted(REFUSED, REFUSED)) == FRESH
        broken = judged(FRESH, Role.LIVENESS, probe, counted(REFUSED, REFUSED, REFUSED))
        assert broken.broken == "liveness probe failed: connection refused at :80"
        assert broken.broken_grace_s == 4.0

    def test_startup_opens_the_way_or_condemns(self) -> None:
        assert judged(FRESH, Role.STARTUP, PROBE, counted(SUCCESS)).is_started
        broken = judged(FRESH, Role.STARTUP, PROBE, counted(REFUSED, REFUSED, REFUSED))
        assert broken.broken == "startup probe failed: connection refused at :80"
        assert not broken.is_started

    def test_a_check_that_was_not_made_is_told_only_of_those_that_wait_for_it(self) -> None:
        assert unasked(FRESH, Role.READINESS, "no engine").words == "readiness probe not made: no engine"
        assert unasked(FRESH, Role.LIVENESS, "no engine") == FRESH
        ready = replace(FRESH, is_ready=True)
        assert unasked(ready, Role.READINESS, "no engine") == ready


class TestReady:
    def test_without_anything_to_wait_for_a_running_container_is_ready(self) -> None:
        assert is_ready(Probes(), Hooks(), FRESH)
        assert is_ready(Probes(), Hooks(), None)
        assert is_ready(Probes(liveness=PROBE), Hooks(pre_stop=Sleep(duration_s=1)), FRESH)

    @pytest.mark.parametrize(
        ("probes", "hooks", "achieved", "waits_for"),
        [
            (Probes(readiness=PROBE), Hooks(), {"is_ready": True}, "readiness probe"),
            (Probes(startup=PROBE), Hooks(), {"is_started": True}, "startup probe"),
            (Probes(), Hooks(post_start=Sleep(duration_s=1)), {"is_post_started": True}, "postStart hook"),
        ],
    )
    def test_each_thing_that_is_asked_for_is_waited_for(
        self, probes: Probes, hooks: Hooks, achieved: dict[str, bool], waits_for: str
    ) -> None:
        assert not is_ready(probes, hooks, FRESH)
        assert waits_for in why_unready(probes, hooks, FRESH)
        assert is_ready(probes, hooks, replace(FRESH, **achieved))  # type: ignore[arg-type]  # all of them flags

    def test_what_was_not_looked_at_yet_is_not_claimed(self) -> None:
        assert not is_ready(Probes(readiness=PROBE), Hooks(), None)

    def test_a_condemned_one_is_not(self) -> None:
        broken = replace(FRESH, is_ready=True, broken="liveness probe failed: no")
        assert not is_ready(Probes(liveness=PROBE), Hooks(), broken)
        assert why_unready(Probes(), Hooks(), broken) == "liveness probe failed: no"


class TestRuns:
    def test_another_container_is_another_run(self) -> None:
        assert same_run(FRESH, "c1", 5.0)
        assert not same_run(FRESH, "c2", 5.0)

    def test_the_same_one_started_again_is_too(self) -> None:
        assert not same_run(FRESH, "c1", 6.0)

    def test_an_engine_in_trouble_that_does_not_know_the_start_changes_nothing(self) -> None:
        assert same_run(FRESH, "c1", 0.0)


class TestTimes:
    def first(
        self,
        role: Role = Role.READINESS,
        probe: Probe = PROBE,
        health: Health = FRESH,
        *,
        age_s: float = 0.0,
        chance: float | None = None,
    ) -> float:
        return first_time(role, probe, health, age_s=age_s, now_s=NOW_S, chance=chance).at_s - NOW_S

    def test_the_first_check_is_at_once_or_after_the_initial_delay(self) -> None:
        assert self.first() == 0
        assert self.first(probe=replace(PROBE, initial_delay_s=7.0), age_s=2.0) == 5
        assert self.first(probe=replace(PROBE, initial_delay_s=7.0), age_s=200.0) == 0

    def test_a_clock_that_was_set_back_delays_no_longer_than_the_delay(self) -> None:
        assert self.first(probe=replace(PROBE, initial_delay_s=7.0), age_s=-3600.0) == 7

    def test_what_was_found_running_is_spread_over_the_period(self) -> None:
        ready = replace(FRESH, is_ready=True)
        assert self.first(health=ready, chance=0.5) == 5
        assert self.first(Role.LIVENESS, chance=0.5) == 5

    def test_but_what_waits_to_be_ready_is_asked_soon(self) -> None:
        assert self.first(chance=0.5) == SPREAD_UNREADY_S / 2

    def test_readiness_that_was_known_stays_until_it_fails(self) -> None:
        ready = replace(FRESH, is_ready=True)
        tally = first_tally(Role.READINESS, ready)
        assert judged(ready, Role.READINESS, PROBE, counted(REFUSED, REFUSED, tally=tally)).is_ready
        tally = counted(REFUSED, REFUSED, REFUSED, tally=tally)
        assert not judged(ready, Role.READINESS, PROBE, tally).is_ready

    def run(self, role: Role, outcomes: list[Outcome], probe: Probe = PROBE) -> list[tuple[float, bool]]:
        """When checks of no length are made, from the start on, and whether each counts."""
        table, tally = Timetable(at_s=NOW_S, due_s=NOW_S), Tally()
        made = []
        for outcome in outcomes:
            made.append((table.at_s - NOW_S, not table.is_early))
            tally = count(tally, probe, outcome, is_early=table.is_early)
            table = next_time(table, role, probe, tally, now_s=table.at_s)
        return made

    @pytest.mark.parametrize("role", [Role.READINESS, Role.STARTUP])
    def test_a_starting_container_is_asked_early_and_then_by_the_period(self, role: Role) -> None:
        made = self.run(role, [REFUSED] * 10)
        assert [at_s for at_s, counts in made if counts] == [0, 10, 20, 30]
        assert [at_s for at_s, counts in made if not counts] == [0.25, 0.75, 1.75, 3.75, 7.75, 18]

    def test_liveness_is_asked_by_the_period_alone(self) -> None:
        assert self.run(Role.LIVENESS, [REFUSED, REFUSED, REFUSED]) == [(0, True), (10, True), (20, True)]

    def test_so_is_readiness_once_it_is_known(self) -> None:
        made = self.run(Role.READINESS, [REFUSED, SUCCESS, REFUSED, SUCCESS])
        assert made == [(0, True), (EARLY_PAUSE_MIN_S, False), (10, True), (20, True)]

    def test_several_successes_take_their_periods(self) -> None:
        """Two successes within a quarter of a second are not what was asked for."""
        probe = replace(PROBE, success_threshold=3)
        made = self.run(Role.READINESS, [SUCCESS, SUCCESS, SUCCESS, SUCCESS], probe)
        assert made == [(0, True), (10, True), (20, True), (30, True)]

    def test_a_check_that_took_longer_than_its_period_is_followed_by_one(self) -> None:
        table = Timetable(at_s=NOW_S, due_s=NOW_S)
        after = next_time(table, Role.LIVENESS, PROBE, Tally(), now_s=NOW_S + 35)
        assert after.at_s == NOW_S + 35
        assert next_time(after, Role.LIVENESS, PROBE, Tally(), now_s=NOW_S + 36).at_s == NOW_S + 45


OUTCOMES = st.lists(st.sampled_from([SUCCESS, REFUSED, UNKNOWN]), max_size=40)


class TestWhateverIsSeen:
    @given(
        outcomes=OUTCOMES, failures=st.integers(1, 4), period_s=st.integers(1, 30), took_s=st.floats(0, 60)
    )
    def test_no_container_is_condemned_before_its_threshold_and_its_time(
        self, outcomes: list[Outcome], failures: int, period_s: int, took_s: float
    ) -> None:
        """Neither by early checks nor by ones that could not be made; and time never stands still."""
        probe = Probe(check=CHECK, failure_threshold=failures, period_s=period_s)
        table, tally, health = Timetable(at_s=NOW_S, due_s=NOW_S), Tally(), FRESH
        in_a_row = 0
        for outcome in outcomes:
            if outcome is not UNKNOWN and (outcome is SUCCESS or not table.is_early):
                in_a_row = in_a_row + 1 if outcome is REFUSED else 0
            tally = count(tally, probe, outcome, is_early=table.is_early)
            health = judged(health, Role.STARTUP, probe, tally)
            ended_s = table.at_s + took_s
            after = next_time(table, Role.STARTUP, probe, tally, now_s=ended_s)
            assert after.at_s >= ended_s
            assert after.at_s > table.at_s
            assert after.at_s <= max(ended_s, table.due_s + period_s)
            table = after
            if in_a_row >= failures:
                assert health.broken
                return
            assert not health.broken
            if health.is_started:
                return
        assert table.at_s >= NOW_S

    @given(outcomes=OUTCOMES, failures=st.integers(1, 4), successes=st.integers(1, 4))
    def test_readiness_changes_only_by_as_many_results_as_were_asked_for(
        self, outcomes: list[Outcome], failures: int, successes: int
    ) -> None:
        probe = Probe(check=CHECK, failure_threshold=failures, success_threshold=successes)
        tally, health = Tally(), FRESH
        seen: list[bool] = []
        for outcome in outcomes:
            before = health.is_ready
            tally = count(tally, probe, outcome, is_early=False)
            health = judged(health, Role.READINESS, probe, tally)
            if outcome is not UNKNOWN:
                seen.append(outcome is SUCCESS)
            if health.is_ready != before:
                needed = successes if health.is_ready else failures
                assert seen[-needed:] == [health.is_ready] * needed
            assert bool(health.words) <= (not health.is_ready)
