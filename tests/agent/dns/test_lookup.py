from __future__ import annotations

from pathlib import Path

import dns.rcode
import pytest

from agent.dns.lookup import TTL_S
from agent.dns.zone import Zone
from agent.dns.zone_file import ZoneFile, write_zone
from agent.traffic.table import TrafficTable
from tests.agent.dns.builders import (
    WEB,
    a_network,
    a_port,
    a_service,
    a_traffic,
    an_endpoint,
    asked,
    lines_of,
    records,
)

NXDOMAIN, NOERROR, SERVFAIL = dns.rcode.NXDOMAIN, dns.rcode.NOERROR, dns.rcode.SERVFAIL
TRAFFIC = a_traffic(
    a_service("web", vip="10.96.0.7", ports=[a_port(), a_port("dns", 53, udp=True), a_port("", 81)]),
    a_service("db", ports=[a_port("redis", 6379)]),
    a_service("empty"),
    a_service("shop", external_name="shop.example.org"),
    a_service("alias", external_name="Web.default.svc.cluster.local"),
    a_service("ring", external_name="ring.default.svc.cluster.local"),
    web=[an_endpoint("127.42.3.9")],
    db=[
        an_endpoint("127.42.3.5", hostname="db-0", ports=[6380]),
        an_endpoint("127.43.4.6", ports=[6380]),
        an_endpoint("127.43.4.7", ports=[6380], ready=False),
    ],
    empty=[an_endpoint("127.42.3.8", ready=False)],
)


def a_zone(directory: Path, traffic: TrafficTable) -> Zone:
    """Through the file, as the server gets it."""
    write_zone(directory / "zone", lines_of(traffic))
    zone = ZoneFile(directory / "zone").read()
    assert zone is not None
    return zone


@pytest.fixture
def zone(tmp_path: Path) -> Zone:
    return a_zone(tmp_path, TRAFFIC)


class TestServiceWithAnAddress:
    def test_is_named_by_it(self, zone: Zone) -> None:
        assert records(asked(zone, WEB)) == ["web.default.svc.cluster.local A 10.96.0.7"]

    def test_its_records_are_soon_asked_for_again(self, zone: Zone) -> None:
        answer = asked(zone, WEB)

        assert answer is not None
        assert [rrset.ttl for rrset in answer.answer] == [TTL_S]

    def test_the_case_of_a_name_does_not_matter(self, zone: Zone) -> None:
        assert records(asked(zone, "WEB.Default.svc.Cluster.LOCAL")) == [
            "WEB.Default.svc.Cluster.LOCAL A 10.96.0.7"
        ]

    def test_its_named_ports_are_told(self, zone: Zone) -> None:
        assert records(asked(zone, f"_http._tcp.{WEB}", "SRV")) == [
            f"_http._tcp.{WEB[:-1]} SRV 0 100 80 {WEB[:-1]}"
        ]
        assert records(asked(zone, f"_dns._udp.{WEB}", "SRV")) == [
            f"_dns._udp.{WEB[:-1]} SRV 0 100 53 {WEB[:-1]}"
        ]

    def test_the_address_comes_with_the_port(self, zone: Zone) -> None:
        answer = asked(zone, f"_http._tcp.{WEB}", "SRV")

        assert answer is not None
        assert [(str(rrset.name), rrset[0].to_text()) for rrset in answer.additional] == [(WEB, "10.96.0.7")]

    def test_its_pods_have_no_names_there(self, zone: Zone) -> None:
        """But those with a hostname of their own; this one has none."""
        answer = asked(zone, f"127-42-3-9.{WEB}")

        assert answer is not None
        assert answer.rcode == NXDOMAIN

    def test_its_pods_with_a_hostname_have(self, tmp_path: Path) -> None:
        zone = a_zone(
            tmp_path,
            a_traffic(a_service(vip="10.96.0.7"), web=[an_endpoint("127.42.3.9", hostname="web-0")]),
        )

        assert records(asked(zone, f"web-0.{WEB}")) == [f"web-0.{WEB[:-1]} A 127.42.3.9"]
        assert records(asked(zone, WEB)) == [f"{WEB[:-1]} A 10.96.0.7"]


