"""How many requests fail while a node is drained, the leader dies, a node dies: a constant load, counted.

The load is that of the e2e tests (bench/load.py), through every node: 300 requests a second, half of them
on new connections, a tenth POSTs, beside ten WebSockets and ten downloads of 20 s; what takes more than 2 s
has failed. A load that was itself late, or a POST that was executed twice, is no measurement but a failure.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from bench.load_process import LoadProcess, executed_ids
from bench.load_record import executed_twice, late_failures
from bench.load_report import Report
from bench.measure import Rig
from bench.report import Measured
from bench.traffic.web import until_all_answer, url_of
from deploy.local_cluster import NODES
from deploy.shell import ROOT, StepError, say
from tests.e2e.cluster import Cluster

APP, IMAGE = "demo-app", "demo-app:1"
DIRECTORY = ROOT / "deploy/demo_app"
# Before the fault, and after all is well again: longer than a download.
CALM_S = 5.0
AFTERWARDS_S = 25.0
# A node's death excuses what began up to then.
EXCUSED_S = 1.0
DEAD_S = 10.0


def count_drain_failures(rig: Rig) -> dict[str, Measured]:
    """A node is emptied and taken back."""
    with _app(rig.cluster) as urls, _load(urls) as load:
        load.mark("drain n1")
        rig.cluster.ok("drain", "n1", "--timeout", "120s", timeout_s=130)
        rig.cluster.ok("uncordon", "n1")
        report = _ended(rig.cluster, load)
    return {"drain_failed_requests": _failures(report)}


def count_leader_kill_failures(rig: Rig) -> dict[str, Measured]:
    """The leader's container is killed, and started again once another leads."""
    with _app(rig.cluster) as urls, _load(urls) as load:
        load.mark("leader killed")
        killed = rig.cluster.kill_leader()
        try:
            rig.cluster.leader()
        finally:
            rig.cluster.start_manager(killed)
        rig.cluster.wait_until_whole()
        report = _ended(rig.cluster, load)
    return {"leader_kill_failed_requests": _failures(report)}


def count_late_failures(rig: Rig) -> dict[str, Measured]:
    """A node loses its power; new requests go to the others from then on, as behind any load balancer."""
    with _app(rig.cluster) as urls, _load(urls) as load:
        load.mark("n2 killed")
        rig.cluster.kill_node("n2")
        try:
            load.stop_using(urls["n2"])
            time.sleep(DEAD_S)
        finally:
            rig.cluster.start_node("n2")
        rig.cluster.wait_until_whole()
        report = _ended(rig.cluster, load)
    late = late_failures(
        report.failures, fault_s=report.marks["n2 killed"], allowed_s=EXCUSED_S, dead=[urls["n2"]]
    )
    note = f"{len(report.failures) - len(late)} more were in flight on the dead node, or sent to it, or began within {EXCUSED_S:.0f} s"
    return {"node_kill_late_failures": _measured(len(late), report, note)}


@contextlib.contextmanager
def _app(cluster: Cluster) -> Iterator[dict[str, str]]:
    """deploy/demo_app as its YAML stands, all of it answering; node → URL."""
    deployment, service = yaml.safe_load_all((DIRECTORY / "demo-app.yaml").read_text())
    # So that WebSockets, which would stay for ever, are asked to leave sooner.
    deployment["spec"]["template"]["metadata"]["annotations"] = {"bayplan.io/drain-seconds": "5"}
    port = service["spec"]["ports"][0]["port"]
    cluster.push_image(DIRECTORY, IMAGE)
    done = cluster.apply(deployment, service)
    assert done.returncode == 0, done.stdout + done.stderr
    urls = {node: url_of(cluster.local, node, port) for node in NODES}
    try:
        until_all_answer(cluster, [*urls.values()], pods=deployment["spec"]["replicas"])
        yield urls
    finally:
        cluster.delete_everything()


@contextlib.contextmanager
def _load(urls: Mapping[str, str]) -> Iterator[LoadProcess]:
    with (
        tempfile.TemporaryDirectory() as directory,
        LoadProcess([*urls.values()], Path(directory) / "load.jsonl") as load,
    ):
        time.sleep(CALM_S)
        yield load


def _ended(cluster: Cluster, load: LoadProcess) -> Report:
    """The load's report, if it proves anything. Raises StepError."""
    time.sleep(AFTERWARDS_S)
    # It prints its summary; standard output is for the table.
    with contextlib.redirect_stdout(sys.stderr):
        report = load.end()
    if report.failures:
        say(report.text())
    if report.doubts:
        raise StepError(f"the load proves nothing: {'; '.join(report.doubts)}")
    if twice := executed_twice(executed_ids(cluster.local, f"Deployment/{APP}")):
        raise StepError(f"{len(twice)} POSTs were executed more than once: {', '.join(sorted(twice)[:5])}")
    return report


def _failures(report: Report) -> Measured:
    return _measured(len(report.failures), report)


def _measured(count: int, report: Report, *notes: str) -> Measured:
    sent, p99_ms = report.summary["sent"], report.summary["p99_s"] * 1000
    note = f"of {sent} requests at a constant rate, and streams; p99 {p99_ms:.0f} ms"
    return Measured(value=count, worst=count, note="; ".join((note, *notes)))
