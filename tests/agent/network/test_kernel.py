"""What packets do on real kernels: two nodes, a pod or two on each, and somebody who meddles."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.network.lab import OUTSIDER, Lab, Node, laboratory
from tests.agent.network.words import VIP, endpoint, service, told, traffic
from tests.docker_engine import DockerEngine

pytestmark = pytest.mark.docker

PROXY_TCP, PROXY_HTTP = 7460, 7461
WEB, DNS = 8080, 5353


@pytest.fixture(scope="module")
def lab(docker_engine: DockerEngine) -> Iterator[Lab]:
    """Two nodes that know each other, with pods a (10.42.1.2) and b (10.42.1.3) on n1, c (10.42.2.2) on n2."""
    with laboratory(docker_engine) as lab:
        for number in (1, 2):
            lab.host(f"n{number}", f"192.0.2.{number}")
        yield lab


@pytest.fixture(scope="module")
def nodes(lab: Lab) -> tuple[Node, Node]:
    first, second = lab.node("n1", "192.0.2.1"), lab.node("n2", "192.0.2.2")
    first.use(told(1, 2))
    second.use(told(2, 1))
    for node in (first, second):
        assert node.attach("uid.a.1").endswith(".2")
        lab.eventually(node.problem, "")
    lab.pod("a", "10.42.1.2", node="n1")
    lab.pod("b", "10.42.1.3", node="n1")
    lab.pod("c", "10.42.2.2", node="n2")
    for pod, address in (("a", "10.42.1.2"), ("b", "10.42.1.3"), ("c", "10.42.2.2")):
        lab.serve(pod, "tcp", address, WEB, at=pod)
        lab.serve(pod, "udp", address, DNS, at=pod)
    return first, second


@pytest.mark.usefixtures("nodes")
class TestPods:
    @pytest.mark.parametrize("kind", ["tcp", "udp"])
    def test_reach_each_other_under_their_own_addresses(self, lab: Lab, kind: str) -> None:
        port = WEB if kind == "tcp" else DNS
        for client, own in (("a", "10.42.1.2"), ("b", "10.42.1.3"), ("c", "10.42.2.2")):
            for server, address in (("a", "10.42.1.2"), ("b", "10.42.1.3"), ("c", "10.42.2.2")):
                assert lab.ask(kind, address, port, at=client).startswith(f"{server} <- {own}")

    def test_a_node_is_reached_at_its_gateway(self, lab: Lab) -> None:
        """Proxies look there whether another node's proxy lives."""
        lab.serve("n2", "tcp", "10.42.2.1", PROXY_TCP + 2, at="n2")

        assert lab.ask("tcp", "10.42.2.1", PROXY_TCP + 2, at="n1") == "n2 <- 10.42.1.1, 10.42.2.1:7462"

    def test_the_largest_packet_passes_whole(self, lab: Lab) -> None:
        """1,500 bytes below leave 1,450."""
        assert lab.shell("cat /sys/class/net/eth0/mtu", at="a").strip() == "1450"
        assert lab.ask("udp", "10.42.2.2", DNS, at="a", size=1450) == "c <- 10.42.1.2"
        assert lab.ask("udp", "10.42.2.2", DNS, at="a", size=1451) == "OSError"

    def test_leave_the_cluster_with_their_nodes_address(self, lab: Lab) -> None:
        lab.serve("out", "tcp", OUTSIDER, 80, at="out")

        assert lab.ask("tcp", OUTSIDER, 80, at="a") == "out <- 192.0.2.1, itself"
        assert lab.ask("tcp", OUTSIDER, 80, at="c") == "out <- 192.0.2.2, itself"

    def test_are_not_reached_from_outside(self, lab: Lab, nodes: tuple[Node, Node]) -> None:
        """Whoever sets a route to their subnet finds nobody: what is open to the world is said by services."""
        lab.shell("ip route replace 10.42.1.0/24 via 192.0.2.1", at="out")
        nodes[0].shell("iptables -P FORWARD ACCEPT")

        assert lab.ask("tcp", "10.42.1.2", WEB, at="out") == "TimeoutError"

    @pytest.mark.parametrize("source", ["198.51.100.7", "10.42.2.77"])
    def test_speak_for_themselves_alone(self, lab: Lab, source: str) -> None:
        """With a stranger's address, or that of another node's pod, they reach nobody."""
        lab.shell(f"ip address add {source}/32 dev lo", at="a")
        seen = "iptables -t raw -nvxL PREROUTING | awk '/dpt:4242/ {print $1}'"
        for host, address in (("out", OUTSIDER), ("n2", "10.42.2.1")):
            lab.shell("iptables -t raw -I PREROUTING -p udp --dport 4242", at=host)
            for each in ("10.42.1.2", source):
                lab.ask("udp", address, 4242, at="a", source=each)
            assert lab.shell(seen, at=host).strip() == "1"
            lab.shell("iptables -t raw -D PREROUTING 1", at=host)
        lab.shell(f"ip address del {source}/32 dev lo", at="a")


