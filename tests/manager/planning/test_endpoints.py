from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bayplan.model.placements import Want
from bayplan.model.states import PodState
from manager.planning.endpoints import (
    BackendView,
    Endpoint,
    PortView,
    ServiceView,
    TemplateView,
    endpoints_of,
    weights_of,
)

checked = settings(max_examples=300, deadline=None, derandomize=True)

WEB = TemplateView(labels={"app": "web"}, ports={("http", False): 8080})


def a_service(**more: Any) -> ServiceView:
    """Web on a VIP, port 80 to the pods' 8080."""
    given: dict[str, Any] = {
        "namespace": "shop",
        "name": "web",
        "vip": "10.96.0.9",
        "ports": (PortView(port=80, target=8080),),
        "selector": (("app", "web"),),
    }
    return ServiceView(**{**given, **more})


def a_backend(uid: str = "u.0.1", **more: Any) -> BackendView:
    """A ready pod on n1."""
    given: dict[str, Any] = {
        "name": f"web-{uid}",
        "node": "n1",
        "want": Want.RUN,
        "template": WEB,
        "state": PodState.RUNNING,
        "ready": True,
        "address": "10.42.1.2",
    }
    return BackendView(uid=uid, **{**given, **more})


def ids(service: ServiceView, *pods: BackendView) -> list[str]:
    return [endpoint.id for endpoint in endpoints_of(service, pods).endpoints]


class TestWhoServes:
    def test_a_ready_pod_with_what_proxies_need_of_it(self) -> None:
        (endpoint,) = endpoints_of(a_service(), [a_backend()]).endpoints

        assert endpoint == Endpoint(
            id="u.0.1",
            node="n1",
            address="10.42.1.2",
            name="web-u.0.1",
            ports=(8080,),
            ready=True,
            weight=256,
        )

    def test_a_pod_that_hands_over_until_its_replacement_is_ready(self) -> None:
        assert ids(a_service(), a_backend(want=Want.HANDOVER)) == ["u.0.1"]

    def test_no_pod_that_is_to_stop_or_was_counted_lost(self) -> None:
        """Whatever its agent says of it."""
        assert ids(a_service(), a_backend(want=Want.STOP), a_backend("u.1.1", want=Want.LOST)) == []

    def test_no_pod_of_a_node_that_is_down(self) -> None:
        assert ids(a_service(), a_backend(is_node_down=True)) == []

    def test_no_pod_that_has_ended_or_has_no_address(self) -> None:
        ended = a_backend(state=PodState.FAILED)
        without = a_backend("u.1.1", address="")

        assert ids(a_service(publish_not_ready=True), ended, without) == []

    def test_one_that_is_not_ready_only_where_the_service_asks_for_it_and_then_it_is_said(self) -> None:
        pod = a_backend(ready=False)

        assert ids(a_service(), pod) == []
        assert [e.ready for e in endpoints_of(a_service(publish_not_ready=True), [pod]).endpoints] == [False]

    def test_a_silent_pod_leaves_the_set_unknown_and_the_others_in_it(self) -> None:
        found = endpoints_of(
            a_service(), [a_backend(state=None), a_backend("u.1.1"), a_backend("u.2.1", ready=False)]
        )

        assert not found.is_whole
        assert found.unknown == ("u.0.1",)
        assert [endpoint.id for endpoint in found.endpoints] == ["u.1.1"]
        assert found.absent == ("u.2.1",)

    def test_a_silent_pod_that_is_out_anyhow_is_not_waited_for(self) -> None:
        stopping = a_backend(state=None, want=Want.STOP)
        dead = a_backend("u.1.1", state=None, is_node_down=True)

        assert endpoints_of(a_service(), [stopping, dead]).is_whole

    def test_nobody_stands_behind_a_name_for_another_name(self) -> None:
        assert endpoints_of(a_service(external_name="db.example.org"), [a_backend()]).endpoints == ()


class TestPorts:
    def test_a_named_port_is_looked_up_in_each_pods_own_template(self) -> None:
        service = a_service(ports=(PortView(port=80, target="http"),))
        newer = a_backend("u.1.2", template=TemplateView(ports={("http", False): 9090}))

        assert [e.ports for e in endpoints_of(service, [a_backend(), newer]).endpoints] == [(8080,), (9090,)]

    def test_a_name_is_of_one_protocol(self) -> None:
        service = a_service(
            ports=(PortView(port=53, target="dns", udp=True), PortView(port=53, target="dns"))
        )
        template = TemplateView(ports={("dns", True): 5353})

        assert endpoints_of(service, [a_backend(template=template)]).endpoints[0].ports == (5353, 0)


