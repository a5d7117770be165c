"""HAProxy's configuration: what leads where, and that nothing users write gets into it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.network.table import NetworkTable
from agent.traffic.haproxy_backends import Server
from agent.traffic.haproxy_config import Configuration, Obstacles, configuration
from agent.traffic.haproxy_head import ProxyHost
from agent.traffic.table import TrafficTable
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.traffic.world import WEB, db, web
from tests.real_haproxy import haproxy_binary

NETWORK = NetworkTable().fold(
    pb.Network(
        full=True,
        settings=pb.NetworkSettings(id=1),
        subnet="10.42.1.0/24",
        peers=[pb.NetworkPeer(node="n2", address="192.0.2.2", subnet="10.42.2.0/24")],
    )
)
PUBLISHED = "192.0.2.1"


def a_host(directory: Path = Path("/run/bayplan/proxy")) -> ProxyHost:
    return ProxyHost(
        node="n1", directory=directory, proxy_port=7460, publish_addresses=(PUBLISHED,), threads=2
    )


def a_table(
    *services: pb.Service, rules: list[pb.IngressRule] | None = None, **endpoints: object
) -> TrafficTable:
    """Endpoints by the service's name."""
    changes = [
        pb.EndpointChanges(service=f"shop/{name}", full=True, put=put)  # type: ignore[arg-type]
        for name, put in endpoints.items()
    ]
    return TrafficTable().fold(
        pb.Traffic(
            full=True,
            version=1,
            services=services,
            endpoints=changes,
            ingress=pb.Ingress(ports=[80, 443], rules=rules),
        )
    )


def an_endpoint(name: str = "u1.0.1", node: str = "n1", **fields: object) -> pb.Endpoint:
    return pb.Endpoint(
        **{  # type: ignore[arg-type]
            "id": name,
            "node": node,
            "address": "10.42.1.5",
            "ports": [8080],
            "ready": True,
            **fields,
        }
    )


def rendered(table: TrafficTable, obstacles: Obstacles | None = None, **more: Configuration) -> Configuration:
    return configuration(a_host(), NETWORK, table, obstacles or Obstacles(), **more)


def ports_map(wanted: Configuration) -> dict[str, str]:
    return dict(line.split(" ") for line in wanted.files["ports.map"].decode().splitlines())


def servers(wanted: Configuration, backend: str = "shop.web.80") -> dict[str, Server]:
    return dict(wanted.backends[backend].servers)


