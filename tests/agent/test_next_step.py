"""The table of decisions for one pod."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.next_step import (
    BACKOFF_MAX_S,
    CountEnd,
    Create,
    Desired,
    EnsureImage,
    Finish,
    Idle,
    Remove,
    RunPreStop,
    Start,
    Step,
    Stop,
    Unpause,
    count_end,
    gone,
    next_step,
    observe,
    to_watch,
)
from agent.pod_memory import COMPLETED, ERROR, START_ERROR, ContainerMemory, Ending
from agent.probes.judgement import Health
from agent.probes.model import Hooks, Sleep
from agent.runtime.port import LABEL_ATTEMPT, Container, ContainerState
from bayplan.model.placements import Want
from bayplan.model.states import PodState

NOW_S = 1000.0
RUN = Desired(want=Want.RUN)
STOP = Desired(want=Want.STOP, grace_s=7.0)
HOOKS = Hooks(pre_stop=Sleep(duration_s=5))
CREATED, RUNNING, PAUSED, EXITED = ContainerState


def container(state: ContainerState, attempt: int = 0) -> Container:
    return Container(
        id=f"c{attempt}",
        name=f"bay-web-{attempt}",
        labels={LABEL_ATTEMPT: str(attempt)},
        state=state,
        image="app",
        image_id="sha256:1",
        created_s=1.0,
    )


def decide(desired: Desired, memory: ContainerMemory, *containers: Container) -> Step:
    return next_step(desired, observe(memory, containers), containers, now_s=NOW_S)


def an_end(code: int = 1, *, up_s: float = 1.0, reason: str = "") -> Ending:
    words = reason or (ERROR if code else COMPLETED)
    return Ending(attempt=0, code=code, reason=words, started_s=100.0, finished_s=100.0 + up_s)


class TestWantedToRun:
    def test_begins_with_the_image(self) -> None:
        assert decide(RUN, ContainerMemory()) == EnsureImage()

    def test_then_makes_the_first_container(self) -> None:
        assert decide(RUN, ContainerMemory(image="x")) == Create(attempt=0)

    def test_then_starts_it(self) -> None:
        made = container(CREATED)
        assert decide(RUN, ContainerMemory(image="x"), made) == Start(container=made)

    def test_leaves_a_running_one_alone(self) -> None:
        assert decide(RUN, ContainerMemory(attempt=0), container(RUNNING)) == Idle()

    def test_wakes_a_paused_one(self) -> None:
        paused = container(PAUSED)
        assert decide(RUN, ContainerMemory(attempt=0), paused) == Unpause(container=paused)

    def test_counts_an_end_before_anything_else(self) -> None:
        ended = container(EXITED)
        assert decide(RUN, ContainerMemory(attempt=0), ended) == CountEnd(container=ended)

    def test_counts_it_once(self) -> None:
        memory = ContainerMemory(attempt=0, is_ended=True, not_before_s=NOW_S + 4)
        assert decide(RUN, memory, container(EXITED)) == Idle(until_s=NOW_S + 4)

    def test_restarts_as_a_new_container_after_the_back_off(self) -> None:
        memory = ContainerMemory(attempt=0, is_ended=True, not_before_s=NOW_S, image="x")
        assert decide(RUN, memory, container(EXITED)) == Create(attempt=1)

    def test_counts_a_container_that_somebody_removed(self) -> None:
        assert decide(RUN, ContainerMemory(attempt=0)) == CountEnd(container=None)

    def test_counts_it_too_when_only_older_ones_are_left(self) -> None:
        assert decide(RUN, ContainerMemory(attempt=1), container(EXITED, 0)) == CountEnd(container=None)

    def test_takes_over_an_attempt_that_was_not_noted(self) -> None:
        """The agent died between making attempt 1 and writing it down."""
        made = container(CREATED, 1)
        memory = ContainerMemory(attempt=0, is_ended=True)
        assert decide(RUN, memory, container(EXITED, 0), made) == Start(container=made)

    def test_stops_an_old_attempt_that_somebody_started(self) -> None:
        old = container(RUNNING, 0)
        step = decide(RUN, ContainerMemory(attempt=1), old, container(RUNNING, 1))
        assert step == Stop(container=old, grace_s=30.0)

    def test_stops_it_too_when_the_newest_is_gone(self) -> None:
        old = container(RUNNING, 0)
        memory = ContainerMemory(attempt=1, is_ended=True, image="x")
        assert decide(RUN, memory, old) == Stop(container=old, grace_s=30.0)

    def test_accepts_that_somebody_started_the_ended_one(self) -> None:
        memory = ContainerMemory(attempt=0, is_ended=True, not_before_s=NOW_S + 4)
        assert decide(RUN, memory, container(RUNNING)) == Idle()

    def test_does_not_start_again_what_the_engine_could_not_start(self) -> None:
        memory = ContainerMemory(attempt=0, is_ended=True, not_before_s=NOW_S + 4)
        assert decide(RUN, memory, container(CREATED)) == Idle(until_s=NOW_S + 4)

    def test_handover_runs_too(self) -> None:
        assert decide(Desired(want=Want.HANDOVER), ContainerMemory()) == EnsureImage()

    def test_refused_ones_end(self) -> None:
        step = decide(replace(RUN, refused="no such thing"), ContainerMemory())
        assert step == Finish(state=PodState.FAILED, reason="Refused", message="no such thing")

    def test_held_ones_wait_but_what_runs_is_looked_after(self) -> None:
        held = replace(RUN, held="waiting for a manager")
        assert decide(held, ContainerMemory(image="x")) == Idle()
        paused = container(PAUSED)
        assert decide(held, ContainerMemory(attempt=0), paused) == Unpause(container=paused)


class TestWantedToStop:
    @pytest.mark.parametrize("want", [Want.STOP, Want.LOST])
    def test_stops_what_runs_with_its_grace(self, want: Want) -> None:
        running = container(RUNNING)
        desired = replace(STOP, want=want)
        assert decide(desired, ContainerMemory(attempt=0), running) == Stop(container=running, grace_s=7.0)

    def test_removes_what_never_started(self) -> None:
        made = container(CREATED)
        assert decide(STOP, ContainerMemory(), made) == Remove(container=made)

    def test_is_over_when_nothing_runs(self) -> None:
        step = decide(STOP, ContainerMemory(attempt=0), container(EXITED))
        assert step == Finish(state=PodState.STOPPED, reason="Stopped", message="")

    def test_a_pod_that_never_was_is_over_at_once(self) -> None:
        assert isinstance(decide(STOP, ContainerMemory()), Finish)

    def test_an_ended_pod_that_somebody_starts_is_stopped(self) -> None:
        running = container(RUNNING)
        step = decide(RUN, ContainerMemory(state=PodState.SUCCEEDED, attempt=0), running)
        assert step == Stop(container=running, grace_s=30.0)


def with_health(**health: object) -> ContainerMemory:
    """Of a pod whose first container runs."""
    return ContainerMemory(attempt=0, health=Health(container_id="c0", **health))  # type: ignore[arg-type]


class TestHooksBeforeStopping:
    def test_the_pre_stop_hook_comes_first(self) -> None:
        running = container(RUNNING)
        step = decide(replace(STOP, hooks=HOOKS), ContainerMemory(attempt=0), running)
        assert step == RunPreStop(container=running, grace_s=7.0)

    def test_then_what_is_left_of_the_grace(self) -> None:
        running = container(RUNNING)
        memory = with_health(is_pre_stopped=True, pre_stop_took_s=4.0)
        assert decide(replace(STOP, hooks=HOOKS), memory, running) == Stop(container=running, grace_s=3.0)

    def test_but_never_less_than_two_seconds(self) -> None:
        running = container(RUNNING)
        memory = with_health(is_pre_stopped=True, pre_stop_took_s=7.0)
        assert decide(replace(STOP, hooks=HOOKS), memory, running) == Stop(container=running, grace_s=2.0)

    def test_without_grace_there_is_no_time_for_a_hook(self) -> None:
        running = container(RUNNING)
        desired = replace(STOP, hooks=HOOKS, grace_s=0.0)
        assert decide(desired, ContainerMemory(attempt=0), running) == Stop(container=running, grace_s=0.0)

    def test_a_frozen_container_is_woken_for_it(self) -> None:
        paused = container(PAUSED)
        step = decide(replace(STOP, hooks=HOOKS), with_health(), paused)
        assert step == Unpause(container=paused)

    def test_one_that_has_ended_by_itself_has_none(self) -> None:
        step = decide(replace(STOP, hooks=HOOKS), with_health(), container(EXITED))
        assert isinstance(step, Finish)

    def test_its_failure_stays_with_the_stopped_pod(self) -> None:
        memory = with_health(is_pre_stopped=True, pre_stop_failure="preStop hook failed: exit 1")
        step = decide(replace(STOP, hooks=HOOKS), memory, container(EXITED))
        assert step == Finish(state=PodState.STOPPED, reason="Stopped", message="preStop hook failed: exit 1")

    def test_an_old_attempt_that_somebody_started_has_none(self) -> None:
        """What its hook would tell the world is not so: the pod runs on."""
        old = container(RUNNING, 0)
        step = decide(replace(RUN, hooks=HOOKS), ContainerMemory(attempt=1), old, container(RUNNING, 1))
        assert step == Stop(container=old, grace_s=30.0)


class TestCondemned:
    BROKEN = with_health(broken="liveness probe failed: HTTP 500")

    def test_is_stopped_though_it_is_wanted(self) -> None:
        running = container(RUNNING)
        assert decide(RUN, self.BROKEN, running) == Stop(container=running, grace_s=30.0)

    def test_with_the_probes_own_grace(self) -> None:
        running = container(RUNNING)
        memory = with_health(broken="no", broken_grace_s=4.0)
        assert decide(RUN, memory, running) == Stop(container=running, grace_s=4.0)
        # Told to stop meanwhile, the pod's own holds.
        assert decide(STOP, memory, running) == Stop(container=running, grace_s=7.0)

    def test_after_its_hook(self) -> None:
        running = container(RUNNING)
        step = decide(replace(RUN, hooks=HOOKS), self.BROKEN, running)
        assert step == RunPreStop(container=running, grace_s=30.0)

    def test_its_end_is_counted_and_the_next_run_begins_anew(self) -> None:
        ended = container(EXITED)
        assert decide(RUN, self.BROKEN, ended) == CountEnd(container=ended)
        after = count_end(RUN, self.BROKEN, an_end(), now_s=NOW_S)
        assert after.health is None
        again = observe(after, (ended, container(RUNNING, 1)))
        assert again.health == Health(container_id="c1")


class TestWatching:
    def test_a_wanted_running_container_is_watched(self) -> None:
        running = container(RUNNING)
        memory = observe(ContainerMemory(attempt=0), (running,))
        assert to_watch(RUN, memory, (running,)) == running
        assert to_watch(Desired(want=Want.HANDOVER), memory, (running,)) == running

    @pytest.mark.parametrize(
        ("desired", "memory", "state"),
        [
            (STOP, with_health(), RUNNING),
            (Desired(want=None), with_health(), RUNNING),
            (replace(RUN, refused="no such thing"), with_health(), RUNNING),
            (RUN, with_health(), PAUSED),
            (RUN, with_health(), EXITED),
            (RUN, with_health(broken="no"), RUNNING),
            (RUN, replace(with_health(), state=PodState.SUCCEEDED), RUNNING),
        ],
    )
    def test_nothing_else_is(self, desired: Desired, memory: ContainerMemory, state: ContainerState) -> None:
        assert to_watch(desired, memory, (container(state),)) is None

    def test_nor_an_older_attempt(self) -> None:
        old = container(RUNNING, 0)
        assert to_watch(RUN, ContainerMemory(attempt=1), (old,)) is None


class TestNobodyHasSaid:
    @pytest.mark.parametrize("state", list(ContainerState))
    def test_nothing_is_touched(self, state: ContainerState) -> None:
        assert decide(Desired(want=None), ContainerMemory(), container(state)) == Idle()


class TestRestarts:
    def test_pauses_double_to_a_minute(self) -> None:
        memory, pauses = ContainerMemory(attempt=0), []
        for _ in range(9):
            memory = count_end(RUN, memory, an_end(), now_s=NOW_S)
            pauses.append(memory.backoff_s)
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]

    def test_a_minute_of_life_resets_them(self) -> None:
        memory = ContainerMemory(attempt=9, backoff_s=60.0)
        assert count_end(RUN, memory, an_end(up_s=60.0), now_s=NOW_S).backoff_s == 1

    @pytest.mark.parametrize(
        ("policy", "code", "state"),
        [
            ("Always", 0, PodState.RUNNING),
            ("Always", 1, PodState.RUNNING),
            ("OnFailure", 0, PodState.SUCCEEDED),
            ("OnFailure", 1, PodState.RUNNING),
            ("Never", 0, PodState.SUCCEEDED),
            ("Never", 1, PodState.FAILED),
        ],
    )
    def test_follow_the_policy(self, policy: str, code: int, state: PodState) -> None:
        memory = ContainerMemory(state=PodState.RUNNING, attempt=0)
        after = count_end(replace(RUN, restart_policy=policy), memory, an_end(code), now_s=NOW_S)
        assert after.state is state

    def test_a_removed_container_is_no_success(self) -> None:
        ending = gone(ContainerMemory(attempt=0), noticed_s=5.0)
        after = count_end(replace(RUN, restart_policy="Never"), ContainerMemory(), ending, now_s=NOW_S)
        assert after.state is PodState.FAILED
        assert after.message == "the container was removed by someone else"

    def test_a_start_error_keeps_its_name(self) -> None:
        after = count_end(RUN, ContainerMemory(), an_end(127, reason=START_ERROR), now_s=NOW_S)
        assert after.reason == "StartError"


class TestWhateverIsSeen:
    @given(
        want=st.sampled_from([None, *Want]),
        state=st.sampled_from([state for state in PodState if state is not PodState.LOST]),
        attempt=st.integers(-1, 2),
        is_ended=st.booleans(),
        image=st.sampled_from(["", "x"]),
        seen=st.lists(st.sampled_from(list(ContainerState)), max_size=3),
        health=st.builds(
            Health,
            container_id=st.sampled_from(["c0", "c1", "c2", "c3"]),
            broken=st.sampled_from(["", "liveness probe failed: no"]),
            is_pre_stopped=st.booleans(),
        )
        | st.none(),
        hooks=st.sampled_from([Hooks(), HOOKS]),
    )
    def test_states_only_grow_and_no_second_container_is_made_beside_a_living_one(  # noqa: PLR0917 - as below
        self,
        want: Want | None,
        state: PodState,
        attempt: int,
        is_ended: bool,  # noqa: FBT001 - hypothesis passes by name
        image: str,
        seen: list[ContainerState],
        health: Health | None,
        hooks: Hooks,
    ) -> None:
        before = ContainerMemory(state=state, attempt=attempt, is_ended=is_ended, image=image, health=health)
        containers = tuple(container(each, number) for number, each in enumerate(seen))
        memory = observe(before, containers)
        desired = Desired(want=want, hooks=hooks)
        step = next_step(desired, memory, containers, now_s=NOW_S)
        watched = to_watch(desired, memory, containers)

        assert before.state.may_become(memory.state)
        if isinstance(step, Create | Start | EnsureImage):
            assert want in (Want.RUN, Want.HANDOVER)
            assert not memory.state.is_terminal
            assert not {RUNNING, PAUSED} & set(seen)
        if isinstance(step, Create):
            assert step.attempt > max([attempt, *range(len(seen))], default=-1) or step.attempt == attempt + 1
        if want is None:
            assert step == Idle()
        if isinstance(step, RunPreStop):
            assert hooks.pre_stop is not None
            assert memory.health is not None
            assert not memory.health.is_pre_stopped
        if watched is not None:
            # What is watched is neither being stopped nor one of several.
            assert watched.state is RUNNING
            assert not (isinstance(step, RunPreStop | Stop) and step.container == watched)

    def test_every_run_ends_at_rest(self) -> None:
        """Doing the steps on a model engine comes to rest from every beginning."""
        for want, attempt, is_ended, hooks, broken, *states in product(
            [Want.RUN, Want.STOP],
            [-1, 0, 1],
            [False, True],
            [Hooks(), HOOKS],
            ["", "liveness probe failed: no"],
            *[[None, *ContainerState]] * 2,
        ):
            desired = Desired(want=want, hooks=hooks)
            health = Health(container_id="c1", broken=broken)
            memory = ContainerMemory(attempt=attempt, is_ended=is_ended, health=health)
            there = {number: container(each, number) for number, each in enumerate(states) if each}
            now_s = NOW_S
            for _ in range(20):
                now_s += BACKOFF_MAX_S
                shown = tuple(there[number] for number in sorted(there))
                memory = observe(memory, shown)
                step = next_step(desired, memory, shown, now_s=now_s)
                if step == Idle():
                    break
                memory = _do(step, desired, memory, there, now_s)
            living = [each for each in there.values() if each.state in (RUNNING, PAUSED)]
            assert step == Idle()
            assert len(living) == (1 if want is Want.RUN else 0)


def _do(
    step: Step, desired: Desired, memory: ContainerMemory, there: dict[int, Container], now_s: float
) -> ContainerMemory:
    match step:
        case EnsureImage():
            return replace(memory, image="x")
        case Create():
            there.setdefault(step.attempt, container(CREATED, step.attempt))
        case Start() | Unpause():
            number = int(step.container.labels[LABEL_ATTEMPT])
            there[number] = replace(step.container, state=RUNNING)
        case Stop():
            number = int(step.container.labels[LABEL_ATTEMPT])
            there[number] = replace(step.container, state=EXITED)
        case RunPreStop():
            assert memory.health is not None
            return replace(memory, health=replace(memory.health, is_pre_stopped=True))
        case Remove():
            del there[int(step.container.labels[LABEL_ATTEMPT])]
        case CountEnd():
            return count_end(desired, memory, an_end(), now_s=now_s)
        case Finish():
            return replace(memory, state=step.state)
        case Idle():
            pass
    return memory
