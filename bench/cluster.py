"""Measures a whole cluster on this machine, and what it is compared with, in one run.

The cluster is that of docker-compose.yml, under a name and addresses of its own, as the e2e tests
start it; it is removed at the end, whatever happens. A measurement that fails is reported, and the
others go on. The table goes to stdout, progress to stderr, the figures to bench/results/cluster.json.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bayplan.client import BayplanError
from bench import bayplan_runs, machine, memory, swarm
from bench.bare_engine import STARTS_AT_ONCE, time_bare_start
from bench.measure import IMAGE_ON_NODES, Rig
from bench.report import Comparison, Figure, Measured, Report
from deploy import engine
from deploy.local_cluster import MANAGERS, NODES, LocalCluster
from deploy.shell import ROOT, StepError, ends, run, say
from tests.e2e.cluster import Cluster

BENCH = LocalCluster(
    project="bayplan-bench",
    net="172.31.86",
    bridge="bayplan2",
    ports=(7420, 7421, 7422),
    registry_port=7470,
)
RESULTS = ROOT / "bench/results/cluster.json"
FAILURES = (StepError, AssertionError, BayplanError, OSError, http.client.HTTPException)

FIGURES = (
    Figure(
        key="start_50_s",
        title="50 replicas, created → all running",
        unit="s",
        compared_with="start_50_bare_engine_s",
        aim_ratio=1.1,
    ),
    Figure(key="start_50_bare_engine_s", title="the same, the nodes' engines alone", unit="s"),
    Figure(
        key="node_failover_s",
        title="node killed → its 10 pods answer elsewhere",
        unit="s",
        compared_with="swarm_node_failover_s",
        aim=3.0,
    ),
    Figure(
        key="node_link_cut_s",
        title="node's link cut → its 10 pods answer elsewhere",
        unit="s",
        compared_with="swarm_node_failover_s",
        aim=4.0,
    ),
    Figure(
        key="leader_failover_s",
        title="leader killed → another answers a write and a read",
        unit="s",
        compared_with="swarm_leader_failover_s",
        aim=1.0,
    ),
    Figure(key="cli_help_s", title="`bay --help`", unit="s", aim=0.4),
    Figure(key="cli_get_pods_s", title="`bay get pods`", unit="s", aim=0.4),
    Figure(key="manager_idle_mib", title="memory of the leader, 50 pods, idle", unit="MiB"),
    Figure(key="agent_idle_mib", title="memory of an agent, 50 pods in the cluster, idle", unit="MiB"),
    Figure(
        key="swarm_start_50_s",
        title="Swarm: 50 replicas, created → all running",
        unit="s",
        compared_with="start_50_s",
    ),
    Figure(
        key="swarm_node_failover_s",
        title="Swarm: node killed → its 10 tasks answer elsewhere",
        unit="s",
        compared_with="node_failover_s",
    ),
    Figure(
        key="swarm_leader_failover_s",
        title="Swarm: leader's node killed → another answers a write and a read",
        unit="s",
        compared_with="leader_failover_s",
    ),
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is measured together, in one go."""

    keys: tuple[str, ...]
    measure: Callable[[Rig], dict[str, Measured]]


def measure_start(rig: Rig) -> dict[str, Measured]:
    """Bayplan and the bare engines by turns, so that a slow minute of the machine hits all of them."""
    ours: list[float] = []
    bare: dict[int, list[float]] = {at_once: [] for at_once in STARTS_AT_ONCE}
    for number in range(rig.runs):
        ours += _said(number, "start", bayplan_runs.time_bayplan_start(rig, rig.replicas))
        for at_once, times in bare.items():
            what = f"bare engines, {at_once} at once"
            times += _said(number, what, time_bare_start(rig, rig.replicas, at_once=at_once))
    best = min(bare, key=lambda at_once: statistics.median(bare[at_once]))
    one_by_one = Comparison(name="1 start at once", value=statistics.median(bare[1]))
    note = f"best with {best} starts at once on each engine; " + ", ".join(
        f"{at_once} at once: {statistics.median(times):.2f} s" for at_once, times in bare.items()
    )
    return {
        "start_50_s": Measured.of_runs(ours),
        "start_50_bare_engine_s": Measured.of_runs(bare[best], beside=one_by_one, note=note),
    }


def measure_command_line(rig: Rig) -> dict[str, Measured]:
    """The first of each fills the disk cache and is not counted."""
    with bayplan_runs.pods(rig, rig.replicas):
        found: dict[str, Measured] = {}
        bayplan_runs.time_bare_python()
        python = statistics.median(bayplan_runs.time_bare_python() for _ in range(rig.runs))
        beside = Comparison(name="python -c pass", value=python)
        for key, arguments in {"cli_help_s": ["--help"], "cli_get_pods_s": ["get", "pods"]}.items():
            bayplan_runs.time_command(rig, *arguments)
            times = [bayplan_runs.time_command(rig, *arguments) for _ in range(rig.runs)]
            found[key] = Measured.of_runs(times, beside=beside)
    return found