class TestHeadlessService:
    DB = "db.default.svc.cluster.local"

    def test_names_its_ready_pods(self, zone: Zone) -> None:
        assert records(asked(zone, self.DB)) == [f"{self.DB} A 127.42.3.5", f"{self.DB} A 127.43.4.6"]

    def test_names_those_that_are_not_ready_if_it_says_so(self, tmp_path: Path) -> None:
        zone = a_zone(
            tmp_path,
            a_traffic(a_service(publish_not_ready=True), web=[an_endpoint("127.42.3.8", ready=False)]),
        )

        assert records(asked(zone, WEB)) == [f"{WEB[:-1]} A 127.42.3.8"]

    def test_each_pod_has_a_name(self, zone: Zone) -> None:
        assert records(asked(zone, f"db-0.{self.DB}")) == [f"db-0.{self.DB} A 127.42.3.5"]
        assert records(asked(zone, f"127-43-4-6.{self.DB}")) == [f"127-43-4-6.{self.DB} A 127.43.4.6"]

    def test_pods_of_one_hostname_share_it(self, tmp_path: Path) -> None:
        zone = a_zone(
            tmp_path,
            a_traffic(
                a_service(),
                web=[an_endpoint("127.42.3.8", hostname="a"), an_endpoint("127.42.3.9", hostname="a")],
            ),
        )

        assert len(records(asked(zone, f"a.{WEB}"))) == 2

    def test_a_hostname_that_is_none_is_not_used(self, tmp_path: Path) -> None:
        zone = a_zone(tmp_path, a_traffic(a_service(), web=[an_endpoint("127.42.3.8", hostname="A.b\n")]))

        assert records(asked(zone, f"127-42-3-8.{WEB}")) == [f"127-42-3-8.{WEB[:-1]} A 127.42.3.8"]

    def test_ports_are_those_of_the_pods_and_their_targets_exist(self, zone: Zone) -> None:
        answer = asked(zone, f"_redis._tcp.{self.DB}", "SRV")

        assert answer is not None
        assert [data.to_text() for data in answer.answer[0]] == [
            f"0 100 6380 db-0.{self.DB}.",
            f"0 100 6380 127-43-4-6.{self.DB}.",
        ]
        assert [rrset[0].to_text() for rrset in answer.additional] == ["127.42.3.5", "127.43.4.6"]

    def test_a_pod_without_the_port_is_left_out(self, tmp_path: Path) -> None:
        zone = a_zone(
            tmp_path,
            a_traffic(
                a_service(ports=[a_port()]),
                web=[an_endpoint("127.42.3.8", ports=[0]), an_endpoint("127.42.3.9", ports=[8081])],
            ),
        )

        assert records(asked(zone, f"_http._tcp.{WEB}", "SRV")) == [
            f"_http._tcp.{WEB[:-1]} SRV 0 100 8081 127-42-3-9.{WEB[:-1]}"
        ]

    def test_without_a_ready_pod_there_is_no_such_name(self, zone: Zone) -> None:
        answer = asked(zone, "empty.default.svc.cluster.local")

        assert answer is not None
        assert answer.rcode == NXDOMAIN


class TestExternalName:
    def test_leads_outside(self, zone: Zone) -> None:
        answer = asked(zone, "shop.default.svc.cluster.local")

        assert answer is not None
        assert records(answer) == ["shop.default.svc.cluster.local CNAME shop.example.org"]
        assert str(answer.leads_to) == "shop.example.org."

    def test_the_alias_itself_can_be_asked_for(self, zone: Zone) -> None:
        answer = asked(zone, "shop.default.svc.cluster.local", "CNAME")

        assert answer is not None
        assert answer.leads_to is None
        assert records(answer) == ["shop.default.svc.cluster.local CNAME shop.example.org"]

    def test_that_leads_back_is_followed(self, zone: Zone) -> None:
        assert records(asked(zone, "alias.default.svc.cluster.local")) == [
            "alias.default.svc.cluster.local CNAME Web.default.svc.cluster.local",
            "Web.default.svc.cluster.local A 10.96.0.7",
        ]

    def test_a_circle_ends(self, zone: Zone) -> None:
        answer = asked(zone, "ring.default.svc.cluster.local")

        assert answer is not None
        assert answer.rcode == SERVFAIL

    def test_one_that_is_no_name_is_no_alias(self, tmp_path: Path) -> None:
        zone = a_zone(tmp_path, a_traffic(a_service(external_name="a..b")))
        answer = asked(zone, WEB)

        assert answer is not None
        assert answer.rcode == NXDOMAIN


