from __future__ import annotations

import pytest

from manager.access.ages import age

MIN_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


class TestAge:
    @pytest.mark.parametrize(
        ("ms", "words"),
        [
            (-5_000, "0 s"),
            (0, "0 s"),
            (45_400, "45 s"),
            (MIN_MS, "1 min"),
            (HOUR_MS - 1, "59 min"),
            (HOUR_MS, "1 h"),
            (DAY_MS - 1, "23 h"),
            (12 * DAY_MS + 5, "12 d"),
        ],
    )
    def test_is_said_in_the_largest_unit(self, ms: float, words: str) -> None:
        assert age(ms) == words