class TestWhatLeadsWhere:
    def test_virtual_and_published_addresses_lead_to_the_ports_backend(self) -> None:
        port = pb.ServicePort(port=80, http=True, load_balancer=True, node_port=30080)
        assert ports_map(rendered(a_table(web(ports=[port])))) == {
            "10.96.0.10:80": "shop.web.80",
            f"{PUBLISHED}:80": "shop.web.80",
            f"{PUBLISHED}:30080": "shop.web.80",
        }

    def test_udp_is_not_the_proxys(self) -> None:
        wanted = rendered(a_table(web(ports=[pb.ServicePort(port=53, udp=True, node_port=30053)])))
        assert ports_map(wanted) == {}
        assert not wanted.backends

    def test_http_and_tcp_are_bound_at_their_own_frontends(self) -> None:
        head = rendered(a_table(web(), db())).head
        tcp, http = head.split("frontend ")[1:3]
        assert f"bind {PUBLISHED}:5432 " in tcp
        assert f"bind {PUBLISHED}:80 " in http

    def test_only_ready_pods_that_have_the_port_and_a_route_are_served(self) -> None:
        endpoints = [
            an_endpoint("ready"),
            an_endpoint("far", node="n2"),
            an_endpoint("by-hand", node="", address="198.51.100.7"),
            an_endpoint("starting", ready=False),
            an_endpoint("portless", ports=[0]),
            an_endpoint("lost", node="n9"),
        ]
        found = servers(rendered(a_table(web(), web=endpoints)))
        assert {name: each.node for name, each in found.items()} == {"ready": "", "far": "n2", "by-hand": ""}

    def test_unready_ones_where_the_service_asks_for_them(self) -> None:
        table = a_table(web(publish_not_ready=True), web=[an_endpoint(ready=False)])
        assert servers(rendered(table))

    def test_policies_local_have_a_backend_of_own_pods(self) -> None:
        table = a_table(
            web(external_local=True),
            web=[an_endpoint("near"), an_endpoint("far", node="n2"), an_endpoint("by-hand", node="")],
        )
        wanted = rendered(table)
        assert ports_map(wanted) == {
            "10.96.0.10:80": "shop.web.80",
            f"{PUBLISHED}:80": "shop.web.80.local",
        }
        assert set(servers(wanted, "shop.web.80.local")) == {"near"}
        assert set(servers(wanted)) == {"near", "far", "by-hand"}

    def test_a_servers_number_is_the_same_on_every_node(self) -> None:
        one = servers(rendered(a_table(web(), web=[an_endpoint("a"), an_endpoint("b")])))
        other = servers(rendered(a_table(web(), web=[an_endpoint("b", node="n2")])))
        assert one["b"].id == other["b"].id != one["a"].id

    def test_one_port_two_services_the_first_by_name_has_it(self) -> None:
        wanted = rendered(a_table(web(), web(name="also", vip="10.96.0.12")))
        assert ports_map(wanted)[f"{PUBLISHED}:80"] == "shop.also.80"
        (problem,) = wanted.problems
        assert (problem.service, problem.message) == (WEB, "taken by service shop/also")

    def test_a_node_that_is_known_by_a_name_alone_is_told_what_to_say(self) -> None:
        host = replace(a_host(), publish_addresses=("n1.example",))
        wanted = configuration(host, NETWORK, a_table(web()), Obstacles())
        assert "n1.example" not in wanted.text
        (problem,) = wanted.problems
        assert "--publish" in problem.message

    def test_a_taken_port_is_left_out_and_told(self) -> None:
        wanted = rendered(a_table(web()), Obstacles(taken={(PUBLISHED, 80): "taken by nginx (pid 812)"}))
        assert ports_map(wanted) == {"10.96.0.10:80": "shop.web.80"}
        assert f"{PUBLISHED}:80" not in wanted.head
        assert [each.message for each in wanted.problems] == ["taken by nginx (pid 812)"]


class TestFrame:
    def test_endpoints_change_no_frame(self) -> None:
        before = rendered(a_table(web(), web=[an_endpoint("a")]))
        after = rendered(a_table(web(), web=[an_endpoint("b")]))
        assert after.digest == before.digest
        assert after.text != before.text

    @pytest.mark.parametrize(
        "service",
        [
            web(balance=pb.BALANCE_ROUND_ROBIN),
            web(affinity_s=10),
            web(max_connections_per_pod=5),
            web(queue_timeout_ms=5),
            web(request_timeout_ms=5),
            web(internal_local=True),
            web(vip="10.96.0.99"),
            web(ports=[pb.ServicePort(port=80, http=True)]),
            web(ports=[pb.ServicePort(port=80, http=True, load_balancer=True, proxy_protocol=True)]),
        ],
    )
    def test_everything_else_does(self, service: pb.Service) -> None:
        assert rendered(a_table(service)).digest != rendered(a_table(web())).digest

    def test_what_did_not_change_is_taken_over(self) -> None:
        table = a_table(web(), db(), web=[an_endpoint("a")])
        before = rendered(table)
        changed = table.fold(
            pb.Traffic(version=2, endpoints=[pb.EndpointChanges(service="shop/db", put=[an_endpoint("b")])])
        )
        after = rendered(changed, before=before)
        assert after.backends["shop.web.80"] is before.backends["shop.web.80"]
        assert after.text == rendered(changed).text

    def test_keys_are_in_no_text(self) -> None:
        table = a_table(web(), rules=[pb.IngressRule(service=WEB, port=80)])
        table.ingress.certificates.append(
            pb.IngressCertificate(
                name="shop/tls", hosts=["a.example"], chain_pem=b"CHAIN\n", key_pem=b"KEY\n"
            )
        )
        wanted = rendered(table)
        assert "KEY" not in wanted.text
        assert b"CHAIN\nKEY\n" in wanted.files.values()


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bp-") as name:
        yield Path(name)


def check(wanted: Configuration, directory: Path) -> str:
    """HAProxy's words against it."""
    frame = directory / wanted.digest
    frame.mkdir(exist_ok=True)
    for name, content in wanted.files.items():
        (frame / name).write_bytes(content)
    path = directory / "haproxy.cfg"
    path.write_text(wanted.text)
    done = subprocess.run(
        [haproxy_binary(), "-c", "-f", str(path)], capture_output=True, text=True, check=False
    )
    return done.stderr if done.returncode or "WARNING" in done.stderr else ""


