"""Where pending pods go, and what is said of those that go nowhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from bayplan.model.nodes import Amounts, NodeState, Taint
from manager.planning.changes import PendingPod
from manager.planning.node_table import IntArray
from manager.planning.scheduler import Schedule, fill_to_level, schedule
from manager.planning.view import ClusterView, Toleration
from tests.builders import GIB, NOW_S, a_cluster, a_node, asks, down, some_pending


def nodes_of(outcome: Schedule) -> list[str]:
    return [pod.node for pod in outcome.placed]


def why(pending: list[PendingPod], cluster: ClusterView) -> str:
    reasons = {pod.reason for pod in schedule(pending, cluster).unplaced}
    assert len(reasons) == 1, reasons
    return reasons.pop()


class TestFillToLevel:
    def fill(self, use: list[int], room: list[int], count: int) -> list[int]:
        added: IntArray = fill_to_level(np.array(use), np.array(room), count)
        return [int(number) for number in added]

    def test_the_fullest_chosen_node_is_as_empty_as_can_be(self) -> None:
        assert self.fill([0, 3, 1], [9, 9, 9], 5) == [3, 0, 2]

    def test_the_first_rows_get_what_is_left_of_a_level(self) -> None:
        assert self.fill([0, 0, 0], [9, 9, 9], 5) == [2, 2, 1]

    def test_full_nodes_are_passed_over(self) -> None:
        assert self.fill([0, 0, 5], [1, 0, 9], 4) == [1, 0, 3]

    def test_what_does_not_fit_is_left_out(self) -> None:
        assert self.fill([0, 7], [1, 2], 9) == [1, 2]

    def test_nothing_to_place(self) -> None:
        assert self.fill([0, 0], [1, 2], 0) == [0, 0]


class TestSpread:
    def test_pods_are_spread_evenly(self) -> None:
        cluster = a_cluster(*(a_node(f"n{number}") for number in range(1, 4)))

        assert Counter(nodes_of(schedule(some_pending(6), cluster))) == {"n1": 2, "n2": 2, "n3": 2}

    def test_neighbouring_slots_are_apart(self) -> None:
        """So that scaling down, which takes the highest slots, leaves an even spread."""
        cluster = a_cluster(a_node("n1"), a_node("n2"))

        assert nodes_of(schedule(some_pending(4), cluster)) == ["n1", "n2", "n1", "n2"]

    def test_pods_that_run_already_count(self) -> None:
        cluster = a_cluster(a_node("n1"), a_node("n2"))
        outcome = schedule(some_pending(1), cluster, running_on={"u-web": {"n1": 1}})

        assert nodes_of(outcome) == ["n2"]

    def test_among_equals_the_least_booked_node_wins(self) -> None:
        """By its most used resource, here memory."""
        booked = {"n1": Amounts(memory_bytes=6 * GIB), "n2": Amounts(cpu_millis=2000)}
        cluster = a_cluster(a_node("n1"), a_node("n2"), reserved=booked)

        assert nodes_of(schedule(some_pending(1), cluster)) == ["n2"]

    def test_spread_comes_before_load(self) -> None:
        cluster = a_cluster(a_node("n1"), a_node("n2"), reserved={"n1": Amounts(cpu_millis=3000)})

        assert sorted(nodes_of(schedule(some_pending(2, asks(cpu=0.5)), cluster))) == ["n1", "n2"]

    def test_the_order_of_nodes_and_pods_does_not_matter(self) -> None:
        nodes = [a_node(f"n{number}", cpu=number) for number in range(1, 6)]
        pending = some_pending(4, asks(cpu=1)) + some_pending(4, asks(cpu=0.5), uid="u-b", workload="shop/b")

        forward = schedule(pending, a_cluster(*nodes))
        backward = schedule(pending[::-1], a_cluster(*nodes[::-1]))

        assert forward == backward


class TestCapacity:
    def test_what_earlier_pods_of_the_pass_got_is_booked(self) -> None:
        pending = some_pending(3, asks(cpu=3)) + some_pending(3, asks(cpu=2), uid="u-b", workload="shop/b")
        outcome = schedule(pending, a_cluster(a_node("n1"), a_node("n2")))

        assert [(pod.workload_uid, pod.slot) for pod in outcome.placed] == [
            ("u-b", 0),
            ("u-b", 1),
            ("u-b", 2),
        ]
        assert {pod.workload_uid for pod in outcome.unplaced} == {"u-web"}

    def test_a_node_takes_110_pods_if_it_does_not_say(self) -> None:
        outcome = schedule(some_pending(111), a_cluster(a_node("n1", pods=0)))

        assert len(outcome.placed) == 110
        assert outcome.unplaced[0].reason == "0/1 nodes: 1 full (110 pods)"

    def test_what_is_not_asked_for_does_not_limit(self) -> None:
        cluster = a_cluster(a_node("n1"), reserved={"n1": Amounts(cpu_millis=9000)})

        assert nodes_of(schedule(some_pending(1, asks(memory_gib=1)), cluster)) == ["n1"]

    def test_changes_of_the_same_pass_count(self) -> None:
        cluster = a_cluster(a_node("n1"), reserved={"n1": Amounts(cpu_millis=4000)})
        freed = {"n1": Amounts(cpu_millis=-1000)}

        assert schedule(some_pending(1, asks(cpu=1)), cluster).placed == ()
        assert nodes_of(schedule(some_pending(1, asks(cpu=1)), cluster, freed)) == ["n1"]

    def test_requests_beyond_any_machine_overflow_nothing(self) -> None:
        huge = replace(asks(), requests=Amounts(cpu_millis=2**63 - 1, memory_bytes=2**63 - 1, pods=1))
        pending = some_pending(3, huge) + some_pending(1, asks(cpu=1), uid="u-b", workload="shop/b")

        outcome = schedule(pending, a_cluster(a_node("n1"), reserved={"n1": Amounts(memory_bytes=2**70)}))

        assert [pod.workload_uid for pod in outcome.placed] == ["u-b"]


class TestConstraints:
    def test_only_nodes_that_match_the_selector(self) -> None:
        cluster = a_cluster(a_node("n1"), a_node("n2", labels={"disk": "ssd"}))

        assert nodes_of(schedule(some_pending(2, asks(selector={"disk": "ssd"})), cluster)) == ["n2", "n2"]

    @pytest.mark.parametrize("effect", ["NoSchedule", "NoExecute"])
    def test_taints_keep_pods_away_that_do_not_tolerate_them(self, effect: str) -> None:
        taint = Taint(key="gpu", effect=effect)  # type: ignore[arg-type]  # parametrized with literals
        cluster = a_cluster(a_node("n1", taints=[taint]), a_node("n2"))
        tolerant = asks(tolerations=[Toleration(key="gpu", operator="Exists")])

        assert nodes_of(schedule(some_pending(2), cluster)) == ["n2", "n2"]
        assert nodes_of(schedule(some_pending(2, tolerant), cluster)) == ["n1", "n2"]

    def test_prefer_no_schedule_is_the_last_choice_but_one(self) -> None:
        taint = Taint(key="slow", effect="PreferNoSchedule")
        cluster = a_cluster(a_node("n1", taints=[taint]), a_node("n2", cpu=2))

        assert nodes_of(schedule(some_pending(3, asks(cpu=1)), cluster)) == ["n2", "n2", "n1"]

    def test_avoided_nodes_are_taken_only_if_nothing_else_fits(self) -> None:
        cluster = a_cluster(a_node("n1"), a_node("n2", cpu=1))
        pending = some_pending(2, asks(cpu=1), avoid=("n1", "unheard-of"))

        outcome = schedule(pending, cluster)

        assert nodes_of(outcome) == ["n2", "n1"]
        assert outcome.placed[1].reason.endswith(
            "placed on the only node that fits again: no other node fits"
        )

    def test_a_back_off_is_waited_for(self) -> None:
        outcome = schedule(some_pending(2, not_before_s=NOW_S + 4), a_cluster(a_node("n1")))

        assert outcome.placed == ()
        assert outcome.wake_at_s == NOW_S + 4


class TestReasons:
    def test_no_nodes(self) -> None:
        assert why(some_pending(), a_cluster()) == "no nodes have joined the cluster"

    def test_the_nearest_miss_is_named(self) -> None:
        booked = {
            "n1": Amounts(cpu_millis=3000),
            "n2": Amounts(cpu_millis=2400),
            "n3": Amounts(cpu_millis=4000),
        }
        cluster = a_cluster(a_node("n1"), a_node("n2"), a_node("n3"), reserved=booked)

        assert why(some_pending(1, asks(cpu=4)), cluster) == "0/3 nodes: 3 lack 4 cpu (most free: n2, 1.6)"

    def test_taints_and_lacks_together(self) -> None:
        gpu = [Taint(key="gpu")]
        cluster = a_cluster(
            a_node("n1", cpu=1),
            a_node("n2", cpu=1.6),
            a_node("n3", cpu=0.25),
            a_node("n4", taints=gpu),
            a_node("n5", taints=gpu),
        )

        reason = why(some_pending(1, asks(cpu=2)), cluster)
        assert reason == "0/5 nodes: 3 lack 2 cpu (most free: n2, 1.6), 2 tainted gpu"

    def test_memory(self) -> None:
        cluster = a_cluster(a_node("n1", memory_gib=0.7))

        reason = why(some_pending(1, asks(memory_gib=2)), cluster)
        assert reason == "0/1 nodes: 1 lacks 2 GiB memory (most free: n1, 0.7 GiB)"
        assert why(some_pending(1, asks(memory_gib=0.75)), cluster).startswith("0/1 nodes: 1 lacks 768 MiB")

    def test_a_near_miss_never_reads_as_enough(self) -> None:
        cluster = a_cluster(a_node("n1", memory_gib=2), reserved={"n1": Amounts(memory_bytes=1)})

        assert why(some_pending(1, asks(memory_gib=2)), cluster).endswith("(most free: n1, 1.9 GiB)")

    def test_each_node_is_counted_once_under_its_first_reason(self) -> None:
        """Every node lacks cpu as well, but that is not why it is out."""
        cluster = a_cluster(
            a_node("a", unschedulable=True, cpu=1),
            a_node("b", drain=True, unschedulable=True, cpu=1),
            down("c", drain=True),
            down("d"),
            a_node("e", state=NodeState.UNKNOWN),
            a_node("f", refuses="disk 93 % full"),
            a_node("g", labels={"disk": "hdd"}, taints=[Taint(key="gpu")]),
            a_node("h"),
            a_node("i", labels={"disk": "ssd"}, taints=[Taint(key="gpu", value="a")]),
        )

        assert why(some_pending(2, asks(cpu=9, selector={"disk": "ssd"})), cluster) == (
            "0/9 nodes: 2 do not match nodeSelector disk=ssd, 2 down, 1 cordoned, "
            "1 disk 93 % full, 1 draining, 1 not heard of yet, 1 tainted gpu=a"
        )


class TestHostPorts:
    HTTP = asks(host_ports=[(80, "TCP")])

    def test_one_pod_a_node(self) -> None:
        cluster = a_cluster(a_node("n1"), a_node("n2"))
        pending = some_pending(3, requirements=self.HTTP)

        assert sorted(nodes_of(schedule(pending, cluster))) == ["n1", "n2"]
        assert why(pending, cluster) == "0/2 nodes: 2 have another pod on port 80/TCP"

    def test_a_node_where_another_pod_has_the_port_is_passed_over(self) -> None:
        cluster = replace(
            a_cluster(a_node("n1"), a_node("n2")), host_ports={"n1": frozenset({(80, "TCP"), (53, "UDP")})}
        )

        assert nodes_of(schedule(some_pending(1, requirements=self.HTTP), cluster)) == ["n2"]

    def test_the_same_number_of_another_protocol_is_another_port(self) -> None:
        cluster = replace(a_cluster(a_node("n1")), host_ports={"n1": frozenset({(80, "UDP")})})

        assert nodes_of(schedule(some_pending(1, requirements=self.HTTP), cluster)) == ["n1"]
