"""Journal, witness, streams, leftovers, templates: each part's own promises."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from agent.fence import Fence
from agent.journal import Journal, forget_pods
from agent.leftovers import KEPT_S, leftovers
from agent.log_ring import LogRing
from agent.pod_memory import ContainerMemory, Ending, PodMemory
from agent.pod_spec import default_pull_policy, expand, parse_pod_spec
from agent.runtime.port import (
    LABEL_ATTEMPT,
    LABEL_CONTAINER,
    LABEL_POD,
    SANDBOX,
    Container,
    ContainerState,
    Output,
)
from agent.runtime.simulated_engine import Command
from agent.runtime.simulated_images import Program
from agent.template_fields import PodSpecError
from bayplan.model.states import PodState
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.scripted_manager import a_pod, a_world, crashing, until

pytestmark = pytest.mark.virtual_time


class TestJournal:
    async def test_gives_back_what_was_saved(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path)
        facts = journal.facts
        facts.cluster, facts.label_cluster, facts.boot_id = "c1", "c1", "b1"
        facts.fence = Fence(store="s", revision=3, commit_sequence=9)
        facts.peers = ("n2", "n3")
        ending = Ending(attempt=2, code=1, reason="Error", last_log_lines="no")
        for number in range(2):
            pod = a_pod(number)
            facts.assignments[pod.uid] = pod
            memory = ContainerMemory(state=PodState.RUNNING, attempt=2, ending=ending)
            facts.memories[pod.uid] = PodMemory(containers={SANDBOX: memory, "web": memory})
        facts.images["u1/0000abcd/app:1"] = ("app@sha256:1", "sha256:1")
        await journal.save()

        again = Journal(tmp_path)
        again.load()
        assert again.facts == facts

    async def test_one_from_before_peers_were_noted_is_read(self, tmp_path: Path) -> None:
        """Set aside, it would cost an upgraded agent its epoch and the exits that nobody knows yet."""
        journal = Journal(tmp_path)
        journal.facts.cluster = "c1"
        await journal.save()
        path = tmp_path / "journal.json"
        document = json.loads(path.read_text())
        del document["peers"]
        path.write_text(json.dumps(document))

        upgraded = Journal(tmp_path)
        upgraded.load()
        assert upgraded.facts.cluster == "c1"
        assert upgraded.facts.peers == ()

    async def test_the_memory_of_a_pods_only_container_is_read(self, tmp_path: Path) -> None:
        """As agents wrote it that knew pods of one container: an upgrade must not count a restart or an end twice."""
        journal = Journal(tmp_path)
        journal.facts.assignments["u1.0.1"] = a_pod()
        memory = ContainerMemory(state=PodState.RUNNING, attempt=3, is_ended=True, backoff_s=4.0)
        await journal.save()
        path = tmp_path / "journal.json"
        document = json.loads(path.read_text())
        document["memories"] = {"u1.0.1": memory.to_document()}
        path.write_text(json.dumps(document))

        upgraded = Journal(tmp_path)
        upgraded.load()
        assert upgraded.facts.memories == {"u1.0.1": PodMemory(containers={"web": memory})}

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', "\0\0\0", '{"format": 1}'])
    async def test_a_damaged_one_is_set_aside(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "journal.json").write_text(text)
        journal = Journal(tmp_path)
        journal.load()
        assert journal.facts.assignments == {}
        assert (tmp_path / "journal.json.damaged").read_text() == text
        await journal.save()

    async def test_forgets_images_of_revisions_that_are_gone(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path)
        pod = a_pod()
        journal.facts.assignments[pod.uid] = pod
        journal.facts.images["u1/0000abcd/app:1"] = ("x", "y")
        forget_pods(journal.facts, ["another"])
        assert journal.facts.images
        forget_pods(journal.facts, [pod.uid])
        assert not journal.facts.images


class TestWitness:
    async def test_a_living_host_and_a_refusing_one_are_alive_a_dead_one_is_not(self, tmp_path: Path) -> None:
        async with a_world(tmp_path, managers=3) as world:
            world.network.kill("m3")

            async def ask(request: int, host: str, port: int) -> tuple[pb.WitnessResult, float]:
                peer = pb.Peer(node="n2", address=host, witness_port=port)
                world.manager.say(witness_request=pb.WitnessRequest(request=request, peer=peer))
                took_s = await until(
                    lambda: any(each.request == request for each in world.manager.of_kind("witness"))
                )
                return world.manager.of_kind("witness")[-1], took_s

            assert (await ask(1, "m2", 7400))[0].alive
            assert (await ask(2, "m2", 9999))[0].alive
            dead, took_s = await ask(3, "m3", 7443)
            assert not dead.alive
            assert took_s < 0.6

    async def test_says_whose_port_it_has_reached(self, tmp_path: Path) -> None:
        async with a_world(tmp_path, managers=2) as world:
            reached = pb.Peer(node="n2", address="m2", witness_port=7400)
            refusing = pb.Peer(node="n3", address="m2", witness_port=1)
            world.manager.say(peers=pb.Peers(peers=[reached, refusing]))
            await asyncio.sleep(3)
            assert list(world.manager.of_kind("heartbeat")[-1].witnessed) == ["n2"]
            world.network.kill("m2")
            await asyncio.sleep(70)
            assert list(world.manager.of_kind("heartbeat")[-1].witnessed) == []


class TestStreams:
    async def test_logs_of_a_pod(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("app:1", Program(output=(Output(data=b"hello\n"),)))
            world.manager.assign(a_pod(), full=True)
            await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).ready)
            options = pb.LogOptions(tail=-1)
            world.manager.say(open_stream=pb.OpenStream(stream_id="s1", pod_uid="u1.0.1", logs=options))
            await until(lambda: world.manager.frames.get("s1") and world.manager.frames["s1"][-1].end)
            assert b"".join(frame.stdout for frame in world.manager.frames["s1"]) == b"hello\n"

    async def test_logs_of_the_one_before(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("bad:1", crashing(1, says=b"boom\n"))
            world.manager.assign(a_pod(image="bad:1"), full=True)
            await asyncio.sleep(5)
            options = pb.LogOptions(tail=-1, previous=True)
            world.manager.say(open_stream=pb.OpenStream(stream_id="s1", pod_uid="u1.0.1", logs=options))
            await until(lambda: world.manager.frames.get("s1") and world.manager.frames["s1"][-1].end)
            assert world.manager.frames["s1"][0].stdout == b"boom\n"

    async def test_a_stream_that_cannot_be_opened_says_why(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.say(
                open_stream=pb.OpenStream(stream_id="s1", pod_uid="u9.0.1", logs=pb.LogOptions())
            )
            await until(lambda: world.manager.of_kind("stream_failed"))
            assert "no container" in world.manager.of_kind("stream_failed")[0].message

    async def test_exec_passes_input_and_ends_with_the_exit_code(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.engine.commands["cat",] = Command(echoes_input=True, exit_code=7)
            world.manager.assign(a_pod(), full=True)
            await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).ready)
            world.manager.input.put_nowait(pb.StreamFrame(stdin=b"abc"))
            world.manager.input.put_nowait(pb.StreamFrame(end=True))
            options = pb.ExecOptions(command=["cat"], stdin=True)
            world.manager.say(open_stream=pb.OpenStream(stream_id="s1", pod_uid="u1.0.1", exec=options))
            await until(
                lambda: (
                    world.manager.frames.get("s1")
                    and world.manager.frames["s1"][-1].WhichOneof("kind") == "exit_code"
                )
            )
            frames = world.manager.frames["s1"]
            assert b"".join(frame.stdout for frame in frames) == b"abc"
            assert frames[-1].exit_code == 7

    async def test_closed_by_the_manager_leaves_nothing_open(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.manager.assign(a_pod(), full=True)
            await until(lambda: world.manager.statuses.get("u1.0.1", pb.PodStatus()).ready)
            before = world.network.open_calls
            options = pb.LogOptions(tail=-1, follow=True)
            world.manager.say(open_stream=pb.OpenStream(stream_id="s1", pod_uid="u1.0.1", logs=options))
            await until(lambda: world.network.open_calls > before)
            world.manager.say(close_stream=pb.CloseStream(stream_id="s1"))
            await until(lambda: world.network.open_calls == before)
            assert world.manager.connections == 1

    async def test_the_ring_keeps_the_last_lines_and_follows(self) -> None:
        ring = LogRing()
        for number in range(3):
            ring(None, "info", {"event": "pod.started", "number": number})
        lines = [line async for line in ring.read(tail=2, follow=False)]
        assert lines == ["info pod.started number=1\n", "info pod.started number=2\n"]


def _container(
    number: int,
    state: ContainerState,
    *,
    pod: str = "u1.0.1",
    name: str = "web",
    attempt: int = 0,
    finished_s: float = 0.0,
) -> Container:
    return Container(
        id=f"c{number}",
        name=f"c{number}",
        labels={LABEL_POD: pod, LABEL_CONTAINER: name, LABEL_ATTEMPT: str(attempt)},
        state=state,
        image="",
        image_id="",
        created_s=finished_s,
        started_s=finished_s,
        finished_s=finished_s,
    )


class TestLeftovers:
    def test_the_last_two_of_a_slot_stay_a_day(self) -> None:
        now_s = 10 * KEPT_S
        ended = [
            _container(number, ContainerState.EXITED, attempt=number, finished_s=now_s - 100 + number)
            for number in range(4)
        ]
        running = _container(9, ContainerState.RUNNING, pod="u1.0.2")
        gone = leftovers([*ended, running], {"u1.0.2"}, now_s=now_s)
        assert {each.id for each in gone} == {"c0", "c1"}
        assert len(leftovers([*ended, running], {"u1.0.2"}, now_s=now_s + KEPT_S)) == 4

    def test_each_container_of_a_pod_keeps_its_own(self) -> None:
        """A side-car that crashes every minute must not cost the log of what matters."""
        now_s = 10 * KEPT_S
        ended = [
            _container(0, ContainerState.EXITED, finished_s=now_s - 900),
            *(
                _container(
                    number,
                    ContainerState.EXITED,
                    name="side",
                    attempt=number,
                    finished_s=now_s - 100 + number,
                )
                for number in range(1, 5)
            ),
        ]
        assert {each.id for each in leftovers(ended, set(), now_s=now_s)} == {"c1", "c2"}

    def test_a_sandbox_that_ended_has_nothing_to_tell(self) -> None:
        ended = [
            _container(number, ContainerState.EXITED, name=SANDBOX, attempt=number, finished_s=100.0)
            for number in range(2)
        ]
        assert leftovers(ended, {"u1.0.1"}, now_s=130.0) == []
        assert leftovers(ended, {"u1.0.1"}, now_s=200.0) == ended[:1]
        assert leftovers(ended, set(), now_s=200.0) == ended

    def test_the_newest_container_of_a_pod_stays_for_ever(self) -> None:
        ended = _container(0, ContainerState.EXITED, finished_s=1.0)
        assert leftovers([ended], {"u1.0.1"}, now_s=10 * KEPT_S) == []
        assert leftovers([ended], set(), now_s=10 * KEPT_S) == [ended]


class TestPodSpec:
    def test_reads_what_it_runs(self) -> None:
        spec = parse_pod_spec(
            a_pod(
                terminationGracePeriodSeconds=5,
                container={
                    "command": ["sh", "-c", "echo $(WHO) $$(WHO) $(NOBODY)"],
                    "env": [{"name": "A", "value": "1"}, {"name": "WHO", "value": "me$(A)"}],
                    "resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "64Mi"}},
                },
            ).template_json
        )
        container = spec.containers[0]
        assert spec.grace_s == 5
        assert container.command == ("sh", "-c", "echo me1 $(WHO) $(NOBODY)")
        assert (container.cpu_request_millis, container.memory_limit_bytes) == (250, 64 * 2**20)

    @pytest.mark.parametrize(
        "spec",
        [
            "nonsense",
            [],
            {"containers": []},
            {"containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "y"}]},
            {"containers": [{"name": "a", "image": "x"}], "initContainers": [{"name": "b", "image": "y"}]},
            {"containers": [{"name": "a"}]},
            {"containers": [{"image": "x", "env": [{"name": "A", "valueFrom": {}}]}]},
            {"containers": [{"image": "x", "command": "sh"}]},
            {"containers": [{"image": "x"}], "terminationGracePeriodSeconds": -1},
            {"containers": [{"image": "x"}], "restartPolicy": "Sometimes"},
        ],
    )
    def test_refuses_the_rest_in_words(self, spec: object) -> None:
        with pytest.raises(PodSpecError):
            parse_pod_spec(json.dumps({"spec": spec}))

    @pytest.mark.parametrize(
        ("image", "policy"),
        [
            ("app", "Always"),
            ("app:latest", "Always"),
            ("host:5000/app", "Always"),
            ("app:1", "IfNotPresent"),
            ("host:5000/app@sha256:" + "0" * 64, "IfNotPresent"),
        ],
    )
    def test_pulls_as_kubernetes_does(self, image: str, policy: str) -> None:
        assert default_pull_policy(image) == policy

    def test_expansion_leaves_what_it_does_not_know(self) -> None:
        assert expand("$(A)-$(B)-$$-$", {"A": "1"}) == "1-$(B)-$-$"


class TestNode:
    async def test_usage_of_pods_and_host_is_told(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.registry.push("busy:1", Program(cpu_cores=0.5, memory_bytes=2**20))
            world.manager.assign(a_pod(image="busy:1"), full=True)
            await asyncio.sleep(35)
            usages = [usage for beat in world.manager.of_kind("heartbeat") for usage in beat.usage]
            assert usages
            assert usages[-1].cpu_millis == pytest.approx(500, abs=20)
            assert usages[-1].memory_bytes == 2**20

    async def test_a_full_disk_is_told(self, tmp_path: Path) -> None:
        async with a_world(tmp_path) as world:
            world.host.disk_free_bytes = 5 * 2**30
            await asyncio.sleep(35)
            condition = [
                report.condition for report in world.manager.of_kind("status") if report.HasField("condition")
            ][-1]
            assert condition.disk_pressure
            assert condition.message == "disk 95 % full"
