from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayplan.manifests.manifest import check_manifests
from bayplan.manifests.read import read_manifests
from bayplan.model.nodes import Amounts
from bayplan.resources.document import parse_document, parse_json
from bayplan.resources.kinds import KINDS, find_kind
from bayplan.resources.pods import Container, PodTemplate, template_from_json, template_hash, template_json
from bayplan.resources.problems import DocumentError, loc_of, path_of
from bayplan.resources.workloads import Deployment
from tests.bayplan.resources.builders import (
    a_deployment,
    a_service,
    an_ingress,
    endpoints,
    problems_of,
    with_field,
)

POD = "spec.template.spec"
CONTAINER = f"{POD}.containers.0"


def the_deployment(document: dict[str, Any]) -> Deployment:
    resource = parse_document(document).resource
    assert isinstance(resource, Deployment)
    return resource


class TestRefusals:
    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("spec.replicas", -1, "must be at least 0"),
            ("spec.replicas", 10**9, "must be at most 100000"),
            ("spec.replicas", 10**50, "not a huge number"),
            ("spec.replicas", "3", 'must be a whole number, not the text "3"'),
            ("spec.replicas", 1.5, "must be a whole number"),
            ("spec.replicas", True, "must be a whole number, not true"),
            ("spec.replica", 3, 'unknown field, did you mean "replicas"?'),
            ("spec.strategy", {"type": "Recreate"}, "not supported yet"),
            ("spec.selector", {"matchLabels": {}}, "must not be empty"),
            ("spec.selector.matchExpressions", [{"key": "a"}], "not supported yet"),
            ("metadata.name", "Web", "is not a name"),
            ("metadata.name", "../etc", "is not a name"),
            ("metadata.name", "a\nb", "is not a name"),
            ("metadata.name", "a\0", r"\u0000"),
            ("metadata.name", "wеb", r"\u0435"),  # noqa: RUF001  # a Cyrillic twin is what is tested
            ("metadata.name", "x" * 300, "is not a name"),
            ("metadata.name", 'a"b', "is not a name"),
            ("metadata.name", "\x1b[31mred", r"\u001b"),
            ("metadata.namespace", "a/b", "is not a name"),
            ("metadata.labels", {"a b": "c"}, "is not a key"),
            ("metadata.labels", {"a": "b c"}, "is not a label's value"),
            ("metadata.labels", {"a": 1}, "must be text, not the number 1: put it in quotes"),
            ("metadata.labels", {"a": None}, "must be text, not empty"),
            ("metadata.labels", [], "must be a mapping, not a list"),
            ("metadata.ownerReferences", [{}], "not supported yet"),
            (f"{POD}.restartPolicy", "Never", "must be Always in a Deployment"),
            (f"{POD}.restartPolicy", "Sometimes", "must be Always, OnFailure or Never"),
            (f"{POD}.terminationGracePeriodSeconds", 3601, "must be at most 3600"),
            (f"{POD}.terminationGracePeriodSeconds", -1, "must be at least 0"),
            (f"{POD}.containers", [], "must not be empty"),
            (f"{POD}.volumes", [{"name": "a"}], "not supported yet"),
            (f"{POD}.hostPID", True, "not supported yet"),
            (f"{POD}.affinity", {"podAffinity": {}}, "not supported yet"),
            (f"{POD}.tolerations", [{"key": "a", "tolerationSeconds": 3}], "not supported yet"),
            (f"{POD}.tolerations", [{"effect": "NoSchedule"}], "must be Exists where no key is given"),
            (f"{CONTAINER}.name", "A", "is not a name"),
            (f"{CONTAINER}.image", "My-App", 'did you mean "my-app"?'),
            (f"{CONTAINER}.image", "a b", "is not the name of an image"),
            (f"{CONTAINER}.image", "http://a/b", "Leave out the scheme"),
            (f"{CONTAINER}.image", "-v", "is not the name of an image"),
            (f"{CONTAINER}.image", "", "is not the name of an image"),
            (f"{CONTAINER}.image", None, "is required"),
            (f"{CONTAINER}.command", "sleep", "must be a list"),
            (f"{CONTAINER}.command", ["a\0b"], "holds a NUL character"),
            (f"{CONTAINER}.args", ["\ud800"], "is not valid Unicode"),
            (f"{CONTAINER}.env", [{"name": "1A"}], "is not the name of a variable"),
            (f"{CONTAINER}.env", [{"name": "A", "value": 8080}], "put it in quotes"),
            (f"{CONTAINER}.env", [{"name": "A", "valueFrom": {"x": 1}}], "not supported yet"),
            (f"{CONTAINER}.ports", [{"containerPort": 0}], "must be at least 1"),
            (f"{CONTAINER}.ports", [{"containerPort": 80, "hostPort": 80}], "not supported yet"),
            (f"{CONTAINER}.ports", [{"containerPort": 80}, {"containerPort": 80}], "is in ports[0] already"),
            (f"{CONTAINER}.imagePullPolicy", "always", "must be Always, IfNotPresent or Never"),
            (f"{CONTAINER}.image_pull_policy", "Always", 'did you mean "imagePullPolicy"?'),
            (f"{CONTAINER}.securityContext", {"privileged": True}, "not supported yet"),
            (
                f"{CONTAINER}.resources",
                {"limits": {"memory": "512mb"}},
                "Did you mean 512Mi (mebibytes) or 512M?",
            ),
            (f"{CONTAINER}.resources", {"limits": {"memory": "1Mi"}}, "too little to run anything"),
            (f"{CONTAINER}.resources", {"limits": {"cpu": float("nan")}}, "JSON"),
            (f"{CONTAINER}.resources", {"limits": {"ephemeral-storage": "1Gi"}}, "not supported yet"),
            (
                f"{CONTAINER}.resources",
                {"limits": {"cpu": "1"}, "requests": {"cpu": "1500m"}},
                "1500m is more than the limit of 1",
            ),
            ("spec", None, "is required"),
            ("kind", "Deploymant", "did you mean Deployment?"),
            ("kind", "StatefulSet", "StatefulSet is not supported yet"),
            ("kind", "EndpointSlice", "write Endpoints (v1)"),
            ("kind", "IngressClass", "leave them out"),
            ("kind", "Node", "`bay label`"),
            ("kind", "Pod", "write a Deployment"),
            ("apiVersion", "extensions/v1beta1", "must be apps/v1 for the kind Deployment"),
            ("apiVersion", None, "must be apps/v1"),
        ],
    )
    def test_says_what_is_wrong_with(self, path: str, value: object, message: str) -> None:
        problems = problems_of(with_field(a_deployment(), path, value))

        assert any(message in said for said in problems.values()), problems

    def test_lists_every_problem_with_its_path_in_the_order_of_the_document(self) -> None:
        document = a_deployment(image="A B", ports=[{"containerPort": "80"}], probes={})
        document["metadata"]["labels"] = {"a b": "c"}
        document["spec"]["replicas"] = -1

        assert set(problems_of(document)) == {
            'metadata.labels["a b"]',
            "spec.template.spec.containers[0].image",
            "spec.template.spec.containers[0].ports[0].containerPort",
            "spec.template.spec.containers[0].probes",
            "spec.replicas",
        }
        assert next(iter(problems_of(document))) == 'metadata.labels["a b"]'

    def test_a_selector_must_find_the_pods_of_its_template(self) -> None:
        document = with_field(a_deployment(), "spec.selector.matchLabels", {"app": "other"})

        assert (
            "the template's labels do not have it" in problems_of(document)["spec.selector.matchLabels.app"]
        )

    def test_containers_of_a_pod_have_names_and_ports_of_their_own(self) -> None:
        document = a_deployment(ports=[{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}])
        document["spec"]["template"]["spec"]["containers"] *= 2

        taken = "is a port of containers[0] already; they share the pod's address"
        assert problems_of(document) == {
            "spec.template.spec.containers[1].name": "is the name of containers[0] too",
            "spec.template.spec.containers[1].ports[0].containerPort": taken,
            "spec.template.spec.containers[1].ports[1].containerPort": taken,
        }

    def test_a_pod_of_several_containers_is_right(self) -> None:
        document = a_deployment(ports=[{"containerPort": 53}])
        ports = [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 9090}]
        side = {"name": "side", "image": "side:1", "ports": ports}
        document["spec"]["template"]["spec"]["containers"].append(side)

        assert problems_of(document) == {}

    def test_init_containers_are_not_supported_yet(self) -> None:
        document = a_deployment()
        document["spec"]["template"]["spec"]["initContainers"] = [{"name": "init", "image": "init:1"}]

        assert problems_of(document) == {"spec.template.spec.initContainers": "not supported yet"}

    @pytest.mark.parametrize("document", [None, [], "x", 3, {}, {1: 2}, {"kind": []}])
    def test_what_is_no_document_at_all(self, document: object) -> None:
        assert problems_of(document)

    def test_a_compose_file_is_called_one(self) -> None:
        assert "Compose" in problems_of({"services": {"web": {"image": "a"}}})["services"]

    def test_variables_that_unfold_to_gigabytes(self) -> None:
        env = [{"name": "A0", "value": "x" * 1000}]
        env += [{"name": f"A{n}", "value": f"$(A{n - 1})" * 10} for n in range(1, 30)]

        assert (
            "unfolds to more than" in problems_of(a_deployment(env=env))["spec.template.spec.containers[0]"]
        )

    @pytest.mark.parametrize(
        "document",
        [
            a_deployment(env=[{"nam": 1, "valu": 2}] * 3000),
            a_deployment(**{f"k{n}x": n for n in range(9000)}),
            with_field(a_deployment(), f"{POD}.containers", [{}] * 9000),
            with_field(a_deployment(), "metadata.labels", {f"a b{n}": "c d" for n in range(5000)}),
            with_field(a_deployment(), "metadata.annotations", {"a": "x" * 300_000}),
            with_field(a_deployment(), "metadata.name", " " * 200_000),
            with_field(a_deployment(), "spec.template", [[]] * 20_000),
            a_service(ports=[{"port": 1}] * 4000),
            a_service(ports=[{"port": 1, "name": f"a{n}"} for n in range(251)]),
            endpoints({"addresses": [{"ip": "10.0.0.5"}] * 2500, "ports": [{"port": 1}] * 1500}),
            endpoints({"addresses": [{"ip": "10.0.0.5"}] * 3000, "ports": [{"port": 1, "name": "a"}] * 200}),
            with_field(an_ingress(), "spec.rules", an_ingress()["spec"]["rules"] * 900),
            with_field(an_ingress(), "metadata.annotations", {f"bayplan.io/a{n}": "" for n in range(4000)}),
        ],
        ids=[
            *("items", "fields", "containers", "labels", "large", "spaces", "values"),
            *("ports", "named ports", "unnamed endpoints", "endpoints", "rules", "annotations"),
        ],
    )
    def test_a_hostile_document_is_refused_quickly_and_briefly(self, document: dict[str, Any]) -> None:
        began = time.process_time()
        problems = problems_of(document)

        assert time.process_time() - began < 2
        assert 0 < len(problems) <= 50
        assert sum(map(len, problems.values())) < 20_000


