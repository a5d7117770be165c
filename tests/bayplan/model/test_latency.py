from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayplan.model.latency import BOUNDS_MS, COUNTS, count_into, merged, quantile_ms

checked = settings(max_examples=200, deadline=None, derandomize=True)


def counts_of(*latencies_ms: float) -> list[int]:
    counts = [0] * COUNTS
    for latency_ms in latencies_ms:
        count_into(counts, latency_ms)
    return counts


class TestBounds:
    def test_go_from_a_quarter_of_a_millisecond_to_a_minute_by_one_factor(self) -> None:
        factors = [after / before for before, after in itertools.pairwise(BOUNDS_MS)]

        assert len(BOUNDS_MS) == 24
        assert BOUNDS_MS[0] == pytest.approx(0.25)
        assert BOUNDS_MS[-1] == pytest.approx(60_000)
        assert max(factors) == pytest.approx(min(factors))


class TestQuantile:
    def test_is_not_known_without_a_sample(self) -> None:
        assert quantile_ms([0] * COUNTS, 0.99) == -1
        assert quantile_ms([], 0.5) == -1

    def test_says_the_last_bound_of_what_is_beyond_it(self) -> None:
        assert quantile_ms(counts_of(200_000.0), 0.5) == pytest.approx(60_000)

    @checked
    @given(
        st.lists(st.floats(0.01, 59_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 1.0])
    )
    def test_is_right_within_the_bounds_around_the_true_one(
        self, latencies_ms: list[float], quantile: float
    ) -> None:
        estimate_ms = quantile_ms(counts_of(*latencies_ms), quantile)
        # The smallest latency that at least this part of them does not exceed.
        true_ms = next(
            each
            for rank, each in enumerate(sorted(latencies_ms), 1)
            if rank >= quantile * len(latencies_ms) - 1e-9
        )
        upper = next(index for index, bound in enumerate(BOUNDS_MS) if true_ms <= bound)
        lower_ms = BOUNDS_MS[upper - 1] if upper else 0.0

        assert lower_ms - 1e-9 <= estimate_ms <= BOUNDS_MS[upper] * (1 + 1e-9)


class TestMerge:
    @checked
    @given(st.lists(st.floats(0, 100_000)), st.lists(st.floats(0, 100_000)))
    def test_is_as_if_one_had_counted_all(self, here: list[float], there: list[float]) -> None:
        assert merged([counts_of(*here), counts_of(*there)]) == counts_of(*here, *there)

    def test_leaves_out_counts_by_other_bounds(self) -> None:
        assert merged([[1, 2, 3], counts_of(1.0)]) == counts_of(1.0)
