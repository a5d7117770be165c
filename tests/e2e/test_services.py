"""Services as their users see them: published on every node, named and reached from pods, while things break.

Most tests only look, so all share one set of documents. Callers outside of the cluster are this process.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Network
from typing import Any

import pytest

from deploy.local_cluster import MANAGERS, NODES
from deploy.shell import ROOT
from tests.e2e.callers import TIMEOUT_S, Caller, call, echoed, shown_certificate
from tests.e2e.cluster import Cluster, eventually
from tests.e2e.documents import deployment, ingress, service, tls_secret
from tests.e2e.pods import NET_APP, NET_IMAGE, Pod, asked, inside, pods_of

SHOP = "shop"
HOST, BROKEN_HOST = "shop.test", "broken.test"
SHOP_PORT, STICKY_PORT, NEAR_PORT, TOLD_PORT, EMPTY_PORT, EMPTY_TCP_PORT, UDP_PORT = range(30081, 30088)
REPLICAS = 6
FOLLOWED_S = 3.0  # The promise is 1 s; a look at all nodes takes its time as well.
SETTLED_S = 20.0
VXLAN_PORT = 7472
BLOCK = "e2e_blocked"
# What the node's own environment runs; pods' images have no DNS library.
ASK_SRV = """
import sys, dns.resolver
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers = [sys.argv[1]]
print(*sorted(f"{each.port} {each.target}" for each in resolver.resolve(sys.argv[2], "SRV")), sep="\\n")
"""
FETCH = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())"


def _published(document: dict[str, Any], *node_ports: int) -> dict[str, Any]:
    document["spec"]["type"] = "NodePort"
    for port, number in zip(document["spec"]["ports"], node_ports, strict=False):
        port["nodePort"] = number
    return document


def _services() -> list[dict[str, Any]]:
    web = {"http": (80, 8080, "TCP")}
    pods = {"app": SHOP}
    return [
        _published(service(SHOP, ports={**web, "tcp": (9000, 9000, "TCP")}), SHOP_PORT),
        _published(service("sticky", ports=web, selector=pods, sessionAffinity="ClientIP"), STICKY_PORT),
        _published(service("near", ports=web, selector=pods, externalTrafficPolicy="Local"), NEAR_PORT),
        _published(
            service(
                "told",
                ports={"raw": (9001, 9001, "TCP")},
                selector=pods,
                annotations={"bayplan.io/proxy-protocol": "v2"},
            ),
            TOLD_PORT,
        ),
        _published(service("empty", ports={**web, "tcp": (81, 9000, "TCP")}), EMPTY_PORT, EMPTY_TCP_PORT),
        _published(service("gram", ports={"udp": (9000, 9000, "UDP")}, selector=pods), UDP_PORT),
        service("each", ports=web, selector=pods, clusterIP="None"),
        service("late", ports=web, clusterIP="None"),
        service(
            "late-too", ports=web, selector={"app": "late"}, clusterIP="None", publishNotReadyAddresses=True
        ),
        service(
            "elsewhere",
            ports={},
            selector={},
            type="ExternalName",
            externalName=f"{SHOP}.default.svc.cluster.local",
        ),
        service("outside", ports={"http": (80, 5000, "TCP")}, selector={}),
    ]


def _endpoints(name: str, address: str, port: int) -> dict[str, Any]:
    subset = {"addresses": [{"ip": address}], "ports": [{"name": "http", "port": port}]}
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name}, "subsets": [subset]}


def _probed(name: str, probe: dict[str, Any], replicas: int) -> dict[str, Any]:
    # It is judged by what it says, not by how soon: this machine is busy.
    probe |= {"periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 1}
    return deployment(name, image=NET_IMAGE, replicas=replicas, readinessProbe=probe)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """What all tests look at."""

    cluster: Cluster
    pods: list[Pod]

    def names_on(self, node: str) -> set[str]:
        return {pod.name for pod in self.pods if pod.node == node}

    def answerers(self, node: str, port: int = SHOP_PORT, *, calls: int = 3 * REPLICAS) -> set[str]:
        """Who answers there, over some calls."""
        address = self.cluster.local.address(node)
        return {call(address, port)[1] for _ in range(calls)}


@pytest.fixture(scope="module")
def shop(whole_cluster: Cluster) -> Iterator[Shop]:
    """Services first: pods have their addresses as variables then."""
    whole_cluster.push_image(NET_APP, NET_IMAGE)
    documents = [
        *_services(),
        _endpoints("outside", f"{whole_cluster.local.net}.30", 5000),
        tls_secret("shop-tls", HOST),
        ingress(SHOP, HOST, {"/": SHOP, "/v2": "outside"}, secret="shop-tls"),
    ]
    workload = _probed(SHOP, {"httpGet": {"path": "/ready", "port": 8080}}, REPLICAS)
    late = _probed("late", {"tcpSocket": {"port": 1}}, 1)
    try:
        for applied in (
            whole_cluster.apply(*documents),
            whole_cluster.apply(late, wait=False),
            whole_cluster.apply(workload),
        ):
            assert applied.returncode == 0, applied.stdout + applied.stderr
        found = Shop(cluster=whole_cluster, pods=pods_of(whole_cluster, SHOP))
        assert {pod.node for pod in found.pods} == set(NODES)
        eventually(
            lambda: all(found.answerers(node) == {pod.name for pod in found.pods} for node in NODES),
            within_s=SETTLED_S,
            otherwise=whole_cluster.report,
        )
        yield found
    finally:
        whole_cluster.mend()
        whole_cluster.delete(*documents, late, workload)


class TestPublished:
    def test_a_node_port_leads_to_every_pod_from_every_node(self, shop: Shop) -> None:
        for node in NODES:
            assert shop.answerers(node) == {pod.name for pod in shop.pods}

    def test_policy_local_stays_on_the_node(self, shop: Shop) -> None:
        for node in NODES:
            assert shop.answerers(node, NEAR_PORT) == shop.names_on(node)

    def test_a_sticky_client_has_one_pod_on_whichever_node_it_calls(self, shop: Shop) -> None:
        assert len(set[str]().union(*(shop.answerers(node, STICKY_PORT) for node in NODES))) == 1

    def test_datagrams_come_back_from_every_node(self, shop: Shop) -> None:
        addresses = [shop.cluster.local.address(node) for node in NODES]
        eventually(
            lambda: all(echoed(address, UDP_PORT) for address in addresses),
            within_s=SETTLED_S,
            otherwise=shop.cluster.report,
        )
        for address in addresses:
            # Each from another port, so that they meet several pods.
            assert {echoed(address, UDP_PORT) for _ in range(2 * REPLICAS)} == {b"over the network"}

    def test_http_tells_pods_the_clients_address(self, shop: Shop) -> None:
        for node in NODES:
            address = shop.cluster.local.address(node)
            with socket.create_connection((address, SHOP_PORT)) as probe:
                own = probe.getsockname()[0]
            head = json.loads(call(address, SHOP_PORT, "/head")[1])["head"]
            assert f"x-forwarded-for: {own}" in [line.lower() for line in head]

    def test_the_proxy_protocol_tells_it_over_plain_tcp(self, shop: Shop) -> None:
        for node in NODES:
            place = (shop.cluster.local.address(node), TOLD_PORT)
            with socket.create_connection(place, timeout=TIMEOUT_S) as connection:
                address, port = connection.getsockname()
                assert connection.recv(100).decode() == f"{address}:{port}"

    def test_a_service_without_pods_says_so_at_once(self, shop: Shop) -> None:
        address = shop.cluster.local.address("n1")
        assert call(address, EMPTY_PORT) == (
            HTTPStatus.SERVICE_UNAVAILABLE,
            "No pod of this service can answer.\n",
        )
        with socket.create_connection((address, EMPTY_TCP_PORT), timeout=TIMEOUT_S) as connection:
            assert connection.recv(100) == b""

    def test_an_ingress_by_host_and_path_with_tls_on_every_node(self, shop: Shop) -> None:
        names = {pod.name for pod in shop.pods}
        for node in NODES:
            address = shop.cluster.local.address(node)
            for port, is_tls in ((80, False), (443, True)):
                assert call(address, port, host=HOST, is_tls=is_tls)[1] in names
                # The registry, which is no pod: Endpoints of a service without selector.
                status, said = call(address, port, "/v2/", host=HOST, is_tls=is_tls)
                assert (status, said.strip()) == (HTTPStatus.OK, "{}")
                assert call(address, port, host="other.test", is_tls=is_tls)[0] == HTTPStatus.NOT_FOUND


class TestNames:
    def test_of_services_and_of_their_pods(self, shop: Shop) -> None:
        vip = shop.cluster.vip(SHOP)
        (late,) = pods_of(shop.cluster, "late")
        each = " ".join(sorted(pod.address for pod in shop.pods))
        wanted = {
            f"name://{SHOP}": vip,
            f"name://{SHOP}.default": vip,
            f"name://{SHOP}.default.svc.cluster.local": vip,
            "name://elsewhere": vip,
            "name://each": each,
            "name://late-too": late.address,
            "http://outside/v2/": "{}",
        }
        for pod in {pod.node: pod for pod in shop.pods}.values():
            answers = asked(shop.cluster, pod, [*wanted, "name://late"])
            assert "gaierror" in answers.pop("name://late"), "no pod of it is ready"
            assert {url: answer.strip() for url, answer in answers.items()} == wanted

    def test_of_ports(self, shop: Shop) -> None:
        """SRV, asked where pods ask."""
        gateway = str(IPv4Network(f"{shop.pods[0].address}/24", strict=False)[1])
        command = ["/opt/bayplan/venv/bin/python", "-c", ASK_SRV, gateway]
        said = shop.cluster.local.execute(
            NODES[shop.pods[0].node], *command, "_http._tcp.each.default.svc.cluster.local"
        )
        dashed = (pod.address.replace(".", "-") for pod in shop.pods)
        assert said.split("\n")[:-1] == sorted(
            f"8080 {name}.each.default.svc.cluster.local." for name in dashed
        )

    def test_in_variables(self, shop: Shop) -> None:
        found = dict(
            line.partition("=")[::2] for line in inside(shop.cluster, shop.pods[0], "env").splitlines()
        )
        vip = shop.cluster.vip(SHOP)
        assert (found["SHOP_SERVICE_HOST"], found["SHOP_SERVICE_PORT"]) == (vip, "80")
        assert found["SHOP_PORT_9000_TCP"] == f"tcp://{vip}:9000"


class TestReadiness:
    def test_a_pod_that_is_not_ready_leaves_every_proxy_and_returns(self, shop: Shop) -> None:
        chosen = shop.pods[0]

        def toggle() -> float:
            url = "http://127.0.0.1:8080/toggle-ready"
            assert asked(shop.cluster, chosen, [url])[url] == chosen.name
            return time.monotonic()

        def is_served() -> list[bool]:
            return [chosen.name in shop.answerers(node) for node in NODES]

        toggled_s = toggle()
        try:
            looked_s = eventually(
                lambda: began_s if (began_s := time.monotonic()) and not any(is_served()) else None,
                within_s=SETTLED_S,
                otherwise=shop.cluster.report,
            )
        finally:
            returned_s = toggle()
        # The probe's own period goes first.
        assert looked_s - toggled_s < 1.0 + FOLLOWED_S
        eventually(lambda: all(is_served()), within_s=SETTLED_S, otherwise=shop.cluster.report)
        assert time.monotonic() - returned_s < 2.0 + FOLLOWED_S


class TestFaults:
    def test_a_killed_haproxy_is_back_within_two_seconds(self, shop: Shop) -> None:
        """Other nodes go on, and soon with the pods of this one too."""
        callers = {node: Caller(shop.cluster.local.address(node), SHOP_PORT) for node in NODES}
        with callers["n1"].calling(), callers["n2"].calling(), callers["n3"].calling():
            eventually(lambda: all(each.answered for each in callers.values()), within_s=SETTLED_S)
            killed_s = time.monotonic()
            shop.cluster.local.execute(NODES["n1"], "pkill", "-9", "-x", "haproxy")
            hurt = callers["n1"]
            eventually(lambda: hurt.failed_s, within_s=SETTLED_S)
            eventually(
                lambda: hurt.answered[-1][0] > hurt.failed_s[-1] + 1.0,
                within_s=SETTLED_S,
                otherwise=shop.cluster.report,
            )
            for node in ("n2", "n3"):
                eventually(
                    lambda node=node: (
                        shop.names_on("n1")  # type: ignore[misc]
                        <= {name for at_s, name in callers[node].answered if at_s > hurt.failed_s[-1]}
                    ),
                    within_s=SETTLED_S,
                    otherwise=shop.cluster.report,
                )

        assert hurt.failed_s[-1] - killed_s < 2.0, hurt.reasons
        for node in ("n2", "n3"):
            # Proxies look at each other: what is under way to a node whose proxy is silent may be cut, once.
            assert len(callers[node].failed_s) <= 1, callers[node].reasons

    def test_a_broken_tls_secret_is_told_and_harms_no_other_host(self, shop: Shop) -> None:
        addresses = [shop.cluster.local.address(node) for node in NODES]
        before = {shown_certificate(address, HOST) for address in addresses}
        assert len(before) == 1
        broken = [
            tls_secret("broken-tls", BROKEN_HOST, is_broken=True),
            ingress("broken", BROKEN_HOST, {"/": SHOP}, secret="broken-tls"),
        ]
        try:
            done = shop.cluster.apply(*broken)
            assert done.returncode == 0, done.stdout + done.stderr
            names = {pod.name for pod in shop.pods}
            eventually(
                lambda: all(call(address, 80, host=BROKEN_HOST)[1] in names for address in addresses),
                within_s=SETTLED_S,
                otherwise=shop.cluster.report,
            )
            assert "the secret broken-tls has a tls.key that does not belong" in shop.cluster.ok("events")
            for address in addresses:
                assert shown_certificate(address, HOST) in before
                assert call(address, 443, host=HOST, is_tls=True)[1] in names
        finally:
            shop.cluster.delete(*broken)


class TestSeeing:
    def test_top_shows_the_load(self, shop: Shop) -> None:
        def rate() -> float:
            shop.answerers("n1")
            rows = (line.split() for line in shop.cluster.ok("top", "services").splitlines())
            return next((float(row[2]) for row in rows if row[:2] == [SHOP, "80"]), 0.0)

        eventually(lambda: rate() > 0, within_s=SETTLED_S + 10, otherwise=shop.cluster.report)

    def test_port_forward_leads_to_a_pod(self, shop: Shop) -> None:
        command = [str(ROOT / ".venv/bin/bay"), "port-forward", f"svc/{SHOP}", ":80"]
        process = subprocess.Popen(
            command,
            env=shop.cluster.local.bay_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+) -> 80", said)
            assert found, said
            names = {pod.name for pod in shop.pods}
            assert all(call("127.0.0.1", int(found[1]))[1] in names for _ in range(3))
        finally:
            process.terminate()
            process.communicate(timeout=10)

    def test_doctor_tries_every_pair_and_names_what_is_cut(self, shop: Shop) -> None:
        doctor = ("doctor", "network")
        said = shop.cluster.ok(*doctor)
        assert len(re.findall(r"^n\d +n\d ", said, re.MULTILINE)) == 6
        assert "FAILED" not in said

        with _blocked_udp(shop.cluster, "n2"):
            done = shop.cluster.bay(*doctor)
        assert done.returncode != 0
        pairs = {
            tuple(line.split()[:2]): "FAILED" in line
            for line in done.stdout.splitlines()
            if re.match(r"n\d +n\d ", line)
        }
        assert pairs == {pair: "n2" in pair for pair in pairs}
        assert len(pairs) == 6
        eventually(lambda: shop.cluster.bay(*doctor).returncode == 0, within_s=SETTLED_S)

    def test_metrics_of_managers_agents_and_proxies(self, shop: Shop) -> None:
        def page(container: str, port: int) -> str:
            return shop.cluster.local.execute(
                container, "python3", "-c", FETCH, f"http://127.0.0.1:{port}/metrics"
            )

        assert sum("\nbayplan_leader 1.0" in page(manager, 7490) for manager in MANAGERS) == 1
        for container in NODES.values():
            agents = page(container, 7491)
            for line in ("bayplan_session_connected 1.0", "bayplan_proxy_up 1.0", "bayplan_dns_up 1.0"):
                assert f"\n{line}" in agents
            assert re.search(r'^haproxy_backend_\w+\{.*proxy="default\.shop\.80"', agents, re.MULTILINE)


@contextmanager
def _blocked_udp(cluster: Cluster, node: str) -> Iterator[None]:
    """A firewall of the host drops what other nodes' tunnels send."""
    rules = (
        f"add table inet {BLOCK}; add chain inet {BLOCK} input {{ type filter hook input priority -500; }};"
        f" add rule inet {BLOCK} input udp dport {VXLAN_PORT} drop"
    )
    cluster.local.execute(NODES[node], "nft", rules)
    try:
        yield
    finally:
        cluster.local.execute(NODES[node], "nft", "delete", "table", "inet", BLOCK)


class TestHostNetwork:
    def test_needs_a_policy_and_is_the_hosts_own(self, shop: Shop) -> None:
        document = deployment("on-host", image=NET_IMAGE, replicas=1)
        document["spec"]["template"]["spec"]["hostNetwork"] = True
        refused = shop.cluster.apply(document)
        assert refused.returncode != 0
        assert "hostNetwork" in refused.stdout + refused.stderr

        shop.cluster.ok("policy", "set", "default", "privileged")
        try:
            done = shop.cluster.apply(document)
            assert done.returncode == 0, done.stdout + done.stderr
            (pod,) = pods_of(shop.cluster, "on-host")
            address = shop.cluster.local.address(pod.node)
            eventually(lambda: call(address, 8080)[0] == HTTPStatus.OK, within_s=SETTLED_S)
        finally:
            shop.cluster.delete(document)
            shop.cluster.ok("policy", "set", "default", "baseline")
