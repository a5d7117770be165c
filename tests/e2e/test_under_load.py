"""What clients see of a cluster to which things happen: a constant load through every node (bench/load.py)."""

from __future__ import annotations

import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.load_process import LoadProcess, executed_ids
from bench.load_record import executed_twice, late_failures
from bench.load_report import Report
from deploy import images
from deploy.local_cluster import NODES
from deploy.shell import ROOT
from tests.e2e.cluster import Cluster, eventually

pytestmark = pytest.mark.timeout(600)

HERE = ROOT / "deploy/demo_app"
APP, REPLICAS, PORT = "demo-app", 6, 8080
CALM_S = 2.0  # Before the first thing happens, and between two.
WITHOUT_MANAGERS_S = 30.0
# What begins later than 1 s or 3 s must go well; the verdict and its consequences come within 4 s.
AFTER_FAULT_S = 10.0
KILL_ALLOWED_S, CUT_ALLOWED_S = 1.0, 3.0
ANSWERS_WITHIN_S = 60
# WebSockets never end by themselves: proxies wait no longer, and the app tells them when it is told to stop. It
# ends downloads as well, for which its grace has room.
DRAIN_S = 5


def manifests() -> list[dict[str, Any]]:
    documents = list(yaml.safe_load_all((HERE / "demo-app.yaml").read_text()))
    (workload,) = (each for each in documents if each["kind"] == "Deployment")
    workload["spec"]["template"]["metadata"]["annotations"] = {"bayplan.io/drain-seconds": str(DRAIN_S)}
    return documents


@pytest.fixture(scope="module")
def targets(whole_cluster: Cluster) -> Iterator[dict[str, str]]:
    """Node → URL; the app runs behind a LoadBalancer service and answers on every node. One for all tests."""
    images.push(HERE, f"{whole_cluster.local.registry}/{APP}:1")
    assert whole_cluster.apply(*manifests()).returncode == 0, whole_cluster.report()
    urls = {node: f"http://{whole_cluster.local.address(node)}:{PORT}" for node in NODES}
    eventually(
        lambda: all(map(answers, urls.values())), within_s=ANSWERS_WITHIN_S, otherwise=whole_cluster.report
    )
    yield urls
    whole_cluster.heal()


@pytest.fixture
def cluster(whole_cluster: Cluster) -> Iterator[Cluster]:
    """As everywhere, but the app stays."""
    yield whole_cluster
    whole_cluster.mend()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


@contextmanager
def marked(load: LoadProcess, what: str) -> Iterator[None]:
    """Whatever happens within; its beginning and end stand in the report."""
    load.mark(what)
    yield
    load.mark(f"{what}: done")
    time.sleep(CALM_S)


def tell(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    """The counts, whether the test passes or not."""
    with capsys.disabled():
        sys.stdout.write(f"\n{report.text()}\n")


@pytest.fixture
def earlier(cluster: Cluster, targets: dict[str, str]) -> set[str]:
    """What tests before have had executed."""
    assert targets
    return set(executed_ids(cluster.local, f"Deployment/{APP}"))


def check_nothing_ran_twice(cluster: Cluster, report: Report, earlier: set[str]) -> None:
    found = executed_ids(cluster.local, f"Deployment/{APP}")
    executed = [each for each in found if each not in earlier]
    assert len(executed) >= report.summary["well"]["post"] > 0
    assert executed_twice(executed) == {}


class TestOrderedChanges:
    def test_fail_no_request(
        self,
        cluster: Cluster,
        targets: dict[str, str],
        earlier: set[str],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """A drain, a scale down, a scale up, the leader's kill, half a minute without any manager."""
        with LoadProcess([*targets.values()], tmp_path / "load.jsonl") as load:
            time.sleep(CALM_S)
            with marked(load, "drain n1"):
                cluster.ok("drain", "n1", timeout_s=180)
            cluster.ok("uncordon", "n1")
            with marked(load, "scale down"):
                cluster.ok("scale", f"deployment/{APP}", "--replicas", "3", timeout_s=120)
            with marked(load, "scale up"):
                cluster.ok("scale", f"deployment/{APP}", "--replicas", "8", timeout_s=120)
            with marked(load, "leader killed"):
                killed = cluster.kill_leader()
                cluster.leader()
            cluster.start_manager(killed)
            with marked(load, "no manager"):
                cluster.kill_all_managers()
                time.sleep(WITHOUT_MANAGERS_S)
                cluster.start_all_managers()
            cluster.wait_until_whole()
            report = load.end()

        tell(report, capsys)
        assert not report.doubts, report.text()
        assert not report.failures, report.text()
        check_nothing_ran_twice(cluster, report, earlier)


class TestLostNode:
    # Nothing moves back to a node that returns: each has a victim of its own.
    @pytest.mark.parametrize(
        ("fault", "victim", "allowed_s"), [("kill", "n3", KILL_ALLOWED_S), ("cut", "n2", CUT_ALLOWED_S)]
    )
    def test_fails_only_what_was_under_way_there(
        self,
        cluster: Cluster,
        targets: dict[str, str],
        earlier: set[str],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        *,
        fault: str,
        victim: str,
        allowed_s: float,
    ) -> None:
        assert cluster.local.pods(victim)
        with LoadProcess([*targets.values()], tmp_path / "load.jsonl") as load:
            time.sleep(CALM_S)
            load.mark("fault")
            load.stop_using(targets[victim])
            if fault == "kill":
                cluster.kill_node(victim)
            else:
                cluster.cut_link(victim)
            time.sleep(AFTER_FAULT_S)
            report = load.end()
        cluster.mend()

        tell(report, capsys)
        assert not report.doubts, report.text()
        fault_s = report.marks["fault"]
        assert not [failure for failure in report.failures if failure.ended_s < fault_s], report.text()
        late = late_failures(report.failures, fault_s=fault_s, allowed_s=allowed_s, dead=[targets[victim]])
        assert not late, report.text()
        check_nothing_ran_twice(cluster, report, earlier)
