from __future__ import annotations

from collections import Counter

import pytest

from bench.load_record import (
    Durations,
    Kind,
    Planned,
    Record,
    Summary,
    executed_twice,
    late_failures,
    plan_request,
)


def a_failure(
    began_s: float, *, kind: Kind = Kind.GET, target: str = "n1", opened_s: float | None = None
) -> Record:
    return Record(
        kind=kind,
        target=target,
        began_s=began_s,
        ended_s=began_s + 2,
        opened_s=began_s if opened_s is None else opened_s,
        failure="cut",
    )


def a_summary(*, lag_p99_s: float = 0.001, lag_max_s: float = 0.01, sent: int = 1000) -> Summary:
    return Summary(
        seconds=10.0, due=1000, sent=sent, well={"get": 990}, failed={"get": 10}, reasons={"cut": 10}, pods={"a": 990},
        p50_s=0.01, p99_s=0.02, max_s=0.5, lag_p99_s=lag_p99_s, lag_max_s=lag_max_s, reconnects=0,
    )  # fmt: skip


class TestPlan:
    @pytest.mark.parametrize("count", [1, 2, 3, 5, 10])
    def test_shares_are_exact_for_each_target_and_for_each_kind(self, count: int) -> None:
        targets = [f"n{number}" for number in range(count)]
        plans = Counter(plan_request(number, targets) for number in range(20 * count))

        for target in targets:
            assert plans[Planned(target=target, is_new=True, is_post=True)] == 1
            assert plans[Planned(target=target, is_new=False, is_post=True)] == 1
            assert plans[Planned(target=target, is_new=True, is_post=False)] == 9
            assert plans[Planned(target=target, is_new=False, is_post=False)] == 9


class TestDurations:
    def test_quantiles_are_to_a_millisecond(self) -> None:
        durations = Durations()
        for duration_ms in range(1, 1001):
            durations.add(duration_ms / 1000)

        assert durations.quantile_s(0.5) == 0.5
        assert durations.quantile_s(0.99) == 0.99
        assert durations.max_s == 1.0

    def test_of_none_are_nothing(self) -> None:
        assert Durations().quantile_s(0.99) == 0.0


class TestLateFailures:
    def test_what_began_within_the_time_allowed_is_excused(self) -> None:
        late = a_failure(11.01)

        assert late_failures([a_failure(9.0), a_failure(10.99), late], fault_s=10.0, allowed_s=1.0) == [late]

    def test_what_was_sent_to_the_dead_is_excused(self) -> None:
        assert not late_failures([a_failure(30.0, target="n3")], fault_s=10.0, allowed_s=1.0, dead=["n3"])

    @pytest.mark.parametrize("kind", [Kind.WEBSOCKET, Kind.DOWNLOAD])
    def test_streams_that_were_open_are_excused_and_those_opened_later_are_not(self, kind: Kind) -> None:
        open_then, opened_later = (a_failure(12.0, kind=kind, opened_s=opened_s) for opened_s in (3.0, 11.5))

        assert late_failures([open_then, opened_later], fault_s=10.0, allowed_s=1.0) == [opened_later]


class TestSummary:
    def test_of_a_generator_in_time_proves_something(self) -> None:
        assert a_summary().doubts() == []

    @pytest.mark.parametrize(
        "doubtful", [a_summary(lag_p99_s=0.2), a_summary(lag_max_s=0.6), a_summary(sent=980)]
    )
    def test_of_a_late_one_proves_nothing_and_says_so(self, doubtful: Summary) -> None:
        assert len(doubtful.doubts()) == 1
        assert any("proves nothing" in line for line in doubtful.lines())


def test_ids_that_were_executed_twice_are_found() -> None:
    assert executed_twice(["a", "b", "a", "c"]) == {"a": 2}