class TestAccepted:
    def test_what_means_the_same_is_stored_the_same(self) -> None:
        short = a_deployment(resources={"limits": {"cpu": "0.5", "memory": "1024Mi"}})
        long = a_deployment(
            resources={"requests": {}, "limits": {"memory": "1Gi", "cpu": "500m"}}, command=None, args=[]
        )
        long = with_field(long, "metadata.namespace", "default")
        long = with_field(long, "spec.replicas", 1)
        long = with_field(long, f"{POD}.terminationGracePeriodSeconds", 30)

        assert the_deployment(short) == the_deployment(long)
        assert the_deployment(short).to_json_dict() == the_deployment(long).to_json_dict()

    def test_what_is_stored_reads_back_the_same(self) -> None:
        document = a_deployment(
            command=["a"],
            args=["b"],
            env=[{"name": "A", "value": "ü\n"}, {"name": "B"}],
            ports=[{"containerPort": 80, "name": "http", "protocol": "UDP"}],
            resources={"requests": {"cpu": "100m"}, "limits": {"cpu": 2, "memory": "64Mi"}},
            imagePullPolicy="Always",
        )
        document = with_field(document, f"{POD}.nodeSelector", {"kubernetes.io/os": "linux"})
        document = with_field(
            document, f"{POD}.tolerations", [{"operator": "Exists"}, {"key": "a", "value": "b"}]
        )
        resource = the_deployment(document)

        assert parse_json(json.dumps(resource.to_json_dict())).resource == resource

    def test_fields_that_kubernetes_writes_are_left_out_with_a_warning(self) -> None:
        document = with_field(a_deployment(), "status", {"replicas": 3})
        document["metadata"].update(uid="a", resourceVersion="1", creationTimestamp=None)
        document = with_field(document, "spec.strategy", {})

        parsed = parse_document(document)

        assert parsed.resource == the_deployment(a_deployment())
        assert [warning.split()[0] for warning in parsed.warnings] == [
            "status",
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "strategy",
        ]

    @pytest.mark.parametrize(
        "image",
        [
            "my-app:latest",
            "a/b/c__d.e-f:1.0_x",
            "localhost:5000/a",
            "registry.example.com/a@sha256:" + "0" * 64,
            "R:5000/a:X",
        ],
    )
    def test_names_of_images(self, image: str) -> None:
        assert problems_of(a_deployment(image=image)) == {}

    def test_a_limit_alone_is_a_request_too(self) -> None:
        document = a_deployment(
            resources={"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m"}}
        )

        requested = the_deployment(document).spec.template.spec.requested

        assert requested == Amounts(cpu_millis=100, memory_bytes=2**30, pods=1)

    def test_variables_are_filled_in_as_kubernetes_does(self) -> None:
        document = a_deployment(
            env=[{"name": "PORT", "value": "80"}, {"name": "URL", "value": "http://a:$(PORT)"}],
            args=["--url=$(URL)", "$$(PORT)", "$(MISSING)", "$PORT"],
        )
        container = the_deployment(document).spec.template.spec.containers[0]

        assert container.environment == {"PORT": "80", "URL": "http://a:80"}
        assert container.expanded_args == ("--url=http://a:80", "$(PORT)", "$(MISSING)", "$PORT")

    def test_programs_build_parts_by_pythons_names(self) -> None:
        container = Container(name="web", image="web:1", image_pull_policy="Never")

        assert container.to_json_dict() == {"name": "web", "image": "web:1", "imagePullPolicy": "Never"}


