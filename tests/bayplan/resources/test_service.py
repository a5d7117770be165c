from __future__ import annotations

import json
from typing import Any

import pytest

from bayplan.resources.document import parse_document, parse_json
from bayplan.resources.service import Service
from tests.bayplan.resources.builders import a_service, problems_of, with_annotations

TWO = [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]


def the_service(document: dict[str, Any]) -> Service:
    resource = parse_document(document).resource
    assert isinstance(resource, Service)
    return resource


class TestRefusals:
    @pytest.mark.parametrize(
        ("spec", "path", "message"),
        [
            ({"ports": []}, "ports", "is required, unless the service is headless"),
            ({"ports": None}, "ports", "is required, unless the service is headless"),
            ({"ports": [TWO[0], {"port": 2}]}, "ports[1]", "needs a name where there are several"),
            ({"ports": [TWO[0], {**TWO[1], "name": "a"}]}, "ports[1].name", "is the name of ports[0] too"),
            ({"ports": [TWO[0], {**TWO[1], "port": 80}]}, "ports[1].port", "is in ports[0] already"),
            ({"ports": [{"port": 1, "protocol": "SCTP"}]}, "ports[0].protocol", "must be TCP or UDP"),
            ({"ports": [{"port": 1, "name": "a b"}]}, "ports[0].name", "is not a name"),
            ({"ports": [{"port": 1, "appProtocol": "a\nb"}]}, "ports[0].appProtocol", "is not a key"),
            ({"ports": [{"port": 1, "nodePort": 30080}]}, "ports[0].nodePort", "needs the type NodePort"),
            (
                {
                    "type": "NodePort",
                    "ports": [{**one, "nodePort": 30080} for one in TWO],
                },
                "ports[1].nodePort",
                "is in ports[0] already",
            ),
            (
                {"type": "LoadBalancer", "ports": [TWO[0], {**TWO[1], "nodePort": 80}]},
                "ports[1].nodePort",
                "is published as the port of ports[0] already",
            ),
            ({"type": "Headless"}, "type", "must be ClusterIP, NodePort, LoadBalancer or ExternalName"),
            ({"clusterIP": "none"}, "clusterIP", "is not an IPv4 address"),
            ({"clusterIP": "fd00::1"}, "clusterIP", "IPv6 is not supported"),
            ({"clusterIP": "127.0.0.1"}, "clusterIP", "is not the address of one host"),
            ({"clusterIP": "10.96.0.010"}, "clusterIP", "is not an IPv4 address"),
            ({"clusterIP": "None", "type": "NodePort"}, "clusterIP", "None needs the type ClusterIP"),
            ({"clusterIPs": ["10.96.0.5", "fd00::1"]}, "clusterIPs[1]", "IPv6 is not supported"),
            ({"clusterIPs": ["10.96.0.5", "10.96.0.6"]}, "clusterIPs", "must be the one address"),
            (
                {"clusterIPs": ["10.96.0.5"], "clusterIP": "10.96.0.6"},
                "clusterIPs",
                "must be the one address",
            ),
            ({"ipFamilies": ["IPv6"]}, "ipFamilies[0]", "must be IPv4"),
            (
                {"ipFamilyPolicy": "RequireDualStack"},
                "ipFamilyPolicy",
                "must be SingleStack or PreferDualStack",
            ),
            ({"type": "ExternalName"}, "externalName", "is required"),
            ({"externalName": "db.example.org"}, "externalName", "needs the type ExternalName"),
            ({"type": "ExternalName", "externalName": "10.0.0.5"}, "externalName", "an address is none"),
            ({"type": "ExternalName", "externalName": "a..b"}, "externalName", "is not a host's name"),
            (
                {"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.96.0.5"},
                "clusterIP",
                "must be left out",
            ),
            ({"externalTrafficPolicy": "Local"}, "externalTrafficPolicy", "needs the type NodePort"),
            ({"internalTrafficPolicy": "local"}, "internalTrafficPolicy", "must be Cluster or Local"),
            ({"sessionAffinity": "Cookie"}, "sessionAffinity", "must be None or ClientIP"),
            (
                {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}},
                "sessionAffinityConfig",
                "needs sessionAffinity: ClientIP",
            ),
            (
                {
                    "sessionAffinity": "ClientIP",
                    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}},
                },
                "sessionAffinityConfig.clientIP.timeoutSeconds",
                "must be at most 86400",
            ),
            ({"allocateLoadBalancerNodePorts": False}, "allocateLoadBalancerNodePorts", "LoadBalancer"),
            ({"externalIPs": ["10.0.0.5"]}, "externalIPs", "bound at each node's publish addresses"),
            ({"loadBalancerClass": "tailscale"}, "loadBalancerClass", "at each node's publish addresses"),
            ({"loadBalancerIP": "10.0.0.5"}, "loadBalancerIP", "bound at each node's publish addresses"),
            ({"loadBalancerSourceRanges": ["10.0.0.0/8"]}, "loadBalancerSourceRanges", "use a firewall"),
            ({"healthCheckNodePort": 30000}, "healthCheckNodePort", "not supported"),
            ({"sessionAfinity": "ClientIP"}, "sessionAfinity", 'did you mean "sessionAffinity"?'),
            ({"externalIP": ["10.0.0.5"]}, "externalIP", 'did you mean "externalIPs"?'),
        ],
    )
    def test_says_what_is_wrong_with(self, spec: dict[str, Any], path: str, message: str) -> None:
        problems = problems_of(a_service(**spec))

        assert list(problems) == [f"spec.{path}"]
        assert message in problems[f"spec.{path}"]

    @pytest.mark.parametrize("port", ["80", "Web", "a--b", 0, 70000, True, 1.5, [], "x" * 16])
    def test_a_target_port_is_a_number_or_a_name(self, port: object) -> None:
        assert list(problems_of(a_service(ports=[{"port": 80, "targetPort": port}]))) == [
            "spec.ports[0].targetPort"
        ]

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("bayplan.io/balance", "random", "must be least-connections or round-robin or capacity"),
            ("bayplan.io/balanse", "capacity", 'did you mean "bayplan.io/balance"?'),
            ("bayplan.io/x", "", "is no annotation that Bayplan knows"),
            ("bayplan.io/protocol", "HTTP", "must be tcp or http"),
            ("bayplan.io/proxy-protocol", "v1", "must be v2"),
            ("bayplan.io/max-connections-per-pod", "0", "is not a whole number from 1 to"),
            ("bayplan.io/max-connections-per-pod", "1e3", "is not a whole number"),
            ("bayplan.io/max-connections-per-pod", "٣", "is not a whole number"),
            ("bayplan.io/queue-timeout", "30", "is no length of time: write it like 30s"),
            ("bayplan.io/queue-timeout", "", "is no length of time"),
            ("bayplan.io/request-timeout", "25h", "is not between 1ms and 24h"),
            ("bayplan.io/request-timeout", "0s", "is not between 1ms and 24h"),
            ("bayplan.io/drain-seconds", "5", "pods: write it under spec.template.metadata"),
        ],
    )
    def test_an_annotation_of_ours_that_says_nothing(self, key: str, value: str, message: str) -> None:
        problems = problems_of(with_annotations(a_service(), {key: value}))

        assert list(problems) == [f'metadata.annotations["{key}"]']
        assert message in problems[f'metadata.annotations["{key}"]']


