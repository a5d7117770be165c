"""Runs measurements one after the other, alone or on a cluster of their own, and keeps what they gave.

The cluster is that of docker-compose.yml, under a name and addresses of its own, as the e2e tests
start it; it is removed at the end, whatever happens. A measurement that fails is reported, and the
others go on. The table goes to stdout, progress to stderr, the figures to bench/results.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bayplan.client import BayplanError
from bench import machine
from bench.measure import Rig
from bench.report import Figure, Measured, Report
from deploy import engine
from deploy.local_cluster import LocalCluster
from deploy.shell import CACHE, ROOT, StepError, run, say
from tests.e2e.cluster import Cluster

BENCH = LocalCluster(
    project="bayplan-bench",
    net="172.31.86",
    bridge="bayplan2",
    ports=(7420, 7422, 7424),
    config=CACHE / "run/bayplan-bench-bay/config.yaml",
    registry_port=7470,
)
RESULTS = ROOT / "bench/results"
FAILURES = (StepError, AssertionError, BayplanError, OSError, http.client.HTTPException, ExceptionGroup)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is measured together, in one go."""

    keys: tuple[str, ...]
    measure: Callable[[Rig], dict[str, Measured]]


class Benchmark:
    """All that was asked for; what fails is noted and left out."""

    def __init__(self, *, name: str, title: str, figures: Sequence[Figure], counts: str) -> None:
        """`counts`: how often and how much is measured, in words."""
        self._results = RESULTS / f"{name}.json"
        self._title = title
        self._figures = tuple(figures)
        outside = run([*engine.docker(), "version", "--format", "{{.Server.Version}}"]).strip()
        self._circumstances = [
            *machine.describe(),
            f"docker: {outside} on the host, whose processors everything shares",
            counts,
        ]
        self._measured: dict[str, Measured] = {}
        self._failures: dict[str, str] = {}

    def measure(self, measurements: Sequence[Measurement], rig: Rig) -> None:
        """One after the other, on a cluster that is whole and empty before each."""
        inside = rig.cluster.local.engine("n1", "/version")["Version"]
        self._circumstances.append(f"docker in the nodes: {inside}")
        for measurement in measurements:
            is_well = self.attempt(measurement.keys, partial(measurement.measure, rig))
            if not is_well and not self._heals(rig.cluster):
                break

    def attempt(self, keys: Sequence[str], measure: Callable[[], dict[str, Measured]]) -> bool:
        """Whether it could be measured."""
        say(f"Measuring {', '.join(keys)}")
        try:
            self._measured |= measure()
        except FAILURES as error:
            self._note(", ".join(keys), error)
            return False
        finally:
            # Each time, so that an interrupted run keeps what it has.
            self._report().write(self._results)
        return True

    def end(self, *, markdown: bool) -> None:
        """The table. Raises StepError if not everything could be measured."""
        report = self._report()
        print(report.to_markdown() if markdown else report.to_text())
        if self._failures:
            lines = [f"{what}: {error}" for what, error in self._failures.items()]
            raise StepError("\n  ".join(["not everything could be measured:", *lines]))

    def _heals(self, cluster: Cluster) -> bool:
        """Whether the cluster is whole and empty again, so that the next measurement finds what it needs."""
        try:
            cluster.heal()
        except FAILURES as error:
            self._note("everything after that: the cluster does not heal", error)
            return False
        return True

    def _note(self, what: str, error: BaseException) -> None:
        self._failures[what] = str(error).partition("\n")[0]
        say(f"FAILED {what}: {error}")

    def _report(self) -> Report:
        return Report(
            title=self._title,
            circumstances=tuple(self._circumstances),
            figures=self._figures,
            measured=self._measured,
        )


def starts() -> None:
    """What every benchmark needs of this process and this machine."""
    # So that `kill` of a benchmark removes its cluster, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Whoever asks the cluster, here or through `bay`, is its admin.
    os.environ["BAYPLAN_CONFIG"], os.environ["BAYPLAN_CONTEXT"] = str(BENCH.config), BENCH.context
    # As installed, `bay` has its bytecode on disk; with this set it would compile itself at every call.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    engine.up()


@contextmanager
def bench_cluster() -> Iterator[Cluster]:
    """A cluster that nobody else uses. Raises StepError when it does not come up."""
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(BENCH, Path(directory))
        try:
            say(f"Starting the cluster {BENCH.project}")
            cluster.up()
            yield cluster
        except FAILURES as error:
            raise StepError(f"the cluster is not fit to be measured: {error}") from error
        finally:
            BENCH.down()


def chosen(measurements: Sequence[Measurement], only: Sequence[str]) -> list[Measurement]:
    """Those that give one of these figures; without any, all."""
    return [one for one in measurements if not only or set(only) & set(one.keys)]


def add_arguments(parser: argparse.ArgumentParser, figures: Sequence[Figure]) -> None:
    """Those of every benchmark."""
    parser.add_argument("--runs", type=count, default=5, metavar="N", help="of each figure (5)")
    parser.add_argument("--markdown", action="store_true", help="print the table for docs/performance.md")
    keys = [figure.key for figure in figures]
    parser.add_argument("--only", nargs="+", choices=keys, default=[], metavar="KEY", help=", ".join(keys))


def count(text: str) -> int:
    """An argument: a number, at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
