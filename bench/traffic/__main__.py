"""Measures what traffic costs and how soon it follows, in one run.

See bench/benchmark.py for how a run goes; the figures go to bench/results/traffic.json. What needs no
cluster is measured before there is one.
"""

from __future__ import annotations

import argparse
from functools import partial

from bench import benchmark
from bench.benchmark import Benchmark, bench_cluster
from bench.measure import Rig
from bench.traffic.figures import ALONE_KEYS, FIGURES, MEASUREMENTS
from bench.traffic.many_services import measure_many_services
from bench.traffic.throughput import ROUND_S, ROUNDS_PER_RUN
from bench.traffic.wrk import CONNECTIONS
from deploy import images
from deploy.shell import ends

# They take a few seconds each, and vary more than others.
CHANGES_PER_RUN = 4


def main() -> None:
    """See the module's docstring."""
    arguments = _arguments()
    benchmark.starts()
    measured = Benchmark(
        name="traffic",
        title="Traffic",
        figures=FIGURES,
        counts=f"runs: {arguments.runs}, each of {ROUNDS_PER_RUN} times {ROUND_S} s for requests/s, {CONNECTIONS} connections",
    )
    if not arguments.only or set(arguments.only) & set(ALONE_KEYS):
        images.build_all()
        changes = arguments.runs * CHANGES_PER_RUN
        measured.attempt(ALONE_KEYS, partial(measure_many_services, changes))
    if measurements := benchmark.chosen(MEASUREMENTS, arguments.only):
        with bench_cluster() as cluster:
            measured.measure(measurements, Rig(cluster=cluster, runs=arguments.runs, replicas=1, idle_s=0.0))
    measured.end(markdown=arguments.markdown)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.traffic", description=__doc__)
    benchmark.add_arguments(parser, FIGURES)
    return parser.parse_args()


if __name__ == "__main__":
    ends(main)
