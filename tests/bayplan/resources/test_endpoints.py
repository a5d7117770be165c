from __future__ import annotations

import json
from typing import Any

import pytest

from bayplan.resources.document import parse_document, parse_json
from bayplan.resources.endpoints import Endpoints, HandWritten
from bayplan.resources.service import ServicePort
from tests.bayplan.resources.builders import endpoints, problems_of

PORTS = [{"port": 5432}]


def the_endpoints(document: dict[str, Any]) -> Endpoints:
    resource = parse_document(document).resource
    assert isinstance(resource, Endpoints)
    return resource


class TestRefusals:
    @pytest.mark.parametrize(
        ("subset", "path", "message"),
        [
            ({"ports": PORTS}, "", "needs addresses or notReadyAddresses"),
            ({"addresses": [{"ip": "10.0.0.5"}], "ports": []}, ".ports", "must not be empty"),
            ({"addresses": [{"ip": "db.example.org"}], "ports": PORTS}, ".addresses[0].ip", "IPv4 address"),
            ({"addresses": [{"ip": "127.0.0.1"}], "ports": PORTS}, ".addresses[0].ip", "one host"),
            ({"addresses": [{"ip": "169.254.169.254"}], "ports": PORTS}, ".addresses[0].ip", "one host"),
            ({"addresses": [{"ip": "224.0.0.1"}], "ports": PORTS}, ".addresses[0].ip", "one host"),
            ({"addresses": [{"ip": "255.255.255.255"}], "ports": PORTS}, ".addresses[0].ip", "one host"),
            ({"addresses": [{"ip": "0.0.0.0"}], "ports": PORTS}, ".addresses[0].ip", "one host"),
            (
                {"addresses": [{"ip": "10.0.0.5", "hostname": "a.b"}], "ports": PORTS},
                ".addresses[0].hostname",
                "is not a name",
            ),
            (
                {
                    "addresses": [{"ip": "10.0.0.5"}],
                    "ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}],
                },
                ".ports[1].name",
                "is the name of ports[0] too",
            ),
            (
                {"addresses": [{"ip": "10.0.0.5"}] * 2, "ports": PORTS},
                ".addresses[1].ip",
                "is in subsets[0].addresses[0] already",
            ),
        ],
    )
    def test_says_what_is_wrong_with(self, subset: dict[str, Any], path: str, message: str) -> None:
        problems = problems_of(endpoints(subset))

        assert list(problems) == [f"subsets[0]{path}"]
        assert message in problems[f"subsets[0]{path}"]

    def test_one_address_has_one_state(self) -> None:
        ready = {"addresses": [{"ip": "10.0.0.5"}], "ports": [{"port": 1, "name": "a"}]}
        not_ready = {"notReadyAddresses": [{"ip": "10.0.0.5"}], "ports": [{"port": 2, "name": "b"}]}

        assert problems_of(endpoints(ready, not_ready)) == {
            "subsets[1].notReadyAddresses[0].ip": "is both ready and not ready"
        }


class TestAccepted:
    def test_reads_back_as_it_was_stored(self) -> None:
        subset = {
            "addresses": [{"ip": "10.0.0.5", "hostname": "db-0"}],
            "notReadyAddresses": [{"ip": "10.0.0.6"}],
            "ports": [{"port": 5432, "name": "sql", "appProtocol": "postgresql"}],
        }
        read = the_endpoints(endpoints(subset))

        assert parse_json(json.dumps(read.to_json_dict())).resource == read
        assert read.to_json_dict()["subsets"] == [subset]

    def test_there_may_be_none_yet(self) -> None:
        assert the_endpoints({**endpoints(), "subsets": []}).at([]) == ()

    def test_what_kubernetes_writes_about_pods_is_left_out_with_a_warning(self) -> None:
        address = {"ip": "10.0.0.5", "nodeName": "n1", "targetRef": {"kind": "Pod", "name": "db-0"}}
        parsed = parse_document(endpoints({"addresses": [address], "ports": PORTS}))

        assert [warning.split()[0] for warning in parsed.warnings] == ["nodeName", "targetRef"]
        assert parsed.resource == the_endpoints(endpoints())


class TestAt:
    def test_finds_ports_by_their_names_in_every_subset(self) -> None:
        read = the_endpoints(
            endpoints(
                {
                    "addresses": [{"ip": "10.0.0.5", "hostname": "a"}],
                    "notReadyAddresses": [{"ip": "10.0.0.6"}],
                    "ports": [{"port": 5432, "name": "sql"}],
                },
                {
                    "addresses": [{"ip": "10.0.0.5"}],
                    "ports": [
                        {"port": 9100, "name": "metrics"},
                        {"port": 53, "name": "metrics-udp", "protocol": "UDP"},
                    ],
                },
            )
        )
        ports = [ServicePort(port=9000, name="metrics"), ServicePort(port=5432, name="sql")]

        assert read.at(ports) == (
            HandWritten(address="10.0.0.5", hostname="a", is_ready=True, ports=(9100, 5432)),
            HandWritten(address="10.0.0.6", hostname="", is_ready=False, ports=(0, 5432)),
        )

    def test_one_port_needs_no_name(self) -> None:
        (found,) = the_endpoints(endpoints()).at([ServicePort(port=15432)])

        assert found.ports == (5432,)
