from __future__ import annotations

import json
from typing import Any

import pytest

from bayplan.resources.document import parse_document, parse_json
from bayplan.resources.pods import PodTemplate, template_from_json, template_hash, template_json
from bayplan.resources.workloads import Deployment
from tests.bayplan.resources.builders import a_deployment, problems_of, with_field

CONTAINER = "spec.template.spec.containers[0]"
POD = "spec.template.spec"
HTTP = {"httpGet": {"port": 8080}}
KINDS = ("startupProbe", "readinessProbe", "livenessProbe")


def the_template(document: dict[str, Any]) -> PodTemplate:
    resource = parse_document(document).resource
    assert isinstance(resource, Deployment)
    return resource.spec.template


class TestRefusals:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("probe", "path", "message"),
        [
            ({}, "", "needs exactly one of exec, httpGet, tcpSocket, grpc"),
            ({**HTTP, "tcpSocket": {"port": 1}}, "", "needs exactly one of"),
            ({"exec": {"command": []}}, ".exec.command", "must not be empty"),
            ({"exec": {"command": "cat /tmp/ok"}}, ".exec.command", "must be a list"),
            ({"httpGet": {}}, ".httpGet.port", "is required"),
            ({"httpGet": {"port": 0}}, ".httpGet.port", "must be a port"),
            ({"httpGet": {"port": "web"}}, ".httpGet.port", 'no port of this container is named "web"'),
            ({"tcpSocket": {"port": "web"}}, ".tcpSocket.port", 'no port of this container is named "web"'),
            ({"httpGet": {"port": 1, "path": "/a b"}}, ".httpGet.path", "is not the path of a URL"),
            ({"httpGet": {"port": 1, "path": "/a\r\nX: y"}}, ".httpGet.path", "is not the path of a URL"),
            ({"httpGet": {"port": 1, "host": "a/b"}}, ".httpGet.host", "neither a host's name nor"),
            ({"httpGet": {"port": 1, "scheme": "http"}}, ".httpGet.scheme", "must be HTTP or HTTPS"),
            (
                {"httpGet": {"port": 1, "httpHeaders": [{"name": "X Y", "value": ""}]}},
                ".httpGet.httpHeaders[0].name",
                "is not the name of a header",
            ),
            (
                {"httpGet": {"port": 1, "httpHeaders": [{"name": "X", "value": "a\r\nb"}]}},
                ".httpGet.httpHeaders[0].value",
                "is not a header's value",
            ),
            ({"grpc": {"port": "web"}}, ".grpc.port", "must be a whole number"),
            ({**HTTP, "periodSeconds": -1}, ".periodSeconds", "must be at least 0"),
            ({**HTTP, "periodSeconds": 604_801}, ".periodSeconds", "must be at most 604800"),
            ({**HTTP, "failureThreshold": 2**31}, ".failureThreshold", "must be at most"),
            ({**HTTP, "timeoutSeconds": 0.5}, ".timeoutSeconds", "must be a whole number"),
            ({**HTTP, "periodSecond": 1}, ".periodSecond", 'did you mean "periodSeconds"?'),
        ],
    )
    def test_of_every_kind(self, kind: str, probe: dict[str, Any], path: str, message: str) -> None:
        problems = problems_of(a_deployment(**{kind: probe}))

        assert list(problems) == [f"{CONTAINER}.{kind}{path}"]
        assert message in problems[f"{CONTAINER}.{kind}{path}"]

    @pytest.mark.parametrize("kind", ["startupProbe", "livenessProbe"])
    def test_one_success_is_enough_to_run(self, kind: str) -> None:
        problems = problems_of(a_deployment(**{kind: {**HTTP, "successThreshold": 2}}))

        assert list(problems) == [f"{CONTAINER}.{kind}.successThreshold"]

    def test_a_readiness_probe_ends_nothing(self) -> None:
        problems = problems_of(a_deployment(readinessProbe={**HTTP, "terminationGracePeriodSeconds": 5}))

        assert list(problems) == [f"{CONTAINER}.readinessProbe.terminationGracePeriodSeconds"]

    @pytest.mark.parametrize("hook", ["postStart", "preStop"])
    @pytest.mark.parametrize(
        ("handler", "path", "message"),
        [
            ({}, "", "needs exactly one of exec, httpGet, sleep"),
            ({"sleep": {"seconds": 1}, "exec": {"command": ["a"]}}, "", "needs exactly one of"),
            ({"sleep": {"seconds": -1}}, ".sleep.seconds", "must be at least 0"),
            ({"sleep": {"seconds": 31}}, ".sleep.seconds", "is more than terminationGracePeriodSeconds, 30"),
            ({"httpGet": {"port": "web"}}, ".httpGet.port", "no port of this container"),
        ],
    )
    def test_of_hooks(self, hook: str, handler: dict[str, Any], path: str, message: str) -> None:
        problems = problems_of(a_deployment(lifecycle={hook: handler}))

        assert list(problems) == [f"{CONTAINER}.lifecycle.{hook}{path}"]
        assert message in problems[f"{CONTAINER}.lifecycle.{hook}{path}"]

    def test_hooks_open_no_sockets(self) -> None:
        problems = problems_of(a_deployment(lifecycle={"preStop": {"tcpSocket": {"port": 1}}}))

        assert "Kubernetes never did it" in problems[f"{CONTAINER}.lifecycle.preStop.tcpSocket"]

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("hostname", "a.b", "is not a name"),
            ("hostname", "a\nb", "is not a name"),
            ("subdomain", "A", "is not a name"),
            ("enableServiceLinks", "no", "must be true or false"),
            ("dnsPolicy", "None", "ClusterFirstWithHostNet"),
        ],
    )
    def test_of_a_pods_names(self, field: str, value: object, message: str) -> None:
        problems = problems_of(with_field(a_deployment(), f"{POD}.{field}", value))

        assert list(problems) == [f"{POD}.{field}"]
        assert message in problems[f"{POD}.{field}"]

    @pytest.mark.parametrize("path", ["app", "", "/a\0b", 3])
    def test_a_working_directory_is_a_whole_path(self, path: object) -> None:
        assert list(problems_of(a_deployment(workingDir=path))) == [f"{CONTAINER}.workingDir"]


