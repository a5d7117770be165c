from __future__ import annotations

import json
from typing import Any

import pytest

from bayplan.resources.document import parse_document, parse_json
from bayplan.resources.ingress import Ingress, Route
from tests.bayplan.resources.builders import an_ingress, problems_of, with_annotations, with_field

RULE = "spec.rules.0"
PATH = f"{RULE}.http.paths.0"
BACKEND = f"{PATH}.backend"
DEFAULT = {"service": {"name": "other", "port": {"name": "http"}}}


def the_ingress(document: dict[str, Any]) -> Ingress:
    resource = parse_document(document).resource
    assert isinstance(resource, Ingress)
    return resource


class TestRefusals:
    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("spec.rules", [], "needs rules or a defaultBackend"),
            (f"{RULE}.host", "Shop.example.org", "is not a host's name"),
            (f"{RULE}.host", "10.0.0.5", "an address is none"),
            (f"{RULE}.host", "*", "a * is the whole of the first label"),
            (f"{RULE}.host", "a.*.org", "a * is the whole of the first label"),
            (f"{RULE}.host", "*.*.org", "a * is the whole of the first label"),
            (f"{RULE}.host", "shop.example.org:8080", "is not a host's name"),
            (f"{RULE}.host", "x" * 64 + ".org", "is not a host's name"),
            (f"{RULE}.http", None, "is required where there is no defaultBackend"),
            (f"{RULE}.http", {"paths": []}, "must not be empty"),
            (f"{PATH}.path", "shop", "must begin with /"),
            (f"{PATH}.path", None, "is required where the pathType is Prefix"),
            (f"{PATH}.path", "/a//b", "must not have //"),
            (f"{PATH}.path", "/a/../b", "must not have //, /./ or /../"),
            (f"{PATH}.path", "/a/..", "must not have //"),
            (f"{PATH}.path", "/api(/|$)(.*)", "regular expressions are not supported"),
            (f"{PATH}.path", "/a b", "is not a plain path"),
            (f"{PATH}.path", "/a%2Fb", "is not a plain path"),
            (f"{PATH}.path", "/" + "x" * 1024, "has more than 1024 characters"),
            (f"{PATH}.pathType", None, "is required"),
            (f"{PATH}.pathType", "Regex", "must be Prefix, Exact or ImplementationSpecific"),
            (BACKEND, {"resource": {"kind": "Bucket"}}, "only services can answer"),
            (BACKEND, {"serviceName": "web", "servicePort": 80}, "before Kubernetes 1.19"),
            (f"{BACKEND}.service.port", {}, "needs either a number or a name"),
            (f"{BACKEND}.service.port", {"number": 80, "name": "http"}, "needs either a number or a name"),
            (f"{BACKEND}.service.name", "shop/web", "is not a name"),
            ("spec.tls", [{"hosts": ["shop.example.org"]}], "is required"),
            ("spec.tls", [{"hosts": ["a b"], "secretName": "a"}], "is not a host's name"),
            ("spec.backend", DEFAULT, "unknown field"),
            ("metadata.annotations", {"bayplan.io/balance": "capacity"}, "is an annotation of a Service"),
            ("apiVersion", "extensions/v1beta1", "must be networking.k8s.io/v1"),
        ],
    )
    def test_says_what_is_wrong_with(self, path: str, value: object, message: str) -> None:
        problems = problems_of(with_field(an_ingress(), path, value))

        assert any(message in said for said in problems.values()), problems

    def test_one_path_cannot_lead_to_two_services(self) -> None:
        document = an_ingress()
        paths = document["spec"]["rules"][0]["http"]["paths"]
        paths += [with_field(paths[0], "path", "/a"), with_field(paths[0], "path", "/a/")]

        assert problems_of(document) == {
            "spec.rules[0].http.paths[2]": "means the same as rules[0].http.paths[1]"
        }


class TestAccepted:
    def test_reads_back_as_it_was_stored(self) -> None:
        document = with_field(an_ingress(), "spec.defaultBackend", DEFAULT)
        document = with_field(document, "spec.tls", [{"hosts": ["*.example.org"], "secretName": "cert"}])
        document = with_field(document, "spec.ingressClassName", "bayplan")
        read = the_ingress(document)

        assert parse_json(json.dumps(read.to_json_dict())).resource == read
        assert read.to_json_dict()["spec"] == document["spec"]

    @pytest.mark.parametrize("name", [None, "bayplan"])
    def test_our_own_class_is_nothing_to_speak_of(self, name: str | None) -> None:
        assert parse_document(with_field(an_ingress(), "spec.ingressClassName", name)).warnings == ()

    def test_other_classes_and_their_annotations_are_named_in_warnings(self) -> None:
        annotations = {
            "kubernetes.io/ingress.class": "nginx",
            "nginx.ingress.kubernetes.io/rewrite-target": "/",
            "team": "blue",
        }
        document = with_annotations(with_field(an_ingress(), "spec.ingressClassName", "nginx"), annotations)

        rewrite, by_field, by_annotation = parse_document(document).warnings
        assert "nginx.ingress.kubernetes.io/rewrite-target means nothing here" in rewrite
        assert by_field.startswith('the class "nginx" means nothing')
        assert by_annotation == by_field


class TestRoutes:
    def test_follow_the_rules_and_end_with_the_default(self) -> None:
        document = with_field(an_ingress(), "spec.defaultBackend", DEFAULT)
        document["spec"]["rules"] += [
            {"host": "*.example.org"},
            {
                "http": {
                    "paths": [
                        {"path": "/a/", "pathType": "Prefix", "backend": DEFAULT},
                        {"path": "/a/", "pathType": "Exact", "backend": DEFAULT},
                        {"pathType": "ImplementationSpecific", "backend": DEFAULT},
                    ]
                }
            },
        ]

        def other(host: str, path: str, *, is_exact: bool = False) -> Route:
            return Route(host=host, path=path, is_exact=is_exact, service="other", port="http")

        assert the_ingress(document).spec.routes == (
            Route(host="shop.example.org", path="/", is_exact=False, service="web", port=80),
            other("*.example.org", "/"),
            other("", "/a"),
            other("", "/a/", is_exact=True),
            other("", "/"),
            other("", "/"),
        )
