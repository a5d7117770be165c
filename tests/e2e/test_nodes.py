"""Nodes die, are cut off, come back and are drained: pods run elsewhere, none lost, none doubled."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Cluster, eventually
from tests.e2e.documents import deployment
from tests.e2e.watch import ContainerWatch

WEB = "Deployment/web"
PODS = 6
# Verdict after 1 to 2.5 s and starting; the tests' machine may be busy. The exact times are measured in bench/.
REPLACED_S = 20.0


@pytest.fixture
def watch(cluster: Cluster) -> Iterator[ContainerWatch]:
    with cluster.watched() as watch:
        yield watch
        assert not watch.doubled(), watch.timeline()


@pytest.fixture
def web(cluster: Cluster, watch: ContainerWatch) -> str:
    """Six pods run, two on each node."""
    done = cluster.apply(deployment(replicas=PODS))
    assert done.returncode == 0, done.stdout + done.stderr
    by_node = [seen.node for seen in watch.now().of(WEB)]
    assert sorted(by_node) == ["n1", "n1", "n2", "n2", "n3", "n3"], watch.timeline()
    return WEB


def runs_on(watch: ContainerWatch, nodes: set[str], count: int = PODS) -> bool:
    seen = watch.now().of(WEB)
    return len(seen) == count and {one.node for one in seen} <= nodes


class TestNodeDeath:
    def test_a_killed_node_is_replaced(self, cluster: Cluster, watch: ContainerWatch, web: str) -> None:
        survivors = {seen.id for seen in watch.now().of(web) if seen.node != "n2"}
        cluster.kill_node("n2")
        killed_s = time.monotonic()

        eventually(lambda: runs_on(watch, {"n1", "n3"}), within_s=REPLACED_S, otherwise=cluster.report)

        assert survivors <= {seen.id for seen in watch.now().of(web)}, watch.timeline()
        assert watch.counts(web, since_s=killed_s)[1] <= PODS, watch.timeline()
        assert cluster.node_rows()["n2"][1] == "Down"

    def test_a_node_whose_link_is_cut_is_replaced(
        self, cluster: Cluster, watch: ContainerWatch, web: str
    ) -> None:
        """No FIN leaves; then it is killed for good."""
        cluster.cut_link("n2")
        # The cut-off node's own two go on running where nobody can reach them.
        eventually(
            lambda: sum(seen.node != "n2" for seen in watch.now().of(web)) == PODS,
            within_s=REPLACED_S,
            otherwise=cluster.report,
        )
        cluster.kill_node("n2")

        eventually(lambda: runs_on(watch, {"n1", "n3"}), within_s=REPLACED_S, otherwise=cluster.report)

    def test_a_node_that_was_cut_off_for_a_minute_ends_with_one_copy_of_each(
        self, cluster: Cluster, watch: ContainerWatch, web: str
    ) -> None:
        cluster.cut_link("n2")
        eventually(
            lambda: sum(seen.node != "n2" for seen in watch.now().of(web)) == PODS,
            within_s=REPLACED_S,
            otherwise=cluster.report,
        )
        time.sleep(60)
        assert sum(seen.node == "n2" for seen in watch.now().of(web)) == 2, "its pods run on"

        cluster.heal_link("n2")

        eventually(lambda: len(watch.now().of(web)) == PODS, within_s=20, otherwise=cluster.report)
        time.sleep(3)
        assert len(watch.now().of(web)) == PODS, watch.timeline()

    @pytest.mark.usefixtures("web")
    def test_failover_does_not_need_the_registry(self, cluster: Cluster, watch: ContainerWatch) -> None:
        cluster.local.kill("registry")
        cluster.kill_node("n3")

        eventually(lambda: runs_on(watch, {"n1", "n2"}), within_s=REPLACED_S, otherwise=cluster.report)


class TestAgentDeath:
    @pytest.mark.parametrize("away_s", [1, 60])
    def test_containers_keep_their_ids(
        self, cluster: Cluster, watch: ContainerWatch, web: str, away_s: int
    ) -> None:
        before = {seen.id for seen in watch.now().of(web)}
        cluster.kill_agent("n1")
        time.sleep(away_s)

        cluster.release_agent("n1")

        eventually(
            lambda: cluster.node_rows().get("n1", ["", ""])[1] == "Ready",
            within_s=20,
            otherwise=cluster.report,
        )
        time.sleep(3)
        assert watch.ids(web) == before, watch.timeline()


class TestDrain:
    def test_moves_pods_without_losing_one(self, cluster: Cluster, watch: ContainerWatch, web: str) -> None:
        drained_s = time.monotonic()

        cluster.ok("drain", "n1", "--timeout", "60s")

        assert runs_on(watch, {"n2", "n3"}), watch.timeline()
        assert watch.counts(web, since_s=drained_s)[0] >= PODS, watch.timeline()
        assert "SchedulingDisabled" in cluster.node_rows()["n1"][1]
        cluster.ok("scale", "deploy/web", "--replicas", "8")
        assert {seen.node for seen in watch.now().of(web)} == {"n2", "n3"}
