"""The commands about who may do what."""

from __future__ import annotations

import json

import grpc
import pytest

from bayplan.cli.permissions import VERBS, method_of
from bayplan.cli.text import now_ms
from bayplan.v1 import access_pb2 as access
from bayplan.v1 import control_pb2
from bayplan.v1.callers_pb2 import ROLE_VIEWER
from tests.bayplan.cli.conftest import Bay, text
from tests.bayplan.client.fake_access import CLUSTER, an_identity

HOUR_MS = 3_600_000


class TestWho:
    async def test_whoami(self, bay: Bay) -> None:
        ended = await bay("whoami")

        lines = ended.out.splitlines()
        assert lines[0] == f"Identity:     spiffe://{CLUSTER}/user/admin"
        assert lines[1] == "Role:         admin"
        assert lines[3].startswith("Certificate:  until 2")
        assert lines[3].endswith("Z (in 2d2h)")
        assert lines[4] == "Access:       until it is revoked"
        assert json.loads((await bay("whoami", "-o", "json")).out)["role"] == "admin"
        assert (await bay("whoami", "-o", "name")).out == "user/admin\n"

    async def test_can_i(self, bay: Bay) -> None:
        bay.access.denied = {"bayplan.v1.Control/Scale"}

        assert (await bay("auth", "can-i", "get", "pods")).out == "yes\n"
        ended = await bay("auth", "can-i", "scale", "deploy")
        assert (ended.code, ended.out) == (1, "no\n")
        assert ended.err == "admin is a viewer: this needs operator\n"

    async def test_can_i_refuses_what_it_does_not_know(self, bay: Bay) -> None:
        ended = await bay("auth", "can-i", "fly")
        assert ended.code == 2
        assert ended.err.startswith('error: there is no verb "fly". Known are accept-restore, adopt, apply,')
        ended = await bay("auth", "can-i", "rotate", "pods")
        assert (ended.code, ended.err) == (2, 'error: "rotate" goes with ca, keys, not with "pods"\n')
        assert (await bay("auth", "can-i", "get", "pdos")).code == 2

    def test_every_verb_leads_to_a_method_that_exists(self) -> None:
        services = (
            control_pb2.DESCRIPTOR.services_by_name["Control"],
            access.DESCRIPTOR.services_by_name["Access"],
        )
        known = {f"{service.name}/{method.name}" for service in services for method in service.methods}
        assert {method for methods in VERBS.values() for method in methods.values()} <= known

    @pytest.mark.parametrize(
        ("words", "method"),
        [
            (("get",), "bayplan.v1.Control/Get"),
            (("list", "deploy"), "bayplan.v1.Control/List"),
            (("get", "po"), "bayplan.v1.Control/ListPods"),
            (("delete", "svc"), "bayplan.v1.Control/Delete"),
            (("get", "ep"), "bayplan.v1.Control/ListEndpoints"),
            (("apply", "ing"), "bayplan.v1.Control/Apply"),
            (("create", "join-token"), "bayplan.v1.Access/CreateJoinToken"),
            (("create", "pods/exec"), "bayplan.v1.Control/Exec"),
            (("drain", "no"), "bayplan.v1.Control/UpdateNode"),
            (("Scale",), "Scale"),
            (("bayplan.v1.Access/Renew",), "bayplan.v1.Access/Renew"),
        ],
    )
    def test_kubectls_verbs_are_methods(self, words: tuple[str, ...], method: str) -> None:
        assert method_of(*words) == method


