"""Probes and hooks out of a template."""

from __future__ import annotations

from typing import Any

import pytest

from agent.probes.model import Exec, GrpcCheck, Hooks, HttpGet, Probe, Probes, Sleep, TcpConnect
from agent.probes.reading import read_hooks, read_probes
from agent.template_fields import PodSpecError

PORTS = {"http": 8080}


def probes(**container: Any) -> Probes:
    return read_probes(container, "c", PORTS)


class TestProbes:
    def test_none_are_none(self) -> None:
        assert probes() == probes(readinessProbe=None, livenessProbe={}) == Probes()

    def test_defaults_are_kubernetes(self) -> None:
        found = probes(livenessProbe={"tcpSocket": {"port": 80}}).liveness
        assert found == Probe(
            check=TcpConnect(port=80),
            initial_delay_s=0,
            period_s=10,
            timeout_s=1,
            success_threshold=1,
            failure_threshold=3,
            grace_s=None,
        )

    def test_zeros_are_not_said(self) -> None:
        zeros = dict.fromkeys(
            (
                "initialDelaySeconds",
                "periodSeconds",
                "timeoutSeconds",
                "successThreshold",
                "failureThreshold",
            ),
            0,
        )
        assert probes(livenessProbe={"tcpSocket": {"port": 80}, **zeros}) == probes(
            livenessProbe={"tcpSocket": {"port": 80}}
        )

    def test_every_field_is_read(self) -> None:
        found = probes(
            startupProbe={
                "httpGet": {
                    "path": "healthz?full=1",
                    "port": "http",
                    "host": "example.org",
                    "scheme": "HTTPS",
                    "httpHeaders": [{"name": "X-Key", "value": "a"}, {"name": "X-Key", "value": "b"}],
                },
                "initialDelaySeconds": 2,
                "periodSeconds": 3,
                "timeoutSeconds": 4,
                "failureThreshold": 5,
                "terminationGracePeriodSeconds": 6,
            },
            readinessProbe={"grpc": {"port": 9000, "service": "shop.Cart"}, "successThreshold": 7},
            livenessProbe={"exec": {"command": ["sh", "-c", "true $(NOT_EXPANDED)"]}},
        )
        assert found.startup == Probe(
            check=HttpGet(
                port=8080,
                path="/healthz?full=1",
                host="example.org",
                is_tls=True,
                headers=(("X-Key", "a"), ("X-Key", "b")),
            ),
            initial_delay_s=2,
            period_s=3,
            timeout_s=4,
            failure_threshold=5,
            grace_s=6,
        )
        assert found.readiness == Probe(check=GrpcCheck(port=9000, service="shop.Cart"), success_threshold=7)
        assert found.liveness == Probe(check=Exec(command=("sh", "-c", "true $(NOT_EXPANDED)")))

    def test_a_number_as_text_is_a_port(self) -> None:
        found = probes(livenessProbe={"tcpSocket": {"port": "80"}}).liveness
        assert found is not None
        assert found.check == TcpConnect(port=80)

    @pytest.mark.parametrize(
        ("probe", "field"),
        [
            ({"periodSeconds": 1}, "says none of exec, httpGet, tcpSocket, grpc"),
            ({"exec": {"command": ["a"]}, "grpc": {"port": 1}}, "says exec and grpc of"),
            ({"exec": {}}, "exec.command: is missing"),
            ({"exec": {"command": "true"}}, "exec.command: is not a list"),
            ({"tcpSocket": {"port": "admin"}}, "tcpSocket.port: the container has no port named 'admin'"),
            ({"tcpSocket": {"port": 65536}}, "tcpSocket.port: 65536 is not a port"),
            ({"tcpSocket": {"port": True}}, "tcpSocket.port: True is not a port"),
            ({"tcpSocket": {}}, "tcpSocket.port: None is not a port"),
            ({"grpc": {"port": "http"}}, "grpc.port: 'http' is not a port"),
            ({"httpGet": {"port": 80, "scheme": "FTP"}}, "httpGet.scheme"),
            ({"httpGet": {"port": 80, "path": "/ HTTP/1.1\r\nX: y"}}, "httpGet.path"),
            ({"httpGet": {"port": 80, "host": "a/b"}}, "httpGet.host"),
            ({"httpGet": {"port": 80, "host": "user@a"}}, "httpGet.host"),
            ({"httpGet": {"port": 80, "httpHeaders": [{"name": "A: b\r\nC"}]}}, "httpHeaders[0].name"),
            (
                {"httpGet": {"port": 80, "httpHeaders": [{"name": "A", "value": "b\r\nC: d"}]}},
                "httpHeaders[0].value",
            ),
            ({"tcpSocket": {"port": 80}, "periodSeconds": -1}, "periodSeconds"),
            ({"tcpSocket": {"port": 80}, "timeoutSeconds": "1"}, "timeoutSeconds"),
            ({"tcpSocket": {"port": 80}, "failureThreshold": 1.5}, "failureThreshold"),
            ({"tcpSocket": {"port": 80}, "successThreshold": 2}, "successThreshold: must be 1"),
            ("x", "is not a mapping"),
        ],
    )
    def test_what_is_wrong_is_named(self, probe: Any, field: str) -> None:
        with pytest.raises(PodSpecError, match=r"^c\.livenessProbe") as caught:
            probes(livenessProbe=probe)
        assert field in str(caught.value)

    def test_a_readiness_probe_stops_nothing(self) -> None:
        with pytest.raises(PodSpecError, match="terminationGracePeriodSeconds"):
            probes(readinessProbe={"tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": 1})


class TestHooks:
    def test_are_read(self) -> None:
        lifecycle = {
            "postStart": {"httpGet": {"port": "http"}},
            "preStop": {"sleep": {"seconds": 5}},
        }
        found = read_hooks({"lifecycle": lifecycle}, "c", PORTS)
        assert found == Hooks(post_start=HttpGet(port=8080), pre_stop=Sleep(duration_s=5))

    def test_a_command(self) -> None:
        lifecycle = {"preStop": {"exec": {"command": ["nginx", "-s", "quit"]}}}
        found = read_hooks({"lifecycle": lifecycle}, "c", PORTS)
        assert found == Hooks(pre_stop=Exec(command=("nginx", "-s", "quit")))

    def test_a_connection_is_no_hook(self) -> None:
        """Kubernetes has the field and does nothing with it."""
        with pytest.raises(PodSpecError, match=r"c\.lifecycle\.preStop"):
            read_hooks({"lifecycle": {"preStop": {"tcpSocket": {"port": 80}}}}, "c", PORTS)