EVERYTHING: dict[str, Any] = {
    "ports": [{"containerPort": 8080, "name": "web"}],
    "workingDir": "/app",
    "startupProbe": {"exec": {"command": ["cat", "/tmp/ok"]}, "failureThreshold": 30},
    "readinessProbe": {
        "httpGet": {
            "port": "web",
            "path": "/healthz?full=1",
            "host": "Example.org",
            "scheme": "HTTPS",
            "httpHeaders": [{"name": "Host", "value": "shop.example.org"}, {"name": "X-Empty", "value": ""}],
        },
        "initialDelaySeconds": 1,
        "timeoutSeconds": 2,
        "periodSeconds": 3,
        "successThreshold": 4,
        "failureThreshold": 5,
    },
    "livenessProbe": {"grpc": {"port": 8080, "service": "shop"}, "terminationGracePeriodSeconds": 5},
    "lifecycle": {
        "postStart": {"httpGet": {"port": "web", "path": "/warm"}},
        "preStop": {"sleep": {"seconds": 10}},
    },
}


class TestAccepted:
    def test_agents_get_what_was_written_under_kubernetes_names(self) -> None:
        document = a_deployment(**EVERYTHING)
        document["spec"]["template"]["spec"] |= {
            "hostname": "web",
            "subdomain": "shop",
            "enableServiceLinks": False,
            "dnsPolicy": "Default",
        }
        template = the_template(document)

        assert template_json(template) == document["spec"]["template"]
        assert template_from_json(json.loads(json.dumps(template_json(template)))) == template
        assert parse_json(json.dumps(document)).resource.to_json_dict()["spec"] == document["spec"]

    def test_defaults_written_out_change_no_revision(self) -> None:
        full = {
            "httpGet": {"port": 8080, "path": "/", "scheme": "HTTP", "httpHeaders": []},
            "initialDelaySeconds": 0,
            "timeoutSeconds": 1,
            "periodSeconds": 10,
            "successThreshold": 1,
            "failureThreshold": 3,
        }
        written = a_deployment(readinessProbe=full, lifecycle={"preStop": None}, livenessProbe=None)
        written = with_field(written, f"{POD}.enableServiceLinks", True)
        written = with_field(written, f"{POD}.dnsPolicy", "ClusterFirst")

        short = the_template(a_deployment(readinessProbe=HTTP))
        assert template_json(the_template(written)) == template_json(short)
        assert template_json(short)["spec"]["containers"][0]["readinessProbe"] == HTTP
        assert template_hash(the_template(written)) == template_hash(short)

    def test_a_pod_without_any_of_it_is_what_it_was_before(self) -> None:
        written = a_deployment(lifecycle={}, startupProbe=None)

        assert template_hash(the_template(written)) == template_hash(the_template(a_deployment()))

    def test_zero_is_what_was_not_set(self) -> None:
        """As in Kubernetes, whose defaults replace it."""
        zeros = dict.fromkeys(("timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"), 0)

        assert the_template(a_deployment(livenessProbe={**HTTP, **zeros})) == the_template(
            a_deployment(livenessProbe=HTTP)
        )

    def test_a_path_may_lack_its_slash(self) -> None:
        with_slash = a_deployment(livenessProbe={"httpGet": {"port": 1, "path": "/healthz"}})
        without = a_deployment(livenessProbe={"httpGet": {"port": 1, "path": "healthz"}})

        assert the_template(with_slash) == the_template(without)

    def test_a_longer_grace_allows_a_longer_sleep(self) -> None:
        document = a_deployment(lifecycle={"preStop": {"sleep": {"seconds": 60}}})
        document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 60

        assert problems_of(document) == {}