def measure_memory(rig: Rig) -> dict[str, Measured]:
    """Of every manager and agent at one moment; a median over runs would say no more."""
    local = rig.cluster.local
    with bayplan_runs.pods(rig, rig.replicas):
        say(f"{rig.replicas} pods run; idle for {rig.idle_s:.0f} s")
        time.sleep(rig.idle_s)
        leader = rig.cluster.leader()
        managers = {manager: memory.of_container(local, manager) for manager in MANAGERS}
        agents = [memory.of_node_process(local, node, "agent") for node in NODES]
        engines = [memory.of_node_process(local, node, "engine") for node in NODES]
        etcd = memory.of_container(local, "etcd")
    of_idle = f"after {rig.idle_s:.0f} idle seconds, {rig.replicas} pods"
    return {
        "manager_idle_mib": Measured(
            value=managers[leader],
            worst=max(managers.values()),
            beside=Comparison(name="etcd", value=etcd),
            note=f"the leader's, and the largest of three; {of_idle}",
        ),
        "agent_idle_mib": Measured.of_runs(
            agents,
            beside=Comparison(name="its Docker Engine", value=statistics.median(engines)),
            note=f"median and largest of three; {of_idle}",
        ),
    }


def measure_leader_failover(rig: Rig) -> dict[str, Measured]:
    """By the container that the write asked for one sees that the new leader acts, too."""
    runs = []
    for number in range(rig.runs):
        found = bayplan_runs.time_leader_failover(rig)
        _said(number, "leader failover", found.answered_s)
        runs.append(found)
    acted = statistics.median(one.acted_s for one in runs)
    note = f"the container that the write asked for started {acted:.2f} s after the kill (median)"
    return {"leader_failover_s": Measured.of_runs([one.answered_s for one in runs], note=note)}


def by_runs(
    key: str, measure_once: Callable[[Rig, str], float], victims: Sequence[str]
) -> Callable[[Rig], dict[str, Measured]]:
    """A measurement of one figure: once a run, on the victims in turn."""

    def measure(rig: Rig) -> dict[str, Measured]:
        turns = itertools.islice(itertools.cycle(victims), rig.runs)
        times = [_said(number, key, measure_once(rig, node))[0] for number, node in enumerate(turns)]
        return {key: Measured.of_runs(times)}

    return measure


def _said(number: int, what: str, seconds: float) -> list[float]:
    say(f"  run {number + 1}: {what}: {seconds:.2f} s")
    return [seconds]


MEASUREMENTS = (
    Measurement(("start_50_s", "start_50_bare_engine_s"), measure_start),
    Measurement(("cli_help_s", "cli_get_pods_s"), measure_command_line),
    Measurement(("manager_idle_mib", "agent_idle_mib"), measure_memory),
    Measurement(
        ("node_failover_s",), by_runs("node_failover_s", bayplan_runs.time_node_failover, tuple(NODES))
    ),
    Measurement(("node_link_cut_s",), by_runs("node_link_cut_s", bayplan_runs.time_link_cut, tuple(NODES))),
    Measurement(("leader_failover_s",), measure_leader_failover),
)
SWARM_MEASUREMENTS = (
    Measurement(
        ("swarm_start_50_s",),
        by_runs("swarm_start_50_s", lambda rig, _: swarm.time_swarm_start(rig, rig.replicas), [""]),
    ),
    Measurement(
        ("swarm_node_failover_s",),
        # Its only manager lives on the first node.
        by_runs("swarm_node_failover_s", swarm.time_swarm_node_failover, swarm.OTHERS),
    ),
    Measurement(
        ("swarm_leader_failover_s",),
        by_runs("swarm_leader_failover_s", lambda rig, _: swarm.time_swarm_leader_failover(rig), [""]),
    ),
)


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
                self._note(measurement, error)
                self._rig.cluster.heal()
            # Each time, so that an interrupted run keeps what it has.
            self._report(circumstances).write(RESULTS)
        return self._report(circumstances)

    def _prepare(self) -> None:
        """No measurement pulls an image, nor is it the first that an engine does."""
        for service in NODES.values():
            self._rig.cluster.local.execute(service, "docker", "pull", "--quiet", IMAGE_ON_NODES)
        time_bare_start(self._rig, len(NODES), at_once=1)

    def _note(self, measurement: Measurement, error: BaseException) -> None:
        keys = ", ".join(measurement.keys)
        self.failures[keys] = str(error)
        say(f"FAILED {keys}: {error}")

    def _circumstances(self) -> tuple[str, ...]:
        local = self._rig.cluster.local
        inside = local.engine("n1", "/version")["Version"]
        outside = run([*engine.docker(), "version", "--format", "{{.Server.Version}}"]).strip()
        return (
            *machine.describe(),
            f"docker: {inside} in the nodes, {outside} on the host, where all of them share the machine",
            f"runs: {self._rig.runs}, replicas: {self._rig.replicas},"
            f" pods on the node that fails: {self._rig.pods_per_node}",
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
    engine.up()
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(BENCH, Path(directory))
        rig = Rig(cluster=cluster, runs=arguments.runs, replicas=arguments.replicas, idle_s=arguments.idle_s)
        benchmark = Benchmark(rig, chosen(arguments.only, with_swarm=arguments.swarm))
        try:
            say(f"Starting the cluster {BENCH.project}")
            _bring_up(cluster)
            report = benchmark.run()
        finally:
            BENCH.down()
    print(report.to_markdown() if arguments.markdown else report.to_text())
    _fail_if_any(benchmark.failures)


def _bring_up(cluster: Cluster) -> None:
    try:
        cluster.up()
    except (StepError, AssertionError) as error:
        raise StepError(f"the cluster cannot be brought up, so nothing was measured:\n{error}") from error


def _fail_if_any(failures: Mapping[str, str]) -> None:
    if failures:
        raise StepError(f"not measured, see above: {'; '.join(failures)}")


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