class TestJoinTokens:
    async def test_for_a_node_the_whole_command_is_printed(self, bay: Bay) -> None:
        ended = await bay("join-token", "create", "--role", "node", "--ttl", "2h", "--uses", "3")

        assert ended.out == (
            f"bayplan-agent --managers 10.0.0.1:7400,10.0.0.2:7400 --join-token {bay.access.token}\n"
        )
        assert "bay install agent --managers 10.0.0.1:7400,10.0.0.2:7400 --join-token bay1." in ended.err
        assert "the token can be used 3 times, and ends in " in ended.err
        (request,) = bay.access.requests
        assert (request.kind, request.ttl_ms, request.uses) == ("node", 2 * HOUR_MS, 3)

    async def test_for_a_manager_too(self, bay: Bay) -> None:
        ended = await bay("join-token", "create", "--role=manager")

        assert ended.out == (
            "bayplan-manager --id NAME --etcd ENDPOINTS --advertise ADDRESS:7400 --join 10.0.0.1:7400"
            f" --join-token {bay.access.token}\n"
        )

    async def test_quietly_it_is_the_token_alone(self, bay: Bay) -> None:
        ended = await bay("join-token", "create", "--role", "node", "-q")
        assert (ended.out, ended.err) == (f"{bay.access.token}\n", "")

    async def test_what_makes_no_sense_is_refused_before_a_manager_is_asked(self, bay: Bay) -> None:
        for words, said in (
            (("--role", "nod"), '"nod" is neither node nor manager'),
            ((), "Missing option '--role'"),
            (("--role", "node", "--ttl", "soon"), '"soon" is no length of time'),
            (("--role", "node", "--ttl", "0s"), "a life of 0 s would end before it began"),
            (("--role", "node", "--uses", "0"), "'--uses'"),
        ):
            ended = await bay("join-token", "create", *words)
            assert (ended.code, said in ended.err) == (2, True), ended.err
        assert not bay.access.requests

    async def test_list_shows_no_secret(self, bay: Bay) -> None:
        now = now_ms()
        bay.access.tokens = [
            access.JoinToken(
                id="aaaaaaaaaa",
                kind="node",
                expires_ms=now + 59 * 60_000,
                uses_left=2,
                made_by=f"spiffe://{CLUSTER}/user/admin",
            ),
            access.JoinToken(id="bbbbbbbbbb", kind="user", name="bob", expires_ms=now, revoked=True),
        ]
        lines = (await bay("join-token", "list")).out.splitlines()

        assert lines[0].split() == ["ID", "ROLE", "EXPIRES", "USES-LEFT", "MADE-BY"]
        assert lines[1].split() == ["aaaaaaaaaa", "node", "in", "58m", "2", "user/admin"]
        assert lines[2].split() == ["bbbbbbbbbb", "user/bob", "revoked", "0", "<none>"]
        assert (await bay("join-token", "list", "-q")).out == "aaaaaaaaaa\nbbbbbbbbbb\n"
        assert json.loads((await bay("join-token", "list", "-o", "json")).out)[0]["usesLeft"] == 2

    async def test_revoke_bears_a_whole_token(self, bay: Bay) -> None:
        ended = await bay("join-token", "revoke", str(bay.access.token))

        assert ended.out == f"join-token/{bay.access.token.id} revoked\n"
        assert bay.access.requests[0].id == bay.access.token.id

    async def test_revoke_of_one_that_is_not_there(self, bay: Bay) -> None:
        bay.access.failures = [(grpc.StatusCode.NOT_FOUND, 'join token "x" not found')]
        ended = await bay("join-token", "revoke", "x")
        assert (ended.code, ended.err) == (1, 'error: join token "x" not found\n')


class TestUsers:
    async def test_create_prints_what_they_run(self, bay: Bay) -> None:
        ended = await bay("user", "create", "alice", "--role", "viewer", "--ttl", "30d")

        assert ended.out == f"bay login 10.0.0.1:7400,10.0.0.2:7400 --token {bay.access.token}\n"
        (request,) = bay.access.requests
        assert (request.name, request.role, request.ttl_ms) == ("alice", ROLE_VIEWER, 720 * HOUR_MS)

    async def test_create_refuses_odd_names_and_roles(self, bay: Bay) -> None:
        ended = await bay("user", "create", "al ice", "--role", "viewer")
        assert ended.code == 2
        assert 'error: "al ice" is no name' in ended.err
        ended = await bay("user", "create", "alice", "--role", "root")
        assert (ended.code, ended.err) == (2, 'error: "root" is no role: one of viewer, operator, admin\n')
        assert not bay.access.requests

    async def test_list(self, bay: Bay) -> None:
        bay.access.identities = [
            an_identity(),
            an_identity("bob", revoked=True),
            an_identity("new", not_after_ms=0),
            an_identity("old", access_ends_ms=now_ms() - 50 * HOUR_MS - HOUR_MS // 2),
            an_identity("n1", kind="node"),
        ]
        rows = [line.split("  ") for line in (await bay("user", "list")).out.splitlines()]

        assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
            ["NAME", "ROLE", "STATUS", "ACCESS-ENDS", "CERTIFICATE-UNTIL"],
            ["alice", "viewer", "Active", "<never>", "in 2d2h"],
            ["bob", "viewer", "Revoked", "<never>", "in 2d2h"],
            ["new", "viewer", "Invited", "<never>", "<none>"],
            ["old", "viewer", "Ended", "2d2h ago", "in 2d2h"],
        ]

    async def test_revoke(self, bay: Bay) -> None:
        assert (await bay("user", "revoke", "alice")).out == "user/alice revoked\n"
        assert (bay.access.requests[0].kind, bay.access.requests[0].name) == ("user", "alice")

    async def test_who_may_not_is_told_so(self, bay: Bay) -> None:
        words = "alice is a viewer: this needs the role admin"
        bay.access.failures = [(grpc.StatusCode.PERMISSION_DENIED, words)]
        ended = await bay("user", "list")
        assert (ended.code, ended.err) == (1, f"error: {words}\n")


