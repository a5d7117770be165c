"""When many nodes fall silent at once: what is held, for how long, and how it goes on."""

from __future__ import annotations

from bayplan.model.nodes import NodeState
from tests.manager.dispatcher.situation import FIVE, STEP_S, Situation


class TestBrake:
    def test_it_holds_everything_for_a_minute_and_alarms(self) -> None:
        it = Situation(*FIVE)
        it.kill("n1", "n2", "n3")
        it.run(3)

        assert it["n1"].state is NodeState.DOWN
        assert "nothing is replaced for 60 s" in it["n1"].held
        assert it.live.alarms == (it["n1"].held,)
        assert it.live.replacement_budget(it.now_s) == 0

        it.run(57)
        assert it["n1"].held
        it.run(2)
        assert not it["n1"].held
        assert not it.live.alarms

    def test_then_ten_pods_a_second_are_replaced(self) -> None:
        it = Situation(*FIVE)
        it.kill("n1", "n2", "n3")
        it.run(62)
        replaced = 0
        for _ in range(50):
            it.run(STEP_S)
            budget = it.live.replacement_budget(it.now_s)
            assert budget is not None
            assert budget <= 10
            it.live.replaced(budget)
            replaced += budget

        assert 50 <= replaced <= 61

        it.back("n1", "n2", "n3")
        it.run(1)
        assert it.live.replacement_budget(it.now_s) is None

    def test_no_dead_node_is_seen_before_the_brake(self) -> None:
        it = Situation(*FIVE)
        it.kill("n1", "n2", "n3")
        for _ in range(60):
            it.run(STEP_S)
            assert all(life.held for life in it.live.nodes.values() if life.state is NodeState.DOWN)

    def test_nodes_that_are_cut_off_together_are_held_whenever_each_was_last_heard(self) -> None:
        it = Situation("n1", "n2", "n3", "n4")
        it._beats_s["n2"] += 0.1  # Just before the cut n1 is heard, and n2 0.9 s earlier.
        it.run(5)
        it.cut("n1", "n2")
        it.run(5, lambda: it["n1"].state is NodeState.DOWN or it["n2"].state is NodeState.DOWN)

        assert all(life.held for life in it.live.nodes.values() if life.state is NodeState.DOWN)

    def test_an_agent_that_stumbles_after_another_nodes_death_does_not_pull_it(self) -> None:
        it = Situation("n1", "n2", "n3")
        it.kill("n1")
        it.run(5)
        it.kill("n2")
        it.run(0.4)
        it.back("n2")
        it.run(5)

        assert it.live.alarms == ()

    def test_two_of_five_are_replaced(self) -> None:
        it = Situation(*FIVE)
        it.kill("n1", "n2")
        it.run(5)

        assert it["n1"].held == it["n2"].held == ""
        assert it.live.alarms == ()

    def test_one_of_two_is_replaced(self) -> None:
        it = Situation("n1", "n2")
        it.kill("n1")
        it.run(5)

        assert it["n1"].state is NodeState.DOWN
        assert it["n1"].held == ""

    def test_nodes_that_died_long_ago_do_not_count(self) -> None:
        it = Situation(*FIVE)
        it.kill("n1")
        it.run(40)
        it.kill("n2")
        it.run(40)
        it.kill("n3")
        it.run(5)

        assert it["n3"].state is NodeState.DOWN
        assert it["n3"].held == ""

    def test_streams_that_break_and_return_within_a_second_do_not_pull_it(self) -> None:
        it = Situation(*FIVE)
        it.kill(*FIVE)
        it.run(0.8)
        it.back(*FIVE)
        it.run(5)

        assert it.live.alarms == ()