class TestTunnel:
    def test_takes_packets_of_nodes_alone(self, lab: Lab, nodes: tuple[Node, Node]) -> None:
        """An outsider that knows everything about the tunnel, and would speak for pod c."""
        lab.shell(
            "ip link add fake type vxlan id 1 dstport 7472 nolearning local 192.0.2.99 remote 192.0.2.1;"
            "ip link set fake address ba:79:0a:2a:02:01 up; ip address add 10.42.2.2/32 dev fake;"
            "ip route add 10.42.1.2/32 dev fake; ip neigh add 10.42.1.2 lladdr ba:79:0a:2a:01:01 dev fake",
            at="out",
        )
        before = _received(nodes[0])

        assert lab.ask("udp", "10.42.1.2", DNS, at="out", source="10.42.2.2") == "TimeoutError"
        assert _received(nodes[0]) == before
        lab.shell("ip link del fake", at="out")

    def test_takes_no_packets_that_a_pod_has_made(self, lab: Lab, nodes: tuple[Node, Node]) -> None:
        """Its packets would come to the other node with the address of this one."""
        nodes[1].shell("iptables -t raw -A PREROUTING -i eth0 -p udp --dport 7472")
        counted = "iptables -t raw -nvxL PREROUTING | awk '/eth0/ {print $1}'"

        lab.ask("udp", "192.0.2.2", 7472, at="a")
        assert nodes[1].shell(counted).strip() == "0"

        lab.ask("udp", "192.0.2.2", 7472, at="n1")
        assert nodes[1].shell(counted).strip() == "1"


@pytest.fixture(scope="module")
def services(lab: Lab, nodes: tuple[Node, Node]) -> None:
    """On n1: what stands in the proxy's place, and a listener of the host on every address."""
    said = traffic(
        (
            service(
                pb.ServicePort(port=80, http=True),
                pb.ServicePort(port=5432),
                pb.ServicePort(port=53, udp=True, node_port=30053),
                pb.ServicePort(port=54, udp=True),
            ),
            [
                endpoint("10.42.1.3", WEB, WEB, DNS, 0, node="n1"),
                endpoint("10.42.2.2", WEB, WEB, DNS, 0, node="n2"),
            ],
        )
    )
    nodes[0].use(told(1, 2), said)
    for name, port in (("tcp", PROXY_TCP), ("http", PROXY_HTTP)):
        lab.serve(name, "tcp", "10.42.1.1", port, at="n1")
    lab.serve("host", "tcp", "0.0.0.0", 22, at="n1")
    lab.eventually(lambda: lab.ask("tcp", VIP, 80, at="a"), f"http <- 10.42.1.2, {VIP}:80")


@pytest.mark.usefixtures("services")
class TestServices:
    @pytest.mark.parametrize(("client", "own"), [("a", "10.42.1.2"), ("n1", "10.42.1.1")])
    def test_connections_reach_the_proxy_and_say_where_they_were_sent(
        self, lab: Lab, client: str, own: str
    ) -> None:
        """From a pod, and from the host itself."""
        assert lab.ask("tcp", VIP, 80, at=client) == f"http <- {own}, {VIP}:80"
        assert lab.ask("tcp", VIP, 5432, at=client) == f"tcp <- {own}, {VIP}:5432"

    @pytest.mark.parametrize("client", ["a", "n1"])
    def test_no_other_port_of_an_address_answers(self, lab: Lab, client: str) -> None:
        """The host listens at port 22 of all its addresses. Nor does an address that no service has."""
        assert lab.ask("tcp", "10.42.1.1", 22, at=client).startswith("host <- ")

        assert lab.ask("tcp", VIP, 22, at=client) == "ConnectionRefusedError"
        assert lab.ask("tcp", "10.96.99.99", 80, at=client) == "ConnectionRefusedError"
        # The kernel tells the host's own programs at once.
        refusal = "PermissionError" if client == "n1" else "ConnectionRefusedError"
        assert lab.ask("udp", VIP, 9, at=client) == refusal

    def test_are_for_the_cluster_alone(self, lab: Lab, nodes: tuple[Node, Node]) -> None:
        """Whoever sets a route to them is not answered, whatever the host forwards."""
        lab.shell("ip route replace 10.96.0.0/16 via 192.0.2.1", at="out")
        nodes[0].shell("iptables -P FORWARD ACCEPT")

        assert lab.ask("tcp", VIP, 80, at="out") == "TimeoutError"
        assert lab.ask("udp", VIP, 53, at="out") == "TimeoutError"
        lab.shell("ip route del 10.96.0.0/16", at="out")

    def test_a_port_that_docker_publishes_does_not_answer_either(
        self, lab: Lab, nodes: tuple[Node, Node]
    ) -> None:
        """Docker's rule fits every local address, and so a service's."""
        rule = "PREROUTING -p tcp --dport 8088 -m addrtype --dst-type LOCAL -j DNAT --to 10.42.1.1:22"
        nodes[0].shell(f"iptables -t nat -A {rule}")

        assert lab.ask("tcp", "10.42.1.1", 8088, at="a").startswith("host <- ")
        assert lab.ask("tcp", VIP, 8088, at="a") == "ConnectionRefusedError"
        nodes[0].shell(f"iptables -t nat -D {rule}")

    @pytest.mark.parametrize("filtered", [0, 1])
    @pytest.mark.parametrize("client", ["a", "b", "n1"])
    def test_udp_reaches_every_pod(
        self, lab: Lab, nodes: tuple[Node, Node], client: str, filtered: int
    ) -> None:
        """On the same bridge, on another node, and the asking pod itself; whether the firewall sees bridges or not."""
        nodes[0].shell(f"sysctl -qw net.bridge.bridge-nf-call-iptables={filtered}")

        answers = {lab.ask("udp", VIP, 53, at=client) for _ in range(20)}

        assert {answer.partition(" ")[0] for answer in answers} == {"b", "c"}

    def test_udp_keeps_the_address_of_a_client_elsewhere(self, lab: Lab) -> None:
        answers = {lab.ask("udp", VIP, 53, at="a") for _ in range(20)}

        assert "c <- 10.42.1.2" in answers

    def test_udp_is_published_on_the_node(self, lab: Lab) -> None:
        """A pod here sees who asks; one elsewhere answers through this node, and sees its gateway."""
        answers = {lab.ask("udp", "192.0.2.1", 30053, at="out") for _ in range(20)}

        assert answers == {f"b <- {OUTSIDER}", "c <- 10.42.1.1"}

    def test_udp_without_pods_is_refused(self, lab: Lab) -> None:
        assert lab.ask("udp", VIP, 54, at="a") == "ConnectionRefusedError"


