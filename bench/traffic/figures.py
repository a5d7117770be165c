"""What the benchmark of traffic measures: each figure's meaning and aim, and the runs that give it."""

from __future__ import annotations

from collections.abc import Iterator

from bench.benchmark import Measurement
from bench.report import Figure
from bench.traffic import many_services, under_load
from bench.traffic.first_request import time_first_requests
from bench.traffic.throughput import PROXY, Way, throughput

RATIO_MIN = 0.95
WAYS = {
    Way(key="same_node", client=PROXY, pods=(PROXY,)): "a service's address, pods on the same node",
    Way(key="cross_node", client=PROXY, pods=("n2", "n3")): "a service's address, pods on other nodes",
    Way(key="published", client="n2", pods=(PROXY,), is_published=True): "another node's published port",
}


def _figures() -> Iterator[Figure]:
    for way, title in WAYS.items():
        yield Figure(
            key=f"{way.key}_rps_ratio",
            title=f"{title}: requests/s ÷ by hand",
            unit="times",
            aim_min=RATIO_MIN,
        )
        by_hand = f"{way.key}_handwritten_p99_ms"
        yield Figure(key=f"{way.key}_p99_ms", title="p99 of it", unit="ms", compared_with=by_hand)
        yield Figure(key=by_hand, title="p99 by hand", unit="ms", compared_with=f"{way.key}_p99_ms")
    yield Figure(
        key="ready_to_served_s", title="pod ready → first request through every node", unit="s", aim=0.5
    )
    many = f"{many_services.SERVICES:,} services of {many_services.ENDPOINTS} endpoints"
    yield Figure(key="endpoint_change_s", title=f"{many}: an endpoint is replaced", unit="s")
    yield Figure(key="reload_s", title=f"{many}: one service more", unit="s")
    yield Figure(key="haproxy_mib", title=f"{many}: HAProxy's memory", unit="MiB")
    yield Figure(key="haproxy_idle_cpu", title=f"{many}: HAProxy idle, of one processor", unit="%")
    for key, title in {
        "drain_failed_requests": "300 requests/s, a node is drained: failed",
        "leader_kill_failed_requests": "the same, the leader is killed: failed",
        "node_kill_late_failures": "the same, a node is killed: failed that began more than 1 s later",
    }.items():
        yield Figure(key=key, title=title, unit="requests", aim=0)


FIGURES = tuple(_figures())
# Without a cluster beside them.
ALONE_KEYS = many_services.KEYS
MEASUREMENTS = (
    *(
        Measurement(
            (f"{way.key}_rps_ratio", f"{way.key}_p99_ms", f"{way.key}_handwritten_p99_ms"), throughput(way)
        )
        for way in WAYS
    ),
    Measurement(("ready_to_served_s",), time_first_requests),
    Measurement(("drain_failed_requests",), under_load.count_drain_failures),
    Measurement(("leader_kill_failed_requests",), under_load.count_leader_kill_failures),
    Measurement(("node_kill_late_failures",), under_load.count_late_failures),
)