class TestNames:
    def test_a_pod_has_one_within_the_service_that_is_its_subdomain(self) -> None:
        template = TemplateView(hostname="db-0", subdomain="db")

        def hostname(service: str) -> str:
            return endpoints_of(a_service(name=service), [a_backend(template=template)]).endpoints[0].hostname

        assert (hostname("db"), hostname("db-all")) == ("db-0", "")


class TestByHand:
    def test_addresses_outside_of_the_cluster_stand_for_pods(self) -> None:
        written = Endpoint(id="192.0.2.7", address="192.0.2.7", ports=(5432,))
        other = Endpoint(id="192.0.2.8", address="192.0.2.8", ports=(5432,), ready=False)

        assert ids(a_service(selector=(), by_hand=(other, written)), a_backend()) == ["192.0.2.7"]


class TestWeights:
    def test_shares_follow_what_pods_can_process(self) -> None:
        assert weights_of([2000, 500, 1000]) == [256, 64, 128]

    def test_even_the_smallest_gets_something(self) -> None:
        assert weights_of([1_000_000, 1]) == [256, 1]

    def test_who_does_not_say_counts_as_the_smallest(self) -> None:
        assert weights_of([0, 500, 1000]) == [128, 128, 256]
        assert weights_of([0, 0]) == [256, 256]

    def test_only_where_the_service_asks_for_it(self) -> None:
        """Elsewhere weights would bend least-connections and round-robin too."""
        pods = [
            a_backend(template=TemplateView(capacity=1)),
            a_backend("u.1.1", template=TemplateView(capacity=2)),
        ]

        def weights(service: ServiceView) -> list[int]:
            return [endpoint.weight for endpoint in endpoints_of(service, pods).endpoints]

        assert weights(a_service()) == [256, 256]
        assert weights(a_service(balance="capacity")) == [128, 256]


@st.composite
def some_backends(draw: st.DrawFn) -> list[BackendView]:
    return [
        a_backend(
            f"u.{slot}.1",
            node=draw(st.sampled_from(["n1", "n2"])),
            want=draw(st.sampled_from(Want)),
            state=draw(st.sampled_from([None, *PodState])),
            ready=draw(st.booleans()),
            address=draw(st.sampled_from(["", "10.42.1.2"])),
            is_node_down=draw(st.booleans()),
            template=TemplateView(capacity=draw(st.floats(0, 1e6))),
        )
        for slot in range(draw(st.integers(0, 6)))
    ]


def some_services() -> st.SearchStrategy[ServiceView]:
    return st.builds(
        lambda publish, balance: a_service(publish_not_ready=publish, balance=balance),
        st.booleans(),
        st.sampled_from(["least-connections", "round-robin", "capacity"]),
    )


class TestEverySet:
    @checked
    @given(some_services(), some_backends())
    def test_names_only_ready_pods_and_never_one_that_is_to_stop(
        self, service: ServiceView, pods: list[BackendView]
    ) -> None:
        by_uid = {pod.uid: pod for pod in pods}
        for endpoint in endpoints_of(service, pods).endpoints:
            pod = by_uid[endpoint.id]
            assert pod.want in (Want.RUN, Want.HANDOVER)
            assert not pod.is_node_down
            assert pod.state is not None
            assert not pod.state.is_terminal
            assert endpoint.ready == pod.ready
            assert pod.ready or service.publish_not_ready
            assert endpoint.address
            assert 1 <= endpoint.weight <= 256

    @checked
    @given(some_services(), some_backends())
    def test_says_of_every_pod_whether_it_is_in_or_out_or_unknown(
        self, service: ServiceView, pods: list[BackendView]
    ) -> None:
        found = endpoints_of(service, pods)
        said = [*(endpoint.id for endpoint in found.endpoints), *found.absent, *found.unknown]

        assert sorted(said) == sorted(pod.uid for pod in pods)
        assert found.is_whole == all(pod.is_leaving or pod.state is not None for pod in pods)

    @checked
    @given(some_services(), some_backends(), st.randoms(use_true_random=False))
    def test_does_not_depend_on_the_order_of_pods(
        self, service: ServiceView, pods: list[BackendView], random: Any
    ) -> None:
        shuffled = list(pods)
        random.shuffle(shuffled)

        assert endpoints_of(service, pods) == endpoints_of(service, shuffled)

    @checked
    @given(some_services(), some_backends(), st.integers(0, 5))
    def test_loses_a_pod_the_moment_it_is_to_stop(
        self, service: ServiceView, pods: list[BackendView], which: int
    ) -> None:
        if not pods:
            return
        index = which % len(pods)
        after = [*pods[:index], replace(pods[index], want=Want.STOP), *pods[index + 1 :]]

        assert pods[index].uid not in {endpoint.id for endpoint in endpoints_of(service, after).endpoints}
