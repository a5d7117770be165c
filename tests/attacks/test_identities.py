"""Who somebody is comes from the certificate, whatever a message says."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

import bayplan
from bayplan.v1 import access_pb2 as access
from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as control
from bayplan.v1.access_pb2_grpc import AccessStub
from bayplan.v1.agent_link_pb2_grpc import AgentLinkStub
from bayplan.v1.callers_pb2 import ROLE_VIEWER
from bayplan.v1.control_pb2_grpc import ControlStub
from manager.access.caller import ON_BEHALF_OF
from tests.attacks.world import LiveManager, Member, World, denial, read_to_end

pytestmark = [pytest.mark.etcd, pytest.mark.asyncio(loop_scope="package")]

AgentCall = grpc.aio.StreamStreamCall[wire.AgentMessage, wire.ManagerMessage]
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def hello(node: str) -> wire.AgentMessage:
    return wire.AgentMessage(
        hello=wire.Hello(
            node=node, version=bayplan.__version__, session=f"of-{node}", boot_id="b", address="127.0.0.1"
        )
    )


@asynccontextmanager
async def connected(member: Member, manager: LiveManager, node: str) -> AsyncIterator[AgentCall]:
    """An agent's stream on which `node` was said."""
    async with member.channel(manager.address) as channel:
        call: AgentCall = AgentLinkStub(channel).Connect()
        await call.write(hello(node))
        yield call
        call.cancel()


async def first_answer(call: AgentCall) -> wire.ManagerMessage:
    async with asyncio.timeout(5):
        answer = await call.read()
    if isinstance(answer, wire.ManagerMessage):
        return answer
    code, words = await call.code(), await call.details()
    raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=words)


async def asked_to_open(call: AgentCall) -> str:
    """The stream that the manager asks this agent to open."""
    async with asyncio.timeout(5):
        while True:
            message = await first_answer(call)
            if message.HasField("open_stream"):
                return message.open_stream.stream_id


def leader_and_standby(world: World) -> tuple[LiveManager, LiveManager]:
    (leader,) = [each for each in world.managers if each.manager.leadership is not None]
    (standby,) = [each for each in world.managers if each is not leader]
    return leader, standby


class TestANodeSpeaksForItselfAlone:
    async def test_not_in_its_first_words(self, world: World) -> None:
        thief = await world.node("thief-1")
        for manager in world.managers:
            async with world.unchanged(), connected(thief, manager, "n1") as call:
                denied = await denial(first_answer(call))

            assert denied.code is PERMISSION_DENIED
            assert "cannot speak for node n1" in denied.words

        entries = await world.audit(who=str(thief.identity))
        assert {(entry.method, entry.target, entry.outcome) for entry in entries} == {
            ("bayplan.v1.AgentLink/Connect", "node n1", "PERMISSION_DENIED")
        }
        assert {entry.manager for entry in entries} == {"m1", "m2"}

    async def test_not_by_the_stream_of_another(self, world: World) -> None:
        """The admin reads n1's log; another node learned which stream that is, and dials it first."""
        leader, standby = leader_and_standby(world)
        thief = await world.node("thief-2")
        async with connected(world.members["node"], leader, "n1") as agent:
            assert (await first_answer(agent)).HasField("welcome")
            async with world.admin.channel(leader.address) as user_channel:
                logs = ControlStub(user_channel).Logs(control.LogsRequest(node="n1"))
                reading = asyncio.ensure_future(logs.read())
                stream_id = await asked_to_open(agent)

                for manager in (leader, standby):
                    async with thief.channel(manager.address) as channel:
                        stolen = AgentLinkStub(channel).Attach()
                        await stolen.write(wire.StreamFrame(stream_id=stream_id, stdout=b"false"))
                        assert (await read_to_end(stolen, within_s=5)).code is PERMISSION_DENIED

                async with world.members["node"].channel(standby.address) as channel:
                    own = AgentLinkStub(channel).Attach()
                    await own.write(wire.StreamFrame(stream_id=stream_id, stdout=b"true"))
                    async with asyncio.timeout(5):
                        chunk = await reading
                    assert isinstance(chunk, control.LogChunk)
                    assert chunk.stdout == b"true"
                logs.cancel()

        methods = {entry.method for entry in await world.audit(who=str(thief.identity))}
        assert methods == {"bayplan.v1.AgentLink/Attach"}

    async def test_not_by_a_name_for_which_no_certificate_exists(self, world: World) -> None:
        """Nor does the refusal repeat whatever it is told."""
        async with connected(world.members["node"], world.managers[0], "../../n1\n" * 100) as call:
            denied = await denial(first_answer(call))

        assert denied.code is PERMISSION_DENIED
        assert len(denied.words) < 400
        assert "\n" not in denied.words


