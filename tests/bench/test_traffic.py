"""What the benchmark of traffic reads, and what it makes of it. Nothing is measured here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from bench.benchmark import chosen
from bench.report import Measured, Report
from bench.traffic import by_hand, many_services, throughput, turns_program, under_load
from bench.traffic.figures import ALONE_KEYS, FIGURES, MEASUREMENTS, WAYS
from bench.traffic.throughput import Side
from bench.traffic.wrk import Answered, parse_p99_ms, parse_requests
from deploy.local_cluster import NODES
from deploy.shell import StepError

# What `wrk --latency` of Debian 12 prints.
SAID = """\
Running 1s test @ http://127.0.0.1:9480/
  2 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.84ms    5.21ms  43.60ms   91.99%
    Req/Sec     5.88k     2.17k    9.26k    60.00%
  Latency Distribution
     50%    2.17ms
     75%    3.32ms
     90%    7.49ms
     99%   {p99}
  11754 requests in 1.01s, 1.52MB read
{errors}Requests/sec:  11666.71
Transfer/sec:      1.51MB
"""

KEYS = {
    "same_node_rps_ratio",
    "same_node_p99_ms",
    "same_node_handwritten_p99_ms",
    "cross_node_rps_ratio",
    "cross_node_p99_ms",
    "cross_node_handwritten_p99_ms",
    "published_rps_ratio",
    "published_p99_ms",
    "published_handwritten_p99_ms",
    "ready_to_served_s",
    "endpoint_change_s",
    "reload_s",
    "haproxy_mib",
    "haproxy_idle_cpu",
    "drain_failed_requests",
    "leader_kill_failed_requests",
    "node_kill_late_failures",
}


def a_side(*rates: float, p99_ms: float = 4.0, processor_us: float = 40.0) -> Side:
    """One that answered at these rates, each for a whole run."""
    return Side(
        name="",
        url="",
        pid_file="",
        rates=[rate for rate in rates for _ in range(throughput.ROUNDS_PER_RUN)],
        p99_ms=[p99_ms] * len(rates),
        processor_us=[processor_us] * len(rates),
    )


class TestWrk:
    @pytest.mark.parametrize(
        ("p99", "p99_ms"), [("31.68ms", 31.68), ("850.00us", 0.85), ("1.50s", 1500.0), ("1.00m", 60_000.0)]
    )
    def test_p99_is_read_in_every_unit(self, p99: str, p99_ms: float) -> None:
        assert parse_p99_ms(SAID.format(p99=p99, errors="")) == pytest.approx(p99_ms)

    def test_requests_are_counted(self) -> None:
        assert parse_requests(SAID.format(p99="1.00ms", errors="")) == 11754

    @pytest.mark.parametrize(
        "error",
        ["Socket errors: connect 0, read 3, write 0, timeout 0", "Non-2xx or 3xx responses: 12"],
    )
    def test_a_round_with_failures_is_no_measurement(self, error: str) -> None:
        said = SAID.format(p99="1.00ms", errors=f"  {error}\n")

        for parse in (parse_p99_ms, parse_requests):
            with pytest.raises(StepError, match=error):
                parse(said)

    def test_what_is_not_understood_is_shown(self) -> None:
        with pytest.raises(StepError, match="what is this"):
            parse_requests("what is this")


class TestTurns:
    def test_one_is_stopped_while_the_other_runs_and_both_say_what_they_did(self) -> None:
        """Each counts for as long as it runs, and says so when it is interrupted."""
        counts = "trap 'echo $steps; exit' INT; while sleep 0.01; do steps=$((steps + 1)); done"
        order = {"commands": [["sh", "-c", counts]] * 2, "turn_s": 0.05, "turns": 10}
        done = subprocess.run(
            [sys.executable, turns_program.__file__, json.dumps(order)],
            stdout=subprocess.PIPE,
            check=True,
            timeout=30,
        )

        found = json.loads(done.stdout)

        assert len(found) == 2
        for each in found:
            # The start and ten turns; each time one sleep may have ended while its shell was stopped.
            assert each["ran_s"] >= turns_program.START_S + 10 * 0.05
            assert 0 < int(each["said"]) <= each["ran_s"] / 0.01 + 11


class TestSideBySide:
    def test_each_run_is_compared_with_the_same_run_by_hand(self) -> None:
        """A machine that becomes slow between two runs changes no ratio."""
        found = throughput.results(
            "same_node", a_side(95, 50, 19), a_side(100, 50, 20), Answered(requests=600, seconds=2)
        )

        assert found["same_node_rps_ratio"].value == 0.95

    def test_the_rounds_of_a_run_count_together(self) -> None:
        ours, theirs = a_side(90), a_side(100)
        ours.rates[0] = 290

        found = throughput.results("same_node", ours, theirs, Answered(requests=600, seconds=2))

        assert found["same_node_rps_ratio"].value == 0.9 + 2 / throughput.ROUNDS_PER_RUN

    def test_the_least_ratio_is_the_worst_and_the_greatest_latency(self) -> None:
        ours, theirs = a_side(90, 110, 100, p99_ms=7), a_side(100, 100, 100, p99_ms=6)
        ours.p99_ms[-1] = 9

        found = throughput.results("published", ours, theirs, Answered(requests=600, seconds=2))

        assert (found["published_rps_ratio"].value, found["published_rps_ratio"].worst) == (1.0, 0.9)
        assert (found["published_p99_ms"].value, found["published_p99_ms"].worst) == (7, 9)
        assert (found["published_handwritten_p99_ms"].value, found["published_handwritten_p99_ms"].worst) == (
            6,
            6,
        )

    def test_the_note_says_rates_the_proxies_own_cost_and_what_the_pods_could_do(self) -> None:
        found = throughput.results(
            "cross_node",
            a_side(22_000, processor_us=37.8),
            a_side(23_000, processor_us=38.6),
            Answered(requests=124_000, seconds=2),
        )

        note = found["cross_node_rps_ratio"].note
        assert "22000 and 23000 requests/s" in note
        assert "37.8 and 38.6 µs" in note
        assert "62000 requests/s" in note

    def test_the_file_has_as_many_servers_as_pods_are_started(self) -> None:
        assert by_hand.FILE.read_text().count("\n    server ") == by_hand.SERVERS


class TestFigures:
    def test_keys_are_those_that_later_readers_rely_on(self) -> None:
        assert {figure.key for figure in FIGURES} == KEYS

    def test_each_is_measured_once(self) -> None:
        measured = [*ALONE_KEYS, *(key for one in MEASUREMENTS for key in one.keys)]

        assert sorted(measured) == sorted(KEYS)

    def test_names_of_comparisons_are_keys(self) -> None:
        assert {figure.compared_with for figure in FIGURES} - {""} <= KEYS

    def test_what_needs_no_cluster_starts_none(self) -> None:
        assert chosen(MEASUREMENTS, ["endpoint_change_s"]) == []

    def test_aims_are_shown_with_their_verdicts(self) -> None:
        measured = {figure.key: Measured(value=0.96, worst=0.9) for figure in FIGURES}
        text = Report(title="", circumstances=(), figures=FIGURES, measured=measured).to_text()

        assert text.count("≥ 0.95 times: reached") == len(WAYS)
        assert text.count("≤ 0.5 s: missed") == 1
        assert text.count("≤ 0 requests: missed") == 3


class TestManyServices:
    def test_each_figure_stands_beside_that_of_one_service(self) -> None:
        one = {key: [2.0] for key in many_services.KEYS}
        many = {key: [3.0, 5.0, 4.0] for key in many_services.KEYS}

        found = many_services.results(many, one)

        assert found.keys() == set(many_services.KEYS)
        assert (found["reload_s"].value, found["reload_s"].worst) == (4.0, 5.0)
        assert found["reload_s"].beside is not None
        assert found["reload_s"].beside.value == 2.0


class TestUnderLoad:
    def test_the_app_of_the_demo_is_as_the_benchmark_takes_it(self) -> None:
        deployment, service = yaml.safe_load_all((under_load.DIRECTORY / "demo-app.yaml").read_text())

        assert deployment["metadata"]["name"] == service["metadata"]["name"] == under_load.APP
        assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == under_load.IMAGE
        assert service["spec"]["type"] == "LoadBalancer"


class TestWays:
    def test_lead_over_nodes_that_exist(self) -> None:
        assert {node for way in WAYS for node in (way.client, *way.pods)} <= NODES.keys()
