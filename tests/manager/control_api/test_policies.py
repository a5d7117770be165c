"""What pods may ask of their hosts: who allows it, what is refused, and what agents are told."""

from __future__ import annotations

import json

import grpc
import pytest

from bayplan.transport.errors import problems_from_error
from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from tests.manager.control_api.test_documents import refusal
from tests.manager.world import ScriptedAgent, World, a_deployment, a_world

pytestmark = pytest.mark.virtual_time


def on_the_hosts_network(name: str = "web") -> str:
    document = json.loads(a_deployment(name))
    document["spec"]["template"]["spec"]["hostNetwork"] = True
    return json.dumps(document)


async def set_policy(world: World, namespace: str, level: str) -> api.SetPolicyReply:
    policy = api.Policy(namespace=namespace, level=level)
    return await world.control().SetPolicy(api.SetPolicyRequest(policy=policy))


def assigned(agent: ScriptedAgent) -> list[wire.Assignment]:
    return [each for message in agent.heard for each in message.assignments.pods]


async def test_baseline_refuses_the_hosts_network_and_says_who_can_allow_it() -> None:
    async with a_world() as world:
        error = await refusal(world.control().Apply(api.ApplyRequest(documents=[on_the_hosts_network()])))

        (problem,) = problems_from_error(error)
        assert problem.path == "spec.template.spec.hostNetwork"
        assert "bay policy set default privileged" in problem.message
        assert (await world.control().List(api.ListRequest())).documents == []


async def test_privileged_allows_it_and_agents_are_told() -> None:
    async with a_world() as world:
        node = await world.agent("n1")
        assert (await set_policy(world, "default", "privileged")).result == "configured"

        await world.apply(on_the_hosts_network(), a_deployment("api"))

        await world.until(lambda: len(node.statuses) == 4)
        assert {each.privileged for each in assigned(node)} == {True}


async def test_another_namespace_stays_baseline() -> None:
    async with a_world() as world:
        node = await world.agent("n1")
        await set_policy(world, "edge", "privileged")

        error = await refusal(world.control().Apply(api.ApplyRequest(documents=[on_the_hosts_network()])))
        await world.apply(a_deployment())
        await world.until(lambda: len(node.statuses) == 2)

        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert {each.privileged for each in assigned(node)} == {False}


async def test_taken_back_it_refuses_again() -> None:
    async with a_world() as world:
        await set_policy(world, "default", "privileged")
        await set_policy(world, "default", "baseline")

        error = await refusal(world.control().Apply(api.ApplyRequest(documents=[on_the_hosts_network()])))

        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        listed = await world.control().ListPolicies(api.ListPoliciesRequest())
        assert [(each.namespace, each.level) for each in listed.policies] == [("default", "baseline")]


@pytest.mark.parametrize(
    ("namespace", "level"), [("default", "root"), ("../x", "privileged"), ("", "baseline")]
)
async def test_what_is_no_policy_is_refused(namespace: str, level: str) -> None:
    async with a_world() as world:
        error = await refusal(set_policy(world, namespace, level))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
