"""Managers and etcd die, hang and come back: containers do not notice, and nothing is done twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from deploy.local_cluster import MANAGERS
from tests.e2e.cluster import Cluster, eventually
from tests.e2e.documents import deployment
from tests.e2e.watch import ContainerWatch

WEB = "Deployment/web"
PODS = 6
ELECTED_S = 15.0


@pytest.fixture
def watch(cluster: Cluster) -> Iterator[ContainerWatch]:
    with cluster.watched() as watch:
        yield watch
        assert not watch.doubled(), watch.timeline()


@pytest.fixture
def web(cluster: Cluster, watch: ContainerWatch) -> set[str]:
    """Six pods run; their container ids."""
    done = cluster.apply(deployment(replicas=PODS))
    assert done.returncode == 0, done.stdout + done.stderr
    return {seen.id for seen in watch.now().of(WEB)}


def scales(cluster: Cluster, watch: ContainerWatch, replicas: int) -> None:
    """The cluster does what it is told."""
    cluster.ok("scale", "deploy/web", "--replicas", str(replicas))
    eventually(lambda: len(watch.now().of(WEB)) == replicas, within_s=20, otherwise=cluster.report)


class TestLeaderDeath:
    def test_a_killed_leader_is_replaced_and_nothing_restarts(
        self, cluster: Cluster, watch: ContainerWatch, web: set[str]
    ) -> None:
        dead = cluster.kill_leader()

        eventually(
            lambda: cluster.local.leader() not in (None, dead), within_s=ELECTED_S, otherwise=cluster.report
        )
        cluster.ok("get", "pods")
        assert watch.ids(WEB) == web, watch.timeline()
        scales(cluster, watch, PODS + 2)
        assert watch.counts(WEB)[0] >= PODS or watch.ids(WEB) >= web

    def test_a_leader_that_was_frozen_for_10_s_does_no_harm(
        self, cluster: Cluster, watch: ContainerWatch, web: set[str]
    ) -> None:
        frozen = cluster.leader()
        with cluster.paused(frozen):
            time.sleep(10)
            assert cluster.local.leader() not in (None, frozen)
            cluster.ok("scale", "deploy/web", "--replicas", str(PODS + 1))

        time.sleep(5)
        assert cluster.local.leader() != frozen
        assert web <= {seen.id for seen in watch.now().of(WEB)}, watch.timeline()
        assert len(watch.now().of(WEB)) == PODS + 1

    def test_nodes_that_died_with_the_leader_are_judged_after_a_fresh_grace(
        self, cluster: Cluster, watch: ContainerWatch, web: set[str]
    ) -> None:
        """Row "which nodes live": the dead node is replaced, the living ones are left alone."""
        on_dead = {seen.id for seen in watch.now().of(WEB) if seen.node == "n3"}
        cluster.kill_node("n3")
        cluster.kill_leader()
        killed_s = time.monotonic()

        time.sleep(8)
        assert watch.ids(WEB, since_s=killed_s) <= web, "judged before its grace was over"
        eventually(lambda: len(watch.now().of(WEB)) == PODS, within_s=30, otherwise=cluster.report)
        assert web - on_dead <= {seen.id for seen in watch.now().of(WEB)}

    def test_pods_of_an_agent_that_is_slow_to_come_back_are_not_replaced(
        self, cluster: Cluster, watch: ContainerWatch, web: set[str]
    ) -> None:
        """Row "which pods run": unknown is neither ready nor failed."""
        cluster.kill_agent("n1")
        cluster.kill_leader()

        time.sleep(15)

        assert watch.ids(WEB) == web, watch.timeline()
        cluster.release_agent("n1")

    def test_exits_are_counted_once(self, cluster: Cluster, watch: ContainerWatch) -> None:
        """Row "exits of pods": a crash loop is the same crash loop under the next leader."""
        cluster.apply(
            deployment("crash", replicas=1, command=["/bin/sh", "-c", "sleep 1; exit 3"]), wait=False
        )
        eventually(lambda: "exit 3" in cluster.ok("ps"), within_s=20, otherwise=cluster.report)
        names = {seen.pod_name for one in watch.rounds() for seen in one.of("Deployment/crash")}

        cluster.kill_leader()
        eventually(lambda: "exit 3" in cluster.bay("ps").stdout, within_s=20, otherwise=cluster.report)

        time.sleep(4)
        assert {seen.pod_name for one in watch.rounds() for seen in one.of("Deployment/crash")} == names, (
            "the pod was made anew"
        )

    def test_a_change_of_template_goes_on_under_the_next_leader(
        self, cluster: Cluster, watch: ContainerWatch, web: set[str]
    ) -> None:
        """Row "rollout's progress"."""
        begun_s = time.monotonic()
        cluster.apply(deployment(replicas=PODS, env=[{"name": "COLOUR", "value": "green"}]), wait=False)
        time.sleep(0.5)
        cluster.kill_leader()

        eventually(
            lambda: len(now := watch.now().of(WEB)) == PODS and not {seen.id for seen in now} & web,
            within_s=60,
            otherwise=cluster.report,
        )
        assert watch.counts(WEB, since_s=begun_s)[0] >= PODS - 1, watch.timeline()

    def test_a_leader_killed_in_the_middle_of_a_deploy_loses_and_doubles_nothing(
        self, cluster: Cluster, watch: ContainerWatch
    ) -> None:
        """Row "what the last leader sent but did not commit"."""
        cluster.apply(deployment(replicas=24), wait=False)
        eventually(lambda: len(watch.now().of(WEB)) >= 3, within_s=20, otherwise=cluster.report)
        cluster.kill_leader()

        eventually(lambda: len(watch.now().of(WEB)) == 24, within_s=60, otherwise=cluster.report)
        assert watch.counts(WEB)[1] <= 24, watch.timeline()


class TestNoManagers:
    def test_containers_stay_and_nothing_restarts_when_they_are_back(
        self, cluster: Cluster, watch: ContainerWatch, web: set[str]
    ) -> None:
        cluster.kill_all_managers()
        time.sleep(60)
        assert {seen.id for seen in watch.now().of(WEB)} == web, watch.timeline()

        cluster.start_all_managers()

        eventually(lambda: cluster.bay("get", "pods").returncode == 0, within_s=30, otherwise=cluster.report)
        time.sleep(12)  # Beyond the grace in which nobody is judged.
        assert watch.ids(WEB) == web, watch.timeline()
        scales(cluster, watch, PODS + 1)


class TestStoreFromThePast:
    def test_nothing_is_stopped_until_an_operator_adopts_what_runs(
        self, cluster: Cluster, watch: ContainerWatch
    ) -> None:
        cluster.apply(deployment(replicas=2))
        cluster.snapshot_etcd()
        cluster.ok("scale", "deploy/web", "--replicas", "5")
        running = {seen.id for seen in watch.now().of(WEB)}
        assert len(running) == 5

        cluster.restore_etcd()
        eventually(
            lambda: "bay adopt" in (said := cluster.bay("nodes")).stdout + said.stderr,
            within_s=30,
            otherwise=cluster.report,
        )
        time.sleep(12)
        assert {seen.id for seen in watch.now().of(WEB)} == running, watch.timeline()

        cluster.ok("adopt")
        cluster.wait_until_whole()
        time.sleep(3)
        assert {seen.id for seen in watch.now().of(WEB)} == running, watch.timeline()
        scales(cluster, watch, 6)

    def test_accept_restore_makes_the_store_right(self, cluster: Cluster, watch: ContainerWatch) -> None:
        cluster.apply(deployment(replicas=2))
        kept = {seen.id for seen in watch.now().of(WEB)}
        cluster.snapshot_etcd()
        cluster.ok("scale", "deploy/web", "--replicas", "5")

        cluster.restore_etcd()
        eventually(
            lambda: "accept-restore" in (said := cluster.bay("nodes")).stdout + said.stderr,
            within_s=30,
            otherwise=cluster.report,
        )
        cluster.ok("admin", "accept-restore", "--yes")

        eventually(
            lambda: {seen.id for seen in watch.now().of(WEB)} == kept, within_s=30, otherwise=cluster.report
        )

    def test_a_wiped_store_takes_over_what_runs_once_every_node_was_heard(
        self, cluster: Cluster, watch: ContainerWatch
    ) -> None:
        cluster.apply(deployment(replicas=4))
        running = {seen.id for seen in watch.now().of(WEB)}
        cluster.kill_agent("n1")

        cluster.wipe_etcd()
        eventually(
            lambda: cluster.bay("adopt").stderr.startswith("error: nodes not heard of yet: n1. Wait"),
            within_s=30,
            otherwise=cluster.report,
        )
        cluster.release_agent("n1")
        eventually(lambda: cluster.bay("adopt").returncode == 0, within_s=30, otherwise=cluster.report)
        cluster.wait_until_whole()

        time.sleep(3)
        assert {seen.id for seen in watch.now().of(WEB)} == running, watch.timeline()
        scales(cluster, watch, 5)


class TestForwarding:
    def test_every_manager_answers(self, cluster: Cluster, watch: ContainerWatch, web: set[str]) -> None:
        del watch, web
        for port in cluster.local.ports:
            listed = cluster.ok("--managers", f"127.0.0.1:{port}", "get", "pods", "-o", "name")
            assert len(listed.split()) == PODS

    def test_racing_writers_do_not_lose_each_other(self, cluster: Cluster) -> None:
        """Scales by several clients at once: each is answered, the last one stands."""
        cluster.apply(deployment(replicas=1))
        codes: list[int] = []

        def scale(port: int, replicas: int) -> None:
            done = cluster.bay(
                "--managers",
                f"127.0.0.1:{port}",
                "scale",
                "deploy/web",
                f"--replicas={replicas}",
                "--no-wait",
            )
            codes.append(done.returncode)

        threads = [
            threading.Thread(target=scale, args=(port, replicas))
            for replicas, port in enumerate(cluster.local.ports, start=2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert codes == [0] * len(MANAGERS)
        assert '"replicas": ' in cluster.ok("get", "deploy", "web", "-o", "json")
