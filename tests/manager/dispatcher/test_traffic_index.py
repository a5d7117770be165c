from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bayplan.model.names import PodId
from manager.dispatcher.traffic_index import Selector, TrafficIndex

NAMESPACES = ("shop", "blog")
LABELS = st.dictionaries(st.sampled_from(["app", "tier", "env"]), st.sampled_from(["a", "b"]), max_size=3)
PODS = [PodId(uid, slot, 1) for uid in ("u1", "u2", "u3") for slot in range(2)]

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("service"), st.sampled_from(["shop/x", "shop/y", "blog/z"]), LABELS),
        st.tuples(st.just("drop service"), st.sampled_from(["shop/x", "shop/y", "blog/z"]), st.none()),
        st.tuples(st.just("pod"), st.sampled_from(PODS), st.sampled_from(NAMESPACES)),
        st.tuples(st.just("drop pod"), st.sampled_from(PODS), st.none()),
    ),
    max_size=40,
)


class TestIndex:
    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(STEPS, st.fixed_dictionaries(dict.fromkeys(("u1", "u2", "u3"), LABELS)))
    def test_finds_what_a_search_through_everything_finds(
        self, steps: list[tuple[str, Any, Any]], labels: dict[str, dict[str, str]]
    ) -> None:
        index = TrafficIndex()
        services: dict[str, Selector] = {}
        pods: dict[PodId, str] = {}
        for what, which, how in steps:
            match what:
                case "service":
                    services[which] = tuple(sorted(how.items()))
                    index.put_service(which, which.partition("/")[0], services[which])
                case "drop service":
                    services.pop(which, None)
                    index.drop_service(which)
                case "pod":
                    pods[which] = how
                    index.put_pod(which, how, "r1", labels[which.workload_uid])
                case "drop pod":
                    pods.pop(which, None)
                    index.drop_pod(which)

            def found_by(key: str) -> set[PodId]:
                return {
                    pod
                    for pod, namespace in pods.items()
                    if services[key]
                    and namespace == key.partition("/")[0]
                    and set(services[key]) <= labels[pod.workload_uid].items()
                }

            assert {key: set(index.pods_of(key)) for key in services} == {
                key: found_by(key) for key in services
            }
            for pod in PODS:
                assert index.services_of(pod) == {key for key in services if pod in found_by(key)}
                assert index.knows(pod) == (pod in pods)

    def test_leaves_nothing_behind(self) -> None:
        """Templates and services come and go for years."""
        index = TrafficIndex()
        for turn in range(3):
            pod = PodId(f"u{turn}", 0, 1)
            index.put_service("shop/x", "shop", (("app", str(turn)),))
            index.put_pod(pod, "shop", f"r{turn}", {"app": str(turn), "tier": "web"})
            index.drop_pod(pod)
            index.drop_service("shop/x")

        held = [getattr(index, name) for name in vars(index)]
        assert not any(held)
