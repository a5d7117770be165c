from __future__ import annotations

import pytest

from bayplan.cli.failures import CommandError
from bayplan.cli.kinds import DEPLOYMENT, NODE, POD, SERVICE, Reference, kind_and_name, references
from bayplan.cli.options import labels, seconds
from bayplan.cli.text import age, clean, duration, table
from bayplan.transport.addresses import addresses


class TestAges:
    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (599, "9m59s"),
            (10 * 60, "10m"),
            (179 * 60, "179m"),
            (3 * 3600, "3h"),
            (5 * 3600 + 720, "5h12m"),
            (47 * 3600, "47h"),
            (5 * 86400 + 3 * 3600, "5d3h"),
            (40 * 86400, "40d"),
            (3 * 365 * 86400 + 86400, "3y1d"),
            (-5, "0s"),
        ],
    )
    def test_read_as_kubectls(self, seconds: int, text: str) -> None:
        assert duration(seconds) == text

    def test_of_what_has_no_beginning_are_unknown(self) -> None:
        assert age(0) == "<unknown>"


class TestClean:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("plain ünïcode 名", "plain ünïcode 名"),
            ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
            ("a\r\nb\tc", r"a\r\nb\tc"),
            ("\u202eevil\u2066", r"\u202eevil\u2066"),
            ("\x9b31m", r"\x9b31m"),
        ],
    )
    def test_shows_what_a_terminal_would_obey(self, text: str, shown: str) -> None:
        assert clean(text) == shown


class TestTable:
    def test_columns_stand_three_spaces_apart_without_trailing_blanks(self) -> None:
        assert table(("NAME", "AGE"), [("a", "1d"), ("longer", "")]) == [
            "NAME     AGE",
            "a        1d",
            "longer",
        ]


class TestReferences:
    @pytest.mark.parametrize(
        ("words", "meant"),
        [
            (["deploy"], [Reference(DEPLOYMENT)]),
            (["Deployments.apps", "web"], [Reference(DEPLOYMENT, "web")]),
            (["deploy/web", "svc/web"], [Reference(DEPLOYMENT, "web"), Reference(SERVICE, "web")]),
            (["po,no"], [Reference(POD), Reference(NODE)]),
        ],
    )
    def test_are_read_in_each_form(self, words: list[str], meant: list[Reference]) -> None:
        assert references(words) == meant

    @pytest.mark.parametrize("words", [["deploy/"], ["web", "x"], ["a", "b", "c"], []])
    def test_nonsense_is_refused(self, words: list[str]) -> None:
        with pytest.raises(CommandError):
            kind_and_name(words)


class TestOptions:
    @pytest.mark.parametrize(("text", "value"), [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400)])
    def test_lengths_of_time(self, text: str, value: float) -> None:
        assert seconds(text) == value

    @pytest.mark.parametrize("text", ["", "5x", "m", "-1s"])
    def test_what_is_no_length_of_time_is_refused(self, text: str) -> None:
        with pytest.raises(CommandError):
            seconds(text)

    def test_selectors(self) -> None:
        assert labels("a=1,b==2") == {"a": "1", "b": "2"}
        with pytest.raises(CommandError):
            labels("a!=1")

    def test_managers_without_a_port_get_ours(self) -> None:
        assert addresses("a, b:1,[::1],[::1]:5,") == ("a:7400", "b:1", "[::1]:7400", "[::1]:5")