class TestTemplateHash:
    def template(self, **container: Any) -> PodTemplate:
        return the_deployment(a_deployment(**container)).spec.template

    def test_is_eight_digits_that_never_change(self) -> None:
        """A change here would restart every pod of every user on upgrade."""
        assert template_hash(self.template()) == "15dbc23d"

    def test_of_the_example_that_people_begin_with_never_changes(self) -> None:
        example = Path(__file__).parents[3] / "examples" / "my-app" / "deployment.yaml"
        (parsed,) = check_manifests(read_manifests([example]))

        assert isinstance(parsed.resource, Deployment)
        assert template_hash(parsed.resource.spec.template) == "c5f9a219"

    def test_does_not_depend_on_order_or_on_defaults_written_out(self) -> None:
        first = self.template(resources={}, env=[{"name": "A", "value": ""}])
        second = self.template(env=[{"value": None, "name": "A"}])

        assert template_hash(first) == template_hash(second)

    def test_depends_on_what_runs(self) -> None:
        assert template_hash(self.template(image="web:2")) != template_hash(self.template())

    def test_survives_the_store(self) -> None:
        template = self.template(args=["x"])

        assert template_from_json(template_json(template)) == template


class TestJson:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            '{"a": NaN}',
            '{"a": 1, "a": 2}',
            b"\xff",
            "[" * 100_000,
            "1" * 5000,
            '{"a":"' + "x" * 300_000 + '"}',
        ],
    )
    def test_refuses_what_is_no_json_for_a_document(self, text: str | bytes) -> None:
        with pytest.raises(DocumentError):
            parse_json(text)


