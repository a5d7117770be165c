"""What comes back when somebody deletes it, what goes with a node that leaves, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.network.lab import Lab, Node, laboratory
from tests.agent.network.words import VIP, endpoint, service, settings, told, traffic
from tests.docker_engine import DockerEngine

pytestmark = pytest.mark.docker

PROXY_TCP = 7460
DOCKERS = "br-0123 (a network of Docker's: see `docker network ls`)"
WEB = 8080
SAID = traffic((service(pb.ServicePort(port=5432)), [endpoint("10.42.2.2", WEB, node="n2")]))
# Of a second cluster on the same hosts.
OTHER = settings(pod_range="10.52.0.0/16", service_range="10.53.0.0/16", id=2, port=7473)


@pytest.fixture(scope="module")
def lab(docker_engine: DockerEngine) -> Iterator[Lab]:
    with laboratory(docker_engine) as lab:
        for number in (1, 2, 3):
            lab.host(f"n{number}", f"192.0.2.{number}")
        yield lab


@pytest.fixture(scope="module")
def nodes(lab: Lab) -> tuple[Node, Node]:
    """Pod a (10.42.1.2) on n1, pod c (10.42.2.2) on n2, and a service on n1."""
    first, second = lab.node("n1", "192.0.2.1"), lab.node("n2", "192.0.2.2")
    first.use(told(1, 2), SAID)
    second.use(told(2, 1))
    for node in (first, second):
        node.attach("uid.1")
        lab.eventually(node.problem, "")
    first.pods(("uid.1", lab.pod("a", "10.42.1.2", node="n1"), "10.42.1.2"))
    second.pods(("uid.1", lab.pod("c", "10.42.2.2", node="n2"), "10.42.2.2"))
    lab.serve("c", "tcp", "10.42.2.2", WEB, at="c")
    lab.serve("proxy", "tcp", "10.42.1.1", PROXY_TCP, at="n1")
    return first, second


def reaches_c(lab: Lab) -> str:
    return lab.ask("tcp", "10.42.2.2", WEB, at="a").partition(",")[0]


C_ANSWERS = "c <- 10.42.1.2"


class TestWhatIsDeleted:
    @pytest.mark.parametrize(
        "deed",
        [
            "ip link del bay1-vx",
            "ip link set bay1-vx down",
            "ip link set veth-a nomaster",
            "ip address flush dev bay1",
            "ip route flush dev bay1-vx",
            "ip neigh flush dev bay1-vx nud permanent",
            "bridge fdb del ba:79:0a:2a:02:01 dev bay1-vx dst 192.0.2.2",
            "sysctl -qw net.ipv4.ip_forward=0",
        ],
    )
    def test_comes_back(self, lab: Lab, nodes: tuple[Node, Node], deed: str) -> None:
        nodes[0].shell(deed)

        lab.eventually(lambda: reaches_c(lab), C_ANSWERS)

    def test_the_bridge_comes_back_with_its_pods(self, lab: Lab, nodes: tuple[Node, Node]) -> None:
        """Also on the other side, and with the MAC that pods know their router by."""
        mac = "cat /sys/class/net/bay1/address"
        before = nodes[0].shell(mac)
        for node in nodes:
            node.shell("ip link del bay1")

        lab.eventually(lambda: reaches_c(lab), C_ANSWERS)
        assert nodes[0].shell(mac) == before
        lab.eventually(lambda: lab.ask("tcp", VIP, 5432, at="a").partition(",")[0], "proxy <- 10.42.1.2")

    @pytest.mark.parametrize(
        "deed",
        [
            "nft delete table inet bay1",
            "nft flush ruleset",
            "nft flush chain inet bay1 services",
            "nft delete element inet bay1 tcp_ports '{ 10.96.0.10 . 5432 }'",
            "nft insert rule inet bay1 services ip daddr 10.96.0.10 return",
            "ip route del local 10.96.0.0/16 dev lo table local",
        ],
    )
    def test_services_come_back(self, lab: Lab, nodes: tuple[Node, Node], deed: str) -> None:
        nodes[0].shell(deed)

        lab.eventually(lambda: lab.ask("tcp", VIP, 5432, at="a").partition(",")[0], "proxy <- 10.42.1.2")

    def test_a_pod_without_a_cable_gets_another(self, lab: Lab, nodes: tuple[Node, Node]) -> None:
        """Somebody deleted the cable together with the bridge."""
        first = nodes[0]
        address = first.attach("uid.d")
        a, d = lab.shell("ip netns pids a").split()[0], lab.pod("d", address, node="n1")
        first.pods(("uid.1", int(a), "10.42.1.2"), ("uid.d", d, address))
        first.shell("ip link del veth-d; ip link del bay1")

        lab.eventually(lambda: str(first.reconnected()), f"['uid.d bay1 {address}']")
        lab.eventually(lambda: reaches_c(lab), C_ANSWERS)
        first.pods(("uid.1", int(a), "10.42.1.2"))


class TestAnAgentsRestart:
    def test_touches_nothing(self, lab: Lab) -> None:
        """Devices keep their numbers, so they were not made anew; pods keep their addresses."""
        devices = "ip -o link show | sed 's/ state .*//' | sort"
        lab.host("n4", "192.0.2.4")
        first = lab.node("n4", "192.0.2.4")
        first.use(told(4, 1))
        address = first.attach("uid.x")
        before = first.shell(devices)
        first.stop()
        assert first.shell(devices) == before

        second = lab.node("n4", "192.0.2.4")
        second.use(told(4, 1))

        assert second.attach("uid.x") == address
        assert second.attach("uid.y") != address
        lab.eventually(second.problem, "")
        assert second.shell(devices) == before
        second.stop()


class TestNodesThatLeave:
    def test_take_all_that_was_theirs_with_them(self, lab: Lab, nodes: tuple[Node, Node]) -> None:
        first, _ = nodes
        seen = (
            "ip route show dev bay1-vx; bridge fdb show dev bay1-vx; ip neigh show dev bay1-vx nud permanent;"
            "nft list set inet bay1 nodes"
        )
        first.use(told(1, 2, 3), SAID)
        lab.eventually(lambda: str("192.0.2.3" in first.shell(seen)), "True")
        assert "10.42.3.0/24" in first.shell(seen)

        first.use(told(1, 2), SAID)

        lab.eventually(lambda: str("192.0.2.3" in first.shell(seen)), "False")
        for words in ("10.42.3", "ba:79:0a:2a:03:01"):
            assert words not in first.shell(seen)
        assert "10.42.2.0/24" in first.shell(seen)


class TestRulesOfOthers:
    def test_a_forward_policy_of_drop_is_passed(self, lab: Lab, nodes: tuple[Node, Node]) -> None:
        """As Docker sets it, with a chain of its own in front; also where it comes later."""
        for node in nodes:
            node.shell(
                "iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -I FORWARD -j DOCKER-USER"
            )

        lab.eventually(lambda: reaches_c(lab), C_ANSWERS)
        lab.eventually(lambda: str("bay1" in nodes[0].shell("iptables -S DOCKER-USER")), "True")

    def test_what_docker_28_drops_is_passed(self, lab: Lab, nodes: tuple[Node, Node]) -> None:
        """It puts a rule for each container into the raw table; here even before ours."""
        for node, address in zip(nodes, ("10.42.1.2", "10.42.2.2"), strict=True):
            node.shell(f"iptables -t raw -I PREROUTING -d {address} ! -i bay1 -j DROP")
            node.shell(f"iptables -I DOCKER-USER -d {address} ! -i bay1 -j DROP")

        lab.eventually(lambda: reaches_c(lab), C_ANSWERS)

    def test_an_input_policy_of_drop_is_passed(self, lab: Lab, nodes: tuple[Node, Node]) -> None:
        """A host's own firewall: pods must reach the proxy and the name server, and nothing else by it."""
        nodes[0].shell("iptables -I INPUT -j DROP; iptables -I INPUT -i eth0 -j ACCEPT")
        lab.serve("ssh", "tcp", "10.42.1.1", 22, at="n1")

        lab.eventually(lambda: lab.ask("tcp", VIP, 5432, at="a").partition(",")[0], "proxy <- 10.42.1.2")
        assert lab.ask("tcp", "10.42.1.1", 22, at="a") == "TimeoutError"
        nodes[0].shell("iptables -D INPUT -j DROP; iptables -D INPUT -i eth0 -j ACCEPT")

    def test_ours_stand_there_once(self, lab: Lab, nodes: tuple[Node, Node]) -> None:
        lab.eventually(nodes[0].problem, "")

        for table, chain in (("filter", "DOCKER-USER"), ("filter", "INPUT"), ("raw", "PREROUTING")):
            rules = nodes[0].shell(f"iptables -t {table} -S {chain}").splitlines()
            ours = [rule for rule in rules if "bayplan bay1" in rule]
            assert ours
            assert len(set(ours)) == len(ours)