class TestAccepted:
    @pytest.mark.parametrize(
        "spec",
        [
            {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"},
            {"type": "NodePort", "ports": [{"port": 53, "protocol": "UDP", "nodePort": 30053}]},
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]},
            {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False},
            {"clusterIP": "None", "ports": None, "selector": {"app": "db"}},
            {"clusterIP": "None", "publishNotReadyAddresses": True},
            {"clusterIP": "10.96.7.5"},
            {"type": "ExternalName", "externalName": "db.example.org", "ports": None},
            {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            },
            {
                "ports": [
                    {"port": 53, "name": "dns", "protocol": "UDP", "targetPort": "dns"},
                    {"port": 53, "name": "dns-tcp", "targetPort": 5353, "appProtocol": "kubernetes.io/ws"},
                ]
            },
        ],
    )
    def test_reads_back_as_it_was_stored(self, spec: dict[str, Any]) -> None:
        service = the_service(a_service(**spec))

        assert parse_json(json.dumps(service.to_json_dict())).resource == service
        wanted = {key: value for key, value in a_service(**spec)["spec"].items() if value is not None}
        assert service.to_json_dict()["spec"] == wanted

    def test_what_means_the_default_is_not_kept(self) -> None:
        written = a_service(
            type="ClusterIP",
            clusterIP="",
            clusterIPs=[""],
            ipFamilies=["IPv4"],
            ipFamilyPolicy="SingleStack",
            sessionAffinity="None",
            sessionAffinityConfig={"clientIP": {"timeoutSeconds": 10800}},
            externalTrafficPolicy="Cluster",
            internalTrafficPolicy="Cluster",
            publishNotReadyAddresses=False,
            allocateLoadBalancerNodePorts=True,
            selector={},
            externalIPs=[],
        )

        assert the_service(written) == the_service(a_service())

    def test_two_spellings_of_an_address_are_one(self) -> None:
        service = the_service(a_service(clusterIPs=["10.96.0.5"]))

        assert service.to_json_dict()["spec"]["clusterIP"] == "10.96.0.5"
        assert "clusterIPs" not in service.to_json_dict()["spec"]
        assert service == the_service(a_service(clusterIP="10.96.0.5", clusterIPs=["10.96.0.5"]))

        headless = the_service(a_service(clusterIPs=["None"], ports=[]))
        assert headless.spec.is_headless

    def test_a_name_may_end_with_a_dot(self) -> None:
        service = the_service(a_service(type="ExternalName", externalName="db.example.org."))

        assert service.spec.external_name == "db.example.org"

    @pytest.mark.parametrize(
        ("spec", "address", "published", "node_ports"),
        [
            ({}, True, False, False),
            ({"type": "NodePort"}, True, True, True),
            ({"type": "LoadBalancer"}, True, True, True),
            ({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}, True, True, False),
            ({"clusterIP": "None"}, False, False, False),
            ({"type": "ExternalName", "externalName": "a.b"}, False, False, False),
        ],
    )
    def test_says_what_the_leader_has_to_give(
        self, spec: dict[str, Any], *, address: bool, published: bool, node_ports: bool
    ) -> None:
        read = the_service(a_service(**spec)).spec

        assert (read.has_address, read.is_published, read.needs_node_ports) == (
            address,
            published,
            node_ports,
        )

    def test_affinity_lasts_three_hours_unless_it_is_said(self) -> None:
        config = {"clientIP": {"timeoutSeconds": 60}}

        assert the_service(a_service()).spec.affinity_s == 0
        assert the_service(a_service(sessionAffinity="ClientIP")).spec.affinity_s == 10_800
        limited = a_service(sessionAffinity="ClientIP", sessionAffinityConfig=config)
        assert the_service(limited).spec.affinity_s == 60


