"""Secrets through the API: who sees their values, and what a change of them is."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import grpc
import pytest

from bayplan.transport.errors import problems_from_error
from bayplan.v1 import control_pb2 as api
from bayplan.v1.callers_pb2 import ROLE_VIEWER
from manager.access.caller import Caller, set_caller
from manager.store import keys
from tests.manager.control_api.test_documents import refusal
from tests.manager.control_api.test_live import reading
from tests.manager.world import a_deployment, a_world

pytestmark = pytest.mark.virtual_time

VALUE = "hunter2!"
ENCODED = base64.b64encode(VALUE.encode()).decode()


def a_secret(name: str = "db", *, value: str = VALUE, **fields: Any) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "stringData": {"word": value},
            **fields,
        }
    )


class TestReading:
    @pytest.mark.parametrize("at", ["leader", "follower"])
    async def test_shows_no_value_unless_asked(self, at: str) -> None:
        async with a_world(2) as world:
            await world.apply(a_secret(), a_deployment())
            await asyncio.sleep(0.1)
            stub = world.control(getattr(world, at))
            found = (await stub.Get(api.GetRequest(kind="secret", name="db"))).document
            prefixed = (await stub.Get(api.GetRequest(kind="secret", name="d"))).document
            listed = list((await stub.List(api.ListRequest())).documents)
            shown = (await stub.Get(api.GetRequest(kind="secret", name="db", show_secrets=True))).document
            all_shown = list((await stub.List(api.ListRequest(show_secrets=True))).documents)

            body = json.loads(found.json)
            assert body["data"] == {"word": ""}
            assert body["metadata"]["annotations"] == {"bayplan.io/hidden": "data"}
            assert prefixed == found
            assert {each.kind for each in listed} == {"Deployment", "Secret"}
            assert ENCODED not in str(listed)
            assert json.loads(shown.json)["data"] == {"word": ENCODED}
            assert shown in all_shown

    async def test_shows_no_value_without_a_leader_either(self) -> None:
        async with a_world(2) as world:
            await world.apply(a_secret())
            # Somebody holds the leader key who is no manager: nobody can be elected, or asked.
            world.etcd.put(keys.LEADER, b"?")
            await world.kill(world.leader)
            await asyncio.sleep(0.5)
            stub = world.control(next(iter(world.managers)))
            replies = (
                await stub.Get(api.GetRequest(kind="secret", name="db")),
                await stub.List(api.ListRequest(kind="secret")),
            )
            for reply in replies:
                assert not reply.mark.complete
                assert ENCODED not in str(reply)
                assert "bayplan.io/hidden" in str(reply)

    async def test_a_watch_tells_of_a_changed_value_without_showing_it(self) -> None:
        async with a_world() as world:
            await world.apply(a_secret())
            async with (
                reading(world.control().Watch(api.ListRequest(kind="secret"))) as reader,
                reading(world.control().Watch(api.ListRequest(kind="secret", show_secrets=True))) as operator,
            ):
                await world.apply(a_secret(value="another"))
                await asyncio.sleep(0.5)

                assert [each.documents[0].generation for each in reader.messages] == [1, 2]
                assert ENCODED not in str(reader.messages)
                assert ENCODED in str(operator.messages[0])

    async def test_shows_values_to_operators_alone(self) -> None:
        # There is no gate on this network: what is set here is what the methods find.
        set_caller(Caller(kind="user", name="alice", role=ROLE_VIEWER))
        async with a_world(2) as world:
            await world.apply(a_secret())
            await asyncio.sleep(0.1)
            stub = world.control(world.follower)
            asked = (
                stub.Get(api.GetRequest(kind="secret", name="db", show_secrets=True)),
                stub.List(api.ListRequest(show_secrets=True)),
                anext(aiter(stub.Watch(api.ListRequest(show_secrets=True)))),
            )
            for call in asked:
                error = await refusal(call)
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED
                assert error.details() == "alice is a viewer: reading secrets needs the role operator"
            assert (await stub.Get(api.GetRequest(kind="secret", name="db"))).document.name == "db"


class TestWriting:
    async def test_a_changed_value_is_another_generation_a_label_is_not(self) -> None:
        async with a_world() as world:
            labelled: dict[str, Any] = {"metadata": {"name": "db", "labels": {"team": "blue"}}}
            applied = [
                (await world.apply(document))[0]
                for document in (
                    a_secret(),
                    a_secret(stringData=None, data={"word": ENCODED}),
                    a_secret(**labelled),
                    a_secret(value="another", **labelled),
                )
            ]

            assert [each.result for each in applied] == ["created", "unchanged", "configured", "configured"]
            assert [each.generation for each in applied] == [1, 1, 1, 2]
            assert applied[0].warnings == ["secrets are stored, but pods cannot use them yet"]

    async def test_an_immutable_one_keeps_its_data_until_it_is_deleted(self) -> None:
        async with a_world() as world:
            await world.apply(a_secret(immutable=True))
            changed = api.ApplyRequest(documents=[a_secret(value="another", immutable=True)])
            error = await refusal(world.control().Apply(changed))

            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert error.details() == "Secret default/db is immutable: delete it and create it again"
            await world.control().Delete(api.DeleteRequest(kind="secret", name="db"))
            assert (await world.apply(a_secret(value="another")))[0].result == "created"

    async def test_what_was_read_with_hidden_values_is_refused(self) -> None:
        async with a_world() as world:
            await world.apply(a_secret())
            found = await world.control().Get(api.GetRequest(kind="secret", name="db"))
            error = await refusal(world.control().Apply(api.ApplyRequest(documents=[found.document.json])))

            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "whose values were hidden: get it with --show-secrets" in (error.details() or "")
            kept = await world.control().Get(api.GetRequest(kind="secret", name="db", show_secrets=True))
            assert ENCODED in kept.document.json

    async def test_a_refusal_names_the_key_and_never_the_value(self) -> None:
        async with a_world() as world:
            bad = a_secret(data={"pin": VALUE})
            error = await refusal(world.control().Apply(api.ApplyRequest(documents=[a_secret("a"), bad])))

            (problem,) = problems_from_error(error)
            assert (problem.document, problem.path) == (1, "data.pin")
            assert VALUE not in f"{error.details()} {problem.message} {error.trailing_metadata()}"

    async def test_nothing_but_the_document_holds_the_value(self) -> None:
        """Not the events, nor any key that the leader writes."""
        async with a_world() as world:
            await world.apply(a_secret(), a_deployment())
            await world.agent("n1")
            await asyncio.sleep(2)
            events = await world.control().ListEvents(api.ListEventsRequest())

            assert ENCODED not in str(events)
            others = [item for item in world.etcd.items(keys.ROOT) if not item.key.startswith(keys.RESOURCES)]
            assert not [item.key for item in others if ENCODED.encode() in item.value]
