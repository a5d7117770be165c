"""Secrets and registries' passwords, as programs meet them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest

from bayplan.client import AccessDeniedError, Client, NotFoundError, Registry
from tests.bayplan.client.fake_control import FakeControl, document, served
from tests.fakes.network import FakeNetwork, FakeTransport

pytestmark = pytest.mark.virtual_time

VALUE = base64.b64encode(b"hunter2").decode()
SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "db", "namespace": "default"},
    "data": {"password": VALUE},
}


@pytest.fixture
def control() -> FakeControl:
    return FakeControl(documents=[document(SECRET)])


@pytest.fixture
async def client(control: FakeControl) -> AsyncIterator[Client]:
    network = FakeNetwork()
    async with AsyncExitStack() as stack:
        transport = FakeTransport(network, "m1")
        address = await stack.enter_async_context(served(control, transport, "m1", 7400))
        yield await stack.enter_async_context(Client([address], transport=FakeTransport(network, "user")))


class TestSecrets:
    async def test_come_without_values_unless_asked_for(self, client: Client) -> None:
        hidden = await client.get("Secret", "db")
        shown = await client.get("Secret", "db", show_secrets=True)

        assert hidden.body["data"] == {"password": ""}
        assert hidden.body["metadata"]["annotations"] == {"bayplan.io/hidden": "data"}
        assert shown.body["data"] == {"password": VALUE}
        assert await client.list("Secret") == (hidden,)
        assert await client.list(show_secrets=True) == (shown,)
        async for change in client.watch("Secret", show_secrets=True):
            assert change.documents == (shown,)
            break

    async def test_are_refused_in_words(self, client: Client, control: FakeControl) -> None:
        words = "alice is a viewer: reading secrets needs the role operator"
        control.failures = [(grpc.StatusCode.PERMISSION_DENIED, words)]

        with pytest.raises(AccessDeniedError, match=words):
            await client.get("Secret", "db", show_secrets=True)


class TestRegistries:
    async def test_are_set_listed_and_deleted(self, client: Client, control: FakeControl) -> None:
        change = await client.set_registry("reg.example", username="me", password="hunter2")

        assert (change.registry, change.result) == ("reg.example", "created")
        assert control.logins == {"reg.example": ("me", "hunter2")}
        assert await client.registries() == (Registry(registry="reg.example", username="me"),)
        assert await client.delete_registry("reg.example") == "reg.example"
        with pytest.raises(NotFoundError):
            await client.delete_registry("reg.example")

    async def test_are_deleted_also_when_the_answer_was_lost(
        self, client: Client, control: FakeControl
    ) -> None:
        """The second attempt finds nothing any more."""
        control.failures = [(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")]

        assert await client.delete_registry("reg.example") == "reg.example"
