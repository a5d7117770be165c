from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cluster import chosen
from bench.cluster_figures import FIGURES, MEASUREMENTS, SWARM_MEASUREMENTS
from bench.report import Comparison, Figure, Measured, Report

START = Figure(key="start_s", title="start", unit="s", compared_with="bare_s", aim_ratio=1.1)
BARE = Figure(key="bare_s", title="bare", unit="s")
RATE = Figure(key="rate", title="rate", unit="times", aim_min=0.95)
FAILED = Figure(key="failed", title="failed", unit="requests", aim=0)
FAILOVER = Figure(key="failover_s", title="failover", unit="s", compared_with="swarm_s", aim=3.0)

KEYS = {
    "start_50_s",
    "start_50_bare_engine_s",
    "node_failover_s",
    "node_link_cut_s",
    "leader_failover_s",
    "cli_help_s",
    "cli_get_pods_s",
    "manager_idle_mib",
    "agent_idle_mib",
}
SWARM_KEYS = {"swarm_start_50_s", "swarm_node_failover_s", "swarm_leader_failover_s"}


def a_report(**measured: Measured) -> Report:
    return Report(
        title="A title",
        circumstances=("machine: a small one", "date: today"),
        figures=(START, BARE, FAILOVER, RATE, FAILED),
        measured=measured,
    )


def runs(*values: float, beside: Comparison | None = None, note: str = "") -> Measured:
    return Measured.of_runs(values, beside=beside, note=note)


class TestJson:
    def test_gives_median_and_worst_beside_another_figure_of_the_run(self) -> None:
        found = a_report(start_s=runs(6.0, 9.0, 5.0), bare_s=runs(4.0)).to_json()

        assert found["start_s"] == {
            "value": 6.0,
            "worst": 9.0,
            "unit": "s",
            "compared_with": "bare_s",
            "ratio": 1.5,
        }

    def test_prefers_the_other_figure_to_the_aim(self) -> None:
        report = Report(
            title="",
            circumstances=(),
            figures=(FAILOVER, Figure(key="swarm_s", title="swarm", unit="s")),
            measured={"failover_s": runs(2.0), "swarm_s": runs(20.0)},
        )

        assert report.to_json()["failover_s"]["compared_with"] == "swarm_s"
        assert report.to_json()["failover_s"]["ratio"] == 0.1

    def test_compares_with_what_was_measured_beside_it(self) -> None:
        found = a_report(bare_s=runs(4.0, beside=Comparison(name="one by one", value=8.0))).to_json()

        assert (found["bare_s"]["compared_with"], found["bare_s"]["ratio"]) == ("one by one", 0.5)

    def test_falls_back_to_the_aim(self) -> None:
        found = a_report(failover_s=runs(1.5)).to_json()

        assert (found["failover_s"]["compared_with"], found["failover_s"]["ratio"]) == ("aim", 0.5)

    def test_of_what_should_be_great_the_least_is_the_worst(self) -> None:
        found = a_report(rate=Measured.of_runs([1.0, 0.76, 1.1], more_is_better=True)).to_json()

        assert found["rate"] == {
            "value": 1.0,
            "worst": 0.76,
            "unit": "times",
            "compared_with": "aim",
            "ratio": 1.053,
        }

    def test_has_no_ratio_to_an_aim_of_nothing(self) -> None:
        found = a_report(failed=runs(3)).to_json()

        assert (found["failed"]["compared_with"], found["failed"]["ratio"]) == ("aim", None)

    def test_says_none_where_there_is_nothing_to_compare_with(self) -> None:
        found = a_report(start_s=runs(6.0)).to_json()

        assert (found["start_s"]["compared_with"], found["start_s"]["ratio"]) == (None, None)

    def test_leaves_out_what_was_not_measured(self) -> None:
        assert a_report(bare_s=runs(4.0)).to_json().keys() == {"bare_s"}

    def test_is_what_is_written(self, tmp_path: Path) -> None:
        report = a_report(start_s=runs(6.0), bare_s=runs(4.0))

        report.write(tmp_path / "results" / "one.json")

        assert json.loads((tmp_path / "results" / "one.json").read_text()) == report.to_json()


