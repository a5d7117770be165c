from __future__ import annotations

from typing import Any

from bench.load_record import Kind, Record
from bench.load_report import Report
from deploy.power_cut import Look, story

TARGETS = {"n1": "http://n1", "n2": "http://n2"}


def a_second(number: int, *, well: int = 100, failed: int = 0, **pods: int) -> dict[str, Any]:
    return {"second": number, "well": well, "failed": failed, "p99_s": 0.02, "pods": pods}


def a_failure(began_s: float, target: str, *, kind: Kind = Kind.GET, opened_s: float | None = None) -> Record:
    return Record(
        kind=kind,
        target=target,
        began_s=began_s,
        ended_s=began_s + 0.5,
        opened_s=began_s if opened_s is None else opened_s,
        failure="cut",
    )


def a_report(*failures: Record, doubts: list[str] | None = None) -> Report:
    return Report(
        began_at=0.0,
        seconds=(a_second(3, a=50, b=50), a_second(5, well=60, failed=3, a=60), a_second(6, a=100)),
        failures=failures,
        marks={"cut": 5.2},
        summary={"doubts": doubts or []},
    )


class TestStory:
    def test_has_a_line_a_second_from_before_the_cut(self) -> None:
        looks = [
            Look(at_s=0.3, nodes={"n1": "Ready", "n2": "Suspect"}, running=3),
            Look(at_s=1.4, nodes={"n1": "Ready", "n2": "Down"}, running=6),
        ]

        lines = story(a_report(), looks, TARGETS, "n2")

        assert [line.split() for line in lines[1:4]] == [
            ["-2", "s", "100", "0", "20", "ms", "2", "pods:", "a=50", "b=50"],
            ["+0", "s", "60", "3", "20", "ms", "3", "n1:Ready", "n2:Suspect;", "1", "pods:", "a=60"],
            ["+1", "s", "100", "0", "20", "ms", "6", "n1:Ready", "n2:Down;", "1", "pods:", "a=100"],
        ]

    def test_tells_apart_what_a_dead_host_excuses_and_what_it_does_not(self) -> None:
        failures = [
            a_failure(1.0, "http://n1"),
            a_failure(5.0, "http://n2"),
            a_failure(5.5, "http://n1"),
            a_failure(8.0, "http://n1", kind=Kind.WEBSOCKET, opened_s=2.0),
            a_failure(7.5, "http://n1", kind=Kind.POST),
        ]

        lines = story(a_report(*failures), [], TARGETS, "n2")

        assert lines[-5:] == [
            "Failed before the cut: 1",
            "Failed because they were under way through the dead host: 1 (1 get)",
            "Failed elsewhere, under way at the cut or begun within 1 s of it: 2 (1 get, 1 websocket)",
            "Failed later, through hosts that live: 1 (1 post)",
            "The last of these two began 2.8 s after the cut",
        ]

    def test_says_when_it_proves_nothing(self) -> None:
        lines = story(a_report(doubts=["the generator itself was late"]), [], TARGETS, "n2")

        assert lines[-1] == "This run proves nothing: the generator itself was late"
