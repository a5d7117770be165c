from __future__ import annotations

import pytest

from manager.access.attempts import FAILURES_MAX, WINDOW_S, Attempts
from tests.manager.access.world import Clock


@pytest.fixture
def attempts(clock: Clock) -> Attempts:
    clock.now_s = 1000.0
    return Attempts(clock)


def fail(attempts: Attempts, address: str, times: int = FAILURES_MAX) -> None:
    for _ in range(times):
        attempts.failed(address)


class TestAttempts:
    def test_a_person_may_err(self, attempts: Attempts) -> None:
        fail(attempts, "10.0.0.7", FAILURES_MAX - 1)

        assert attempts.wait_s("10.0.0.7") == 0.0

    def test_who_fails_too_often_waits(self, attempts: Attempts, clock: Clock) -> None:
        fail(attempts, "10.0.0.7")
        assert attempts.wait_s("10.0.0.7") == WINDOW_S
        clock.now_s += WINDOW_S - 1
        assert attempts.wait_s("10.0.0.7") == 1.0
        clock.now_s += 1
        assert attempts.wait_s("10.0.0.7") == 0.0

    def test_the_window_slides(self, attempts: Attempts, clock: Clock) -> None:
        """One failure every six seconds is the most in the long run."""
        for _ in range(FAILURES_MAX):
            attempts.failed("10.0.0.7")
            clock.now_s += 3
        assert attempts.wait_s("10.0.0.7") == WINDOW_S - 3 * FAILURES_MAX
        clock.now_s += WINDOW_S - 3 * FAILURES_MAX
        assert attempts.wait_s("10.0.0.7") == 0.0
        attempts.failed("10.0.0.7")
        assert attempts.wait_s("10.0.0.7") == 3.0

    def test_others_do_not_wait_for_it(self, attempts: Attempts) -> None:
        fail(attempts, "10.0.0.7")

        assert attempts.wait_s("10.0.0.8") == 0.0

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
            ("2001:db8:1:2::1", "2001:0DB8:0001:0002:0::99"),
            ("fe80::1%eth0", "fe80::2%eth0"),
        ],
    )
    def test_a_host_of_ipv6_has_a_whole_64_to_knock_from(
        self, attempts: Attempts, one: str, other: str
    ) -> None:
        fail(attempts, one)

        assert attempts.wait_s(other) > 0

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("2001:db8:1:2::1", "2001:db8:1:3::1"),
            ("::ffff:10.0.0.7", "::ffff:10.0.0.8"),
            ("unix:/a", "unix:/b"),
            ("", "10.0.0.7"),
        ],
    )
    def test_what_is_no_64_of_one_host_is_told_apart(self, attempts: Attempts, one: str, other: str) -> None:
        fail(attempts, one)

        assert attempts.wait_s(one) > 0
        assert attempts.wait_s(other) == 0.0

    def test_what_is_remembered_has_a_limit(
        self, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of who knocks from everywhere; the longest ago goes first."""
        monkeypatch.setattr("manager.access.attempts._ADDRESSES_MAX", 3)
        for number in range(3):
            fail(attempts, f"10.0.0.{number}")
        attempts.failed("10.0.0.0")
        fail(attempts, "10.0.0.9")

        waiting = [number for number in (0, 1, 2, 9) if attempts.wait_s(f"10.0.0.{number}") > 0]
        assert waiting == [0, 2, 9]