class TestOnBehalfOf:
    """A manager that passes a call on says for whom. Everybody else can say so too."""

    @pytest.mark.parametrize("who", ["node", "viewer", "operator"])
    async def test_it_is_believed_of_managers_alone(self, world: World, who: str) -> None:
        claim = ((ON_BEHALF_OF, f"{world.admin.identity}#1"),)
        member = world.members[who]
        async with world.unchanged(), member.channel(world.address) as channel:
            says = await AccessStub(channel).WhoAmI(access.WhoAmIRequest(), metadata=claim)
            denied = await denial(
                AccessStub(channel).CreateJoinToken(
                    access.CreateJoinTokenRequest(kind="manager"), metadata=claim
                )
            )

        assert says.identity == str(member.identity)
        assert denied.code is PERMISSION_DENIED
        entry = (await world.audit(who=str(member.identity)))[-1]
        assert (entry.method, entry.via) == ("bayplan.v1.Access/CreateJoinToken", "")

    async def test_a_manager_gets_no_more_than_the_one_it_speaks_for(self, world: World) -> None:
        viewer = world.members["viewer"].identity
        claim = ((ON_BEHALF_OF, f"{viewer}#1"),)
        async with world.unchanged(), world.members["manager"].channel(world.address) as channel:
            assert (await AccessStub(channel).WhoAmI(access.WhoAmIRequest(), metadata=claim)).role == 1
            scale = control.ScaleRequest(name="web", replicas=2)
            key = access.TakeClusterKeyRequest(id="x", key=b"x")
            denied = [
                await denial(ControlStub(channel).Scale(scale, metadata=claim)),
                await denial(AccessStub(channel).TakeClusterKey(key, metadata=claim)),
                await denial(ControlStub(channel).Get(
                    control.GetRequest(kind="Secret", name="x", show_secrets=True), metadata=claim
                )),
            ]  # fmt: skip

        assert {each.code for each in denied} == {PERMISSION_DENIED}
        passed_on = [entry for entry in await world.audit(who=str(viewer)) if entry.via == "m9"]
        assert {entry.method.rpartition("/")[2] for entry in passed_on} == {"Scale", "TakeClusterKey", "Get"}

    @pytest.mark.parametrize(
        "claim",
        [
            "admin",
            "spiffe://{cluster}/user/admin",
            "spiffe://{cluster}/user/admin#",
            "spiffe://{cluster}/user/admin#one",
            "spiffe://{cluster}/user/admin#0",
            "spiffe://{cluster}/user/admin#-1",
            "spiffe://{cluster}/user/nobody-of-that-name#1",
            "spiffe://ffffffffffffffff/user/admin#1",
            "spiffe://{cluster}/root/admin#1",
            "spiffe://{cluster}/user/../user/admin#1",
            "#1",
        ],
    )
    async def test_garbage_is_refused(self, world: World, claim: str) -> None:
        metadata = ((ON_BEHALF_OF, claim.format(cluster=world.cluster)),)
        async with world.unchanged(), world.members["manager"].channel(world.address) as channel:
            denied = await denial(AccessStub(channel).WhoAmI(access.WhoAmIRequest(), metadata=metadata))

        assert denied.code is UNAUTHENTICATED

    async def test_whoever_was_revoked_is_not_spoken_for(self, world: World) -> None:
        gone = await world.user("gone", ROLE_VIEWER)
        await world.access().RevokeIdentity(access.RevokeIdentityRequest(kind="user", name="gone"))
        async with world.members["manager"].channel(world.address) as channel:
            denied = await denial(
                AccessStub(channel).WhoAmI(
                    access.WhoAmIRequest(), metadata=((ON_BEHALF_OF, f"{gone.identity}#1"),)
                )
            )

        assert denied.code is UNAUTHENTICATED


class TestAViewer:
    """What a role may not do within a method that it may call."""

    async def test_sees_a_secret_without_its_values(self, world: World) -> None:
        value = base64.b64encode(b"only-for-operators").decode()
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "seen"}, "data": {"key": value}}
        await world.control().Apply(control.ApplyRequest(documents=[json.dumps(secret)]))
        for manager in world.managers:
            async with world.members["viewer"].channel(manager.address) as channel:
                stub = ControlStub(channel)
                shown = await stub.Get(control.GetRequest(kind="Secret", name="seen"))
                listed = await stub.List(control.ListRequest(kind="Secret"))
                watched = await stub.Watch(control.ListRequest()).read()
                denied = [
                    await denial(stub.Get(control.GetRequest(kind="Secret", name="seen", show_secrets=True))),
                    await denial(stub.List(control.ListRequest(show_secrets=True))),
                    await denial(anext(aiter(stub.Watch(control.ListRequest(show_secrets=True))))),
                ]

            assert value not in f"{shown}{listed}{watched}"
            assert {each.code for each in denied} == {PERMISSION_DENIED}

    async def test_takes_no_stream_of_exec(self, world: World) -> None:
        async with world.unchanged(), world.members["viewer"].channel(world.address) as channel:
            call = ControlStub(channel).Exec()
            start = control.ExecStart(pod="web-0", options=wire.ExecOptions(command=["id"]))
            await call.write(control.ExecInput(start=start))

            assert (await read_to_end(call, within_s=5)).code is PERMISSION_DENIED


class TestAUserThatCannotBe:
    @pytest.mark.parametrize(
        ("role", "ttl_ms", "words"),
        [
            (0, 0, "a user needs a role"),
            (99, 0, "a user needs a role"),
            (ROLE_VIEWER, 2**63 - 1, "lasts ten years at most"),
            (ROLE_VIEWER, -1, "lasts ten years at most"),
        ],
    )
    async def test_is_made_by_no_admin(self, world: World, role: Any, ttl_ms: int, words: str) -> None:
        """One of a role above all others would be let through everywhere, and leave no trace."""
        request = access.CreateUserRequest(name="superuser", role=role, ttl_ms=ttl_ms)
        async with world.unchanged():
            denied = await denial(world.access().CreateUser(request))

        assert denied.code is grpc.StatusCode.INVALID_ARGUMENT
        assert words in denied.words