class TestKinds:
    @pytest.mark.parametrize(
        ("word", "name"),
        [
            *((word, "Deployment") for word in ("deploy", "deployment", "Deployments")),
            *((word, "Deployment") for word in ("deployments.apps", "deployment.apps")),
            *((word, "Ingress") for word in ("ing", "ingress", "ingresses", "ingresses.networking.k8s.io")),
            *((word, "Endpoints") for word in ("ep", "endpoints", "Endpoints")),
            ("svc", "Service"),
        ],
    )
    def test_are_found_by_every_name_people_use(self, word: str, name: str) -> None:
        kind = find_kind(word)

        assert kind is not None
        assert kind.name == name

    def test_are_shown_as_kubectl_does(self) -> None:
        assert KINDS["Deployment"].full_name == "deployment.apps"
        assert KINDS["Service"].full_name == "service"
        assert KINDS["Ingress"].full_name == "ingress.networking.k8s.io"

    def test_what_is_no_kind_is_not_found(self) -> None:
        assert find_kind("nonsense") is None


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


class TestAnyInput:
    @settings(max_examples=200)
    @given(
        path=st.sampled_from(
            [
                "metadata",
                "metadata.name",
                "metadata.labels",
                "spec",
                "spec.selector",
                "spec.template",
                "spec.template.metadata",
                POD,
                f"{POD}.containers",
                f"{POD}.tolerations",
                CONTAINER,
                f"{CONTAINER}.env",
                f"{CONTAINER}.ports",
                f"{CONTAINER}.resources",
            ]
        ),
        value=JSON_VALUES,
    )
    def test_is_accepted_or_refused_in_plain_ascii(self, path: str, value: object) -> None:
        for message in problems_of(with_field(a_deployment(), path, value)).values():
            assert message.isascii()
            assert message.isprintable()

    @given(st.lists(st.text() | st.integers(0, 10**9 - 1)))
    def test_paths_travel_as_text(self, loc: list[str | int]) -> None:
        path = path_of(tuple(loc))

        assert path.isascii()
        assert path.isprintable()
        assert loc_of(path) == tuple(loc)
