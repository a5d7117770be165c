"""What binds the containers of one pod: its sandbox, its end, its refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.next_step import (
    BACKOFF_MAX_S,
    CountEnd,
    Create,
    EnsureImage,
    Finish,
    Idle,
    Remove,
    RunPreStop,
    Start,
    Step,
    Stop,
    Unpause,
    attempt_of,
    count_end,
    finish,
    gone,
    run_of,
    sandbox_of,
    unmade,
)
from agent.pod_memory import ContainerMemory, Ending, PodMemory
from agent.pod_spec import ContainerTemplate, PodSpec
from agent.pod_steps import (
    SANDBOX_LOST,
    PodDesired,
    desired_of,
    is_over,
    lines_of,
    name_of,
    next_steps,
    observe_pod,
)
from agent.probes.judgement import Health
from agent.probes.model import Hooks, Sleep
from agent.runtime.port import (
    LABEL_ATTEMPT,
    LABEL_CONTAINER,
    LABEL_SANDBOX,
    SANDBOX,
    Container,
    ContainerState,
)
from bayplan.model.placements import Want
from bayplan.model.states import PodState

NOW_S = 1000.0
CREATED, RUNNING, PAUSED, EXITED = ContainerState
LIVING = (RUNNING, PAUSED)


def template(name: str, hooks: Hooks | None = None) -> ContainerTemplate:
    return ContainerTemplate(name=name, image="app:1", pull_policy="IfNotPresent", hooks=hooks or Hooks())


SPEC = PodSpec(containers=(template("web"), template("side")), grace_s=7.0)
RUN = PodDesired(want=Want.RUN, spec=SPEC)
STOP = PodDesired(want=Want.STOP, spec=SPEC)


def container(
    name: str, state: ContainerState = RUNNING, attempt: int = 0, *, sandbox: str = "0.5000"
) -> Container:
    labels = {LABEL_CONTAINER: name, LABEL_ATTEMPT: str(attempt)}
    if name != SANDBOX:
        labels[LABEL_SANDBOX] = sandbox
    return Container(
        id=f"{name or 'sandbox'}-{attempt}",
        name=f"bay-web-1-{name}-{attempt}",
        labels=labels,
        state=state,
        image="app",
        image_id="sha256:1",
        created_s=1.0,
        started_s=0.0 if state is CREATED else 5.0 + attempt,
        address="10.42.0.2" if state is RUNNING else "",
    )


SANDBOX_RUNS, WEB_RUNS, SIDE_RUNS = container(SANDBOX), container("web"), container("side")
HAS_IMAGES = PodMemory(containers={name: ContainerMemory(image="x") for name in (SANDBOX, "web", "side")})


def ran(name: str, memory: PodMemory = HAS_IMAGES, **changes: object) -> PodMemory:
    """Attempt 0 of it was made."""
    return memory.but(name, replace(memory.of(name), attempt=0, **changes))  # type: ignore[arg-type]


ALL_RAN = ran(SANDBOX, ran("web", ran("side")))


def decide(desired: PodDesired, memory: PodMemory, *containers: Container) -> dict[str, Step]:
    lines = lines_of(desired.spec, memory, containers)
    return next_steps(desired, observe_pod(desired, memory, lines), lines, now_s=NOW_S)


class TestBeginning:
    def test_all_images_are_fetched_at_once(self) -> None:
        steps = decide(RUN, PodMemory())
        assert steps == {SANDBOX: EnsureImage(), "web": EnsureImage(), "side": EnsureImage()}

    def test_the_sandbox_is_made_first(self) -> None:
        steps = decide(RUN, HAS_IMAGES)
        assert steps == {SANDBOX: Create(attempt=0), "web": Idle(), "side": Idle()}

    def test_and_started_first(self) -> None:
        made = container(SANDBOX, CREATED)
        assert decide(RUN, HAS_IMAGES, made) == {
            SANDBOX: Start(container=made),
            "web": Idle(),
            "side": Idle(),
        }

    def test_the_others_follow_once_it_runs(self) -> None:
        steps = decide(RUN, HAS_IMAGES, SANDBOX_RUNS)
        assert steps == {SANDBOX: Idle(), "web": Create(attempt=0), "side": Create(attempt=0)}

    def test_one_whose_image_cannot_be_had_holds_up_no_other(self) -> None:
        memory = HAS_IMAGES.but("side", ContainerMemory(not_before_s=NOW_S + 9))
        steps = decide(RUN, memory, SANDBOX_RUNS)
        assert (steps["web"], steps["side"]) == (Create(attempt=0), Idle(until_s=NOW_S + 9))

    def test_a_pod_of_one_container_has_no_sandbox(self) -> None:
        alone = replace(RUN, spec=PodSpec(containers=(template("web"),)))
        assert decide(alone, PodMemory()) == {"web": EnsureImage()}

    def test_nor_has_one_on_the_hosts_network(self) -> None:
        on_host = replace(RUN, spec=replace(SPEC, host_network=True))
        assert decide(on_host, PodMemory()) == {"web": EnsureImage(), "side": EnsureImage()}

    def test_a_held_pod_gets_no_sandbox_either(self) -> None:
        assert set(decide(replace(RUN, held="waiting"), HAS_IMAGES).values()) == {Idle()}


class TestRunning:
    def test_the_end_of_one_is_nothing_to_the_others(self) -> None:
        ended = container("side", EXITED)
        steps = decide(RUN, ALL_RAN, SANDBOX_RUNS, WEB_RUNS, ended)
        assert steps == {SANDBOX: Idle(), "web": Idle(), "side": CountEnd(container=ended)}

    def test_it_begins_again_in_the_same_sandbox(self) -> None:
        memory = ran("side", ALL_RAN, is_ended=True)
        steps = decide(RUN, memory, SANDBOX_RUNS, WEB_RUNS, container("side", EXITED))
        assert steps["side"] == Create(attempt=1)

    def test_they_are_shown_at_the_pods_address(self) -> None:
        lines = lines_of(SPEC, ALL_RAN, [SANDBOX_RUNS, replace(WEB_RUNS, address="")])
        assert lines["web"][0].address == "10.42.0.2"

    def test_a_container_of_the_version_before_goes_on(self) -> None:
        """It knows nothing of sandboxes."""
        old = replace(WEB_RUNS, labels={LABEL_CONTAINER: "web", LABEL_ATTEMPT: "0"}, address="10.42.0.9")
        alone = replace(RUN, spec=PodSpec(containers=(template("web"),)))
        assert decide(alone, PodMemory(), old) == {"web": Idle()}

    def test_nothing_is_touched_before_somebody_has_said(self) -> None:
        nobody = PodDesired(want=None, spec=PodSpec(containers=()))
        steps = decide(nobody, PodMemory(), SANDBOX_RUNS, WEB_RUNS, container("side", CREATED))
        assert set(steps.values()) == {Idle()}


class TestSandboxLost:
    def test_its_end_is_counted_before_anything_is_done_to_the_others(self) -> None:
        """A listing may have come too early."""
        ended = container(SANDBOX, EXITED)
        steps = decide(RUN, ALL_RAN, ended, WEB_RUNS, SIDE_RUNS)
        assert steps == {SANDBOX: CountEnd(container=ended), "web": Idle(), "side": Idle()}

    def test_then_all_others_are_stopped_at_once(self) -> None:
        memory = ran(SANDBOX, ALL_RAN, is_ended=True, not_before_s=NOW_S + 1)
        steps = decide(RUN, memory, container(SANDBOX, EXITED), WEB_RUNS, SIDE_RUNS)
        assert steps == {
            SANDBOX: Idle(until_s=NOW_S + 1),
            "web": Stop(container=WEB_RUNS, grace_s=7.0),
            "side": Stop(container=SIDE_RUNS, grace_s=7.0),
        }

    def test_and_are_told_why(self) -> None:
        memory = ran(SANDBOX, ALL_RAN, is_ended=True)
        lines = lines_of(SPEC, memory, [container(SANDBOX, EXITED), WEB_RUNS])
        health = observe_pod(RUN, memory, lines).of("web").health
        assert health is not None
        assert health.broken == SANDBOX_LOST

    def test_they_begin_again_when_the_next_one_runs(self) -> None:
        memory = ran("web", ran(SANDBOX, ALL_RAN, is_ended=True), is_ended=True)
        old = container(SANDBOX, EXITED)
        waiting = decide(RUN, memory, old, container("web", EXITED))
        again = decide(RUN, memory, old, container(SANDBOX, RUNNING, 1), container("web", EXITED))
        assert (waiting["web"], again["web"]) == (Idle(), Create(attempt=1))

    def test_one_that_somebody_has_restarted_is_another_network(self) -> None:
        """`docker restart`: the engine may never have shown its end."""
        restarted = replace(SANDBOX_RUNS, started_s=77.0)
        steps = decide(RUN, ALL_RAN, restarted, WEB_RUNS, SIDE_RUNS)
        assert steps["web"] == Stop(container=WEB_RUNS, grace_s=7.0)

    def test_one_that_the_engine_cannot_date_condemns_nobody(self) -> None:
        undated = replace(SANDBOX_RUNS, started_s=0.0)
        assert set(decide(RUN, ALL_RAN, undated, WEB_RUNS, SIDE_RUNS).values()) == {Idle()}

    def test_a_container_made_for_the_one_before_is_made_anew(self) -> None:
        made = container("web", CREATED)
        steps = decide(RUN, HAS_IMAGES, container(SANDBOX, EXITED), container(SANDBOX, RUNNING, 1), made)
        assert steps["web"] == Remove(container=made)
        assert unmade(ContainerMemory(attempt=0), made) == ContainerMemory(attempt=-1)
        assert unmade(ContainerMemory(attempt=1), container("web", CREATED, 1)).is_ended

    def test_a_frozen_one_is_woken_and_nobody_ended(self) -> None:
        frozen = container(SANDBOX, PAUSED)
        steps = decide(RUN, ALL_RAN, frozen, WEB_RUNS, SIDE_RUNS)
        assert steps == {SANDBOX: Unpause(container=frozen), "web": Idle(), "side": Idle()}

    def test_a_pod_that_never_restarts_has_failed(self) -> None:
        """Whatever its programs make of SIGTERM."""
        never = replace(RUN, spec=replace(SPEC, restart_policy="Never"))
        memory = ran(SANDBOX, ALL_RAN, is_ended=True)
        lines = lines_of(SPEC, memory, [container(SANDBOX, EXITED), WEB_RUNS])
        memory = observe_pod(never, memory, lines)
        ending = Ending(attempt=0, code=0, reason="Unhealthy", message=SANDBOX_LOST)
        after = count_end(desired_of("web", never, memory, lines), memory.of("web"), ending, now_s=NOW_S)
        assert after.state is PodState.FAILED


class TestEnding:
    def test_all_are_told_at_once_and_the_sandbox_is_last(self) -> None:
        steps = decide(STOP, ALL_RAN, SANDBOX_RUNS, WEB_RUNS, SIDE_RUNS)
        assert steps == {
            SANDBOX: Idle(),
            "web": Stop(container=WEB_RUNS, grace_s=7.0),
            "side": Stop(container=SIDE_RUNS, grace_s=7.0),
        }

    def test_it_outlives_a_hook(self) -> None:
        hook = Hooks(pre_stop=Sleep(duration_s=3))
        desired = replace(STOP, spec=replace(SPEC, containers=(template("web", hook), template("side"))))
        memory = ran("side", ALL_RAN, state=PodState.STOPPED)
        steps = decide(desired, memory, SANDBOX_RUNS, WEB_RUNS, container("side", EXITED))
        assert steps == {SANDBOX: Idle(), "web": RunPreStop(container=WEB_RUNS, grace_s=7.0), "side": Idle()}

    def test_then_it_goes_too(self) -> None:
        memory = ran("web", ran("side", ALL_RAN, state=PodState.STOPPED), state=PodState.STOPPED)
        steps = decide(STOP, memory, SANDBOX_RUNS, container("web", EXITED), container("side", EXITED))
        assert steps[SANDBOX] == Stop(container=SANDBOX_RUNS, grace_s=2.0)
        assert observe_pod(STOP, memory, lines_of(SPEC, memory, [SANDBOX_RUNS])).state is PodState.RUNNING

    def test_a_sandbox_that_ends_meanwhile_is_not_made_again(self) -> None:
        memory = ran(SANDBOX, ALL_RAN, is_ended=True)
        steps = decide(STOP, memory, container(SANDBOX, EXITED), WEB_RUNS)
        assert steps[SANDBOX] == Idle()

    def test_once_one_is_stopped_for_good_the_leader_cannot_have_the_rest_back(self) -> None:
        memory = ran("side", ALL_RAN, state=PodState.STOPPED)
        steps = decide(RUN, memory, SANDBOX_RUNS, WEB_RUNS, container("side", EXITED))
        assert steps["web"] == Stop(container=WEB_RUNS, grace_s=7.0)

    def test_what_is_refused_to_one_ends_all(self) -> None:
        refused = replace(HAS_IMAGES.of("side"), state=PodState.FAILED, reason="Refused", message="no")
        steps = decide(RUN, ran("web", HAS_IMAGES).but("side", refused), SANDBOX_RUNS, WEB_RUNS)
        assert steps["web"] == Stop(container=WEB_RUNS, grace_s=7.0)


class TestState:
    @pytest.mark.parametrize(
        ("web", "side", "pod"),
        [
            (PodState.ASSIGNED, PodState.RUNNING, PodState.ASSIGNED),
            (PodState.PULLING, PodState.STARTING, PodState.PULLING),
            (PodState.RUNNING, PodState.RUNNING, PodState.RUNNING),
            (PodState.SUCCEEDED, PodState.RUNNING, PodState.RUNNING),
            (PodState.SUCCEEDED, PodState.PULLING, PodState.PULLING),
            (PodState.SUCCEEDED, PodState.SUCCEEDED, PodState.SUCCEEDED),
            (PodState.SUCCEEDED, PodState.FAILED, PodState.FAILED),
            (PodState.STOPPED, PodState.SUCCEEDED, PodState.STOPPED),
            (PodState.STOPPED, PodState.FAILED, PodState.FAILED),
        ],
    )
    def test_is_that_of_the_one_furthest_behind_until_all_have_ended(
        self, web: PodState, side: PodState, pod: PodState
    ) -> None:
        memory = PodMemory(
            containers={"web": ContainerMemory(state=web), "side": ContainerMemory(state=side)}
        )
        assert memory.state is pod

    def test_is_not_terminal_while_the_sandbox_runs(self) -> None:
        """Whoever is told so may give its address away."""
        ended = ContainerMemory(state=PodState.SUCCEEDED)
        memory = PodMemory(containers={SANDBOX: ContainerMemory(state=PodState.RUNNING), "web": ended})
        assert memory.state is PodState.RUNNING


class Model:
    """An engine, and a runner that does at most one thing with each container at a time."""

    def __init__(self, desired: PodDesired) -> None:
        self.desired = desired
        self.memory = PodMemory()
        self.there: dict[str, Container] = {}
        self.now_s = NOW_S

    def look(self) -> dict[str, Step]:
        self.now_s += BACKOFF_MAX_S
        lines = lines_of(self.desired.spec, self.memory, list(self.there.values()))
        before = self.memory
        self.memory = observe_pod(self.desired, self.memory, lines)
        assert before.state.may_become(self.memory.state)
        return next_steps(self.desired, self.memory, lines, now_s=self.now_s)

    @property
    def living(self) -> dict[str, Container]:
        """By name; no name has two."""
        living = [each for each in self.there.values() if each.state in LIVING]
        assert len({name_of(each) for each in living}) == len(living)
        return {name_of(each): each for each in living}

    def do(self, name: str, step: Step) -> None:  # noqa: C901 - one case for each step
        memory = self.memory.of(name)
        sandbox = self.living.get(SANDBOX)
        match step:
            case EnsureImage():
                memory = replace(memory, image="x")
            case Create():
                run = run_of(sandbox) if sandbox is not None else ""
                assert name == SANDBOX or run
                assert name not in self.living
                made = container(name, CREATED, step.attempt, sandbox=run)
                self.there.setdefault(made.id, made)
            case Start():
                assert name == SANDBOX or (
                    sandbox is not None and sandbox_of(step.container) == run_of(sandbox)
                )
                self.there[step.container.id] = replace(step.container, state=RUNNING, started_s=self.now_s)
            case Unpause():
                self.there[step.container.id] = replace(step.container, state=RUNNING)
            case Stop():
                assert name != SANDBOX or set(self.living) == {SANDBOX}
                self.there[step.container.id] = replace(step.container, state=EXITED)
            case RunPreStop():
                assert memory.health is not None
                memory = replace(memory, health=replace(memory.health, is_pre_stopped=True))
            case Remove():
                self.there.pop(step.container.id, None)
                memory = unmade(memory, step.container)
            case CountEnd():
                ending = gone(memory, noticed_s=0)
                if step.container is not None:
                    ending = Ending(attempt=attempt_of(step.container), code=1, reason="Error")
                lines = lines_of(self.desired.spec, self.memory, list(self.there.values()))
                desired = desired_of(name, self.desired, self.memory, lines)
                memory = count_end(desired, memory, ending, now_s=self.now_s)
            case Finish():
                assert name not in self.living
                memory = finish(memory, step)
            case Idle():
                pass
        self.memory = self.memory.but(name, memory)

    def meddle(self, deed: str, which: int) -> None:
        """Somebody else's doing."""
        if not self.there:
            return
        target = list(self.there.values())[which % len(self.there)]
        if deed == "kill" and target.state in LIVING:
            self.there[target.id] = replace(target, state=EXITED)
        elif deed == "remove":
            del self.there[target.id]
        elif deed == "pause" and target.state is RUNNING:
            self.there[target.id] = replace(target, state=PAUSED)
        elif deed == "restart" and target.state in LIVING:
            self.there[target.id] = replace(target, state=RUNNING, started_s=self.now_s)

    def rest(self) -> dict[str, Step]:
        """Do everything until nothing is left to do."""
        for _ in range(60):
            steps = self.look()
            if all(step == Idle() for step in steps.values()):
                return steps
            for name, step in steps.items():
                self.do(name, step)
        raise AssertionError(f"it never rests: {steps}")


