"""Measures a whole cluster on this machine, and what it is compared with, in one run.

The cluster is that of docker-compose.yml, under a name and addresses of its own, as the e2e tests
start it; it is removed at the end, whatever happens. A measurement that fails is reported, and the
others go on. The table goes to stdout, progress to stderr, the figures to bench/results/cluster.json.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bayplan.client import BayplanError
from bench import machine
from bench.bare_engine import time_bare_start
from bench.cluster_figures import FIGURES, MEASUREMENTS, SWARM_MEASUREMENTS, Measurement
from bench.measure import IMAGE_ON_NODES, Rig
from bench.report import Measured, Report
from deploy import engine
from deploy.local_cluster import NODES, LocalCluster
from deploy.shell import CACHE, ROOT, StepError, ends, run, say
from tests.e2e.cluster import Cluster

BENCH = LocalCluster(
    project="bayplan-bench",
    net="172.31.86",
    bridge="bayplan2",
    ports=(7420, 7422, 7424),
    config=CACHE / "run/bayplan-bench-bay/config.yaml",
    registry_port=7470,
)
RESULTS = ROOT / "bench/results/cluster.json"
FAILURES = (StepError, AssertionError, BayplanError, OSError, http.client.HTTPException, ExceptionGroup)


class Benchmark:
    """All that was asked for, one measurement after the other; what fails is noted and left out."""

    def __init__(self, rig: Rig, measurements: Sequence[Measurement]) -> None:
        self._rig = rig
        self._measurements = measurements
        self._measured: dict[str, Measured] = {}
        self.failures: dict[str, str] = {}

    def run(self) -> Report:
        self._prepare()
        circumstances = self._circumstances()
        for measurement in self._measurements:
            say(f"Measuring {', '.join(measurement.keys)}")
            try:
                self._measured |= measurement.measure(self._rig)
            except FAILURES as error:
                self._note(", ".join(measurement.keys), error)
                if not self._heals():
                    break
            # Each time, so that an interrupted run keeps what it has.
            self._report(circumstances).write(RESULTS)
        return self._report(circumstances)

    def _prepare(self) -> None:
        """No measurement pulls an image, nor is it the first that an engine does."""
        for service in NODES.values():
            self._rig.cluster.local.execute(service, "docker", "pull", "--quiet", IMAGE_ON_NODES)
        time_bare_start(self._rig, len(NODES), at_once=1)

    def _heals(self) -> bool:
        """Whether the cluster is whole and empty again, so that the next measurement finds what it needs."""
        try:
            self._rig.cluster.heal()
        except FAILURES as error:
            self._note("everything after that: the cluster does not heal", error)
            return False
        return True

    def _note(self, what: str, error: BaseException) -> None:
        self.failures[what] = str(error).partition("\n")[0]
        say(f"FAILED {what}: {error}")

    def _circumstances(self) -> tuple[str, ...]:
        local = self._rig.cluster.local
        inside = local.engine("n1", "/version")["Version"]
        outside = run([*engine.docker(), "version", "--format", "{{.Server.Version}}"]).strip()
        counts = f"runs: {self._rig.runs}, replicas: {self._rig.replicas}"
        return (
            *machine.describe(),
            f"docker: {inside} in the nodes, {outside} on the host, where all of them share the machine",
            f"{counts}, pods on the node that fails: {self._rig.pods_per_node}",
        )

    def _report(self, circumstances: tuple[str, ...]) -> Report:
        return Report(
            title="A cluster of three managers and three nodes",
            circumstances=circumstances,
            figures=FIGURES,
            measured=self._measured,
        )


def chosen(only: Sequence[str], *, with_swarm: bool) -> list[Measurement]:
    """The measurements that give these figures; without any, all, Swarm's if asked for."""
    everything = (*MEASUREMENTS, *SWARM_MEASUREMENTS)
    if only:
        return [one for one in everything if set(only) & set(one.keys)]
    return list(everything if with_swarm else MEASUREMENTS)


def main() -> None:
    """See the module's docstring."""
    arguments = _arguments()
    # So that `kill` of a benchmark removes its cluster, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Whoever asks the cluster, here or through `bay`, is its admin.
    os.environ["BAYPLAN_CONFIG"], os.environ["BAYPLAN_CONTEXT"] = str(BENCH.config), BENCH.context
    # As installed, `bay` has its bytecode on disk; with this set it would compile itself at every call.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    engine.up()
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(BENCH, Path(directory))
        rig = Rig(cluster=cluster, runs=arguments.runs, replicas=arguments.replicas, idle_s=arguments.idle_s)
        benchmark = Benchmark(rig, chosen(arguments.only, with_swarm=arguments.swarm))
        try:
            say(f"Starting the cluster {BENCH.project}")
            cluster.up()
            report = benchmark.run()
        except FAILURES as error:
            raise StepError(f"the cluster is not fit to be measured: {error}") from error
        finally:
            BENCH.down()
    print(report.to_markdown() if arguments.markdown else report.to_text())
    _fail_if_any(benchmark.failures)


def _fail_if_any(failures: Mapping[str, str]) -> None:
    if failures:
        lines = [f"{what}: {error}" for what, error in failures.items()]
        raise StepError("\n  ".join(["not everything could be measured:", *lines]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("--runs", type=_count, default=5, metavar="N", help="of each figure (5)")
    parser.add_argument("--replicas", type=_count, default=50, metavar="N", help="to start (50)")
    parser.add_argument(
        "--idle-s", type=float, default=300.0, metavar="S", help="before memory is read (300)"
    )
    parser.add_argument("--swarm", action="store_true", help="measure Docker Swarm on the same nodes, too")
    parser.add_argument("--markdown", action="store_true", help="print the table for docs/performance.md")
    keys = [figure.key for figure in FIGURES]
    parser.add_argument("--only", nargs="+", choices=keys, default=[], metavar="KEY", help=", ".join(keys))
    return parser.parse_args()


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    ends(main)
