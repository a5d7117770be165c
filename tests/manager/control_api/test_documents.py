from __future__ import annotations

import asyncio
import json

import grpc
import grpc.aio
import pytest

from bayplan.transport.errors import problems_from_error
from bayplan.v1 import control_pb2 as api
from manager.store import keys, records
from tests.manager.world import World, a_deployment, a_service, a_world

pytestmark = pytest.mark.virtual_time


async def refusal(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]  # any unary call
    return caught.value


def stored(world: World, name: str = "web") -> records.StoredDocument:
    found = world.etcd.get(keys.resource("Deployment", "default", name))
    assert found is not None
    return records.decode_document(found.value)


async def delete_slowly(world: World) -> None:
    """Delete a Deployment whose pods never stop."""
    node = await world.agent("n1")
    await world.apply(a_deployment())
    await world.until(lambda: len(node.statuses) == 2)
    node.is_idle = True
    await world.control().Delete(api.DeleteRequest(kind="Deployment", name="web"))


class TestApply:
    async def test_says_what_it_did_to_each_document(self) -> None:
        async with a_world() as world:
            first = await world.apply(a_deployment(), a_deployment("api"))
            again = await world.apply(a_deployment(), a_deployment("api", replicas=5))

            assert [(each.name, each.result) for each in first] == [("web", "created"), ("api", "created")]
            assert [(each.name, each.result) for each in again] == [
                ("web", "unchanged"),
                ("api", "configured"),
            ]

    async def test_warns_of_endpoints_that_mean_nothing_whichever_comes_later(self) -> None:
        endpoints = json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": {"name": "web"},
                "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 5432}]}],
            }
        )
        warning = (
            "Endpoints default/web means nothing: the service has a selector, so its pods are its endpoints"
        )
        async with a_world() as world:
            without, written, selecting, again = [
                (await world.apply(document))[0].warnings
                for document in (a_service(selector={}), endpoints, a_service(), endpoints)
            ]

            assert warning not in [*without, *written]
            assert list(selecting) == [warning]
            assert list(again) == [warning]

    async def test_counts_a_generation_for_each_change_of_the_spec(self) -> None:
        async with a_world() as world:
            generations = [
                (await world.apply(document))[0].generation
                for document in (
                    a_deployment(),
                    a_deployment(),
                    a_deployment(team="blue"),
                    a_deployment(replicas=9),
                )
            ]

            assert generations == [1, 1, 1, 2]

    async def test_writes_nothing_in_a_dry_run(self) -> None:
        async with a_world() as world:
            reply = await world.control().Apply(api.ApplyRequest(documents=[a_deployment()], dry_run=True))

            assert reply.applied[0].result == "created"
            assert world.etcd.get(keys.resource("Deployment", "default", "web")) is None

    async def test_writes_none_of_several_when_one_is_refused(self) -> None:
        """The problem names the document and the field; they travel in the trailing metadata."""
        async with a_world() as world:
            bad = json.loads(a_deployment("api"))
            bad["spec"]["template"]["spec"]["containers"][0]["imgae"] = "x"
            documents = [a_deployment(), json.dumps(bad)]
            error = await refusal(world.control().Apply(api.ApplyRequest(documents=documents)))

            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            problems = problems_from_error(error)
            assert [problem.document for problem in problems] == [1]
            assert problems[0].path == "spec.template.spec.containers[0].imgae"
            assert world.etcd.get(keys.resource("Deployment", "default", "web")) is None

    @pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"kind": "Deployment"}', '{"a": NaN}', "1e999"])
    async def test_refuses_what_is_no_document(self, text: str) -> None:
        async with a_world() as world:
            error = await refusal(world.control().Apply(api.ApplyRequest(documents=[text])))

            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert problems_from_error(error)

    async def test_refuses_an_empty_request(self) -> None:
        async with a_world() as world:
            error = await refusal(world.control().Apply(api.ApplyRequest()))

            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    async def test_refuses_a_stale_version(self) -> None:
        async with a_world() as world:
            version = (await world.apply(a_deployment()))[0].version
            await world.apply(a_deployment(replicas=3))
            stale = api.ApplyRequest(documents=[a_deployment(replicas=4)], expected_version=version)
            error = await refusal(world.control().Apply(stale))

            assert error.code() is grpc.StatusCode.ABORTED
            assert "read it again" in (error.details() or "")
            assert stored(world).document["spec"]["replicas"] == 3

    async def test_refuses_to_make_anew_what_exists(self) -> None:
        async with a_world() as world:
            await world.apply(a_deployment())
            request = api.ApplyRequest(documents=[a_deployment(replicas=7)], expected_version=-1)

            assert (await refusal(world.control().Apply(request))).code() is grpc.StatusCode.ABORTED

    async def test_lets_exactly_one_of_two_racing_clients_win_each_version(self) -> None:
        """Both read, then both write at once, at different managers, again and again."""
        async with a_world(2) as world:
            version = (await world.apply(a_deployment()))[0].version
            for turn in range(10):
                requests = [
                    api.ApplyRequest(
                        documents=[a_deployment(replicas=10 + 2 * turn + index)], expected_version=version
                    )
                    for index in range(2)
                ]
                outcomes = await asyncio.gather(
                    world.control("m1").Apply(requests[0]),
                    world.control("m2").Apply(requests[1]),
                    return_exceptions=True,
                )
                losers = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
                winners = [each for each in outcomes if isinstance(each, api.ApplyReply)]

                assert [loser.code() for loser in losers] == [grpc.StatusCode.ABORTED]
                version = winners[0].applied[0].version
                winner = outcomes.index(winners[0])
                assert stored(world).document["spec"]["replicas"] == 10 + 2 * turn + winner

    async def test_is_done_once_when_the_reply_of_the_store_is_lost(self) -> None:
        async with a_world(2) as world:
            world.etcd.drop_next_reply(world.follower)
            applied = await world.apply(a_deployment(), at=world.follower)

            assert applied[0].result == "created"
            assert stored(world).generation == 1

    async def test_says_how_to_cure_a_full_store(self) -> None:
        async with a_world() as world:
            world.etcd.is_full = True
            error = await refusal(world.control().Apply(api.ApplyRequest(documents=[a_deployment()])))

            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "etcdctl" in (error.details() or "")