LOCAL: dict[str, Any] = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}


class TestWarnings:
    def warnings(self, annotations: dict[str, str] | None = None, **spec: Any) -> tuple[str, ...]:
        document = a_service(**spec)
        return parse_document(with_annotations(document, annotations) if annotations else document).warnings

    def test_there_are_none_of_the_usual(self) -> None:
        assert self.warnings() == ()
        assert self.warnings(type="LoadBalancer", ports=[{"port": 80, "targetPort": 8080}]) == ()
        assert self.warnings(selector={}) == ()

    def test_clients_that_pods_cannot_see_although_they_were_asked_for(self) -> None:
        (warning,) = self.warnings(**LOCAL, ports=[{"port": 5432}])

        assert warning.startswith("port 5432: pods see a node's address in place of the client's")
        assert 'bayplan.io/proxy-protocol: "v2"' in warning
        assert "appProtocol: http" in warning

    @pytest.mark.parametrize(
        ("annotations", "port"),
        [
            ({"bayplan.io/proxy-protocol": "v2"}, {"port": 5432}),
            ({"bayplan.io/protocol": "http"}, {"port": 5432}),
            ({}, {"port": 80, "name": "http"}),
            ({}, {"port": 80, "appProtocol": "http"}),
            ({}, {"port": 53, "protocol": "UDP"}),
        ],
    )
    def test_not_where_they_can(self, annotations: dict[str, str], port: dict[str, Any]) -> None:
        assert self.warnings(annotations, **LOCAL, ports=[port]) == ()

    def test_of_grpc_says_how_it_is_balanced(self) -> None:
        (warning,) = self.warnings(ports=[{"port": 50051, "appProtocol": "grpc"}])

        assert "port 50051: grpc is carried as plain TCP" in warning

    @pytest.mark.parametrize(
        ("spec", "begin"),
        [
            ({"trafficDistribution": "PreferClose"}, "trafficDistribution is left out"),
            ({"ipFamilyPolicy": "PreferDualStack"}, "ipFamilyPolicy is left out"),
            ({"clusterIP": "None", "sessionAffinity": "ClientIP"}, "sessionAffinity means nothing"),
            (
                {
                    "sessionAffinity": "ClientIP",
                    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
                },
                "sessionAffinityConfig means nothing",
            ),
            (
                {"type": "ExternalName", "externalName": "a.b", "selector": {"a": "b"}},
                "selector means nothing",
            ),
        ],
    )
    def test_name_what_changes_nothing(self, spec: dict[str, Any], begin: str) -> None:
        (warning,) = self.warnings(**spec)

        assert warning.startswith(begin)

    def test_name_annotations_that_change_nothing(self) -> None:
        (ours,) = self.warnings({"bayplan.io/balance": "capacity"}, clusterIP="None")
        (theirs,) = self.warnings({"service.beta.kubernetes.io/aws-load-balancer-type": "nlb"})

        assert ours.startswith('the annotation "bayplan.io/balance" means nothing')
        assert "aws-load-balancer-type means nothing here" in theirs
        assert self.warnings({"team": "blue", "example.org/io": "x"}) == ()
