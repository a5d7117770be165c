"""Names that would leave their place in a key, a path, a log line or a terminal: refused by allow-list."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from bayplan.identity.tokens import JoinToken, parse_token
from bayplan.v1 import access_pb2 as access
from bayplan.v1 import control_pb2 as control
from bayplan.v1.callers_pb2 import ROLE_VIEWER
from tests.attacks.world import World, denial

pytestmark = [pytest.mark.etcd, pytest.mark.asyncio(loop_scope="package")]

BAD = {
    "parent": "../n1",
    "parents": "../../pki/ca",
    "slash": "a/b",
    "absolute": "/etc/passwd",
    "backslash": "a\\b",
    "NUL": "n1\0",
    "newline": "n1\nn2",
    "carriage return": "n1\r\nSet-Cookie: a",
    "quotes": "n1\"'`",
    "shell": "$(reboot);x",
    "escape": "\x1b[2J\x1b]0;x\x07",
    "markup": "<script>alert(1)</script>",
    "300 characters": "a" * 300,
    "a megabyte": "a" * 1_000_000,
    "cyrillic twin": "n\u0430me",
    "full-width twin": "\uff4e1",
    "right to left": "n1\u202e",
    "zero width": "n\u200b1",
    "combining": "n\u0301",
    "space": "n 1",
    "leading space": " n1",
    "percent": "n%2f1",
    "dot": ".",
    "dots": "..",
    "dash": "-n1",
    "etcd's end": "\xff",
}
EMPTY = {"empty": ""}
# What fits into a request to join: test_sizes.py.
SMALL = {what: name for what, name in {**BAD, **EMPTY}.items() if len(name) < 10_000}
REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAUTHENTICATED,
}

# What has a meaning there: of a registry its host counts, a secret's keys are Kubernetes', and
# a document or pod is found by a unique prefix of its name, the empty one too.
MEANT = {
    "make a registry": {"slash"},
    "find a registry's login": {"slash"},
    "make a key of a secret": {"dash"},
    "make a label of a node": {"slash"},
    "make a namespace": {"empty"},
    "find a document": {"empty"},
    "find a pod": {"empty"},
    "find a pod's log": {"empty"},
}

Try = Callable[[World, str], Awaitable[Any]]


def each_of(names: dict[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", names.values(), ids=names.keys())


def document(kind: str, name: str, **metadata: str) -> str:
    spec: dict[str, Any] = {
        "Secret": {"apiVersion": "v1", "data": {"key": "eA=="}},
        "Deployment": {
            "apiVersion": "apps/v1",
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"a": "b"}},
                "template": {
                    "metadata": {"labels": {"a": "b"}},
                    "spec": {"containers": [{"name": "c", "image": "x"}]},
                },
            },
        },
    }[kind]
    return json.dumps({"kind": kind, "metadata": {"name": name, **metadata}, **spec})


async def joining(world: World, kind: str, name: str) -> Any:
    return await world.ask_to_join(await world.host(), parse_token(await world.token(kind)), name)


async def joining_by_id(world: World, name: str) -> Any:
    token = JoinToken(root_digest="0" * 64, id=name, secret="0" * 32)
    return await world.ask_to_join(await world.host(), token, "n1")


def apply(world: World, *documents: str) -> Awaitable[Any]:
    return world.control().Apply(control.ApplyRequest(documents=documents))


MADE: dict[str, Try] = {
    "a user": lambda w, n: w.access().CreateUser(access.CreateUserRequest(name=n, role=ROLE_VIEWER)),
    "a kind of token": lambda w, n: w.access().CreateJoinToken(access.CreateJoinTokenRequest(kind=n)),
    "a registry": lambda w, n: w.control().SetRegistry(
        control.SetRegistryRequest(registry=n, username="u", password="p")
    ),
    "a secret": lambda w, n: apply(w, document("Secret", n)),
    "a deployment": lambda w, n: apply(w, document("Deployment", n)),
    "a namespace": lambda w, n: apply(w, document("Secret", "x", namespace=n)),
    "a key of a secret": lambda w, n: apply(
        w, json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "data": {n: "eA=="}})
    ),
    "a kind": lambda w, n: apply(w, json.dumps({"apiVersion": "v1", "kind": n, "metadata": {"name": "x"}})),
    "a label of a node": lambda w, n: w.control().UpdateNode(
        control.UpdateNodeRequest(name="n1", set_labels={n: "x"})
    ),
}
FOUND: dict[str, Try] = {
    "a token": lambda w, n: w.access().RevokeJoinToken(access.RevokeJoinTokenRequest(id=n)),
    "a node's identity": lambda w, n: w.access().RevokeIdentity(
        access.RevokeIdentityRequest(kind="node", name=n)
    ),
    "a kind of identity": lambda w, n: w.access().RevokeIdentity(
        access.RevokeIdentityRequest(kind=n, name="n1")
    ),
    "a method": lambda w, n: w.access().CanI(access.CanIRequest(method=n)),
    "a registry's login": lambda w, n: w.control().DeleteRegistry(control.DeleteRegistryRequest(registry=n)),
    "a kind of document": lambda w, n: w.control().Get(control.GetRequest(kind=n, name="x")),
    "a document": lambda w, n: w.control().Get(control.GetRequest(kind="Secret", name=n)),
    "a document by a standby": lambda w, n: w.control(1).Delete(control.DeleteRequest(kind="Secret", name=n)),
    "a document to delete": lambda w, n: w.control().Delete(control.DeleteRequest(kind="Deployment", name=n)),
    "a namespace to delete in": lambda w, n: w.control().Delete(
        control.DeleteRequest(kind="Secret", namespace=n or "/", name="x")
    ),
    "a workload": lambda w, n: w.control().Scale(control.ScaleRequest(name=n, replicas=3)),
    "a node": lambda w, n: w.control().UpdateNode(control.UpdateNodeRequest(name=n, drain=True)),
    "a node to forget": lambda w, n: w.control().UpdateNode(control.UpdateNodeRequest(name=n, remove=True)),
    "a node that is lost": lambda w, n: w.control(1).UpdateNode(control.UpdateNodeRequest(name=n, lost=True)),
    "a pod": lambda w, n: w.control().Why(control.WhyRequest(pod=n)),
    "a pod's log": lambda w, n: anext(aiter(w.control().Logs(control.LogsRequest(pod=n)))),
    "a node's log": lambda w, n: anext(aiter(w.control().Logs(control.LogsRequest(node=n or "x")))),
}
TRIED = {
    **{f"make {what}": attempt for what, attempt in MADE.items()},
    **{f"find {what}": attempt for what, attempt in FOUND.items()},
}


class TestNames:
    @pytest.mark.parametrize("attempt", TRIED)
    async def test_of_what_users_name(self, world: World, attempt: str) -> None:
        """Refused in words that can be shown: short, and without what steers a terminal."""
        names = {**BAD, **EMPTY}
        async with world.unchanged():
            for what in sorted(names.keys() - MEANT.get(attempt, set())):
                denied = await denial(TRIED[attempt](world, names[what]))

                assert denied.code in REFUSED, (what, denied)
                assert len(denied.words) < 3000, what
                assert denied.words.replace("\n", "").isprintable(), (what, denied.words)

    @pytest.mark.parametrize("kind", ["node", "manager"])
    @each_of(SMALL)
    async def test_of_who_joins(self, world: World, kind: str, name: str) -> None:
        denied = await denial(joining(world, kind, name))

        assert denied.code is grpc.StatusCode.FAILED_PRECONDITION
        known = (await world.access().ListIdentities(access.ListIdentitiesRequest())).identities
        assert name not in {each.name for each in known}
        assert denied.words.isprintable()

    @each_of(SMALL)
    async def test_of_tokens(self, world: World, name: str) -> None:
        async with world.unchanged():
            assert (await denial(joining_by_id(world, name))).code is grpc.StatusCode.UNAUTHENTICATED

    @each_of({"capitals": "N1", "a dot": "n.1", "an underscore": "n_1"})
    async def test_a_node_is_named_as_strictly_as_a_host(self, world: World, name: str) -> None:
        assert (await denial(joining(world, "node", name))).code is grpc.StatusCode.FAILED_PRECONDITION
