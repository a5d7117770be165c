from __future__ import annotations

import asyncio
import json

import grpc
import pytest

from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from manager.store import keys, registries
from manager.store.records import DamagedRecordError
from manager.store.registries import parse_registry_key, registry_key
from tests.manager.control_api.test_documents import refusal
from tests.manager.world import ScriptedAgent, World, a_world

pytestmark = pytest.mark.virtual_time

PASSWORD = "hunter2"


def told(agent: ScriptedAgent) -> dict[str, tuple[str, str]]:
    """What an agent would pull with now."""
    found: dict[str, tuple[str, str]] = {}
    for message in agent.heard:
        credentials: list[wire.RegistryCredential] | None = None
        if message.HasField("welcome"):
            credentials = list(message.welcome.credentials)
        elif message.HasField("credentials"):
            credentials = list(message.credentials.credentials)
        if credentials is not None:
            found = {each.registry: (each.username, each.password) for each in credentials}
    return found


async def login(
    world: World, registry: str = "reg.example", *, password: str = PASSWORD, at: str = ""
) -> api.SetRegistryReply:
    request = api.SetRegistryRequest(registry=registry, username="me", password=password)
    return await world.control(at).SetRegistry(request)


async def listed(world: World) -> list[tuple[str, str]]:
    reply = await world.control().ListRegistries(api.ListRegistriesRequest())
    return [(each.registry, each.username) for each in reply.registries]


class TestKeys:
    @pytest.mark.parametrize(
        "registry",
        [
            "docker.io",
            "localhost:5000",
            "REG-1.example",
            "[fd00::1]:5000",
            "[::1]",
            "x.5b:80",
            "x5b",
            "a" * 250,
        ],
    )
    def test_lead_back_to_the_registry(self, registry: str) -> None:
        assert parse_registry_key(registry_key(registry)) == registry

    @pytest.mark.parametrize("registry", ["", "a_b", "ä.example", "/a", ".", "x_5b"])
    def test_are_made_of_registries_only(self, registry: str) -> None:
        with pytest.raises(ValueError, match="cannot be"):
            registry_key(registry)

    def test_a_damaged_login_is_not_quoted(self) -> None:
        with pytest.raises(DamagedRecordError) as caught:
            registries.decode_login(b'{"password": ["hunter2"]}')

        assert "hunter2" not in str(caught.value)


class TestLogins:
    async def test_are_set_changed_listed_and_deleted(self) -> None:
        async with a_world(2) as world:
            first = await login(world, at=world.follower)
            again = await login(world)
            changed = await login(world, password="another")

            assert [first.result, again.result, changed.result] == ["created", "unchanged", "configured"]
            assert await listed(world) == [("reg.example", "me")]
            await world.control().DeleteRegistry(api.DeleteRegistryRequest(registry="reg.example"))
            assert await listed(world) == []
            assert not world.etcd.items(registries.REGISTRIES)
            error = await refusal(
                world.control().DeleteRegistry(api.DeleteRegistryRequest(registry="reg.example"))
            )
            assert error.code() is grpc.StatusCode.NOT_FOUND

    @pytest.mark.parametrize(
        ("text", "registry"),
        [
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("http://reg.example:5000/v2", "reg.example:5000"),
            ("localhost:5000", "localhost:5000"),
        ],
    )
    async def test_of_what_is_called_otherwise_elsewhere(self, text: str, registry: str) -> None:
        async with a_world() as world:
            assert (await login(world, text)).registry == registry
            assert await listed(world) == [(registry, "me")]

    @pytest.mark.parametrize(
        "text", ["", "a b", "../a", "a_b", "reg:port", "-a", "x" * 300, "a\nb", "user@reg"]
    )
    async def test_of_what_is_no_registry_are_refused(self, text: str) -> None:
        async with a_world() as world:
            error = await refusal(login(world, text))

            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "is no registry" in (error.details() or "")
            assert not world.etcd.items(keys.SECRETS)

    async def test_without_a_password_are_refused(self) -> None:
        async with a_world() as world:
            error = await refusal(login(world, password=""))

            assert "needs a user name and a password" in (error.details() or "")

    async def test_are_done_once_when_the_reply_of_the_store_is_lost(self) -> None:
        async with a_world() as world:
            world.etcd.drop_next_reply(world.leader)
            assert (await login(world)).result == "created"

    async def test_are_never_shown(self) -> None:
        """Not in any answer, and not in what managers write elsewhere."""
        async with a_world() as world:
            node = await world.agent("n1")
            await login(world)
            await asyncio.sleep(2)
            control = world.control()
            answers = (
                await control.ListRegistries(api.ListRegistriesRequest()),
                await control.ListEvents(api.ListEventsRequest()),
                await control.ListNodes(api.ListNodesRequest()),
                await control.List(api.ListRequest(show_secrets=True)),
            )

            assert PASSWORD not in str(answers)
            assert told(node) == {"reg.example": ("me", PASSWORD)}
            others = [item for item in world.etcd.items(keys.ROOT) if not item.key.startswith(keys.SECRETS)]
            assert not [item.key for item in others if PASSWORD.encode() in item.value]


class TestAgents:
    async def test_are_told_when_they_come_and_whenever_it_changes(self) -> None:
        async with a_world(2) as world:
            await login(world)
            await login(world, "localhost:5000")
            await asyncio.sleep(0.1)
            node = await world.agent("n1")
            assert told(node) == {"reg.example": ("me", PASSWORD), "localhost:5000": ("me", PASSWORD)}

            await login(world, password="another", at=world.follower)
            await world.until(lambda: told(node)["reg.example"] == ("me", "another"), within_s=1)
            await world.control().DeleteRegistry(api.DeleteRegistryRequest(registry="localhost:5000"))
            await world.until(lambda: told(node) == {"reg.example": ("me", "another")}, within_s=1)

            before = len(node.heard)
            await asyncio.sleep(5)
            assert "credentials" not in node.kinds()[before:]

    async def test_are_told_by_the_next_leader_too(self) -> None:
        async with a_world(2) as world:
            await login(world)
            await world.kill(world.leader)
            await world.until(lambda: any(each.leadership for each in world.managers.values()))
            node = await world.agent("n1")

            assert told(node) == {"reg.example": ("me", PASSWORD)}

    async def test_are_told_what_a_watch_has_missed(self) -> None:
        """The sweep, once a minute, repairs it."""
        async with a_world() as world:
            node = await world.agent("n1")
            await login(world)
            await world.until(lambda: bool(told(node)))
            state = world.leadership.state
            state.credentials, state.key_revisions[registry_key("reg.example")] = (), 0
            await asyncio.sleep(70)

            assert told(node) == {"reg.example": ("me", PASSWORD)}

    async def test_keep_what_they_have_when_a_login_is_damaged(self) -> None:
        async with a_world() as world:
            await login(world)
            await asyncio.sleep(0.1)
            world.etcd.put(registry_key("reg.example"), json.dumps({"username": "me"}).encode())
            await asyncio.sleep(1)
            node = await world.agent("n1")

            assert told(node) == {"reg.example": ("me", PASSWORD)}
            assert await listed(world) == []
