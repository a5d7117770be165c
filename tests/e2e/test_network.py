"""The pods' network, from inside pods: every pair of nodes by address, by name, over TCP, UDP and through a VIP.

What a pod sees is asked of it through its node's own engine, never through Bayplan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local_cluster import NODES
from tests.e2e.cluster import Cluster, eventually
from tests.e2e.documents import deployment, service
from tests.e2e.pods import NET_APP, NET_IMAGE, Pod, asked, inside, pods_of

MESH = "mesh"
REDIS_IMAGE = "e2e-redis:1"
HEALED_S = 30.0
ALONE_S = 6.0  # Names live for 5 s: what is answered after that is not remembered.
ECHOED = "over the network"
# What a program of the host gets.
FETCH = """
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=2).read().decode())
except OSError as error:
    print(error)
"""
HERE = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def images(whole_cluster: Cluster) -> None:
    whole_cluster.push_image(NET_APP, NET_IMAGE)
    whole_cluster.push_image(HERE / "redis", REDIS_IMAGE)


@pytest.fixture(scope="module")
def mesh(whole_cluster: Cluster) -> Iterator[Callable[[], list[Pod]]]:
    """Six pods on three nodes, behind a VIP and behind a headless name; called, it says where they are now.

    One for all tests: what they do to the cluster must leave it whole.
    """
    ports = {"http": (80, 8080, "TCP"), "tcp": (9000, 9000, "TCP"), "udp": (9000, 9000, "UDP")}
    try:
        done = whole_cluster.apply(
            deployment(MESH, image=NET_IMAGE, replicas=6),
            service(MESH, ports=ports),
            service("each", ports=ports, selector={"app": MESH}, clusterIP="None"),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield lambda: pods_of(whole_cluster, MESH)
    finally:
        whole_cluster.heal()


@pytest.fixture
def cluster(whole_cluster: Cluster) -> Iterator[Cluster]:
    """As everywhere, but the mesh stays."""
    yield whole_cluster
    whole_cluster.mend()


def ways_to(target: Pod) -> dict[str, str]:
    """URL → what must come back."""
    name = f"{target.address.replace('.', '-')}.each.default.svc.cluster.local"
    return {
        f"http://{target.address}:8080/": target.name,
        f"http://{name}:8080/": target.name,
        f"tcp://{target.address}:9000": ECHOED,
        f"udp://{target.address}:9000": ECHOED,
    }


# Short and long names of the service; what comes back begins so.
WAYS_THROUGH_THE_VIP = {
    "http://mesh/": MESH,
    "tcp://mesh.default:9000": ECHOED,
    "udp://mesh.default.svc.cluster.local:9000": ECHOED,
}


def failures(cluster: Cluster, pods: list[Pod]) -> list[str]:
    """Everything that does not work between pods of different nodes, in words."""
    with ThreadPoolExecutor(len(pods)) as pool:
        return [
            each for found in pool.map(lambda pod: _failures_of(cluster, pod, pods), pods) for each in found
        ]


def _failures_of(cluster: Cluster, source: Pod, pods: list[Pod]) -> list[str]:
    wanted = dict(WAYS_THROUGH_THE_VIP)
    for target in pods:
        if target.node != source.node:
            wanted |= ways_to(target)
    answers = asked(cluster, source, wanted)
    return [
        f"{source.name} on {source.node}: {url}: {answers[url]!r}"
        for url, expected in wanted.items()
        if not answers[url].startswith(expected)
    ]


def assert_whole(cluster: Cluster, mesh: Callable[[], list[Pod]]) -> None:
    """Within a bound, and then it stays so: two looks in a row."""
    last: list[str] = []

    def whole() -> bool:
        last[:] = ["not six pods on three nodes"]
        pods = mesh()
        if len(pods) == 6 and {pod.node for pod in pods} == set(NODES):
            last[:] = failures(cluster, pods)
        return not last

    eventually(whole, within_s=HEALED_S, otherwise=lambda: "\n".join(last) + cluster.report(), poll_s=0.5)
    assert failures(cluster, mesh()) == []


class TestReach:
    def test_every_pair_by_address_name_tcp_udp_and_vip(
        self, cluster: Cluster, mesh: Callable[[], list[Pod]]
    ) -> None:
        assert_whole(cluster, mesh)
        addresses = [pod.address for pod in mesh()]
        assert len(set(addresses)) == 6

    def test_an_agents_restart_changes_nothing(self, cluster: Cluster, mesh: Callable[[], list[Pod]]) -> None:
        before = mesh()
        cluster.kill_agent("n2")
        assert failures(cluster, before) == [], "without the agent"

        cluster.release_agent("n2")

        cluster.wait_until_whole()
        assert mesh() == before
        assert failures(cluster, before) == []

    def test_all_goes_on_with_every_agent_and_manager_dead(
        self, cluster: Cluster, mesh: Callable[[], list[Pod]], request: pytest.FixtureRequest
    ) -> None:
        assert_whole(cluster, mesh)
        before = mesh()

        def start_again() -> None:
            for node in NODES:
                cluster.release_agent(node)
            cluster.start_all_managers()
            cluster.wait_until_whole()

        request.addfinalizer(start_again)
        cluster.kill_all_managers()
        for node in NODES:
            cluster.kill_agent(node)
        time.sleep(ALONE_S)

        assert failures(cluster, before) == []
        # What dies meanwhile comes back, with what the agent wrote last.
        cluster.local.execute(NODES["n1"], "sh", "-c", "kill -9 $(cat /run/dns.pid); pkill -9 -x haproxy")
        eventually(
            lambda: not failures(cluster, before),
            within_s=HEALED_S,
            otherwise=lambda: "\n".join(failures(cluster, before)),
        )
        assert mesh() == before

    def test_a_restart_of_the_engine_keeps_addresses(
        self, cluster: Cluster, mesh: Callable[[], list[Pod]]
    ) -> None:
        before = {pod.name: pod.address for pod in mesh()}
        cluster.local.execute(NODES["n1"], "sh", "-c", "kill -9 $(cat /run/engine.pid)")

        assert_whole(cluster, mesh)

        assert {pod.name: pod.address for pod in mesh()} == before

    def test_a_node_that_returns_is_in_the_network_again(
        self, cluster: Cluster, mesh: Callable[[], list[Pod]]
    ) -> None:
        cluster.kill_node("n3")
        eventually(
            lambda: len([pod for pod in mesh() if pod.node != "n3"]) == 6,
            within_s=HEALED_S,
            otherwise=cluster.report,
        )
        cluster.start_node("n3")
        cluster.wait_until_whole()
        # Nothing moves back by itself: make room for new pods there.
        cluster.ok("scale", f"deployment/{MESH}", "--replicas=0")
        cluster.ok("scale", f"deployment/{MESH}", "--replicas=6")

        assert_whole(cluster, mesh)

    @pytest.mark.parametrize("device", ["bay1", "bay1-vx"])
    def test_a_device_deleted_by_hand_is_made_again(
        self, cluster: Cluster, mesh: Callable[[], list[Pod]], device: str
    ) -> None:
        before = {pod.container for pod in mesh()}
        cluster.local.execute(NODES["n2"], "ip", "link", "delete", device)

        assert_whole(cluster, mesh)

        assert {pod.container for pod in mesh()} == before, "no container was restarted for it"


class TestPrograms:
    def test_redis_replicates_across_nodes(self, cluster: Cluster, request: pytest.FixtureRequest) -> None:
        """A replica tells its master which address it has, and the master names it to others."""
        master = deployment("red", image=REDIS_IMAGE, replicas=1)
        master["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "n1"}
        command = ["redis-server", "--protected-mode", "no", "--replicaof", "red", "6379"]
        replica = deployment("red-replica", image=REDIS_IMAGE, replicas=1, command=command)
        replica["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "n2"}
        documents = (
            master,
            service("red", ports={"redis": (6379, 6379, "TCP")}, clusterIP="None"),
            replica,
        )
        request.addfinalizer(lambda: cluster.delete(*documents))
        done = cluster.apply(*documents)
        assert done.returncode == 0, done.stdout + done.stderr
        (red,), (copy,) = pods_of(cluster, "red"), pods_of(cluster, "red-replica")

        said = eventually(
            lambda: next(
                (
                    line
                    for line in inside(cluster, red, "redis-cli info replication").splitlines()
                    if line.startswith("slave0:") and "state=online" in line
                ),
                "",
            ),
            within_s=HEALED_S,
            otherwise=lambda: inside(cluster, red, "redis-cli info replication") + cluster.report(),
        )
        assert f"ip={copy.address}," in said

        inside(cluster, red, "redis-cli set ship loaded")
        eventually(lambda: inside(cluster, copy, "redis-cli get ship").strip() == "loaded", within_s=HEALED_S)


@contextmanager
def listener(cluster: Cluster, node: str, port: int) -> Iterator[None]:
    """A program of the host itself listens on every address of it."""
    start = f"mkdir -p /tmp/www && echo the-host > /tmp/www/index.html && busybox httpd -p 0.0.0.0:{port} -h /tmp/www"
    cluster.local.execute(NODES[node], "sh", "-c", start)
    try:
        yield
    finally:
        cluster.local.execute(NODES[node], "pkill", "-f", f"httpd -p 0.0.0.0:{port}")


class TestHostsOwnListener:
    def test_on_port_80_neither_breaks_a_service_nor_answers_on_its_vip(
        self, cluster: Cluster, mesh: Callable[[], list[Pod]], request: pytest.FixtureRequest
    ) -> None:
        front = service(
            "front", ports={"http": (80, 8080, "TCP")}, selector={"app": MESH}, type="LoadBalancer"
        )

        def from_everywhere(url: str) -> set[str]:
            command = ["python3", "-c", FETCH, url]
            with ThreadPoolExecutor() as pool:
                by_pods = pool.map(lambda pod: asked(cluster, pod, [url])[url].strip(), mesh())
                by_hosts = pool.map(
                    lambda name: cluster.local.execute(name, *command).strip(), NODES.values()
                )
                return {*by_pods, *by_hosts}

        def external() -> set[str]:
            """Where `bay get svc` says that it is reached."""
            row = cluster.ok("get", "svc", "front", "--no-headers").split()
            return set(row[3].split(","))

        request.addfinalizer(lambda: cluster.delete(front))
        with listener(cluster, "n1", 80):
            done = cluster.apply(front)
            assert done.returncode == 0, done.stdout + done.stderr
            vip = cluster.vip("front")
            names = {pod.name for pod in mesh()}
            eventually(
                lambda: from_everywhere(f"http://{vip}/") <= names,
                within_s=HEALED_S,
                otherwise=cluster.report,
            )
            addresses = {node: cluster.local.address(node) for node in NODES}
            for node in ("n2", "n3"):
                assert from_everywhere(f"http://{addresses[node]}/") <= names
            assert from_everywhere(f"http://{addresses['n1']}/") == {"the-host"}
            told = f"port 80 of n1 ({addresses['n1']}) is taken by busybox"
            eventually(lambda: told in cluster.ok("events"), within_s=HEALED_S, otherwise=cluster.report)
            assert external() == {addresses["n2"], addresses["n3"]}

        # The port is free: the service takes it.
        eventually(
            lambda: from_everywhere(f"http://{addresses['n1']}/") <= names,
            within_s=HEALED_S,
            otherwise=cluster.report,
        )
        eventually(lambda: external() == set(addresses.values()), within_s=HEALED_S, otherwise=cluster.report)

    def test_other_ports_of_a_vip_are_refused_whatever_the_host_listens_on(
        self, cluster: Cluster, mesh: Callable[[], list[Pod]]
    ) -> None:
        vip = cluster.vip(MESH)
        with listener(cluster, "n1", 2222):
            for pod in mesh():
                url = f"http://{vip}:2222/"
                assert "refused" in asked(cluster, pod, [url])[url]
