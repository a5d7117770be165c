from __future__ import annotations

import json
from typing import Any

import pytest

from bayplan.client import wire
from bayplan.client.errors import NotFoundError
from bayplan.client.progress import FAILING_S, Progress, Target, follow, progress_of
from bayplan.client.types import Document, Pod
from bayplan.v1 import agent_link_pb2 as agent
from tests.bayplan.client.fake_control import deployment, document, pod

pytestmark = pytest.mark.virtual_time
WEB = Target("Deployment", "default", "web")


def a_document(*, replicas: int = 1, generation: int = 1, **status: Any) -> Document:
    message = document(deployment(replicas=replicas), generation=generation)
    message.status_json = json.dumps({"observedGeneration": generation, "updatedReplicas": replicas} | status)
    return wire.from_document(message)


def a_pod(slot: int = 0, **changes: Any) -> Pod:
    return wire.from_pod(pod("web", slot, **changes))


def crashing(*, running: bool, restarts: int = 1) -> Pod:
    end = agent.Exit(code=127, reason="Error", last_log_lines="gunicorn: not found")
    box = agent.ContainerStatus(name="main", restarts=restarts, running=running, last_exit=end)
    return a_pod(
        status="Running" if running else "CrashLoop",
        ready=running,
        why="" if running else 'exit 127: "gunicorn: not found"',
        detail=agent.PodStatus(containers=[box]),
    )


class Changing:
    """Shows one state after the other, a second each, the last for ever."""

    def __init__(self, *states: tuple[Document, list[Pod]]) -> None:
        self._states = list(states)
        self.looks = 0

    async def get(self, kind: str, name: str, *, namespace: str = "default") -> Document:
        del kind, name, namespace
        self.looks += 1
        return self._states[min(self.looks // 3, len(self._states) - 1)][0]

    async def pods(self, **_: str) -> tuple[Pod, ...]:
        return tuple(self._states[min(self.looks // 3, len(self._states) - 1)][1])


async def until(source: Changing, limit: int = 1000) -> Progress:
    async for progress in follow(source, WEB):
        if progress.is_done or progress.lasting() or source.looks > limit:
            return progress
    raise AssertionError


class TestProgress:
    def test_is_reached_when_every_pod_is_ready(self) -> None:
        assert progress_of(WEB, a_document(), [a_pod()]).is_reached

    def test_is_not_reached_before_the_leader_saw_the_change(self) -> None:
        """All pods are ready, but of the generation before."""
        seen = a_document(generation=2, observedGeneration=1)
        assert not progress_of(WEB, seen, [a_pod()]).is_reached

    def test_is_not_reached_while_old_pods_run(self) -> None:
        assert not progress_of(WEB, a_document(), [a_pod(0), a_pod(1)]).is_reached

    def test_is_not_reached_while_a_pod_is_being_stopped(self) -> None:
        stopping = a_pod(1, want=agent.WANT_STOP, status="Stopping", ready=False)
        assert not progress_of(WEB, a_document(), [a_pod(0), stopping]).is_reached

    def test_is_not_reached_where_nothing_is_known(self) -> None:
        unknown = wire.from_document(document(deployment(replicas=1)))
        assert not progress_of(WEB, unknown, [a_pod()]).is_reached

    def test_no_replicas_are_reached_when_none_is_left(self) -> None:
        assert progress_of(WEB, a_document(replicas=0), []).is_reached

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"node": "", "status": "Pending", "why": "0/3 nodes: 3 lack 4 cpu"}, "Pending: 0/3 nodes"),
            (
                {
                    "status": "Pulling",
                    "detail": agent.PodStatus(reason="ImagePullBackOff", message="manifest unknown"),
                },
                "on n1: ImagePullBackOff: manifest unknown",
            ),
            ({"status": "CrashLoop", "why": 'exit 1: "boom"'}, 'on n1: CrashLoop: exit 1: "boom"'),
        ],
    )
    def test_names_what_fails(self, changes: dict[str, Any], text: str) -> None:
        (failing,) = progress_of(WEB, a_document(), [a_pod(ready=False, **changes)]).failing
        assert text in str(failing)

    def test_a_pod_that_is_just_starting_does_not_fail(self) -> None:
        assert not progress_of(WEB, a_document(), [a_pod(ready=False, status="Pulling")]).failing


class TestFollow:
    async def test_a_short_failure_is_waited_out(self) -> None:
        source = Changing((a_document(), [crashing(running=False)]), (a_document(), [crashing(running=True)]))
        assert (await until(source)).is_done

    async def test_a_lasting_failure_is_reported(self) -> None:
        end = await until(Changing((a_document(), [crashing(running=False)])))
        assert end.lasting()[0].for_s >= FAILING_S

    async def test_a_pod_that_dies_in_its_first_second_is_not_done(self) -> None:
        """Ready for a moment, then it crashes, again and again."""
        states = [
            (a_document(), [crashing(running=number % 2 == 0, restarts=number // 2)]) for number in range(200)
        ]
        end = await until(Changing(*states), limit=500)
        assert not end.is_done

    async def test_a_workload_under_deletion_is_gone(self) -> None:
        message = document(deployment())
        message.deleting = True
        with pytest.raises(NotFoundError):
            await until(Changing((wire.from_document(message), [])))
