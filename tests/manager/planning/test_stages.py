"""What is wanted of pods that exist, stage by stage, seen through whole plans."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bayplan.model.nodes import Amounts, NodeState, Taint
from bayplan.model.placements import Cause, Want
from bayplan.model.states import PodState
from manager.planning.changes import PlacePod, Plan, RemovePlacement, RemoveWorkload, SetWant
from manager.planning.view import ClusterView, Toleration, WorkloadView
from tests.builders import (
    HANDOVER,
    LOST,
    NOW_S,
    RUN,
    STOP,
    a_cluster,
    a_failed_pod,
    a_node,
    a_pod,
    asks,
    down,
    web,
)
from tests.plan_checker import planned


def plan_of(workload: WorkloadView, cluster: ClusterView | None = None) -> Plan:
    if cluster is None:
        cluster = a_cluster(a_node("n1"), a_node("n2"), workloads=[workload])
    return planned([workload], cluster)


def wants(plan: Plan) -> list[tuple[int, int, Want]]:
    """(slot, incarnation, want) of each SetWant, in order."""
    return [
        (change.pod.slot, change.pod.incarnation, change.want)
        for change in plan.changes
        if isinstance(change, SetWant)
    ]


def placed(plan: Plan) -> list[tuple[int, str, Cause]]:
    return [
        (change.slot, change.node, change.cause) for change in plan.changes if isinstance(change, PlacePod)
    ]


def removed(plan: Plan) -> list[tuple[int, int]]:
    return [
        (change.pod.slot, change.pod.incarnation)
        for change in plan.changes
        if isinstance(change, RemovePlacement)
    ]


class TestReplicas:
    def test_a_settled_workload_needs_no_change(self) -> None:
        assert plan_of(web(a_pod(0), a_pod(1, node="n2"), replicas=2)) == Plan()

    def test_every_slot_of_a_new_workload_gets_a_pod(self) -> None:
        plan = plan_of(web(replicas=3))

        assert [slot for slot, _, _ in placed(plan)] == [0, 1, 2]
        assert {cause for _, _, cause in placed(plan)} == {Cause.CREATED}

    def test_only_missing_slots_get_a_pod_when_scaled_up(self) -> None:
        plan = plan_of(web(a_pod(0), replicas=2, generation=2))

        assert placed(plan) == [(1, "n2", Cause.SCALED_UP)]
        assert wants(plan) == []

    def test_the_highest_slots_go_first_when_scaled_down(self) -> None:
        plan = plan_of(web(a_pod(0), a_pod(1), a_pod(2), replicas=1))

        assert wants(plan) == [(2, 1, STOP), (1, 1, STOP)]
        assert plan.changes[0].reason == "scaled down to 1"

    def test_every_pod_of_a_slot_too_many_is_stopped(self) -> None:
        slot = a_pod(1, 1, want=LOST), a_pod(1, 2, want=HANDOVER), a_pod(1, 3)

        assert wants(plan_of(web(a_pod(0), *slot, replicas=1))) == [(1, 1, STOP), (1, 2, STOP), (1, 3, STOP)]

    def test_a_slot_wanted_again_is_filled_while_its_old_pod_stops(self) -> None:
        plan = plan_of(web(a_pod(0), a_pod(1, want=STOP), replicas=2, generation=3))

        assert placed(plan) == [(1, "n2", Cause.SCALED_UP)]

    def test_a_document_goes_only_with_its_last_pod(self) -> None:
        stopping = web(a_pod(0, want=STOP), a_pod(1, state=PodState.FAILED), replicas=2, deleting=True)
        last = web(a_pod(0, want=STOP, state=PodState.STOPPED), replicas=2, deleting=True)

        assert removed(plan_of(stopping)) == [(1, 1)]
        assert isinstance(plan_of(last).changes[-1], RemoveWorkload)

    def test_pods_without_a_document_are_stopped_and_their_records_go(self) -> None:
        """Their templates are unknown, so what they book is not known either."""
        orphans = replace(web(a_pod(0), a_pod(1, is_gone=True), deleting=True), requirements={})
        plan = plan_of(orphans, a_cluster(a_node("n1")))

        assert wants(plan) == [(1, 1, STOP), (0, 1, STOP)]
        assert removed(plan) == [(1, 1)]

    def test_a_deleted_workload_without_pods_goes_at_once(self) -> None:
        assert [type(change) for change in plan_of(web(deleting=True)).changes] == [RemoveWorkload]


class TestLost:
    def test_pods_of_a_dead_node_are_replaced_and_the_verdict_is_told(self) -> None:
        workload = web(a_pod(0), a_pod(1, node="n2"), replicas=2)
        plan = plan_of(workload, a_cluster(down("n1"), a_node("n2"), workloads=[workload]))

        assert wants(plan) == [(0, 1, LOST)]
        assert placed(plan) == [(0, "n2", Cause.NODE_DOWN)]
        assert all("node n1 is down: silent for 2.1 s" in change.reason for change in plan.changes)

    @pytest.mark.parametrize(
        "state", [NodeState.UNKNOWN, NodeState.SUSPECT, NodeState.RESTARTING, NodeState.AGENT_LOST]
    )
    @pytest.mark.parametrize("known", [PodState.RUNNING, None])
    def test_nothing_is_replaced_without_a_verdict(self, state: NodeState, known: PodState | None) -> None:
        workload = web(a_pod(0, state=known))
        cluster = a_cluster(a_node("n1", state=state), a_node("n2"), workloads=[workload])

        assert plan_of(workload, cluster) == Plan()

    def test_the_brake_holds_replacements_back(self) -> None:
        workload = web(a_pod(0))
        cluster = a_cluster(down("n1", held="half of the nodes are down"), a_node("n2"), workloads=[workload])

        assert plan_of(workload, cluster) == Plan()

    def test_a_record_stays_while_its_node_is_down(self) -> None:
        workload = web(a_pod(0, 1, want=LOST, state=None), a_pod(0, 2, node="n2"))

        assert plan_of(workload, a_cluster(down("n1"), a_node("n2"))) == Plan()

    def test_pods_of_a_removed_node_are_replaced_and_their_records_go(self) -> None:
        workload = web(a_pod(0, node="gone"))
        plan = plan_of(workload)
        assert wants(plan) == [(0, 1, LOST)]
        assert placed(plan) == [(0, "n1", Cause.NODE_DOWN)]

        replaced = web(a_pod(0, 1, node="gone", want=LOST), a_pod(0, 2))
        assert removed(plan_of(replaced)) == [(0, 1)]

    def test_a_lost_slot_that_fits_nowhere_stays_pending_and_says_why(self) -> None:
        workload = web(a_pod(0, want=LOST, state=None), requirements=asks(cpu=8))
        plan = plan_of(workload, a_cluster(down("n1"), a_node("n2")))

        assert plan.changes == ()
        assert plan.unplaced[0].reason == "0/2 nodes: 1 lacks 8 cpu (most free: n2, 4), 1 down"


class TestReturned:
    def test_the_ready_old_copy_stays_while_the_replacement_is_starting(self) -> None:
        workload = web(a_pod(0, 1, want=LOST), a_pod(0, 2, node="n2", state=PodState.STARTING))
        plan = plan_of(workload)

        assert wants(plan) == [(0, 2, STOP), (0, 1, RUN)]
        assert placed(plan) == []
        assert plan.changes[0].reason.startswith("cancelled: node n1 is back")

    def test_the_old_copy_goes_once_the_replacement_is_ready(self) -> None:
        assert wants(plan_of(web(a_pod(0, 1, want=LOST), a_pod(0, 2, node="n2")))) == [(0, 1, STOP)]

    def test_an_old_copy_that_does_not_serve_goes(self) -> None:
        slot = a_pod(0, 1, want=LOST, ready=False), a_pod(0, 2, node="n2", state=PodState.PULLING)

        assert wants(plan_of(web(*slot))) == [(0, 1, STOP)]

    def test_nothing_is_decided_while_the_replacement_is_unknown(self) -> None:
        assert plan_of(web(a_pod(0, 1, want=LOST), a_pod(0, 2, node="n2", state=None))) == Plan()

    def test_nothing_is_decided_on_what_a_silent_node_said_last(self) -> None:
        workload = web(a_pod(0, 1, want=LOST), a_pod(0, 2, node="n2"))
        cluster = a_cluster(a_node("n1"), a_node("n2", state=NodeState.SUSPECT))

        assert plan_of(workload, cluster) == Plan()

    def test_an_old_copy_without_replacement_runs_on(self) -> None:
        plan = plan_of(web(a_pod(0, 1, want=LOST, ready=False)))

        assert wants(plan) == [(0, 1, RUN)]
        assert placed(plan) == []

    def test_an_old_copy_that_ended_meanwhile_is_only_reaped(self) -> None:
        workload = web(a_pod(0, 1, want=LOST, state=PodState.STOPPED), a_pod(0, 2, node="n2"))

        assert wants(plan_of(workload)) == []
        assert removed(plan_of(workload)) == [(0, 1)]

    def test_an_outdated_old_copy_serves_until_its_successor_is_ready(self) -> None:
        slot = (
            a_pod(0, 1, want=LOST),
            a_pod(0, 2, node="n2", revision="r2", state=PodState.STARTING),
        )

        assert wants(plan_of(web(*slot, revision="r2"))) == [(0, 1, HANDOVER)]

    def test_of_several_returned_copies_one_stays(self) -> None:
        slot = a_pod(0, 1, want=LOST), a_pod(0, 2, node="n2", want=LOST)

        assert wants(plan_of(web(*slot))) == [(0, 2, RUN), (0, 1, STOP)]


class TestHandover:
    def drained(self, workload: WorkloadView) -> ClusterView:
        return a_cluster(a_node("n1", drain=True), a_node("n2"), workloads=[workload])

    def test_a_drained_pod_runs_until_its_replacement_is_ready(self) -> None:
        """The old one stops in the pass that sees the new one ready, not before."""
        workload = web(a_pod(0))
        plan = plan_of(workload, self.drained(workload))
        assert wants(plan) == [(0, 1, HANDOVER)]
        assert placed(plan) == [(0, "n2", Cause.DRAINED)]

        starting = web(a_pod(0, 1, want=HANDOVER), a_pod(0, 2, node="n2", state=PodState.STARTING))
        assert plan_of(starting, self.drained(starting)) == Plan()

        ready = web(a_pod(0, 1, want=HANDOVER), a_pod(0, 2, node="n2"))
        assert wants(plan_of(ready, self.drained(ready))) == [(0, 1, STOP)]

    def test_unknown_replacements_are_waited_for(self) -> None:
        workload = web(a_pod(0, 1, want=HANDOVER), a_pod(0, 2, node="n2", state=None))

        assert plan_of(workload, self.drained(workload)) == Plan()
        assert plan_of(workload) == Plan()

    def test_a_quarter_of_the_slots_at_a_time(self) -> None:
        workload = web(*(a_pod(slot) for slot in range(8)), replicas=8, revision="r2")
        plan = plan_of(workload)

        assert wants(plan) == [(0, 1, HANDOVER), (1, 1, HANDOVER)]
        assert [(slot, cause) for slot, _, cause in placed(plan)] == [
            (0, Cause.NEW_REVISION),
            (1, Cause.NEW_REVISION),
        ]
        assert plan.changes[0].reason == "revision r2 replaces r1"

    def test_slots_in_flight_use_up_the_budget(self) -> None:
        pods = a_pod(0, 1, want=HANDOVER), a_pod(0, 2, revision="r2", state=PodState.PULLING), a_pod(1)

        assert plan_of(web(*pods, replicas=2, revision="r2")) == Plan()

    def test_the_next_slot_waits_for_the_old_pods_end(self) -> None:
        """Else a workload runs more pods than its slots and a quarter, for as long as old ones take to stop."""
        new, other = a_pod(0, 2, revision="r2"), a_pod(1)

        ready = web(a_pod(0, 1, want=HANDOVER), new, other, replicas=2, revision="r2")
        assert wants(plan_of(ready)) == [(0, 1, STOP)]

        stopping = web(a_pod(0, 1, want=STOP), new, other, replicas=2, revision="r2")
        assert plan_of(stopping) == Plan()

        stopped = web(a_pod(0, 1, want=STOP, state=PodState.STOPPED), new, other, replicas=2, revision="r2")
        assert wants(plan_of(stopped)) == [(1, 1, HANDOVER)]

    def test_an_old_pod_on_a_dead_node_is_not_waited_for(self) -> None:
        pods = a_pod(0, 1, want=STOP), a_pod(0, 2, node="n2", revision="r2"), a_pod(1, node="n2")
        workload = web(*pods, replicas=2, revision="r2")

        unheard = a_cluster(a_node("n1", state=NodeState.UNKNOWN), a_node("n2"), workloads=[workload])
        assert wants(plan_of(workload, unheard)) == []
        dead = a_cluster(down("n1"), a_node("n2"), workloads=[workload])
        assert wants(plan_of(workload, dead)) == [(1, 1, HANDOVER)]

    def test_the_next_slot_waits_for_the_end_of_a_cancelled_replacement(self) -> None:
        """The slot keeps its old pod, and the replacement still runs."""
        slot = a_pod(0, 1, want=HANDOVER), a_pod(0, 2, node="n2", revision="r2", state=PodState.STARTING)
        other = a_pod(1, revision="r2")

        assert wants(plan_of(web(*slot, other, replicas=2))) == [(0, 2, STOP), (0, 1, RUN)]

    def test_a_slot_is_handed_over_once_at_a_time(self) -> None:
        slot = a_pod(0, 1, want=STOP), a_pod(0, 2, revision="r2")
        others = tuple(a_pod(each, revision="r3") for each in range(1, 8))

        assert plan_of(web(*slot, *others, replicas=8, revision="r3")) == Plan()

    def test_broken_pods_come_first(self) -> None:
        pods = a_pod(0), a_pod(1), a_pod(2, ready=False)

        assert wants(plan_of(web(*pods, replicas=3, revision="r2"))) == [(2, 1, HANDOVER)]

    def test_pods_of_unknown_readiness_are_left_alone(self) -> None:
        assert plan_of(web(a_pod(0, state=None), revision="r2")) == Plan()

    def test_without_room_for_the_new_pod_the_old_one_runs_on(self) -> None:
        workload = web(a_pod(0), requirements=asks(cpu=8))
        plan = plan_of(workload, self.drained(workload))

        assert wants(plan) == [(0, 1, HANDOVER)]
        assert placed(plan) == []
        assert plan.unplaced[0].reason == "0/2 nodes: 1 lacks 8 cpu (most free: n2, 4), 1 draining"

    def test_an_uncordoned_node_keeps_its_pod(self) -> None:
        slot = a_pod(0, 1, want=HANDOVER), a_pod(0, 2, node="n2", state=PodState.STARTING)

        assert wants(plan_of(web(*slot))) == [(0, 2, STOP), (0, 1, RUN)]
        assert wants(plan_of(web(slot[0]))) == [(0, 1, RUN)]

    def test_a_replacement_that_is_outdated_itself_is_replaced_and_the_old_pod_left_alone(self) -> None:
        slot = a_pod(0, 1, want=HANDOVER), a_pod(0, 2, revision="r2", state=PodState.PULLING)
        plan = plan_of(web(*slot, revision="r3"))

        assert wants(plan) == [(0, 2, STOP)]
        assert [(slot, cause) for slot, _, cause in placed(plan)] == [(0, Cause.NEW_REVISION)]

    def test_a_revision_that_was_taken_back_keeps_the_old_pod(self) -> None:
        slot = a_pod(0, 1, want=HANDOVER), a_pod(0, 2, revision="r2", state=PodState.PULLING)

        assert wants(plan_of(web(*slot, revision="r1"))) == [(0, 2, STOP), (0, 1, RUN)]

    def test_a_handed_over_pod_that_ends_is_done(self) -> None:
        slot = a_failed_pod(0, 1, want=HANDOVER), a_pod(0, 2, node="n2", state=PodState.STARTING)
        plan = plan_of(web(*slot), self.drained(web(*slot)))

        assert wants(plan) == [(0, 1, STOP)]
        assert removed(plan) == [(0, 1)]

    def test_a_failed_replacement_is_tried_again_while_the_old_pod_serves(self) -> None:
        slot = a_pod(0, 1, want=HANDOVER), a_failed_pod(0, 2, node="n2")
        plan = plan_of(web(*slot), self.drained(web(*slot)))

        assert wants(plan) == [(0, 2, STOP)]
        assert plan.wake_at_s == NOW_S + 1

    def test_untolerated_no_execute_taints_empty_a_node(self) -> None:
        taint = Taint(key="gpu", value="a", effect="NoExecute")
        tolerant = asks(tolerations=[Toleration(key="gpu", operator="Exists")])
        cluster = a_cluster(a_node("n1", taints=[taint]), a_node("n2"))

        plan = plan_of(web(a_pod(0)), cluster)
        assert wants(plan) == [(0, 1, HANDOVER)]
        assert plan.changes[0].reason == "node n1 is tainted gpu=a:NoExecute"
        assert plan_of(web(a_pod(0), requirements=tolerant), cluster) == Plan()


class TestRestarts:
    def test_a_failed_pod_is_replaced_elsewhere_after_a_back_off(self) -> None:
        now = plan_of(web(a_failed_pod(0)))
        assert wants(now) == [(0, 1, STOP)]
        assert placed(now) == []
        assert removed(now) == []  # It still says why the slot is empty.
        assert now.wake_at_s == NOW_S + 1
        assert now.unplaced[0].reason == "failed on n1: exit 127; tried again after 1 s"

        later = plan_of(web(a_failed_pod(0, want=STOP, ended_s=NOW_S - 1)))
        assert placed(later) == [(0, "n2", Cause.FAILED)]
        assert "exit 127" in later.changes[0].reason

    @pytest.mark.parametrize(
        ("count", "delay_s"), [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (5000, 300)]
    )
    def test_each_failure_doubles_the_back_off_up_to_five_minutes(self, count: int, delay_s: float) -> None:
        plan = plan_of(web(a_failed_pod(0, want=STOP), failures={0: (count, NOW_S)}))

        assert plan.wake_at_s == NOW_S + delay_s

    def test_the_node_of_the_failure_is_used_again_where_no_other_fits(self) -> None:
        plan = plan_of(web(a_failed_pod(0, want=STOP, ended_s=1.0)), a_cluster(a_node("n1")))

        assert placed(plan) == [(0, "n1", Cause.FAILED)]
        assert "no other node fits" in plan.changes[0].reason

    def test_a_failure_goes_when_its_successor_is_placed(self) -> None:
        workload = web(a_failed_pod(0, want=STOP), a_pod(0, 2, node="n2", state=None))

        assert removed(plan_of(workload)) == [(0, 1)]

    def test_a_new_template_is_tried_at_once_where_the_old_one_failed(self) -> None:
        plan = plan_of(web(a_failed_pod(0), revision="r2", failures={0: (9, NOW_S)}))

        assert [(slot, cause) for slot, _, cause in placed(plan)] == [(0, Cause.NEW_REVISION)]

    def test_a_deployments_pod_that_succeeds_is_replaced_too(self) -> None:
        plan = plan_of(web(a_pod(0, state=PodState.SUCCEEDED, ended_s=NOW_S - 2)))

        assert placed(plan) == [(0, "n2", Cause.FAILED)]

    def test_a_pod_that_vanished_is_replaced_at_once_in_its_own_room(self) -> None:
        """Nothing else fits: the room of the vanished pod is free in the same plan."""
        workload = web(a_pod(0, is_gone=True), requirements=asks(cpu=4))
        plan = plan_of(workload, a_cluster(a_node("n1"), workloads=[workload]))

        assert removed(plan) == [(0, 1)]
        assert placed(plan) == [(0, "n1", Cause.FAILED)]

    def test_an_unknown_pod_is_not_replaced(self) -> None:
        assert plan_of(web(a_pod(0, state=None))) == Plan()

    def test_a_pod_that_is_alive_but_not_ready_is_left_to_its_agent(self) -> None:
        assert plan_of(web(a_pod(0, ready=False))) == Plan()


class TestReap:
    def test_a_stopping_pod_keeps_its_record_until_its_node_says_it_ended(self) -> None:
        assert plan_of(web(a_pod(0, 1, want=STOP), a_pod(0, 2))) == Plan()
        assert removed(plan_of(web(a_pod(0, 1, want=STOP, state=PodState.STOPPED), a_pod(0, 2)))) == [(0, 1)]
        assert removed(plan_of(web(a_pod(0, 1, want=STOP, state=None, is_gone=True), a_pod(0, 2)))) == [
            (0, 1)
        ]

    def test_a_verdict_is_not_an_observation(self) -> None:
        """LOST is said by the leader: such a pod may still run, and stays booked."""
        workload = web(a_pod(0, 1, want=LOST, state=PodState.LOST), a_pod(0, 2, node="n2"))

        assert plan_of(workload) == Plan()

    def test_stopping_pods_stay_booked(self) -> None:
        workload = web(a_pod(0, want=STOP), requirements=asks(cpu=4))
        cluster = a_cluster(a_node("n1"), workloads=[workload])

        assert cluster.reserved["n1"] == Amounts(cpu_millis=4000, pods=1)
        assert plan_of(workload, cluster).unplaced[0].reason == "0/1 nodes: 1 lacks 4 cpu (most free: n1, 0)"
