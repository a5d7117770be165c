"""Requests a second through Bayplan's proxy, beside those through a hand-written HAProxy on the same node.

To the same pods from the same client, both at once by turns of hundredths of a second (turns_program.py), in many
rounds: who gets which thread and processor differs by 4 % from one to the next. A service's address is asked by a
pod, as in life, a published port by another host. Client, proxy and pods share the machine's processors, and so a
proxy that needs more of them answers less. What each proxy itself needs is said beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from bench.measure import Rig
from bench.report import Measured
from bench.traffic import by_hand as hand
from bench.traffic.web import POD_PORT, client_pod, pod_addresses, url_of, url_of_vip, web
from bench.traffic.wrk import Answered, Client, p99_ms, take_turns
from deploy.local_cluster import NODES, LocalCluster
from deploy.shell import say, works
from tests.e2e.cluster import Cluster, eventually

PROXY = "n1"
OUR_PID_FILE = "/run/proxy.pid"
ROUND_S = 2  # Of each of the two.
ROUNDS_PER_RUN = 20
P99_ROUNDS_PER_RUN = 5
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
    # By the host through the node's port, else by a pod through the service's VIP.
    is_published: bool = False


@dataclass(slots=True, kw_only=True)
class Side:
    """One of the two proxies, and what was seen of it."""

    name: str
    url: str
    pid_file: str
    rates: list[float] = field(default_factory=list)  # Requests/s, of each round.
    p99_ms: list[float] = field(default_factory=list)
    processor_us: list[float] = field(default_factory=list)  # Of the proxy itself, for one request.


def throughput(way: Way) -> Callable[[Rig], dict[str, Measured]]:
    """The measurement of one way."""

    def measure(rig: Rig) -> dict[str, Measured]:
        local = rig.cluster.local
        with _client(rig.cluster, way) as client, web(rig.cluster, replicas=hand.SERVERS, nodes=way.pods):
            addresses = pod_addresses(local)
            with hand.by_hand(local, PROXY, addresses):
                sides = _sides(rig.cluster, way, client)
                for _ in range(rig.runs):
                    for _ in range(ROUNDS_PER_RUN):
                        _measure_rates(client, sides)
                    for _ in range(P99_ROUNDS_PER_RUN):
                        _measure_p99(client, sides)
                (direct,) = take_turns(client, [f"http://{addresses[0]}:{POD_PORT}/"], seconds=ROUND_S)
        return results(way.key, *sides, direct)

    return measure


def results(key: str, ours: Side, theirs: Side, direct: Answered) -> dict[str, Measured]:
    """Three figures of it. `direct`: without a proxy, from the client to one pod."""
    ratios = [mine / other for mine, other in zip(_means(ours), _means(theirs), strict=True)]
    note = (
        f"{statistics.median(ours.rates):.0f} and {statistics.median(theirs.rates):.0f} requests/s (medians); processor time of the "
        f"proxy itself for a request: {statistics.median(ours.processor_us):.1f} and "
        f"{statistics.median(theirs.processor_us):.1f} µs; straight to one pod: {direct.requests_per_s:.0f} requests/s"
    )
    return {
        f"{key}_rps_ratio": Measured.of_runs(ratios, more_is_better=True, note=note),
        f"{key}_p99_ms": Measured.of_runs(ours.p99_ms),
        f"{key}_handwritten_p99_ms": Measured.of_runs(theirs.p99_ms),
    }


@contextmanager
def _client(cluster: Cluster, way: Way) -> Iterator[Client]:
    if way.is_published:
        yield Client(local=cluster.local, node=way.client)
    else:
        with client_pod(cluster, way.client) as pod:
            yield Client(local=cluster.local, node=way.client, pod=pod)


def _means(side: Side) -> list[float]:
    """Requests a second in each run."""
    return [
        statistics.fmean(side.rates[first : first + ROUNDS_PER_RUN])
        for first in range(0, len(side.rates), ROUNDS_PER_RUN)
    ]


def _sides(cluster: Cluster, way: Way, client: Client) -> tuple[Side, Side]:
    """Both, once they answer the client."""
    local = cluster.local
    url = url_of(local, PROXY) if way.is_published else url_of_vip(cluster)
    ours = Side(name="Bayplan", url=f"{url}/", pid_file=OUR_PID_FILE)
    theirs = Side(name="by hand", url=f"{url_of(local, PROXY, hand.PORT)}/", pid_file=hand.PID_FILE)
    for side in (ours, theirs):
        fetch = client.command("busybox", "wget", "-qO-", side.url)
        eventually(partial(works, fetch), within_s=REACH_TIMEOUT_S, otherwise=cluster.report)
    return ours, theirs


def _measure_rates(client: Client, sides: Sequence[Side]) -> None:
    before_s = [_processor_s(client.local, side.pid_file) for side in sides]
    answered = take_turns(client, [side.url for side in sides], seconds=ROUND_S)
    for side, its, earlier_s in zip(sides, answered, before_s, strict=True):
        used_s = _processor_s(client.local, side.pid_file) - earlier_s
        side.rates.append(its.requests_per_s)
        side.processor_us.append(used_s * MICROSECONDS / its.requests)
    say(f"    {' and '.join(f'{side.rates[-1]:.0f}' for side in sides)} requests/s")


def _measure_p99(client: Client, sides: Sequence[Side]) -> None:
    """One after the other: who takes turns waits, and that would be counted."""
    for side in sides:
        side.p99_ms.append(p99_ms(client, side.url, seconds=ROUND_S))
        say(f"    {side.name}: p99 {side.p99_ms[-1]:.1f} ms")


def _processor_s(local: LocalCluster, pid_file: str) -> float:
    """What the process and its children, a master's workers, have used so far."""
    script = f"pid=$(cat {pid_file}); for each in $pid $(cat /proc/$pid/task/*/children); do cat /proc/$each/stat; done"
    said = local.execute(NODES[PROXY], "sh", "-c", script)
    # proc(5): utime and stime are the 14th and 15th field; the second ends with the last parenthesis.
    fields = [line.rpartition(")")[2].split() for line in said.splitlines()]
    return sum(int(each[11]) + int(each[12]) for each in fields) / TICKS_PER_S