class TestTaken:
    def test_haproxy_takes_every_option_without_a_warning(self, directory: Path) -> None:
        ports = [
            pb.ServicePort(port=80, http=True, load_balancer=True),
            pb.ServicePort(port=81, proxy_protocol=True, node_port=30081),
        ]
        every = [an_endpoint("a", ports=[8080, 8081]), an_endpoint("b", node="n2", ports=[8080, 8081])]
        every.append(an_endpoint("c", address="2001:db8::7", node="", ports=[8080, 8081]))
        services = [
            web(name="plain", ports=ports),
            web(name="even", vip="10.96.1.1", balance=pb.BALANCE_ROUND_ROBIN, ports=ports[1:]),
            web(name="weighed", vip="10.96.1.2", balance=pb.BALANCE_CAPACITY),
            web(name="sticky", vip="10.96.1.3", affinity_s=60, ports=ports),
            web(
                name="bounded",
                vip="10.96.1.4",
                max_connections_per_pod=3,
                queue_timeout_ms=1,
                request_timeout_ms=9,
            ),
            web(name="local", vip="10.96.1.5", external_local=True, internal_local=True),
            web(name="empty", vip=""),
        ]
        rules = [
            pb.IngressRule(host="*.example.org", path="/a", service="shop/plain", port=81),
            pb.IngressRule(path="/b", exact=True, service="shop/none", port=1),
        ]
        table = a_table(
            *services, rules=rules, plain=every, sticky=every, weighed=every, bounded=every, local=every
        )
        wanted = configuration(
            ProxyHost(
                node="n1",
                directory=directory,
                proxy_port=7460,
                publish_addresses=(PUBLISHED, "2001:db8::1"),
                threads=2,
            ),
            NETWORK,
            table,
            Obstacles(),
        )
        assert check(wanted, directory) == ""

    # What ends a line, a word, a comment or a quotation in some format that is written here.
    HOSTILE = st.text(alphabet="ab-._*/:;#%{}[]\\\"'\n\r\t\0 é", max_size=12)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_nothing_that_users_write_is_more_than_a_word(self, directory: Path, data: st.DataObject) -> None:
        """Whatever names, hosts, paths and addresses say: the lines are those of harmless ones, or fewer."""

        def text(good: str) -> str:
            return data.draw(st.one_of(st.just(good), self.HOSTILE))

        service = pb.Service(
            namespace=text("shop"),
            name=text("web"),
            vip=text("10.96.0.10"),
            ports=[pb.ServicePort(port=data.draw(st.integers(0, 70000)), http=True, node_port=30080)],
        )
        endpoint = an_endpoint(text("u1"), node=text("n2"), address=text("10.42.2.9"))
        rule = pb.IngressRule(host=text("a.example"), path=text("/p"), service=WEB, port=80)
        certificate = pb.IngressCertificate(name=text("shop/tls"), hosts=[text("a.example")])
        network = NetworkTable().fold(
            pb.Network(
                full=True,
                settings=pb.NetworkSettings(id=1),
                subnet="10.42.1.0/24",
                peers=[pb.NetworkPeer(node=text("n2"), address="192.0.2.2", subnet="10.42.2.0/24")],
            )
        )
        table = TrafficTable(
            services={WEB: service},
            endpoints={WEB: {endpoint.id: endpoint}},
            ingress=pb.Ingress(ports=[80, 443], rules=[rule], certificates=[certificate]),
        )
        wanted = configuration(a_host(directory), network, table, Obstacles())
        for name, content in wanted.files.items():
            if name.endswith(".map"):
                assert all(len(line.split(" ")) == 2 for line in content.decode().splitlines())
        assert wanted.text.isascii()
        assert "\0" not in wanted.text
        starts = {line.split(" ")[0] for line in wanted.text.splitlines() if line and line[0] not in " #"}
        assert starts <= {"global", "defaults", "frontend", "backend"}
        assert wanted.text.count("\nbackend ") <= 4
        without_tls = configuration(
            a_host(directory), network, table, Obstacles(unusable={certificate.name: "for this check"})
        )
        assert check(without_tls, directory) == ""