POLICIES = st.sampled_from(["Always", "OnFailure", "Never"])
NAMES = (SANDBOX, "web", "side")
MOVES = st.lists(
    st.tuples(st.just("step"), st.integers(0, 2))
    | st.tuples(st.sampled_from(["kill", "remove", "pause", "restart"]), st.integers(0, 9)),
    max_size=40,
)


class TestWhateverHappens:
    @given(
        policy=POLICIES, moves=MOVES, hooks=st.sampled_from([Hooks(), Hooks(pre_stop=Sleep(duration_s=1))])
    )
    def test_the_pod_comes_to_rest_whole_or_not_at_all(
        self, policy: str, moves: list[tuple[str, int]], hooks: Hooks
    ) -> None:
        """Steps in any order, others' hands in between; then it runs as it should, and ends as it should."""
        spec = replace(SPEC, restart_policy=policy, containers=(template("web", hooks), template("side")))
        model = Model(replace(RUN, spec=spec))
        for deed, which in moves:
            if deed == "step":
                name = NAMES[which]
                model.do(name, model.look()[name])
            else:
                model.meddle(deed, which)

        model.rest()
        if not model.memory.state.is_terminal:
            living = model.living
            unended = {name for name in spec_names(spec) if not model.memory.of(name).state.is_terminal}
            assert set(living) == {SANDBOX, *unended}
            assert {sandbox_of(living[name]) for name in unended} == {run_of(living[SANDBOX])}
            assert model.memory.state is PodState.RUNNING
        else:
            assert policy != "Always"

        model.desired = replace(model.desired, want=Want.STOP)
        steps = model.rest()
        assert not model.living
        assert is_over(model.memory, steps)

    @given(states=st.tuples(*[st.sampled_from([None, *ContainerState])] * 3), broken=st.booleans())
    def test_found_without_a_journal_it_comes_to_rest_too(
        self,
        states: tuple[ContainerState | None, ...],
        broken: bool,  # noqa: FBT001 - hypothesis passes by name
    ) -> None:
        model = Model(RUN)
        for name, state in zip(NAMES, states, strict=True):
            if state is not None:
                model.there[name] = replace(container(name, state), id=name)
        if broken:
            health = Health(container_id="web", started_s=5.0, broken="liveness probe failed: no")
            model.memory = PodMemory(containers={"web": ContainerMemory(attempt=0, health=health)})

        model.rest()

        living = model.living
        assert set(living) == set(NAMES)
        assert {sandbox_of(living[name]) for name in ("web", "side")} == {run_of(living[SANDBOX])}


def spec_names(spec: PodSpec) -> list[str]:
    return [each.name for each in spec.containers]