class TestWhatIsNotThere:
    @pytest.mark.parametrize(
        "name",
        [
            "example.com.default.svc.cluster.local",
            "example.com.svc.cluster.local",
            "example.com.cluster.local",
            "nothing.default.svc.cluster.local",
            "web.nowhere.svc.cluster.local",
            "nowhere.svc.cluster.local",
            "a.b.web.default.svc.cluster.local",
            "_nothing._tcp.web.default.svc.cluster.local",
            "_http._udp.web.default.svc.cluster.local",
            "_tcp.empty.default.svc.cluster.local",
            "\\255\\254.default.svc.cluster.local",
            "10-1-2-3.default.pod.cluster.local",  # Outside the pods' range.
            "nobody.default.pod.cluster.local",
        ],
    )
    def test_is_denied_for_a_moment(self, zone: Zone, name: str) -> None:
        answer = asked(zone, name)

        assert answer is not None
        assert answer.rcode == NXDOMAIN
        (soa,) = answer.authority
        assert (str(soa.name), soa.ttl, soa[0].minimum) == ("cluster.local.", TTL_S, TTL_S)

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            (WEB, "AAAA"),
            (WEB, "MX"),
            ("db-0.db.default.svc.cluster.local", "AAAA"),
            ("default.svc.cluster.local", "A"),
            ("svc.cluster.local", "A"),
            ("_tcp.web.default.svc.cluster.local", "SRV"),
            ("cluster.local", "A"),
            ("96.10.in-addr.arpa", "PTR"),
        ],
    )
    def test_a_name_without_such_records_is_no_missing_name(self, zone: Zone, name: str, kind: str) -> None:
        """Or clients would stop asking for the others."""
        answer = asked(zone, name, kind)

        assert answer is not None
        assert (answer.rcode, answer.answer) == (NOERROR, ())
        assert len(answer.authority) == 1

    @pytest.mark.parametrize(
        "name",
        ["example.com", "local", "xcluster.local", ".", "web", "1.0.0.127.ip6.arpa", "4.3.2.1.in-addr.arpa"],
    )
    def test_names_of_others_are_none_of_ours(self, zone: Zone, name: str) -> None:
        assert asked(zone, name) is None

    def test_before_a_leader_has_spoken_nothing_is_denied(self, tmp_path: Path) -> None:
        zone = a_zone(tmp_path, a_traffic(version=0))

        for name, kind in ((WEB, "A"), ("7.0.96.10.in-addr.arpa", "PTR")):
            answer = asked(zone, name, kind)
            assert answer is not None
            assert answer.rcode == SERVFAIL

    def test_what_was_kept_over_a_boot_is_known(self, tmp_path: Path) -> None:
        """A table from the disk has no version, but services."""
        zone = a_zone(tmp_path, a_traffic(a_service(vip="10.96.0.7"), version=0))

        assert records(asked(zone, WEB)) == [f"{WEB[:-1]} A 10.96.0.7"]


class TestAddresses:
    def test_of_services_and_named_pods_have_names(self, zone: Zone) -> None:
        assert records(asked(zone, "7.0.96.10.in-addr.arpa", "PTR")) == [
            "7.0.96.10.in-addr.arpa PTR web.default.svc.cluster.local"
        ]
        assert records(asked(zone, "5.3.42.127.in-addr.arpa", "PTR")) == [
            "5.3.42.127.in-addr.arpa PTR db-0.db.default.svc.cluster.local"
        ]
        assert records(asked(zone, "6.4.43.127.in-addr.arpa", "PTR")) == [
            "6.4.43.127.in-addr.arpa PTR 127-43-4-6.db.default.svc.cluster.local"
        ]

    @pytest.mark.parametrize(
        ("name", "apex"),
        [
            ("9.9.96.10.in-addr.arpa", "96.10.in-addr.arpa."),
            ("9.3.42.127.in-addr.arpa", "42.127.in-addr.arpa."),
            ("9.3.43.127.in-addr.arpa", "43.127.in-addr.arpa."),  # The range has 15 bits: two zones.
        ],
    )
    def test_without_a_name_are_denied_here(self, zone: Zone, name: str, apex: str) -> None:
        answer = asked(zone, name, "PTR")

        assert answer is not None
        assert (answer.rcode, str(answer.authority[0].name)) == (NXDOMAIN, apex)

    @pytest.mark.parametrize(
        "name", ["10.in-addr.arpa", "1.97.10.in-addr.arpa", "x.42.127.in-addr.arpa", "in-addr.arpa"]
    )
    def test_outside_our_ranges_are_others(self, zone: Zone, name: str) -> None:
        assert asked(zone, name, "PTR") is None


class TestOfTheDomainItself:
    def test_every_server_knows_itself(self, zone: Zone) -> None:
        assert records(asked(zone, "cluster.local", "NS")) == ["cluster.local NS ns.dns.cluster.local"]
        assert records(asked(zone, "ns.dns.cluster.local")) == ["ns.dns.cluster.local A 127.42.3.1"]

    def test_says_its_schema(self, zone: Zone) -> None:
        assert records(asked(zone, "dns-version.cluster.local", "TXT")) == [
            'dns-version.cluster.local TXT "1.1.0"'
        ]

    def test_pods_by_address(self, zone: Zone) -> None:
        assert records(asked(zone, "127-42-3-9.default.pod.cluster.local")) == [
            "127-42-3-9.default.pod.cluster.local A 127.42.3.9"
        ]

    def test_another_domain(self, tmp_path: Path) -> None:
        write_zone(tmp_path / "zone", lines_of(TRAFFIC, a_network(domain="corp.example")))
        zone = ZoneFile(tmp_path / "zone").read()

        assert zone is not None
        assert records(asked(zone, "web.default.svc.corp.example")) == [
            "web.default.svc.corp.example A 10.96.0.7"
        ]
        assert asked(zone, WEB) is None
