from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from manager.store import keys
from tests.manager.control_api.test_documents import refusal
from tests.manager.world import a_deployment, a_world

pytestmark = pytest.mark.virtual_time


class Reader:
    """Reads a stream in the background."""

    def __init__(self, call: Any) -> None:
        self.messages: list[Any] = []
        self.error: grpc.aio.AioRpcError | None = None
        self.is_over = False
        self._call = call

    async def run(self) -> None:
        try:
            async for message in self._call:
                self.messages.append(message)
        except grpc.aio.AioRpcError as error:
            self.error = error
        self.is_over = True


@contextlib.asynccontextmanager
async def reading(call: Any) -> AsyncIterator[Reader]:
    reader = Reader(call)
    task = asyncio.create_task(reader.run(), name="reader")
    try:
        await asyncio.sleep(0.3)
        yield reader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class TestWatch:
    async def test_gives_the_present_first_and_then_what_changes(self) -> None:
        async with a_world(2) as world:
            await world.apply(a_deployment("a"), a_deployment("b"))
            async with reading(world.control(world.follower).Watch(api.ListRequest(kind="deploy"))) as reader:
                await world.apply(a_deployment("b", replicas=7))
                await asyncio.sleep(0.5)
                await world.control().Delete(api.DeleteRequest(kind="deploy", name="a"))
                await asyncio.sleep(0.5)

                first, *later = reader.messages
                assert first.initial
                assert [document.name for document in first.documents] == ["a", "b"]
                assert not any(event.initial for event in later)
                assert {document.name for event in later for document in event.documents} <= {"a", "b"}
                assert [gone.name for event in later for gone in event.deleted] == ["a"]

    @pytest.mark.parametrize("method", ["Watch", "WatchPods", "WatchEvents"])
    @pytest.mark.parametrize("at", ["leader", "follower"])
    async def test_ends_with_unavailable_when_the_leader_changes(self, method: str, at: str) -> None:
        """Even at the old leader, which lives on: it knows nothing new any more."""
        requests = {
            "Watch": api.ListRequest(),
            "WatchPods": api.ListPodsRequest(),
            "WatchEvents": api.ListEventsRequest(),
        }
        async with a_world(2) as world:
            old = world.leader
            stub = world.control(old if at == "leader" else world.follower)
            async with reading(getattr(stub, method)(requests[method])) as reader:
                await world.managers[old]._election.resign()
                await world.until(lambda: reader.is_over, within_s=5)

                assert reader.error is not None
                assert reader.error.code() is grpc.StatusCode.UNAVAILABLE

    async def test_tells_of_pods_as_they_come_and_go(self) -> None:
        async with a_world() as world:
            await world.agent("n1")
            async with reading(world.control().WatchPods(api.ListPodsRequest())) as reader:
                await world.apply(a_deployment(replicas=1))
                await asyncio.sleep(1)
                await world.control().Scale(api.ScaleRequest(name="web", replicas=0))
                await asyncio.sleep(1)

                assert reader.messages[0].initial
                assert not reader.messages[0].pods
                shown = [pod for event in reader.messages for pod in event.pods]
                assert "Running" in {pod.status for pod in shown}
                assert [uid for event in reader.messages for uid in event.deleted] == [shown[-1].uid]

    async def test_tells_of_events_as_they_happen(self) -> None:
        request = api.ListEventsRequest()
        async with a_world() as world, reading(world.control().WatchEvents(request)) as reader:
            await world.agent("n1")
            await world.apply(a_deployment(replicas=1))
            await asyncio.sleep(1)

            reasons = [event.reason for event in reader.messages]
            assert reasons == ["NodeJoined", "NodeReady", "PodPlaced", "PodReady"]


