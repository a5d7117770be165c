"""What holds for every cluster, whatever happened to it. Each plan on the way is checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bayplan.model.nodes import NodeState, Taint
from bayplan.model.placements import Want
from bayplan.model.states import PodState
from manager.planning.changes import PlacePod, Plan, SetWant
from manager.planning.view import ClusterView, NodeView, PodView, Requirements, WorkloadView
from tests.builders import NOW_S, a_cluster, a_node, a_pod, asks, web
from tests.manager.planning.simulated_agents import SimulatedCluster
from tests.plan_checker import check_plan, planned

NODES = ("n1", "n2", "n3", "n4")
UIDS = ("u-a", "u-b")

# Derandomized: a failure is the same on every machine, as everything else in a test run.
checked = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@st.composite
def some_nodes(draw: st.DrawFn, *, healthy: bool = False) -> list[NodeView]:
    names = draw(st.lists(st.sampled_from(NODES), unique=True, max_size=4, min_size=int(healthy)))
    return [
        a_node(
            name,
            cpu=draw(st.integers(1, 4)),
            pods=draw(st.integers(1, 6)),
            state=NodeState.READY if healthy else draw(st.sampled_from(NodeState)),
            drain=not healthy and draw(st.booleans()),
            unschedulable=not healthy and draw(st.booleans()),
            held=draw(st.sampled_from(["", "half of the nodes are down"])),
            labels={"disk": draw(st.sampled_from(["ssd", "hdd"]))},
            taints=draw(st.sampled_from([(), (Taint(key="gpu"),), (Taint(key="gpu", effect="NoExecute"),)])),
        )
        for name in names
    ]


def some_requirements() -> st.SearchStrategy[Requirements]:
    selectors: list[dict[str, str]] = [{}, {"disk": "ssd"}]
    return st.builds(
        lambda cpu, selector: asks(cpu=cpu, selector=selector),
        st.sampled_from([0.0, 0.5, 2.0]),
        st.sampled_from(selectors),
    )


@st.composite
def a_slot(draw: st.DrawFn, uid: str, slot: int) -> list[PodView]:
    """Records as they may be found: at most one wanted to run, anything known or unknown of each."""
    pods: list[PodView] = []
    for incarnation in range(1, draw(st.integers(0, 3)) + 1):
        has_running = any(pod.want is Want.RUN for pod in pods)
        wants = [want for want in Want if not (want is Want.RUN and has_running)]
        pods.append(
            a_pod(
                slot,
                incarnation,
                uid=uid,
                node=draw(st.sampled_from(NODES)),
                want=draw(st.sampled_from(wants)),
                state=draw(st.sampled_from([None, *PodState])),
                ready=draw(st.sampled_from([True, False, None])),
                revision=draw(st.sampled_from(["r1", "r2"])),
                is_gone=draw(st.integers(0, 5)) == 0,
                ended_s=NOW_S - draw(st.integers(0, 3)),
            )
        )
    return pods


@st.composite
def some_workloads(draw: st.DrawFn) -> list[WorkloadView]:
    workloads = []
    for uid in UIDS[: draw(st.integers(1, 2))]:
        pods = [pod for slot in range(4) for pod in draw(a_slot(uid, slot))]
        workloads.append(
            web(
                *pods,
                uid=uid,
                name=uid,
                replicas=draw(st.integers(0, 5)),
                revision=draw(st.sampled_from(["r1", "r2"])),
                requirements=draw(some_requirements()),
                deleting=draw(st.integers(0, 5)) == 0,
                failures=draw(st.dictionaries(st.integers(0, 4), st.just((2, NOW_S)), max_size=2)),
            )
        )
    return workloads


class TestEveryPlan:
    @checked
    @given(some_workloads(), some_nodes())
    def test_is_legal_in_every_prefix(self, workloads: list[WorkloadView], nodes: list[NodeView]) -> None:
        planned(workloads, a_cluster(*nodes, workloads=workloads))

    @checked
    @given(some_workloads(), some_nodes(), st.randoms(use_true_random=False))
    def test_does_not_depend_on_the_order_of_anything(
        self, workloads: list[WorkloadView], nodes: list[NodeView], random: Any
    ) -> None:
        def shuffled(items: Any) -> list[Any]:
            listed = list(items)
            random.shuffle(listed)
            return listed

        cluster = a_cluster(*nodes, workloads=workloads)
        other_cluster = replace(
            cluster,
            nodes=dict(shuffled(cluster.nodes.items())),
            reserved=dict(shuffled(cluster.reserved.items())),
        )
        others = [
            replace(
                workload,
                pods=tuple(shuffled(workload.pods)),
                requirements=dict(shuffled(workload.requirements.items())),
            )
            for workload in shuffled(workloads)
        ]

        def by_uid(plan: Plan) -> dict[str, list[str]]:
            made: dict[str, list[str]] = {}
            for change in plan.changes:
                uid = change.pod.workload_uid if hasattr(change, "pod") else change.workload_uid
                made.setdefault(uid, []).append(repr(change))
            return made

        # Workloads come in the order in which they are given; within each nothing may differ.
        assert by_uid(planned(workloads, cluster)) == by_uid(planned(others, other_cluster))

    @checked
    @given(some_workloads(), some_nodes(), st.integers(0, 40))
    def test_may_be_cut_and_made_again(
        self, workloads: list[WorkloadView], nodes: list[NodeView], cut: int
    ) -> None:
        simulated = SimulatedCluster(nodes, workloads)
        simulated.commit(simulated.plan().changes[:cut])

        simulated.plan()

    @checked
    @given(some_workloads(), some_nodes(healthy=True))
    def test_replaces_nothing_that_is_unknown(
        self, workloads: list[WorkloadView], nodes: list[NodeView]
    ) -> None:
        """A new leader that has heard of no node yet stops nothing that the user wants."""
        unknown = [
            replace(
                workload,
                deleting=False,
                replicas=4,
                pods=tuple(
                    replace(pod, state=None, ready=None, is_gone=False)
                    for pod in workload.pods
                    if pod.node in {node.name for node in nodes}
                ),
            )
            for workload in workloads
        ]
        unheard = [replace(node, state=NodeState.UNKNOWN) for node in nodes]
        plan = planned(unknown, a_cluster(*unheard, workloads=unknown))

        # A handover without a replacement may be taken back: that changes nothing on its node.
        assert all(isinstance(change, SetWant) and change.want is Want.RUN for change in plan.changes)


EVENTS = st.one_of(
    st.tuples(st.just("scale"), st.sampled_from(UIDS), st.integers(0, 6)),
    st.tuples(st.just("template"), st.sampled_from(UIDS), st.sampled_from(["r1", "r2", "r3"])),
    st.tuples(st.just("state"), st.sampled_from(NODES), st.sampled_from(NodeState)),
    st.tuples(st.just("drain"), st.sampled_from(NODES), st.booleans()),
    st.tuples(st.just("forget"), st.sampled_from(NODES), st.none()),
    st.tuples(st.just("fail"), st.sampled_from(UIDS), st.integers(0, 20)),
    st.tuples(st.just("gone"), st.sampled_from(UIDS), st.integers(0, 20)),
    st.tuples(st.just("commit"), st.none(), st.integers(0, 10)),
    st.tuples(st.just("agents"), st.none(), st.none()),
)


def happen(simulated: SimulatedCluster, what: str, whom: Any, how: Any) -> None:
    workload = simulated.workloads.get(whom)
    match what:
        case "scale":
            simulated.set_workload(whom, replicas=how)
        case "template":
            simulated.set_workload(whom, revision=how)
        case "state" | "drain" if whom in simulated.nodes:
            simulated.set_node(whom, **{what: how})
        case "forget":
            simulated.forget(whom)
        case "fail" if workload is not None and workload.pods:
            simulated.fail(workload.pods[how % len(workload.pods)])
        case "gone" if workload is not None and workload.pods:
            pod = workload.pods[how % len(workload.pods)]
            simulated.set_workload(
                whom,
                pods=tuple(replace(each, is_gone=True) if each is pod else each for each in workload.pods),
            )
        case "commit":
            simulated.commit(simulated.plan().changes[:how])
        case "agents":
            simulated.step_agents()


def a_new_cluster() -> SimulatedCluster:
    nodes = [a_node(name, cpu=4) for name in NODES]
    workloads = [web(uid=uid, name=uid, replicas=3, requirements=asks(cpu=0.5)) for uid in UIDS]
    return SimulatedCluster(nodes, workloads)


class TestWhateverHappens:
    @checked
    @given(st.lists(EVENTS, max_size=40))
    def test_a_healed_cluster_settles_on_what_the_user_wants(
        self, events: list[tuple[str, Any, Any]]
    ) -> None:
        simulated = a_new_cluster()
        for event in events:
            happen(simulated, *event)
        for name in NODES:
            simulated.set_node(name, state=NodeState.READY, drain=False)

        last = simulated.settle()

        assert last == Plan()
        for workload in simulated.workloads.values():
            assert [pod.id.slot for pod in workload.pods] == list(range(workload.replicas))
            assert all(pod.want is Want.RUN and pod.ready for pod in workload.pods)
            assert {pod.revision for pod in workload.pods} <= {workload.revision}

    @checked
    @given(st.lists(EVENTS, max_size=30))
    def test_a_deleted_workload_leaves_nothing(self, events: list[tuple[str, Any, Any]]) -> None:
        simulated = a_new_cluster()
        for event in events:
            happen(simulated, *event)
        for uid in UIDS:
            simulated.set_workload(uid, deleting=True)
        for name in NODES:
            simulated.set_node(name, state=NodeState.READY, drain=False)

        simulated.settle()

        assert simulated.workloads == {}

    def test_a_drained_node_empties_without_losing_a_ready_pod(self) -> None:
        simulated = a_new_cluster()
        simulated.settle()
        simulated.set_node("n1", drain=True)
        for _ in range(40):
            simulated.commit(simulated.plan().changes)
            for workload in simulated.workloads.values():
                ready = {pod.id.slot for pod in workload.pods if pod.ready and pod.want is not Want.STOP}
                assert ready == {0, 1, 2}
            simulated.step_agents()

        nodes = Counter(pod.node for workload in simulated.workloads.values() for pod in workload.pods)
        assert nodes["n1"] == 0
        assert nodes.total() == 6


class TestTheChecker:
    """A checker is trusted only while it catches what it is there for."""

    def refuses(self, made: Plan, workload: WorkloadView, cluster: ClusterView) -> bool:
        try:
            check_plan([workload], cluster, made)
        except (AssertionError, KeyError):
            return True
        return False

    def test_refuses_illegal_plans(self) -> None:
        cluster = a_cluster(a_node("n1", cpu=1), a_node("n2", cpu=1))
        empty = web(replicas=2, requirements=asks(cpu=1))
        good = planned([empty], cluster)
        places = [change for change in good.changes if isinstance(change, PlacePod)]
        on_one_node = tuple(replace(change, node="n1") for change in places)
        one_slot = tuple(replace(change, slot=0) for change in places)

        assert self.refuses(replace(good, changes=on_one_node), empty, cluster)
        assert self.refuses(replace(good, changes=one_slot), empty, cluster)
        assert self.refuses(replace(good, changes=()), empty, cluster)
        assert self.refuses(good, empty, a_cluster(a_node("n1", cpu=1), a_node("n2", drain=True)))

        stopping = web(a_pod(0, want=Want.STOP), replicas=0)
        back = SetWant(pod=stopping.pods[0].id, want=Want.RUN, reason="second thoughts")
        assert self.refuses(Plan(changes=(back,)), stopping, cluster)
