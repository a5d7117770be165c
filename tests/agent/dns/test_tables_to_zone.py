from __future__ import annotations

from agent.dns.tables_to_zone import ZoneLines
from agent.network.table import NetworkTable
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.dns.builders import a_network, a_service, a_traffic, an_endpoint


class TestLines:
    def test_there_are_none_without_a_network(self) -> None:
        assert ZoneLines().of(NetworkTable(), a_traffic(a_service(vip="10.96.0.7"))) == []

    def test_a_pod_that_becomes_ready_changes_only_what_names_pods(self) -> None:
        """2,000 services with an address and their pods' comings and goings: nothing is written."""
        lines = ZoneLines()
        for service, changes in ((a_service(vip="10.96.0.7"), 0), (a_service(), 1)):
            ready = a_traffic(service, web=[an_endpoint("127.42.3.9")])
            not_ready = a_traffic(service, web=[an_endpoint("127.42.3.9", ready=False)])

            before, after = lines.of(a_network(), ready), lines.of(a_network(), not_ready)

            assert sum(one != other for one, other in zip(before, after, strict=True)) == changes

    def test_follow_from_what_is_there_and_not_from_its_order(self) -> None:
        service, pods = a_service(), [an_endpoint("127.42.3.9"), an_endpoint("127.42.3.8")]

        assert ZoneLines().of(a_network(), a_traffic(service, web=pods)) == ZoneLines().of(
            a_network(), a_traffic(service, web=pods[::-1])
        )

    def test_of_a_table_that_was_changed_are_those_of_a_new_one(self) -> None:
        lines, traffic = ZoneLines(), a_traffic(a_service(), a_service("db"), web=[an_endpoint("127.42.3.9")])
        lines.of(a_network(), traffic)

        changed = traffic.fold(
            pb.Traffic(
                version=2,
                services=[a_service("shop", vip="10.96.0.8")],
                gone=["default/db"],
                endpoints=[pb.EndpointChanges(service="default/web", put=[an_endpoint("127.42.3.10")])],
            )
        )

        assert lines.of(a_network(), changed) == ZoneLines().of(a_network(), changed)
        assert len(lines.of(a_network(), changed)) == 3

    def test_an_address_that_is_none_is_left_out(self) -> None:
        lines = ZoneLines().of(a_network(), a_traffic(a_service(), web=[an_endpoint("nothing")]))

        assert "nothing" not in lines[1]

    def test_of_a_service_that_lacks_its_address_name_no_pod(self) -> None:
        """Programs would take it for a headless one, and keep the addresses of its pods."""
        service = a_service()
        service.lacks_vip = True
        lines = ZoneLines().of(a_network(), a_traffic(service, web=[an_endpoint("127.42.3.9")]))

        assert "127.42.3.9" not in "".join(lines)