class TestDelete:
    async def test_ends_a_workload_and_frees_its_name_once_its_pods_are_gone(self) -> None:
        async with a_world() as world:
            node = await world.agent("n1")
            first = (await world.apply(a_deployment()))[0]
            await world.until(lambda: len(node.statuses) == 2)
            await world.control().Delete(api.DeleteRequest(kind="deploy", name="web"))
            await world.until(lambda: not world.etcd.items(keys.RESOURCES))
            again = (await world.apply(a_deployment()))[0]
            await world.until(lambda: len(node.assignments) == 2)

            assert (first.result, again.result) == ("created", "created")
            uids = {keys.parse_placements(item.key) for item in world.etcd.items(keys.PLACEMENTS)}
            assert len(uids) == 1
            assert len(world.etcd.items(keys.REVISIONS)) == 1

    async def test_refuses_to_apply_while_the_last_pods_are_stopping(self) -> None:
        async with a_world() as world:
            await delete_slowly(world)
            error = await refusal(world.control().Apply(api.ApplyRequest(documents=[a_deployment()])))

            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "still being deleted" in (error.details() or "")

    async def test_says_what_an_apply_had_written_before_it_was_refused(self) -> None:
        async with a_world() as world:
            await delete_slowly(world)
            both = [a_deployment("new"), a_deployment()]
            error = await refusal(world.control().Apply(api.ApplyRequest(documents=both)))

            assert stored(world, "new").generation == 1
            assert (error.details() or "").endswith(
                "(already written by this request: Deployment default/new; apply it again)"
            )

    async def test_never_removes_a_new_document_of_the_same_name(self) -> None:
        """The leader's watch is behind: it must not delete the name a second time."""
        async with a_world(2) as world:
            await world.apply(a_deployment(replicas=0))
            await asyncio.sleep(0.5)
            await world.control().Delete(api.DeleteRequest(kind="Deployment", name="web"))
            while True:
                try:
                    again = await world.apply(a_deployment(replicas=0), at=world.follower)
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.001)
            await asyncio.sleep(70)

            assert again[0].result == "created"
            assert not stored(world).deleting

    @pytest.mark.parametrize("name", ["nothing", "../web", "a/b", "", "x" * 300, "web\n"])
    async def test_answers_not_found_for_what_is_not_there(self, name: str) -> None:
        async with a_world() as world:
            error = await refusal(world.control().Delete(api.DeleteRequest(kind="Deployment", name=name)))

            assert error.code() is grpc.StatusCode.NOT_FOUND

    async def test_removes_seven_thousand_replicas(self) -> None:
        """More keys than one transaction holds."""
        async with a_world() as world:
            nodes = [await world.agent(f"n{number}") for number in range(1, 71)]
            await world.apply(a_deployment(replicas=7000))
            await world.until(lambda: sum(len(node.statuses) for node in nodes) == 7000, within_s=60)
            await world.control().Delete(api.DeleteRequest(kind="Deployment", name="web"))
            await world.until(lambda: not world.etcd.items(keys.RESOURCES), within_s=60)

            assert not world.etcd.items(keys.PLACEMENTS)
            assert not world.etcd.items(keys.REVISIONS)
            assert not any(node.assignments for node in nodes)


