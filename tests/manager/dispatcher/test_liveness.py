"""Every number of the verdict, on a clock that the test moves by hand."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayplan.model.nodes import NodeState
from manager.dispatcher.liveness import Liveness
from tests.manager.dispatcher.situation import FIVE, Situation


class TestDeadHost:
    @pytest.mark.parametrize("since_its_heartbeat_s", [0.0, 0.3, 0.9])
    def test_a_killed_host_is_suspect_at_once_and_down_after_a_second(
        self, since_its_heartbeat_s: float
    ) -> None:
        it = Situation(*FIVE)
        it.run(since_its_heartbeat_s)
        it.kill("n1")
        assert it["n1"].state is NodeState.SUSPECT
        assert it["n1"].why == "its stream broke"

        took_s = it.run(3, it.is_in("n1", NodeState.DOWN))

        assert took_s == pytest.approx(1.1, abs=0.11)
        assert re.fullmatch(r"silent for 1\.[01] s, 3 witnesses cannot reach it", it["n1"].why)
        assert it["n1"].held == ""
        assert it.live.replacement_budget(it.now_s) is None

    def test_a_cut_host_is_suspect_after_two_missed_heartbeats_and_down_half_a_second_later(self) -> None:
        it = Situation(*FIVE)
        it.cut("n1")

        assert it.run(3, it.is_in("n1", NodeState.SUSPECT)) == pytest.approx(2.1, abs=0.11)
        assert it["n1"].why == "2 heartbeats missed"
        assert it.run(3, it.is_in("n1", NodeState.DOWN)) == pytest.approx(0.5, abs=0.11)

    def test_a_stream_that_breaks_late_on_a_cut_link_makes_no_verdict_later(self) -> None:
        it = Situation(*FIVE)
        it.cut("n1")
        it.run(1.9)
        it.live.stream_ended("n1", it.now_s, restarting=False)

        assert it.run(3, it.is_in("n1", NodeState.DOWN)) <= 0.6

    def test_no_verdict_falls_before_a_second_of_silence(self) -> None:
        it = Situation(*FIVE)
        it.run(0.9)
        it.kill("n1")

        it.run(0.9)

        assert it["n1"].state is NodeState.SUSPECT

    def test_the_verdict_rests_on_fresh_answers(self) -> None:
        """The host blinks: nobody reaches it at first, everybody when asked again."""
        it = Situation(*FIVE)
        blinked_s = it.now_s + 0.5
        it.says = lambda _witness, _node: it.now_s >= blinked_s
        it.kill("n1")

        it.run(2.5, it.is_in("n1", NodeState.AGENT_LOST))

    def test_without_a_witness_it_takes_six_seconds(self) -> None:
        it = Situation(*FIVE, witnesses=False)
        it.cut("n1")

        assert it.run(7, it.is_in("n1", NodeState.DOWN)) == pytest.approx(6.0, abs=0.11)
        assert it["n1"].why == "silent for 6.0 s, nobody can testify"
        assert it.asked == []

    def test_a_node_alone_is_down_after_six_seconds(self) -> None:
        it = Situation("n1")
        it.kill("n1")

        assert it.run(7, it.is_in("n1", NodeState.DOWN)) == pytest.approx(6.0, abs=0.11)

    def test_rare_heartbeats_give_more_time(self) -> None:
        it = Situation("n1", "n2", "n3", heartbeat_s=5.0, witnesses=False)
        it.run(5)
        it.cut("n1")

        assert it.run(20, it.is_in("n1", NodeState.DOWN)) > 11

    def test_who_is_heard_again_is_ready(self) -> None:
        it = Situation(*FIVE)
        it.cut("n1")
        it.run(5, it.is_in("n1", NodeState.DOWN))

        it.back("n1")

        assert it["n1"].state is NodeState.READY
        it.run(10)
        assert it["n1"].state is NodeState.READY

    def test_a_late_heartbeat_ends_suspicion(self) -> None:
        it = Situation(*FIVE)
        it.cut("n1")
        it.run(3, it.is_in("n1", NodeState.SUSPECT))

        it.live.heartbeat("n1", it.now_s)

        assert it["n1"].state is NodeState.READY


class TestWitnesses:
    def test_only_ready_nodes_that_reached_it_within_a_minute_are_asked(self) -> None:
        it = Situation(*FIVE, witnesses=False)
        it.live.witnessed("n2", ["n1"], it.now_s)
        it.run(50)
        it.live.witnessed("n3", ["n1"], it.now_s)
        it.live.witnessed("n4", ["n1"], it.now_s)
        it.run(11)
        it.kill("n4")
        it.kill("n1")
        it.run(3)

        assert {witness for question in it.asked for witness in question.witnesses} == {"n3"}
        assert it["n1"].why.endswith("1 witness cannot reach it")

    def test_who_does_not_answer_counts_as_nothing_and_others_are_asked(self) -> None:
        it = Situation("n1", "n2", "n3", "n4", "n5", "n6", "n7")
        it.says = lambda witness, _node: None if witness in ("n2", "n3", "n4") else False
        it.cut("n1")

        it.run(5, it.is_in("n1", NodeState.DOWN))

        assert [len(question.witnesses) for question in it.asked] == [3, 3]
        assert it["n1"].why.endswith("3 witnesses cannot reach it")

    def test_when_nobody_answers_it_takes_six_seconds(self) -> None:
        it = Situation(*FIVE)
        it.says = lambda _witness, _node: None
        it.cut("n1")

        assert it.run(9, it.is_in("n1", NodeState.DOWN)) == pytest.approx(6.5, abs=0.6)
        assert it["n1"].why.endswith("nobody can testify")

    def test_one_yes_outweighs_every_no(self) -> None:
        it = Situation(*FIVE)
        it.says = lambda witness, _node: witness == "n4"
        it.kill("n1")

        it.run(3, it.is_in("n1", NodeState.AGENT_LOST))
        it.run(2)

        assert it["n1"].state is NodeState.AGENT_LOST
        assert it["n1"].why == "its host answers n4, but its agent is silent: its pods run on"

    def test_answers_to_nobodys_question_are_ignored(self) -> None:
        it = Situation(*FIVE)
        it.kill("n1")
        it.live.tick(it.now_s)

        it.live.witness_result(request=1, witness="n2", alive=True, now_s=it.now_s)
        it.live.witness_result(request=it.live._request, witness="n9", alive=True, now_s=it.now_s)

        assert it["n1"].state is NodeState.SUSPECT


class TestAgentLost:
    def alive_hosts(self, it: Situation) -> None:
        it.says = lambda _witness, _node: True

    def test_its_pods_are_replaced_after_five_minutes(self) -> None:
        it = Situation(*FIVE)
        self.alive_hosts(it)
        it.kill("n1")

        assert it.run(5, it.is_in("n1", NodeState.AGENT_LOST)) <= 1
        it.run(299)
        assert it["n1"].state is NodeState.AGENT_LOST
        it.run(2, it.is_in("n1", NodeState.DOWN))
        assert it["n1"].why == "no agent for 5 minutes, though its host answers"

    def test_a_second_one_raises_an_alarm_instead(self) -> None:
        it = Situation(*FIVE)
        self.alive_hosts(it)
        it.kill("n2")
        it.run(10)
        it.kill("n1")
        it.run(320)

        assert it["n2"].state is NodeState.DOWN
        assert it["n1"].state is NodeState.AGENT_LOST
        assert len(it.live.alarms) == 1
        assert "n1" in it.live.alarms[0]

        it.back("n2")
        it.run(1, it.is_in("n1", NodeState.DOWN))
        assert not it.live.alarms

    def test_a_host_that_dies_after_its_agent_is_down(self) -> None:
        it = Situation(*FIVE)
        self.alive_hosts(it)
        it.kill("n1")
        it.run(100)
        assert it["n1"].state is NodeState.AGENT_LOST

        it.says = lambda _witness, _node: False

        it.run(6, it.is_in("n1", NodeState.DOWN))

    def test_a_dying_host_that_refuses_for_a_moment_is_down_as_soon_as_any_other(self) -> None:
        """Its agent dies first, its network a few milliseconds later."""
        it = Situation(*FIVE)
        gone_s = it.now_s + 0.3
        it.says = lambda _witness, _node: it.now_s < gone_s
        it.kill("n1")

        assert it.run(5, it.is_in("n1", NodeState.DOWN)) <= 1.6

    def test_when_nobody_testifies_any_more_it_stays(self) -> None:
        it = Situation(*FIVE)
        self.alive_hosts(it)
        it.kill("n1")
        it.run(20)
        it.says = lambda _witness, _node: None

        it.run(60)

        assert it["n1"].state is NodeState.AGENT_LOST


class TestRestart:
    def test_an_announced_restart_gets_a_minute(self) -> None:
        it = Situation(*FIVE)
        it.cut("n1")
        it.live.stream_ended("n1", it.now_s, restarting=True)

        it.run(59)
        assert it["n1"].state is NodeState.RESTARTING
        assert it.asked == []
        assert it.run(5, it.is_in("n1", NodeState.DOWN)) == pytest.approx(2.0, abs=0.2)

    def test_who_is_back_in_time_is_ready(self) -> None:
        it = Situation(*FIVE)
        it.cut("n1")
        it.live.stream_ended("n1", it.now_s, restarting=True)
        it.run(30)

        it.back("n1")

        assert it["n1"].state is NodeState.READY


class TestElection:
    def elected(self, *heard: str) -> Situation:
        """A new leader of five nodes, of which only some have come."""
        it = Situation(*FIVE)
        it.live = Liveness(FIVE, elected_s=it.now_s, heartbeat_s=1.0)
        it.silent = set(FIVE) - set(heard)
        it.back(*heard)
        return it

    def test_nobody_is_judged_before_a_full_grace(self) -> None:
        it = self.elected("n2", "n3", "n4", "n5")
        it.run(9.8)

        assert it["n1"].state is NodeState.UNKNOWN

    def test_an_absent_node_is_judged_when_the_grace_ends(self) -> None:
        it = self.elected("n2", "n3", "n4", "n5")

        assert it.run(12, it.is_in("n1", NodeState.DOWN)) == pytest.approx(10.0)
        assert it["n1"].why == "not heard of since the election, 3 witnesses cannot reach it"

    def test_without_witnesses_late_agents_get_six_seconds_more(self) -> None:
        it = self.elected("n2", "n3", "n4", "n5")
        it.witnesses = False

        assert it.run(20, it.is_in("n1", NodeState.DOWN)) == pytest.approx(16.0, abs=0.11)

    def test_absent_nodes_pull_the_brake(self) -> None:
        it = self.elected("n2", "n3")
        it.run(10)

        assert {it[name].state for name in ("n1", "n4", "n5")} == {NodeState.DOWN}
        assert it["n1"].held.startswith("3 of 5 nodes fell silent")

    def test_the_grace_is_fresh_after_a_pause_of_the_leader(self) -> None:
        it = self.elected("n2", "n3", "n4", "n5")
        it.run(5)
        it.now_s += 60
        it.live.tick(it.now_s)
        assert it["n1"].state is NodeState.UNKNOWN
        assert it["n2"].state is NodeState.READY

        it.run(4.5)
        assert it["n1"].state is NodeState.UNKNOWN


class TestOperator:
    def test_a_node_declared_lost_is_down_whatever_the_brake(self) -> None:
        it = Situation(*FIVE)
        it.kill("n1", "n2", "n3")
        it.run(3)

        it.live.declared_lost("n1", it.now_s)
        it.run(1)
        it.live.declared_lost("n1", it.now_s)

        assert it["n1"].state is NodeState.DOWN
        assert it["n1"].why == "an operator declared it lost"
        assert it["n1"].held == ""
        assert it["n2"].held

    def test_the_oath_is_void_while_the_agent_is_heard(self) -> None:
        it = Situation(*FIVE)

        it.live.declared_lost("n1", it.now_s)

        assert it["n1"].state is NodeState.READY

    def test_a_removed_node_is_forgotten(self) -> None:
        it = Situation(*FIVE)
        it.kill("n1")
        it.run(0.2)
        it.names.remove("n1")

        it.live.removed("n1")
        it.run(5)

        assert "n1" not in it.live.nodes
        it.live.heartbeat("n1", it.now_s)
        assert "n1" not in it.live.nodes


class TestPauseOfTheLeader:
    @pytest.mark.parametrize("pause_s", [1.6, 5.0, 600.0])
    def test_what_it_did_not_hear_meanwhile_is_nobodys_silence(self, pause_s: float) -> None:
        it = Situation(*FIVE)
        it.run(0.7)
        it.now_s += pause_s
        it.live.tick(it.now_s)

        it.run(10)

        assert {life.state for life in it.live.nodes.values()} == {NodeState.READY}
        assert it.asked == []

    def test_a_silent_node_is_judged_all_the_same(self) -> None:
        it = Situation(*FIVE)
        it.cut("n1")
        it.run(1)
        it.now_s += 5

        assert it.run(4, it.is_in("n1", NodeState.DOWN)) == pytest.approx(1.6, abs=0.3)


class TestNoFalseDeath:
    @given(
        gaps_s=st.lists(st.floats(-0.5, 0.5), min_size=5, max_size=30),
        ticks_s=st.lists(st.floats(0.01, 0.5), min_size=5, max_size=30),
    )
    def test_a_node_that_beats_each_second_give_or_take_half_is_never_down(
        self, gaps_s: list[float], ticks_s: list[float]
    ) -> None:
        """Whatever its witnesses say, and though they say it at once."""
        live = Liveness(("n1", "n2"), elected_s=0.0, heartbeat_s=1.0)
        live.connected("n1", 0.0)
        live.connected("n2", 0.0)
        beats_s = [1.0 + number + gap_s for number, gap_s in enumerate(gaps_s)]
        now_s, step = 0.0, 0
        while beats_s:
            now_s += ticks_s[step % len(ticks_s)]
            step += 1
            while beats_s and beats_s[0] <= now_s:
                live.heartbeat("n1", beats_s.pop(0))
            live.heartbeat("n2", now_s)
            live.witnessed("n2", ["n1"], now_s)
            for question in live.tick(now_s):
                for witness in question.witnesses:
                    live.witness_result(request=question.request, witness=witness, alive=False, now_s=now_s)
            live.tick(now_s)

            assert live.nodes["n1"].state is not NodeState.DOWN

    def test_thousand_nodes_that_come_back_late_are_not_dead(self) -> None:
        names = [f"n{number}" for number in range(1000)]
        live = Liveness(names, elected_s=0.0, heartbeat_s=1.0)
        for step in range(1, 160):
            now_s = step / 10
            for number, name in enumerate(names):
                if number % 150 < step and (step + number) % 10 == 0:
                    if live.nodes[name].state is NodeState.READY:
                        live.heartbeat(name, now_s)
                    else:
                        live.connected(name, now_s)
            live.tick(now_s)

        assert {life.state for life in live.nodes.values()} == {NodeState.READY}
