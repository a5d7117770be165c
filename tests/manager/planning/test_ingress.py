from __future__ import annotations

import itertools
from typing import Any

import pytest

from manager.planning import ingress
from manager.planning.ingress import (
    CertificateView,
    IngressPlan,
    IngressView,
    PathView,
    TlsView,
    plan_ingress,
)

PORTS = {"shop/web": {"http": 80}, "shop/api": {"8080": 8080}}
GOOD = CertificateView(chain_pem=b"chain", key_pem=b"key")


def a_path(path: str = "/", host: str = "", **more: Any) -> PathView:
    return PathView(**{"host": host, "path": path, "service": "web", "port": 80, **more})


def an_ingress(*paths: PathView, name: str = "front", **more: Any) -> IngressView:
    return IngressView(namespace="shop", name=name, paths=paths, **more)


def planned(*documents: IngressView, **certificates: CertificateView) -> IngressPlan:
    named = {f"shop/{name}": view for name, view in certificates.items()}
    return plan_ingress(documents, ports=PORTS, certificates=named)


class TestLimits:
    def test_hosts_of_a_certificate_take_room_as_well(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All of them go to every proxy, in one message."""
        monkeypatch.setattr(ingress, "CERTIFICATES_MAX_BYTES", 100)
        hosts = tuple(f"{number}.example.org" for number in range(50))
        older = an_ingress(a_path(), name="b", tls=(TlsView(secret="cert", hosts=("example.org",)),))
        larger = an_ingress(name="c", created_ms=9, tls=(TlsView(secret="cert", hosts=hosts),))
        plan = planned(older, larger, cert=GOOD)

        assert [each.hosts for each in plan.certificates] == [("example.org",)]
        assert [each.name for each in plan.problems] == ["c"]

    def test_one_document_does_not_fill_the_events(self) -> None:
        paths = [a_path(f"/{number}", service="none") for number in range(1000)]
        plan = planned(an_ingress(*paths), an_ingress(a_path("/a", service="none"), name="other"))

        assert len([each for each in plan.problems if each.name == "front"]) == 11
        assert "990 more of its rules do not work" in {each.message for each in plan.problems}
        assert len([each for each in plan.problems if each.name == "other"]) == 1

    def test_one_document_takes_no_room_from_those_before_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ingress, "RULES_MAX_BYTES", 200)
        older = an_ingress(a_path("/cart"), name="b", created_ms=5)
        larger = an_ingress(*(a_path(f"/{number}") for number in range(50)), name="a", created_ms=9)
        plan = planned(larger, older)

        assert "/cart" in {rule.path for rule in plan.rules}
        assert len(plan.rules) < 10
        assert [(each.name, each.message[:40]) for each in plan.problems] == [
            ("a", "the rules cannot be told to the proxies:")
        ]

    def test_a_certificate_that_fits_no_more_is_left_out_and_later_small_ones_are_not(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ingress, "CERTIFICATES_MAX_BYTES", 20)
        huge = CertificateView(chain_pem=b"c" * 100, key_pem=b"key")
        plan = planned(
            an_ingress(a_path(), tls=(TlsView(secret="huge"), TlsView(secret="good"))), huge=huge, good=GOOD
        )

        assert [each.name for each in plan.certificates] == ["shop/good"]
        assert plan.problems[0].message.startswith("the secret huge cannot be told to the proxies")

    def test_ports_are_those_that_any_document_was_given(self) -> None:
        plan = planned(an_ingress(a_path(), ports=(443,)), an_ingress(a_path(), name="b", ports=(80, 443)))

        assert plan.ports == (80, 443)


class TestPrecedence:
    def test_is_exact_host_wildcard_any_then_longer_path_then_exact_path(self) -> None:
        paths = [
            a_path("/", "shop.example.org"),
            a_path("/cart", "shop.example.org"),
            a_path("/cart", "shop.example.org", exact=True),
            a_path("/", "*.example.org"),
            a_path("/cart/items", "*.example.org"),
            a_path("/very/long/path/that/fits/everybody"),
            a_path("/"),
        ]
        expected = [
            ("shop.example.org", "/cart", True),
            ("shop.example.org", "/cart", False),
            ("shop.example.org", "/", False),
            ("*.example.org", "/cart/items", False),
            ("*.example.org", "/", False),
            ("", "/very/long/path/that/fits/everybody", False),
            ("", "/", False),
        ]
        for shuffled in itertools.islice(itertools.permutations(paths), 0, 5040, 97):
            rules = planned(an_ingress(*shuffled)).rules
            assert [(rule.host, rule.path, rule.exact) for rule in rules] == expected

    def test_gives_a_path_that_two_claim_to_the_older_and_tells_the_other(self) -> None:
        younger = an_ingress(a_path("/cart/", service="api", port=8080), name="a", created_ms=9)
        older = an_ingress(a_path("/cart"), name="b", created_ms=5)
        plan = planned(younger, older)

        assert [(rule.path, rule.service) for rule in plan.rules] == [("/cart", "shop/web")]
        assert [(p.name, p.message) for p in plan.problems] == [
            ("a", "any host/cart belongs to shop/b, which is older")
        ]

    def test_takes_a_documents_own_first_word(self) -> None:
        plan = planned(an_ingress(a_path("/"), a_path("/", service="api", port=8080)))

        assert [rule.service for rule in plan.rules] == ["shop/web"]
        assert plan.problems == ()


class TestPorts:
    def test_names_become_numbers(self) -> None:
        assert [rule.port for rule in planned(an_ingress(a_path(port="http"))).rules] == [80]

    def test_what_leads_nowhere_stays_a_rule_so_that_no_other_takes_its_requests(self) -> None:
        documents = an_ingress(
            a_path("/a", service="gone"), a_path("/b", port="grpc"), a_path("/c", port=81), a_path("/")
        )
        plan = planned(documents)

        assert [(rule.path, rule.port) for rule in plan.rules] == [("/a", 0), ("/b", 0), ("/c", 0), ("/", 80)]
        assert [problem.message for problem in plan.problems] == [
            "any host/a: there is no service gone",
            'any host/b: the service web has no port "grpc"',
            "any host/c: the service web has no port 81",
        ]


class TestCertificates:
    def test_are_told_with_the_hosts_that_they_are_for(self) -> None:
        first = an_ingress(a_path(), tls=(TlsView(secret="cert", hosts=("a.org",)),))
        second = an_ingress(name="other", tls=(TlsView(secret="cert", hosts=("b.org", "a.org")),))
        (certificate,) = planned(first, second, cert=GOOD).certificates

        assert (certificate.name, certificate.hosts) == ("shop/cert", ("a.org", "b.org"))
        assert (certificate.chain_pem, certificate.key_pem) == (b"chain", b"key")

    def test_one_that_is_missing_or_broken_is_a_problem_and_the_rest_goes_on(self) -> None:
        document = an_ingress(
            a_path(), tls=(TlsView(secret="gone"), TlsView(secret="broken"), TlsView(secret="cert"))
        )
        plan = planned(document, broken=CertificateView(problem="has no readable certificate"), cert=GOOD)

        assert len(plan.rules) == 1
        assert [each.name for each in plan.certificates] == ["shop/cert"]
        assert [problem.message for problem in plan.problems] == [
            "the secret broken has no readable certificate: no TLS with it",
            "the secret gone does not exist: no TLS with it",
        ]

    def test_keys_are_in_no_text(self) -> None:
        plan = planned(an_ingress(tls=(TlsView(secret="cert"),)), cert=GOOD)

        assert "key" not in repr(plan.certificates[0]).replace("key_pem", "")
        assert "b'key'" not in repr(plan)