class TestTwoClusters:
    def test_stand_side_by_side(self, lab: Lab, nodes: tuple[Node, Node]) -> None:
        others = [lab.node(f"n{number}", f"192.0.2.{number}") for number in (1, 2)]
        for number, node in enumerate(others, start=1):
            node.use(told(number, 3 - number, settings=OTHER, pods="10.52"))
            lab.eventually(node.problem, "")
        lab.pod("p", "10.52.1.2", node="n1", bridge="bay2")
        lab.pod("q", "10.52.2.2", node="n2", bridge="bay2")
        lab.serve("q", "tcp", "10.52.2.2", WEB, at="q")

        assert lab.ask("tcp", "10.52.2.2", WEB, at="p").startswith("q <- 10.52.1.2")
        assert lab.ask("tcp", "10.42.2.2", WEB, at="p") in {"TimeoutError", "ConnectionRefusedError"}
        lab.eventually(lambda: reaches_c(lab), C_ANSWERS)
        for node in (*others, *nodes):
            assert not node.problem()
        for node in others:
            node.stop()


class TestRefusals:
    @pytest.fixture
    def host(self, lab: Lab) -> Iterator[Node]:
        """A host that is new."""
        lab.host("n9", "192.0.2.9")
        node = lab.node("n9", "192.0.2.9")
        yield node
        node.stop()
        lab.shell("ip netns del n9; ip link del u-n9 2>/dev/null || true")

    @pytest.mark.parametrize(
        ("deed", "words"),
        [
            (
                "ip link add bay1 type bridge",
                "a device bay1 (bridge) is there that is not Bayplan's: remove or rename it",
            ),
            (
                "ip link add bay1-vx type veth peer name other",
                "a device bay1-vx (veth) is there that is not Bayplan's: remove or rename it",
            ),
            (
                "ip link add br-0123 type bridge; ip address add 10.42.77.1/24 dev br-0123; ip link set br-0123 up",
                f"the pod range 10.42.0.0/15 overlaps 10.42.77.0/24, which is reached through {DOCKERS}",
            ),
            (
                "ip route add 10.96.0.0/12 via 192.0.2.99",
                "the service range 10.96.0.0/16 overlaps 10.96.0.0/12, which is reached through eth0",
            ),
            (
                "ip link add flannel.7 type vxlan id 7 dstport 7472 dev eth0; ip link set flannel.7 up",
                "UDP port 7472 is used by the device flannel.7 (VXLAN 7)",
            ),
        ],
    )
    def test_what_is_in_the_way_is_named(self, lab: Lab, host: Node, deed: str, words: str) -> None:
        """And nothing is made; once it is gone, all is."""
        host.shell(deed)
        devices = host.shell("ip -o link | wc -l")
        host.use(told(9, 1))

        lab.eventually(host.problem, words)
        assert words in host.attach("uid.1")
        assert host.shell("ip -o link | wc -l") == devices

        host.shell(
            "for name in bay1 bay1-vx br-0123 flannel.7; do ip link del $name 2>/dev/null || true; done;"
            "ip route flush 10.96.0.0/12"
        )
        lab.eventually(host.problem, "")

    def test_a_program_that_has_the_port_is_named(self, lab: Lab, host: Node) -> None:
        lab.serve("thief", "udp", "0.0.0.0", 7472, at="n9")
        host.use(told(9, 1))

        lab.eventually(lambda: host.problem().partition(" (pid")[0], "UDP port 7472 is used by python")


