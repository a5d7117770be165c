from __future__ import annotations

from dataclasses import replace

import pytest

from bayplan.model.names import PodId
from bayplan.model.nodes import Amounts, NodeFacts
from bayplan.model.placements import Cause, Placement, Want
from bayplan.model.states import PodState
from bayplan.v1 import agent_link_pb2 as wire
from manager.cluster_state import ClusterState
from manager.planning.endpoints import BackendView, TemplateView
from manager.traffic_views import backend_view, template_view

POD = PodId("u", 0, 1)
PLACEMENT = Placement(pod=POD, node="n1", revision="r1", want=Want.RUN, cause=Cause.CREATED)


def a_state(*, was_known: bool, has_reported: bool) -> ClusterState:
    state = ClusterState()
    state.put_node(NodeFacts(name="n1", number=1, joined_ms=0, capacity=Amounts()))
    state.put_placement(PLACEMENT)
    state.nodes["n1"].was_known, state.nodes["n1"].has_reported = was_known, has_reported
    return state


def seen(state: ClusterState) -> BackendView:
    return backend_view(state, PLACEMENT, TemplateView(), is_node_down=False)


class TestBackends:
    @pytest.mark.parametrize(
        ("was_known", "has_reported", "expected"),
        [
            (False, False, None),
            (True, True, PodState.ASSIGNED),
            # Its stream broke and begins anew: what was last seen holds until it reports again.
            (True, False, PodState.ASSIGNED),
        ],
    )
    def test_nothing_is_known_of_a_pod_before_its_node_has_told_all_it_has(
        self, *, was_known: bool, has_reported: bool, expected: PodState | None
    ) -> None:
        assert seen(a_state(was_known=was_known, has_reported=has_reported)).state is expected

    def test_what_an_agent_does_not_know_itself_is_not_known(self) -> None:
        """Its engine has not answered yet."""
        state = a_state(was_known=True, has_reported=True)
        state.nodes["n1"].statuses[str(POD)] = wire.PodStatus(uid=str(POD), reason="Unknown")

        assert seen(state).state is None


def with_address(address: str, *, node_address: str = "192.0.2.1", host_network: bool = False) -> str:
    """Where proxies find a ready pod of n1, whose part is 10.42.3.0/24."""
    state = a_state(was_known=True, has_reported=True)
    facts = replace(state.nodes["n1"].facts, address=node_address, subnet="10.42.3.0/24")
    state.put_node(facts)
    state.nodes["n1"].statuses[str(POD)] = wire.PodStatus(uid=str(POD), ready=True, address=address)
    template = TemplateView(host_network=host_network)
    return backend_view(state, PLACEMENT, template, is_node_down=False).address


class TestAddresses:
    def test_are_those_of_the_nodes_own_part(self) -> None:
        assert with_address("10.42.3.9") == "10.42.3.9"

    @pytest.mark.parametrize(
        "address", ["172.17.0.2", "10.42.4.9", "10.96.0.1", "", "nonsense", "10.42.3.9\nserver evil"]
    )
    def test_that_no_other_node_would_reach_are_none(self, address: str) -> None:
        """Of a pod from before there was a pods' network, of another node's pods, or made up."""
        assert with_address(address) == ""

    def test_of_pods_on_the_hosts_network_are_the_nodes(self) -> None:
        """The engine knows none for them."""
        assert with_address("", host_network=True) == "192.0.2.1"
        assert with_address("172.17.0.2", host_network=True) == "192.0.2.1"

    def test_of_a_host_that_is_known_by_name_are_not_known(self) -> None:
        assert with_address("", host_network=True, node_address="host-1.example.org") == ""


class TestTemplates:
    def test_say_what_proxies_need(self) -> None:
        container = {
            "name": "app",
            "image": "app:1",
            "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9090}],
            "resources": {"requests": {"cpu": "500m"}},
        }
        annotations = {"bayplan.io/drain-seconds": "5"}
        view = template_view(
            {
                "metadata": {"labels": {"app": "web"}, "annotations": annotations},
                "spec": {"containers": [container], "hostname": "web-0", "subdomain": "web"},
            }
        )

        assert view == TemplateView(
            labels={"app": "web"},
            ports={("http", False): 8080},
            hostname="web-0",
            subdomain="web",
            capacity=500,
            drain_s=5,
        )

    def test_of_another_version_keep_their_labels(self) -> None:
        """A pod that runs is not taken out of its services because a manager understands less."""
        template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [], "fromTheFuture": 1}}

        assert template_view(template) == TemplateView(labels={"app": "web"})

    @pytest.mark.parametrize("template", [None, {}, {"spec": {"containers": "nonsense"}}])
    def test_that_cannot_be_read_say_nothing(self, template: dict[str, object] | None) -> None:
        assert template_view(template) == TemplateView()
