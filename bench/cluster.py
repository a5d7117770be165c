"""Measures a whole cluster on this machine, and what it is compared with, in one run.

See bench/benchmark.py for how a run goes; the figures go to bench/results/cluster.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bench import benchmark
from bench.bare_engine import time_bare_start
from bench.benchmark import Benchmark, Measurement, bench_cluster
from bench.cluster_figures import FIGURES, MEASUREMENTS, SWARM_MEASUREMENTS
from bench.measure import IMAGE_ON_NODES, Rig
from deploy.local_cluster import NODES
from deploy.shell import ends


def chosen(only: Sequence[str], *, with_swarm: bool) -> list[Measurement]:
    """The measurements that give these figures; without any, all, Swarm's if asked for."""
    has_swarm = with_swarm or bool(only)
    return benchmark.chosen((*MEASUREMENTS, *(SWARM_MEASUREMENTS if has_swarm else ())), only)


def main() -> None:
    """See the module's docstring."""
    arguments = _arguments()
    benchmark.starts()
    with bench_cluster() as cluster:
        rig = Rig(cluster=cluster, runs=arguments.runs, replicas=arguments.replicas, idle_s=arguments.idle_s)
        measured = Benchmark(
            name="cluster",
            title="A cluster of three managers and three nodes",
            figures=FIGURES,
            counts=f"runs: {rig.runs}, replicas: {rig.replicas}, pods on the node that fails: {rig.pods_per_node}",
        )
        _prepare(rig)
        measured.measure(chosen(arguments.only, with_swarm=arguments.swarm), rig)
    measured.end(markdown=arguments.markdown)


def _prepare(rig: Rig) -> None:
    """No measurement pulls an image, nor is it the first that an engine does."""
    for service in NODES.values():
        rig.cluster.local.execute(service, "docker", "pull", "--quiet", IMAGE_ON_NODES)
    time_bare_start(rig, len(NODES), at_once=1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    benchmark.add_arguments(parser, FIGURES)
    parser.add_argument("--replicas", type=benchmark.count, default=50, metavar="N", help="to start (50)")
    parser.add_argument(
        "--idle-s", type=float, default=300.0, metavar="S", help="before memory is read (300)"
    )
    parser.add_argument("--swarm", action="store_true", help="measure Docker Swarm on the same nodes, too")
    return parser.parse_args()


if __name__ == "__main__":
    ends(main)