class TestFlows:
    def test_a_client_that_goes_on_asking_follows_the_pods(self, lab: Lab, nodes: tuple[Node, Node]) -> None:
        """The kernel remembers its flow for as long as it asks; others' flows are let be."""
        front = pb.ServicePort(port=53, udp=True)
        kept = service(front, name="kept", vip="10.96.0.12")
        gone = service(front, name="gone", vip="10.96.0.11")
        b, c = endpoint("10.42.1.3", DNS), endpoint("10.42.2.2", DNS, node="n2")
        nodes[0].use(told(1, 2), traffic((gone, [b]), (kept, [b])))
        lab.eventually(lambda: lab.ask("udp", "10.96.0.11", 53, at="a").partition(" ")[0], "b")
        ask_gone, ask_kept = lab.flow("10.96.0.11", 53, at="a"), lab.flow("10.96.0.12", 53, at="a")
        assert (ask_gone()[0], ask_kept()[0]) == ("b", "b")
        flows = "cat /proc/net/nf_conntrack | grep 10.96.0.12 | sort"
        before = [line.split("src=")[1:] for line in nodes[0].shell(flows).splitlines()]

        nodes[0].use(told(1, 2), traffic((gone, [c]), (kept, [b])))

        lab.eventually(lambda: ask_gone().partition(" ")[0], "c")
        assert [line.split("src=")[1:] for line in nodes[0].shell(flows).splitlines()] == before

    def test_a_sticky_client_meets_one_pod(self, lab: Lab, nodes: tuple[Node, Node]) -> None:
        sticky = service(pb.ServicePort(port=53, udp=True), name="sticky", vip="10.96.0.13", affinity_s=600)
        pods = [endpoint("10.42.1.3", DNS), endpoint("10.42.2.2", DNS, node="n2")]
        nodes[0].use(told(1, 2), traffic((sticky, pods)))
        lab.eventually(lambda: str("<-" in lab.ask("udp", "10.96.0.13", 53, at="a")), "True")

        assert len({lab.ask("udp", "10.96.0.13", 53, at="a").partition(" ")[0] for _ in range(12)}) == 1

    def test_a_local_policy_names_pods_of_this_node_alone(self, lab: Lab, nodes: tuple[Node, Node]) -> None:
        local = service(
            pb.ServicePort(port=53, udp=True), name="local", vip="10.96.0.14", internal_local=True
        )
        pods = [endpoint("10.42.1.3", DNS), endpoint("10.42.2.2", DNS, node="n2")]
        nodes[0].use(told(1, 2), traffic((local, pods)))
        lab.eventually(lambda: lab.ask("udp", "10.96.0.14", 53, at="a").partition(" ")[0], "b")

        assert {lab.ask("udp", "10.96.0.14", 53, at="a")[0] for _ in range(12)} == {"b"}


def _received(node: Node) -> str:
    return node.shell("cat /sys/class/net/bay1-vx/statistics/rx_packets").strip()