class TestWhy:
    async def test_tells_why_a_pod_is_pending(self) -> None:
        async with a_world() as world:
            await world.apply(a_deployment(replicas=1))
            await asyncio.sleep(0.5)
            reply = await world.control().Why(api.WhyRequest(pod="web-0"))

            assert reply.pod.status == "Pending"
            assert "is pending: " in reply.summary
            assert "0/0 nodes" in reply.summary or "no node" in reply.summary

    async def test_tells_why_a_pod_was_replaced_also_after_a_leader_change(self) -> None:
        async with a_world(2) as world:
            first = await world.agent("n1")
            second = await world.agent("n2")
            await world.apply(a_deployment(replicas=1))
            await world.until(lambda: bool(first.statuses) or bool(second.statuses))
            holder, other = (first, second) if first.statuses else (second, first)
            await holder.stop()
            await world.until(lambda: bool(other.statuses))
            old = world.leader
            await world.kill(old)
            await world.until(lambda: any(each.leadership for each in world.managers.values()))
            reply = await world.control().Why(api.WhyRequest(pod="web-0"))

            reasons = [event.reason for event in reply.decisions]
            assert reasons[0] == "PodPlaced"
            assert "PodLost" in reasons
            assert any(f"node {holder.name} is down" in event.message for event in reply.decisions)

    async def test_asks_for_more_of_an_ambiguous_name(self) -> None:
        async with a_world() as world:
            await world.agent("n1")
            await world.apply(a_deployment(replicas=3))
            await asyncio.sleep(0.5)
            error = await refusal(world.control().Why(api.WhyRequest(pod="web-")))

            assert error.code() is grpc.StatusCode.NOT_FOUND
            assert "say more of the name" in (error.details() or "")


class TestReadsAcrossManagers:
    async def test_answers_alike_at_every_manager(self) -> None:
        async with a_world(3) as world:
            await world.agent("n1")
            await world.apply(a_deployment(replicas=3), at="m3")
            await asyncio.sleep(0.5)
            for name in world.managers:
                reply = await world.control(name).ListPods(api.ListPodsRequest())

                assert reply.mark.complete
                assert [pod.status for pod in reply.pods] == ["Running"] * 3

    async def test_never_answers_older_than_what_a_client_has_seen(self) -> None:
        """Written at one manager, read at another at once, while the leader itself writes as well."""
        async with a_world(3) as world:
            await world.agent("n1")
            for turn in range(30):
                names = sorted(world.managers)
                written = await world.control(names[turn % 3]).Apply(
                    api.ApplyRequest(documents=[a_deployment(replicas=1 + turn % 4, team=f"t{turn}")])
                )
                reply = await world.control(names[(turn + 1) % 3]).Get(
                    api.GetRequest(kind="deploy", name="web", seen=written.mark)
                )

                assert reply.document.version >= written.applied[0].version
                assert f'"team": "t{turn}"' in reply.document.json

    async def test_gives_documents_without_status_while_nobody_leads(self) -> None:
        async with a_world(2) as world:
            await world.agent("n1")
            await world.apply(a_deployment(team="blue"))
            await asyncio.sleep(0.5)
            # Somebody holds the leader key who is no manager: nobody can be elected, or asked.
            world.etcd.put(keys.LEADER, b"?")
            await world.kill(world.leader)
            survivor = next(iter(world.managers))
            await asyncio.sleep(0.5)
            stub = world.control(survivor)
            found = await stub.Get(api.GetRequest(kind="deploy", name="web"))
            listed = await stub.List(api.ListRequest(selector={"team": "blue"}))

            for reply, document in ((found, found.document), (listed, listed.documents[0])):
                assert not reply.mark.complete
                assert "no leader" in reply.mark.notice
                assert document.name == "web"
                assert not document.status_json

    async def test_says_in_words_that_nobody_leads(self) -> None:
        """Live calls wait for the next leader, and then give up."""
        async with a_world(1) as world:
            name = world.leader
            stub = world.control(name)
            world.etcd.cut(name)
            await asyncio.sleep(10)
            loop = asyncio.get_running_loop()
            begun_s = loop.time()
            error = await refusal(stub.ListPods(api.ListPodsRequest()))

            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "no leader" in (error.details() or "")
            assert "Pods run on" in (error.details() or "")
            assert 4 < loop.time() - begun_s < 6

    async def test_waits_for_the_next_leader(self) -> None:
        async with a_world(3) as world:
            follower = world.follower
            stub = world.control(follower)
            await world.kill(world.leader)
            reply = await stub.ListNodes(api.ListNodesRequest(), timeout=20)

            assert reply.mark.epoch == world.leadership.term.epoch.revision

    async def test_shows_a_failure_in_the_agents_words(self) -> None:
        async with a_world() as world:
            node = await world.agent("n1")
            node.is_idle = True
            await world.apply(a_deployment(replicas=1))
            await world.until(lambda: bool(node.assignments))
            node.saw(next(iter(node.assignments)), wire.POD_STATE_FAILED, message="exit 127: no gunicorn")
            await asyncio.sleep(0.5)
            pods = await world.pods(attempts=True)

            assert "exit 127: no gunicorn" in {pod.why for pod in pods}
