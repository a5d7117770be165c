"""Requests a second through Bayplan's proxy, beside those through a hand-written HAProxy on the same node.

By turns, some seconds each, to the same pods from the same client, so that a slow minute of the machine
hits both; each is first as often as second. Client, proxy and pods share the machine's processors,
and so a proxy that needs more of them answers less. What each proxy itself needs is said beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from bench.measure import Rig
from bench.report import Measured
from bench.traffic import by_hand as hand
from bench.traffic.web import POD_PORT, pod_addresses, url_of, url_of_vip, web
from bench.traffic.wrk import Round, run_wrk
from deploy.engine import docker
from deploy.local_cluster import NODES, LocalCluster
from deploy.shell import say, works
from tests.e2e.cluster import Cluster, eventually

PROXY = "n1"
OUR_PID_FILE = "/run/proxy.pid"
WARM_UP_S = 3
ROUND_S = 5
REACH_TIMEOUT_S = 30.0
# USER_HZ of every Linux that Docker runs on.
TICKS_PER_S = 100
MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """From a client through the proxy of n1 to pods."""

    key: str
    client: str
    pods: tuple[str, ...]  # Nodes.
    is_published: bool = False  # Through the node's port, else through the service's VIP.


@dataclass(slots=True, kw_only=True)
class Side:
    """One of the two proxies, and what was seen of it."""

    name: str
    url: str
    pid_file: str
    rounds: list[Round] = field(default_factory=list)
    processor_us: list[float] = field(default_factory=list)  # Of the proxy itself, for one request.

    @property
    def requests_per_s(self) -> float:
        return statistics.median(each.requests_per_s for each in self.rounds)

    @property
    def p99_ms(self) -> list[float]:
        return [each.p99_ms for each in self.rounds]


def throughput(way: Way) -> Callable[[Rig], dict[str, Measured]]:
    """The measurement of one way."""

    def measure(rig: Rig) -> dict[str, Measured]:
        local = rig.cluster.local
        with web(rig.cluster, replicas=hand.SERVERS, nodes=way.pods):
            addresses = pod_addresses(local)
            with hand.by_hand(local, PROXY, addresses):
                ours, theirs = _sides(rig.cluster, way)
                for side in (ours, theirs):
                    run_wrk(local, way.client, side.url, seconds=WARM_UP_S)
                for _ in range(rig.runs):
                    for side in (ours, theirs, theirs, ours):
                        _measure_once(local, way.client, side)
                direct = run_wrk(local, way.client, f"http://{addresses[0]}:{POD_PORT}/", seconds=ROUND_S)
        return results(way.key, ours, theirs, direct)

    return measure


def results(key: str, ours: Side, theirs: Side, direct: Round) -> dict[str, Measured]:
    """Three figures of it. `direct`: without a proxy, from the client to one pod."""
    ratios = [
        mine.requests_per_s / other.requests_per_s
        for mine, other in zip(ours.rounds, theirs.rounds, strict=True)
    ]
    note = (
        f"{ours.requests_per_s:.0f} and {theirs.requests_per_s:.0f} requests/s (medians); processor time of the "
        f"proxy itself for a request: {statistics.median(ours.processor_us):.1f} and "
        f"{statistics.median(theirs.processor_us):.1f} µs; straight to one pod: {direct.requests_per_s:.0f} requests/s"
    )
    return {
        f"{key}_rps_ratio": Measured.of_runs(ratios, more_is_better=True, note=note),
        f"{key}_p99_ms": Measured.of_runs(ours.p99_ms),
        f"{key}_handwritten_p99_ms": Measured.of_runs(theirs.p99_ms),
    }


def _sides(cluster: Cluster, way: Way) -> tuple[Side, Side]:
    """Both, once they answer the client."""
    local = cluster.local
    address = "127.0.0.1" if way.client == PROXY else local.address(PROXY)
    url = url_of(local, PROXY) if way.is_published else url_of_vip(cluster)
    ours = Side(name="Bayplan", url=f"{url}/", pid_file=OUR_PID_FILE)
    theirs = Side(name="by hand", url=f"http://{address}:{hand.PORT}/", pid_file=hand.PID_FILE)
    for side in (ours, theirs):
        fetch = [*docker(), "exec", local.container(NODES[way.client]), "busybox", "wget", "-qO-", side.url]
        eventually(partial(works, fetch), within_s=REACH_TIMEOUT_S, otherwise=cluster.report)
    return ours, theirs


def _measure_once(local: LocalCluster, client: str, side: Side) -> None:
    before_s = _processor_s(local, side.pid_file)
    seen = run_wrk(local, client, side.url, seconds=ROUND_S)
    used_s = _processor_s(local, side.pid_file) - before_s
    side.rounds.append(seen)
    side.processor_us.append(used_s * MICROSECONDS / (seen.requests_per_s * ROUND_S))
    say(f"    {side.name}: {seen.requests_per_s:.0f} requests/s, p99 {seen.p99_ms:.1f} ms")


def _processor_s(local: LocalCluster, pid_file: str) -> float:
    """What the process and its children, a master's workers, have used so far."""
    script = f"pid=$(cat {pid_file}); for each in $pid $(cat /proc/$pid/task/*/children); do cat /proc/$each/stat; done"
    said = local.execute(NODES[PROXY], "sh", "-c", script)
    # proc(5): utime and stime are the 14th and 15th field; the second ends with the last parenthesis.
    fields = [line.rpartition(")")[2].split() for line in said.splitlines()]
    return sum(int(each[11]) + int(each[12]) for each in fields) / TICKS_PER_S