class TestMtu:
    def test_follows_the_hosts(self, lab: Lab) -> None:
        lab.host("n5", "192.0.2.5", mtu=9000)
        node = lab.node("n5", "192.0.2.5")
        node.use(told(5, 1))
        lab.eventually(node.problem, "")
        mtus = "cat /sys/class/net/bay1/mtu /sys/class/net/bay1-vx/mtu"
        assert node.shell(mtus).split() == ["8950", "8950"]

        node.shell("ip link set eth0 mtu 1400")

        lab.eventually(lambda: " ".join(node.shell(mtus).split()), "1350 1350")
        node.stop()


class TestOff:
    def test_the_hosts_own_network_routes(self, lab: Lab) -> None:
        """No tunnel, no routes of ours; pods keep their addresses on the way."""
        off = settings(mode=pb.NETWORK_MODE_OFF, id=3, pod_range="10.62.0.0/16", service_range="10.63.0.0/16")
        nodes = []
        for number, other in ((6, 7), (7, 6)):
            lab.host(f"n{number}", f"192.0.2.{number}")
            lab.shell(f"ip route add 10.62.{other}.0/24 via 192.0.2.{other}", at=f"n{number}")
            node = lab.node(f"n{number}", f"192.0.2.{number}")
            node.use(told(number, other, settings=off, pods="10.62"))
            lab.eventually(node.problem, "")
            lab.pod(f"o{number}", f"10.62.{number}.2", node=f"n{number}", bridge="bay3")
            node.shell(
                "iptables -P FORWARD DROP; iptables -t raw -I PREROUTING 1 -d 10.62.0.0/16 ! -i bay3 -j DROP"
            )
            nodes.append(node)
        lab.serve("o7", "tcp", "10.62.7.2", WEB, at="o7")

        lab.eventually(lambda: lab.ask("tcp", "10.62.7.2", WEB, at="o6").partition(",")[0], "o7 <- 10.62.6.2")
        assert "bay3-vx" not in nodes[0].shell("ip link")
        for node in nodes:
            node.stop()
