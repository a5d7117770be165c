"""What was told to the managers in confidence is looked for wherever somebody else may look."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from bayplan.v1 import access_pb2 as access
from bayplan.v1 import control_pb2 as control
from manager.store import keys
from tests.attacks.world import World, denial

pytestmark = [pytest.mark.etcd, pytest.mark.asyncio(loop_scope="package")]

ENVIRONMENT = "canary-in-an-environment-7d1f"
SECRET = "canary-in-a-secret-7d1f"
PASSWORD = "canary-password-7d1f"
CANARIES = (ENVIRONMENT, SECRET, PASSWORD)
# The name is no secret: that it is found shows that the search sees what was written.
NAME = "kept-in-confidence"
TOKENS = 20  # The newest: each is looked for in six spellings.


def deployment(value: Any, **more: Any) -> str:
    container = {"name": "c", "image": "x", "env": [{"name": "P", "value": value}], **more}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    return json.dumps(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME}, "spec": spec}
    )


def secret(**fields: Any) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, **fields})


def spellings(text: str) -> list[bytes]:
    """As it is, and as it would stand in JSON, base64 at each of its three offsets, and hex."""
    content = text.encode()
    shifted = [base64.b64encode(bytes(shift) + content)[4:-4] for shift in range(3)]
    return [content, content.hex().encode(), base64.b64encode(content), *shifted]


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def told(world: World) -> list[str]:
    """Everything that is secret, after it was told to a manager; secrets of join tokens too."""
    await world.control().Apply(
        control.ApplyRequest(documents=[deployment(ENVIRONMENT), secret(stringData={"key": SECRET})])
    )
    await world.control(1).SetRegistry(
        control.SetRegistryRequest(registry="registry.example", username="u", password=PASSWORD)
    )
    await world.token("node")
    await world.token("manager")
    return [*CANARIES, *world.secrets[-TOKENS:]]


def found_in(content: bytes, told: list[str]) -> list[str]:
    return [each for each in told if any(spelling in content for spelling in spellings(each))]


def contents(place: Path) -> bytes:
    """Of a file, or of all files of a directory."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    # etcd lays its files out in advance: zeros to the end.
    return b"\n".join(path.read_bytes().rstrip(b"\0") for path in files)


class TestSecrets:
    @pytest.mark.parametrize("rotated", [False, True], ids=["before a rotation", "after a rotation"])
    async def test_etcds_files_hold_none(self, world: World, told: list[str], rotated: bool) -> None:  # noqa: FBT001 - a case
        """Its log of writes is never rewritten: whatever was put once stays there."""
        if rotated:
            await world.access().RotateKeys(access.RotateKeysRequest())
        content = contents(world.directory / "data")

        assert NAME.encode() in content
        assert found_in(content, told) == []
        got = await world.control().Get(control.GetRequest(kind="Secret", name=NAME, show_secrets=True))
        assert base64.b64encode(SECRET.encode()).decode() in got.document.json

    async def test_what_etcd_answers_holds_none(self, world: World, told: list[str]) -> None:
        items = (await world.store.list(keys.ROOT)).items
        content = b"\n".join(item.value for item in items)

        assert any(NAME in item.key for item in items)
        assert found_in(content, told) == []

    async def test_logs_hold_none(self, told: list[str], log_file: Path) -> None:
        """At level debug, of everything that was done to this cluster."""
        content = contents(log_file)

        assert b"registry.example" in content
        assert found_in(content, told) == []

    async def test_the_record_of_calls_holds_none(self, world: World, told: list[str]) -> None:
        await world.audit(denied=False)  # Written to the files when it returns.
        for manager in world.managers:
            content = contents(manager.access.directory / "audit.jsonl")

            assert b"bayplan.v1" in content
            assert found_in(content, told) == []

    async def test_a_managers_files_hold_no_word_of_users_and_are_its_own_alone(
        self, world: World, told: list[str]
    ) -> None:
        for manager in world.managers:
            files = [path for path in manager.access.directory.rglob("*") if path.is_file()]
            for path in files:
                if path.name != "admin.token":  # Made to be read on this host; used up by now.
                    assert found_in(path.read_bytes(), told) == [], path
                assert path.stat().st_mode & 0o077 == 0, path
            assert manager.access.directory.stat().st_mode & 0o077 == 0

    async def test_answers_hold_none_for_who_may_not_read_secrets(
        self, world: World, told: list[str]
    ) -> None:
        answers = [
            await world.control().Get(control.GetRequest(kind="Secret", name=NAME)),
            await world.control().ListRegistries(control.ListRegistriesRequest()),
            await world.control().ListEvents(control.ListEventsRequest()),
            await world.access().ListJoinTokens(access.ListJoinTokensRequest()),
            await world.access().ListIdentities(access.ListIdentitiesRequest()),
            await world.access().ListAudit(access.ListAuditRequest(limit=10_000)),
        ]

        assert found_in("".join(map(str, answers)).encode(), told) == []

    @pytest.mark.parametrize(
        "document",
        [
            secret(data={"key": SECRET}),
            secret(data={"key": [SECRET]}),
            secret(data=[SECRET]),
            secret(stringData={"key": {"nested": SECRET}}),
            secret(stringData={"bad/key": SECRET}),
            secret(stringDat={"key": SECRET}),
            secret(stringData={"key": SECRET}, type="kubernetes.io/tls"),
            secret(stringData={"key": SECRET}, type="of-another-type"),
            deployment([ENVIRONMENT]),
            deployment({"from": ENVIRONMENT}),
            deployment(ENVIRONMENT, image=""),
            deployment(ENVIRONMENT, imaeg="x"),
            deployment(ENVIRONMENT + "\0"),
            secret(stringData={"key": SECRET})[:-1],
        ],
    )
    async def test_error_texts_hold_none(self, world: World, told: list[str], document: str) -> None:
        """People paste them into chats."""
        del told
        denied = await denial(world.control().Apply(control.ApplyRequest(documents=[document])))

        assert denied.code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}
        assert found_in(denied.words.encode(), list(CANARIES)) == []

    async def test_a_conflict_is_told_without_values(self, world: World, told: list[str]) -> None:
        del told
        documents = [secret(stringData={"key": SECRET + "2"})]
        denied = await denial(
            world.control().Apply(control.ApplyRequest(documents=documents, expected_version=1))
        )

        assert denied.code is grpc.StatusCode.ABORTED
        assert found_in(denied.words.encode(), list(CANARIES)) == []
