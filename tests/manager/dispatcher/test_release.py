from __future__ import annotations

from manager.dispatcher.release import SPREAD_S, Departures, ProxyView, Released

NOW_S = 1000.0


def leaving(drain_s: float = 30.0, version: int = 7) -> Departures:
    """One pod on n1, wanted to stop at 1000 s."""
    departures = Departures()
    departures.leave("u.0.1", node="n1", version=version, drain_s=drain_s, now_s=NOW_S)
    return departures


def proxy(applied: int = 7, *draining: str) -> ProxyView:
    return ProxyView(applied=applied, draining=frozenset(draining))


class TestSpreading:
    def test_waits_until_every_proxy_has_left_it_out(self) -> None:
        departures = leaving()

        assert departures.judge({"n1": proxy(7), "n2": proxy(6)}, NOW_S + 1) == []
        assert departures.is_waiting("u.0.1")
        assert departures.why("u.0.1") == "leaving the proxies: n2 to follow"
        assert departures.judge({"n1": proxy(7), "n2": proxy(8)}, NOW_S + 1.1) == [
            Released(uid="u.0.1", node="n1")
        ]
        assert not departures.is_waiting("u.0.1")

    def test_does_not_wait_longer_than_five_seconds(self) -> None:
        departures = leaving()
        proxies = {"n1": proxy(7), "n2": proxy(0)}

        assert departures.judge(proxies, NOW_S + SPREAD_S - 0.01) == []
        assert departures.next_look_s == NOW_S + SPREAD_S
        assert departures.judge(proxies, NOW_S + SPREAD_S) == [Released(uid="u.0.1", node="n1")]

    def test_waits_for_nobody_where_there_is_nobody(self) -> None:
        assert leaving().judge({}, NOW_S) == [Released(uid="u.0.1", node="n1")]

    def test_counts_from_the_first_word(self) -> None:
        departures = leaving()
        departures.leave("u.0.1", node="n1", version=99, drain_s=30, now_s=NOW_S + 4)

        assert departures.judge({"n1": proxy(7)}, NOW_S + 4)


class TestDraining:
    def test_waits_for_the_last_request(self) -> None:
        departures = leaving()

        assert departures.judge({"n1": proxy(7, "u.0.1"), "n2": proxy(7, "u.9.9")}, NOW_S + 1) == []
        assert departures.why("u.0.1") == "draining: requests left on n1"
        assert departures.judge({"n1": proxy(7), "n2": proxy(7, "u.9.9")}, NOW_S + 9) == [
            Released(uid="u.0.1", node="n1")
        ]

    def test_names_nobody_while_it_is_not_known_who_is_left(self) -> None:
        departures = leaving()
        departures.judge({"n1": proxy(7, "u.0.1"), "n2": proxy(7)}, NOW_S + 1)
        departures.judge({"n1": proxy(7, "u.0.1")}, NOW_S + 2)
        assert departures.why("u.0.1") == "draining: requests left on n1"
        departures.leave("u.0.2", node="n1", version=7, drain_s=30, now_s=NOW_S + 2)
        departures.judge({"n1": proxy(7, "u.0.1", "u.0.2")}, NOW_S + 3)
        departures.judge({}, NOW_S + 3.5)

        assert departures.why("u.0.2") == ""

    def test_ends_with_its_time_and_says_whose_requests_are_cut(self) -> None:
        """Its time begins when no proxy sends it anything new."""
        departures = leaving(drain_s=10)
        proxies = {"n1": proxy(7), "n2": proxy(7, "u.0.1"), "n3": proxy(7, "u.0.1")}

        assert departures.judge(proxies, NOW_S + 2) == []
        assert departures.next_look_s == NOW_S + 12
        assert departures.judge(proxies, NOW_S + 11.9) == []
        assert departures.judge(proxies, NOW_S + 12) == [Released(uid="u.0.1", node="n1", still=("n2", "n3"))]

    def test_does_not_take_place_where_the_template_does_not_want_it(self) -> None:
        assert leaving(drain_s=0).judge({"n1": proxy(7, "u.0.1")}, NOW_S + 1)

    def test_begins_at_the_latest_after_five_seconds(self) -> None:
        """So the whole takes no longer than 5 s and the time to drain."""
        departures = leaving(drain_s=10)
        proxies = {"n1": proxy(0), "n2": proxy(7, "u.0.1")}
        departures.judge(proxies, NOW_S + SPREAD_S)

        assert departures.judge(proxies, NOW_S + SPREAD_S + 10)


class TestMemory:
    def test_one_that_was_released_never_waits_again(self) -> None:
        departures = leaving()
        departures.release("u.0.1")
        departures.leave("u.0.1", node="n1", version=9, drain_s=30, now_s=NOW_S)

        assert not departures.is_waiting("u.0.1")
        assert departures.next_look_s == float("inf")

    def test_keeps_nothing_of_a_pod_whose_record_is_gone(self) -> None:
        departures = leaving()
        departures.forget("u.0.1")

        assert not departures
        assert departures.why("u.0.1") == ""

    def test_names_a_few_of_many(self) -> None:
        departures = leaving()
        departures.judge({f"n{number}": proxy(0) for number in range(9)}, NOW_S)

        assert departures.why("u.0.1") == "leaving the proxies: n0, n1, n2 and 6 more to follow"
