from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayplan.resources import traffic
from bayplan.resources.document import parse_document
from bayplan.resources.pods import PodTemplate
from bayplan.resources.service import ServicePort
from bayplan.resources.workloads import Deployment
from tests.bayplan.resources.builders import (
    a_deployment,
    a_service,
    problems_of,
    with_annotations,
    with_field,
)


def a_template(annotations: dict[str, str] | None = None, **container: Any) -> PodTemplate:
    document = with_field(a_deployment(**container), "spec.template.metadata.annotations", annotations or {})
    resource = parse_document(document).resource
    assert isinstance(resource, Deployment)
    return resource.spec.template


class TestProtocol:
    @pytest.mark.parametrize(
        ("app_protocol", "name", "annotation", "is_http"),
        [
            (None, None, None, False),
            (None, "http", None, True),
            (None, "http-admin", None, True),
            (None, "https", None, False),
            (None, "httpd", None, False),
            (None, None, "http", True),
            (None, "http", "tcp", False),
            (None, "mysql", "http", True),
            ("http", "mysql", "tcp", True),
            ("HTTP", None, None, True),
            ("kubernetes.io/ws", None, None, True),
            ("kubernetes.io/wss", "http", "http", False),
            ("kubernetes.io/h2c", "http", "http", False),
            ("https", "http", None, False),
            ("tcp", "http", "http", False),
        ],
    )
    def test_is_told_by_app_protocol_then_annotation_then_name(
        self, app_protocol: str | None, name: str | None, annotation: str | None, *, is_http: bool
    ) -> None:
        port = ServicePort(port=80, name=name, app_protocol=app_protocol)
        annotations = {"bayplan.io/protocol": annotation} if annotation else {}

        assert traffic.is_http(port, annotations) is is_http

    def test_is_never_http_over_udp(self) -> None:
        port = ServicePort(port=80, name="http", protocol="UDP", app_protocol="http")

        assert not traffic.is_http(port, {"bayplan.io/protocol": "http"})
        assert not traffic.proxy_protocol_of(port, {"bayplan.io/proxy-protocol": "v2"})

    def test_the_proxy_header_is_for_every_tcp_port_of_who_asks_for_it(self) -> None:
        port = ServicePort(port=80)

        assert traffic.proxy_protocol_of(port, {"bayplan.io/proxy-protocol": "v2"})
        assert not traffic.proxy_protocol_of(port, {})


class TestAnnotations:
    def test_have_defaults(self) -> None:
        assert traffic.balance_of({}) == "least-connections"
        assert traffic.max_connections_of({}) == 0
        assert traffic.queue_timeout_ms_of({}) == 0
        assert traffic.request_timeout_ms_of({}) == 0

    def test_are_read(self) -> None:
        annotations = {
            "bayplan.io/balance": "capacity",
            "bayplan.io/max-connections-per-pod": "200",
            "bayplan.io/queue-timeout": "1m30s",
            "bayplan.io/request-timeout": "500ms",
        }

        assert problems_of(with_annotations(a_service(), annotations)) == {}
        assert traffic.balance_of(annotations) == "capacity"
        assert traffic.max_connections_of(annotations) == 200
        assert traffic.queue_timeout_ms_of(annotations) == 90_000
        assert traffic.request_timeout_ms_of(annotations) == 500

    @pytest.mark.parametrize(
        ("text", "length_ms"),
        [
            ("30s", 30_000),
            ("1.5s", 1500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1s500ms", 1500),
            ("24h", 86_400_000),
        ],
    )
    def test_lengths_of_time(self, text: str, length_ms: int) -> None:
        assert traffic.request_timeout_ms_of({"bayplan.io/request-timeout": text}) == length_ms

    @given(
        st.dictionaries(
            st.sampled_from(
                ["balance", "protocol", "proxy-protocol", "max-connections-per-pod", "queue-timeout", "x"]
            ).map("bayplan.io/".__add__),
            st.text() | st.from_regex(r"[0-9.hms]{1,8}") | st.sampled_from(["tcp", "v2", "capacity"]),
        )
    )
    def test_what_was_accepted_is_read_without_an_error(self, annotations: dict[str, str]) -> None:
        """Also anything else than a DocumentError fails."""
        if problems_of(with_annotations(a_service(), annotations)):
            return

        assert traffic.balance_of(annotations) in {"least-connections", "round-robin", "capacity"}
        assert traffic.max_connections_of(annotations) >= 0
        assert 0 <= traffic.queue_timeout_ms_of(annotations) <= 86_400_000


class TestPods:
    def test_have_the_capacity_that_they_say_else_that_of_their_cpus(self) -> None:
        cpus: dict[str, Any] = {"resources": {"requests": {"cpu": "250m"}}}

        assert traffic.capacity_of(a_template({"bayplan.io/capacity": "2.5"}, **cpus)) == 2500
        assert traffic.capacity_of(a_template(**cpus)) == 250
        assert traffic.capacity_of(a_template(resources={"limits": {"cpu": "2"}})) == 2000
        assert traffic.capacity_of(a_template()) == 1000

    def test_drain_for_half_a_minute_unless_they_say_otherwise(self) -> None:
        assert traffic.drain_s_of(a_template()) == 30
        assert traffic.drain_s_of(a_template({"bayplan.io/drain-seconds": "0"})) == 0

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("bayplan.io/capacity", "0", "is not a capacity"),
            ("bayplan.io/capacity", "-1", "is negative"),
            ("bayplan.io/capacity", "much", "is not a quantity"),
            ("bayplan.io/drain-seconds", "3601", "is not a whole number from 0 to 3600"),
            ("bayplan.io/drain-second", "3", 'did you mean "bayplan.io/drain-seconds"?'),
            ("bayplan.io/balance", "capacity", "is an annotation of a Service"),
        ],
    )
    def test_are_refused_with_annotations_that_say_nothing(self, key: str, value: str, message: str) -> None:
        path = "spec.template.metadata.annotations"
        problems = problems_of(with_field(a_deployment(), path, {key: value}))

        assert list(problems) == [f'{path}["{key}"]']
        assert message in problems[f'{path}["{key}"]']

    def test_are_annotated_in_their_template_and_not_in_the_deployment(self) -> None:
        document = with_annotations(a_deployment(), {"bayplan.io/drain-seconds": "5"})

        (message,) = problems_of(document).values()
        assert message == "is an annotation of pods: write it under spec.template.metadata"