class TestMembers:
    async def test_a_node_is_revoked_only_on_purpose(self, bay: Bay) -> None:
        ended = await bay("node", "revoke", "n1")
        assert ended.code == 2
        assert "Its pods go on running" in ended.err
        assert "Say --yes if you mean it" in ended.err
        assert not bay.access.requests

        ended = await bay("node", "revoke", "node/n1", "--yes")
        assert ended.out == "node/n1 revoked\n"
        assert "at once with `bay node lost n1`" in ended.err

    async def test_a_manager_too(self, bay: Bay) -> None:
        assert (await bay("manager", "revoke", "m3")).code == 2
        assert (await bay("manager", "revoke", "m3", "-y")).out == "manager/m3 revoked\n"


class TestKeys:
    async def test_the_root_that_signs_comes_first(self, bay: Bay) -> None:
        bay.access.waiting = [f"spiffe://{CLUSTER}/node/n1"]
        ended = await bay("ca", "show")

        assert ended.out == text("""
            ROOT               SIGNS   SINCE      UNTIL
            aaaaaaaaaaaaaaaa   yes     2d2h ago   in 2d2h
            bbbbbbbbbbbbbbbb   no      2d2h ago   in 2d2h
        """)
        assert ended.err == "note: still with a certificate of an older root: node/n1\n"
        assert json.loads((await bay("ca", "show", "-o", "json")).out)["roots"][0]["signs"] is True

    async def test_rotate_and_its_end(self, bay: Bay) -> None:
        assert "the new root signs from now on" in (await bay("ca", "rotate")).err
        bay.access.waiting = [f"spiffe://{CLUSTER}/node/n1"]
        ended = await bay("ca", "rotate", "--finish")
        assert ended.code == 2
        assert "The old root is still needed by node/n1" in ended.err
        assert (await bay("ca", "rotate", "--finish", "--yes")).code == 0
        assert [one.finish for one in bay.access.named("RotateCaRequest")] == [False, True]

    async def test_rotate_after_a_theft(self, bay: Bay) -> None:
        ended = await bay("ca", "rotate", "--stolen")
        assert ended.code == 2
        assert "Every user must log in, and every node join, again." in ended.err
        assert not bay.access.named("RotateCaRequest")
        ended = await bay("ca", "rotate", "--stolen", "--yes")
        assert "`bayplan-manager --new-admin-token`" in ended.err
        assert [one.stolen for one in bay.access.named("RotateCaRequest")] == [True]
        assert (await bay("ca", "rotate", "--stolen", "--finish")).code == 2

    async def test_rotate_keys(self, bay: Bay) -> None:
        ended = await bay("admin", "rotate-keys")
        assert ended.out == "keys rotated: cluster key k2, 12 values encrypted again\n"


class TestAudit:
    async def test_is_a_table_that_no_caller_can_disturb(self, bay: Bay) -> None:
        bay.access.entries = [
            access.AuditEntry(
                at_ms=1_700_000_000_000,
                manager="m1",
                who=f"spiffe://{CLUSTER}/user/alice",
                via="m2",
                address="10.0.0.9",
                method="bayplan.v1.Control/Delete",
                target="Deployment/\x1b[2Jweb",
                why="alice is a viewer",
                outcome="PERMISSION_DENIED",
                count=3,
            ),
            access.AuditEntry(at_ms=1_700_000_001_000, manager="m1", method="x", allowed=True, outcome="OK"),
        ]
        bay.access.unreachable = ["m3"]
        ended = await bay("audit", "--since", "1h", "--denied", "--who", "alice", "--limit", "7")

        head, first, second = (line.split("   ") for line in ended.out.splitlines())
        assert [cell.strip() for cell in head if cell.strip()] == [
            "TIME", "MANAGER", "WHO", "FROM", "METHOD", "TARGET", "DECISION", "WHY",
        ]  # fmt: skip
        assert [cell.strip() for cell in first if cell.strip()] == [
            "2023-11-14T22:13:20Z", "m1", "user/alice via m2", "10.0.0.9", "Control/Delete",
            "Deployment/\\x1b[2Jweb", "denied x3", "alice is a viewer",
        ]  # fmt: skip
        assert "<nobody>" in "".join(second)
        assert ended.err == "note: without the part of m3: not reached\n"
        (request,) = bay.access.requests
        assert (request.denied, request.who, request.limit) == (True, "alice", 7)
        assert abs(request.since_ms - (now_ms() - HOUR_MS)) < 30_000

    async def test_wrong_words_are_refused(self, bay: Bay) -> None:
        assert (await bay("audit", "--since", "yesterday")).code == 2
        assert (await bay("audit", "--limit", "0")).code == 2
