"""What bench/cluster.py measures: each figure's meaning, comparison and aim, and the runs that give it."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence

from bench import bayplan_runs, memory, swarm
from bench.bare_engine import STARTS_AT_ONCE, time_bare_start
from bench.benchmark import Measurement
from bench.measure import Rig
from bench.report import Comparison, Figure, Measured
from deploy.local_cluster import MANAGERS, NODES
from deploy.shell import say

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
        title="leader killed → another answers a read and a write",
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
        title="Swarm: leader's node killed → another answers a read and a write",
        unit="s",
        compared_with="leader_failover_s",
    ),
)


def measure_start(rig: Rig) -> dict[str, Measured]:
    """Bayplan and the bare engines by turns, so that a slow minute of the machine hits all of them."""
    ours: list[float] = []
    bare: dict[int, list[float]] = {at_once: [] for at_once in STARTS_AT_ONCE}
    for number in range(rig.runs):
        ours += _said(number, "start", bayplan_runs.time_bayplan_start(rig, rig.replicas))
        for at_once in STARTS_AT_ONCE:
            what = f"bare engines, {at_once} at once"
            bare[at_once] += _said(number, what, time_bare_start(rig, rig.replicas, at_once=at_once))
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
    # First: after two hundred containers the engines clean up for a while.
    Measurement(("cli_help_s", "cli_get_pods_s"), measure_command_line),
    Measurement(("start_50_s", "start_50_bare_engine_s"), measure_start),
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
