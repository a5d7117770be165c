from __future__ import annotations

from agent.traffic.published_ports import published_ports
from bayplan.v1 import agent_link_pb2 as pb

RULES = [pb.IngressRule(path="/", service="shop/web", port=80)]


def of_ingress(*ports: int, with_tls: bool = True) -> list[int]:
    """What is bound for rules that were given these ports."""
    published = published_ports(
        {}, pb.Ingress(ports=ports, rules=RULES), addresses=["192.0.2.1"], taken={}, with_tls=with_tls
    )
    assert not published.problems
    return [each.port for each in published.ports]


class TestIngress:
    def test_asks_for_what_it_was_given_and_not_for_what_is_a_services(self) -> None:
        assert of_ingress(80, 443) == [80, 443]
        assert of_ingress(443) == [443]
        assert of_ingress(80) == [80]

    def test_asks_for_the_port_of_tls_only_with_a_certificate(self) -> None:
        assert of_ingress(80, 443, with_tls=False) == [80]
