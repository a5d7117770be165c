from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from bayplan.v1 import control_pb2 as api
from manager.store import keys
from tests.manager.control_api.test_documents import refusal
from tests.manager.world import World, a_deployment, a_world

pytestmark = pytest.mark.virtual_time


async def update(world: World, name: str = "n1", **request: Any) -> api.UpdateNodeReply:
    return await world.control().UpdateNode(api.UpdateNodeRequest(name=name, **request))


async def node(world: World, name: str = "n1") -> api.Node:
    await asyncio.sleep(0.1)
    return (await world.control().ListNodes(api.ListNodesRequest(name=name))).nodes[0]


class TestUpdateNode:
    async def test_sets_and_removes_labels_and_taints(self) -> None:
        async with a_world() as world:
            await world.agent("n1")
            taint = api.Taint(key="gpu", value="yes", effect="NoSchedule")
            await update(world, set_labels={"disk": "ssd", "x/y": ""}, set_taints=[taint])
            shown = await node(world)
            await update(world, remove_labels=["disk"], remove_taints=[api.Taint(key="gpu")])
            later = await node(world)

            assert shown.labels["disk"] == "ssd"
            assert shown.taints == [taint]
            assert "disk" not in later.labels
            assert not later.taints

    @pytest.mark.parametrize(
        "request_",
        [
            {"set_labels": {"a b": "c"}},
            {"set_labels": {"a": "b\n"}},
            {"set_labels": {"": "b"}},
            {"set_labels": {"a": "x" * 64}},
            {"set_taints": [api.Taint(key="../x", effect="NoSchedule")]},
            {"set_taints": [api.Taint(key="a", effect="Sometimes")]},
            {"set_taints": [api.Taint(key="a", effect="")]},
        ],
    )
    async def test_refuses_labels_and_taints_that_are_none(self, request_: dict[str, Any]) -> None:
        async with a_world() as world:
            await world.agent("n1")
            error = await refusal(update(world, **request_))

            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert world.etcd.get(keys.node_intent("n1")) is None

    @pytest.mark.parametrize("name", ["n9", "", "../n1", "n1\x00", "N1"])
    async def test_knows_only_nodes_that_joined(self, name: str) -> None:
        async with a_world() as world:
            await world.agent("n1")

            assert (await refusal(update(world, name, drain=True))).code() is grpc.StatusCode.NOT_FOUND

    async def test_is_done_once_when_the_reply_of_the_store_is_lost(self) -> None:
        async with a_world(2) as world:
            await world.agent("n1")
            world.etcd.drop_next_reply(world.follower)
            reply = await world.control(world.follower).UpdateNode(
                api.UpdateNodeRequest(name="n1", unschedulable=True)
            )

            assert reply.changed
            assert (await node(world)).unschedulable

    async def test_says_whether_anything_changed(self) -> None:
        async with a_world() as world:
            await world.agent("n1")

            assert [(await update(world, unschedulable=True)).changed for _ in range(2)] == [True, False]


class TestLostNode:
    async def test_is_not_believed_of_a_node_that_answers(self) -> None:
        async with a_world(2) as world:
            await world.agent("n1")
            stub = world.control(world.follower)
            error = await refusal(stub.UpdateNode(api.UpdateNodeRequest(name="n1", lost=True)))

            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "is Ready" in (error.details() or "")
            assert world.etcd.get(keys.node_intent("n1")) is None

    async def test_is_forgotten_once_the_node_is_heard_again(self) -> None:
        """The oath was wrong: when the node falls silent the next time, evidence is asked for again."""
        async with a_world() as world:
            first = await world.agent("n1")
            await first.stop()
            await asyncio.sleep(0.1)
            await update(world, lost=True)
            await asyncio.sleep(1)
            assert (await node(world)).status == "Down"

            again = await world.agent("n1")
            await asyncio.sleep(1)
            assert (await node(world)).status == "Ready"
            await again.stop()
            await asyncio.sleep(0.6)

            assert (await node(world)).status == "Suspect"


class TestRemoveNode:
    async def test_is_refused_while_the_node_lives(self) -> None:
        async with a_world() as world:
            await world.agent("n1")
            error = await refusal(update(world, remove=True))

            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "n1 is Ready" in (error.details() or "")

    async def test_forgets_a_dead_one_and_its_pods_run_elsewhere(self) -> None:
        async with a_world() as world:
            first = await world.agent("n1")
            await world.apply(a_deployment(replicas=3))
            await world.until(lambda: len(first.statuses) == 3)
            await first.stop()
            second = await world.agent("n2")
            await world.until(lambda: len(second.statuses) == 3)
            await update(world, remove=True)
            await asyncio.sleep(1)

            assert world.etcd.get(keys.node("n1")) is None
            assert {pod.node for pod in await world.pods()} == {"n2"}

    async def test_is_finished_although_the_caller_hangs_up(self) -> None:
        async with a_world() as world:
            first = await world.agent("n1")
            await world.apply(a_deployment(replicas=150, name="wide"))
            await world.until(lambda: bool(first.statuses))
            await first.stop()
            await world.until(lambda: world.leadership.dispatcher.node_state("n1")[0] == "Down")
            call = asyncio.create_task(update(world, remove=True))
            await asyncio.sleep(0.004)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await asyncio.sleep(1)

            assert world.etcd.get(keys.node("n1")) is None
            assert "n1" not in world.leadership.state.nodes