class TestScale:
    async def test_changes_the_replicas_and_nothing_else(self) -> None:
        async with a_world() as world:
            await world.apply(a_deployment(team="blue"))
            before = stored(world).document
            reply = await world.control().Scale(api.ScaleRequest(kind="deploy", name="web", replicas=5))

            assert (reply.before, reply.generation) == (2, 2)
            assert stored(world).document == {**before, "spec": {**before["spec"], "replicas": 5}}

    @pytest.mark.parametrize("replicas", [-1, 10**9, 2**62])
    async def test_refuses_a_number_out_of_bounds(self, replicas: int) -> None:
        async with a_world() as world:
            await world.apply(a_deployment())
            error = await refusal(world.control().Scale(api.ScaleRequest(name="web", replicas=replicas)))

            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert problems_from_error(error)[0].path == "spec.replicas"
            assert stored(world).document["spec"]["replicas"] == 2

    async def test_refuses_when_somebody_else_scaled_meanwhile(self) -> None:
        async with a_world() as world:
            await world.apply(a_deployment())
            request = api.ScaleRequest(name="web", replicas=5, expected_replicas=4)
            error = await refusal(world.control().Scale(request))

            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "has 2 replicas" in (error.details() or "")

    async def test_keeps_every_acknowledged_number_in_order(self) -> None:
        """Scaling at two managers at once: the store ends at one of the two, and the pods follow it."""
        async with a_world(2) as world:
            node = await world.agent("n1")
            await world.apply(a_deployment())
            await asyncio.gather(
                world.control("m1").Scale(api.ScaleRequest(name="web", replicas=3)),
                world.control("m2").Scale(api.ScaleRequest(name="web", replicas=6)),
            )
            wanted = stored(world).document["spec"]["replicas"]

            assert wanted in (3, 6)
            assert stored(world).generation == 3
            await world.until(lambda: len(node.assignments) == wanted)


class TestRead:
    async def test_finds_a_document_by_a_unique_prefix(self) -> None:
        async with a_world() as world:
            await world.apply(a_deployment("web-one"), a_deployment("web-two"))
            await asyncio.sleep(0.1)
            control = world.control()
            found = await control.Get(api.GetRequest(kind="deploy", name="web-o"))
            error = await refusal(control.Get(api.GetRequest(kind="deploy", name="web")))

            assert found.document.name == "web-one"
            assert error.code() is grpc.StatusCode.NOT_FOUND
            assert "web-one, web-two" in (error.details() or "")

    async def test_prefers_the_exact_name_to_longer_ones(self) -> None:
        async with a_world() as world:
            await world.apply(a_deployment("web"), a_deployment("web-two"))
            await asyncio.sleep(0.1)
            found = await world.control().Get(api.GetRequest(kind="deploy", name="web"))

            assert found.document.name == "web"

    async def test_lists_what_bears_the_labels(self) -> None:
        async with a_world() as world:
            await world.apply(
                a_deployment("a", team="blue"), a_deployment("b", team="red"), a_deployment("c")
            )
            await asyncio.sleep(0.1)
            listed = await world.control().List(api.ListRequest(kind="deploy", selector={"team": "blue"}))

            assert [document.name for document in listed.documents] == ["a"]

    async def test_names_a_kind_that_does_not_exist(self) -> None:
        async with a_world() as world:
            error = await refusal(world.control().List(api.ListRequest(kind="Gizmo")))

            assert error.code() is grpc.StatusCode.NOT_FOUND
            assert "'Gizmo'" in (error.details() or "")