class TestTable:
    def test_shows_each_figure_beside_its_comparison_and_aim(self) -> None:
        text = a_report(start_s=runs(6.0), bare_s=runs(4.0), failover_s=runs(2.5, 4.0, 2.0)).to_text()

        (start,) = [line.split() for line in text.splitlines() if line.startswith("start")]
        (failover,) = [line for line in text.splitlines() if line.startswith("failover")]
        assert start[2:] == ["6.00", "6.00", "s", "bare_s", "4.00", "1.50", "≤", "1.1", "times:", "missed"]
        assert "2.50" in failover
        assert "4.00" in failover
        assert "≤ 3 s: reached" in failover

    @pytest.mark.parametrize(
        ("value", "verdict"), [(0.95, "≥ 0.95 times: reached"), (0.949, "≥ 0.95 times: missed")]
    )
    def test_an_aim_may_be_a_least_value(self, value: float, verdict: str) -> None:
        assert verdict in a_report(rate=runs(value)).to_text()

    @pytest.mark.parametrize(
        ("value", "verdict"), [(0, "≤ 0 requests: reached"), (1, "≤ 0 requests: missed")]
    )
    def test_an_aim_may_be_nothing(self, value: float, verdict: str) -> None:
        assert verdict in a_report(failed=runs(value)).to_text()

    def test_judges_no_ratio_without_the_figure_it_belongs_to(self) -> None:
        """Only the bare engine was to be beaten; beside anything else the ratio means something else."""
        text = a_report(start_s=runs(6.0, beside=Comparison(name="else", value=1.0))).to_text()

        assert "times" not in text

    def test_begins_with_machine_and_date(self) -> None:
        lines = a_report(bare_s=runs(4.0)).to_text().splitlines()

        assert lines[:3] == ["A title", "machine: a small one", "date: today"]

    def test_columns_stand_under_each_other(self) -> None:
        lines = a_report(start_s=runs(600.0), bare_s=runs(4.0)).to_text().splitlines()
        head, *rows = lines[4:]

        assert [row[: head.index("unit")].rstrip()[-1] for row in rows] == ["0", "0"]
        assert {row[head.index("unit") :].split()[0] for row in rows} == {"s"}

    def test_ends_with_the_notes(self) -> None:
        assert a_report(bare_s=runs(4.0, note="a note")).to_text().endswith("\n\nbare_s: a note")

    def test_markdown_has_a_rule_and_as_many_cells_in_each_row(self) -> None:
        text = a_report(start_s=runs(6.0), bare_s=runs(4.0, note="a note")).to_markdown()
        rows = [line for line in text.splitlines() if line.startswith("|")]

        assert text.startswith("## A title\n\n- machine: a small one\n- date: today\n\n| figure |")
        assert len({row.count("|") for row in rows}) == 1
        assert set(rows[1]) <= set("|-: ")
        assert text.endswith("\n\n- bare_s: a note")


class TestClusterFigures:
    def test_keys_are_those_that_later_readers_rely_on(self) -> None:
        assert {figure.key for figure in FIGURES} == KEYS | SWARM_KEYS

    def test_each_is_measured_once(self) -> None:
        measured = [key for one in (*MEASUREMENTS, *SWARM_MEASUREMENTS) for key in one.keys]

        assert sorted(measured) == sorted(KEYS | SWARM_KEYS)

    def test_names_of_comparisons_are_keys(self) -> None:
        named = {figure.compared_with for figure in FIGURES if figure.compared_with}

        assert named <= {figure.key for figure in FIGURES}


class TestChoice:
    @pytest.mark.parametrize(("with_swarm", "keys"), [(False, KEYS), (True, KEYS | SWARM_KEYS)])
    def test_is_everything_and_swarm_if_asked_for(self, with_swarm: bool, keys: set[str]) -> None:  # noqa: FBT001
        assert {key for one in chosen((), with_swarm=with_swarm) for key in one.keys} == keys

    def test_a_figure_comes_with_those_it_is_measured_with(self) -> None:
        (one,) = chosen(["start_50_s"], with_swarm=False)

        assert one.keys == ("start_50_s", "start_50_bare_engine_s")

    def test_a_figure_of_swarm_needs_no_other_word(self) -> None:
        (one,) = chosen(["swarm_start_50_s"], with_swarm=False)

        assert one.keys == ("swarm_start_50_s",)
