"""From a token to a cluster that commands know: against a manager's true TLS on loopback."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from bayplan.client import contexts
from bayplan.client.contexts import Context
from bayplan.identity.names import Kind
from tests.bayplan.cli.conftest import Bay, Ended
from tests.bayplan.client.fake_access import CLUSTER, FakeAccess, credentials_of, secured
from tests.bayplan.client.fake_control import FakeControl, node


class Secured(Bay):
    """`bay` with a configuration of its own, and no word of insecurity."""

    file: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"BAYPLAN_CONFIG": str(self.file)}

    def knows(self, name: str, *, age_s: float = 0.0, life_s: float = 86_400.0, user: str = "admin") -> None:
        """There is a context, logged in to that long ago."""
        held = credentials_of(self.access.root, Kind.USER, user, issued_s=time.time() - age_s, life_s=life_s)
        made = Context(name=name, managers=(self.address,), cluster=CLUSTER, user=user, role="admin")
        contexts.save_login(self.file, held, lambda _: made)


@pytest.fixture
async def bay(tmp_path: Path) -> AsyncIterator[Secured]:
    async with AsyncExitStack() as stack:
        access, control = FakeAccess(), FakeControl(nodes=[node()])
        address = await stack.enter_async_context(secured(access, control))
        made = Secured(control, access, address)
        made.file = tmp_path / "bayplan/config.yaml"
        yield made


class TestLogin:
    async def test_says_what_was_done_and_commands_go_there(self, bay: Secured) -> None:
        ended = await bay("login", bay.address, "--token", str(bay.access.token), "--context", "demo")

        assert ended == Ended(
            0, f'logged in to cluster {CLUSTER} as admin (admin); context "demo" is now current\n', ""
        )
        assert await bay("nodes", "-q") == Ended(0, "n1\n", "")

    async def test_the_variable_that_chooses_a_context_gives_none_away(self, bay: Secured) -> None:
        """A shell that means bob's context logs in as somebody else."""
        bay.knows("theirs", user="bob")
        before = contexts.read_config(bay.file).contexts["theirs"]
        env = {"BAYPLAN_CONTEXT": "theirs"}
        ended = await bay("login", bay.address, "--token", str(bay.access.token), env=env)

        assert (ended.code, ended.err) == (0, "")
        assert 'as admin (admin); context "default" is now current' in ended.out
        assert contexts.read_config(bay.file).contexts["theirs"] == before

    async def test_another_users_context_is_left_alone(self, bay: Secured) -> None:
        bay.knows("theirs", user="bob")
        ended = await bay("login", bay.address, "--token", str(bay.access.token), "--context", "theirs")

        assert ended.code == 0
        assert ended.err == 'warning: context "theirs" is another user\'s, and was left alone\n'
        assert 'as admin (admin); context "default" is now current' in ended.out

    async def test_takes_the_token_from_a_file_or_stdin(self, bay: Secured, tmp_path: Path) -> None:
        (tmp_path / "token").write_text(f"{bay.access.token}\n")
        assert (await bay("login", bay.address, "--token-file", str(tmp_path / "token"))).code == 0

        ended = await bay("login", bay.address, "--token-file", "-", stdin=f"{bay.access.token}\n")
        assert (ended.code, ended.err) == (1, "error: this join token was used already\n")

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            ((), 2, "Missing argument"),
            (("a:1",), 2, "give one of --token TOKEN and --token-file FILE"),
            (("a:1", "--token", "x", "--token-file", "y"), 2, "give one of --token"),
            (("a:1", "--token-file", "/nowhere"), 1, "cannot read /nowhere: No such file or directory"),
            (("a:1", "--token", "hunter"), 1, "this is no join token"),
            (("a:b:c", "--token", "x"), 2, "'a:b:c' is not HOST:PORT"),
            ((",", "--token", "x"), 2, "name a manager: HOST:PORT"),
            (
                ("a:1", "--token", f"bay1.{'0' * 64}.{'a' * 10}.{'0' * 32}", "--context", "../x"),
                1,
                "no name of a context",
            ),
        ],
    )
    async def test_wrong_words(self, bay: Secured, words: tuple[str, ...], code: int, said: str) -> None:
        ended = await bay("login", *words)
        assert (ended.code, said in ended.err) == (code, True), ended.err
        assert not bay.file.exists()

    async def test_an_expired_token_is_said_in_the_managers_words(self, bay: Secured) -> None:
        words = "this join token expired 3 h ago; make a new one with `bay user create admin`"
        bay.access.failures = [(grpc.StatusCode.UNAUTHENTICATED, words)]
        ended = await bay("login", bay.address, "--token", str(bay.access.token))
        assert (ended.code, ended.err) == (1, f"error: {words}\n")


class TestInit:
    async def test_waits_for_the_token_becomes_admin_and_shows_how_others_join(
        self, bay: Secured, tmp_path: Path
    ) -> None:
        file = tmp_path / "admin.token"
        process = await bay.start("init", bay.address, "--token-file", str(file))
        assert process.stderr is not None
        waiting = (await process.stderr.readline()).decode()
        assert waiting.startswith(f"waiting for {file}")
        made = tmp_path / "made"
        made.write_text(str(bay.access.token))
        made.rename(file)
        out, err = await process.communicate()

        assert (process.returncode, err) == (0, b"")
        assert out.decode().splitlines() == [
            f'logged in to cluster {CLUSTER} as admin (admin); context "default" is now current',
            "",
            "To add a manager, run on its host within 1 h:",
            "",
            (
                "    bayplan-manager --id NAME --etcd ENDPOINTS --advertise ADDRESS:7400 --join 10.0.0.1:7400"
                f" --join-token {bay.access.token}"
            ),
            "",
            "To add a node, run on its host within 1 h:",
            "",
            f"    bayplan-agent --managers 10.0.0.1:7400,10.0.0.2:7400 --join-token {bay.access.token}",
        ]
        assert not file.exists()

    async def test_without_the_file_it_says_how_to_get_another(self, bay: Secured, tmp_path: Path) -> None:
        ended = await bay("init", "--token-file", str(tmp_path / "none"), "--timeout", "0.1s")
        assert ended.code == 1
        assert (
            "the token was used already; a new one: `bayplan-manager --new-admin-token` on this host"
            in ended.err
        )

    async def test_a_token_that_was_used_leads_to_another(self, bay: Secured, tmp_path: Path) -> None:
        (tmp_path / "token").write_text(str(bay.access.token))
        assert (await bay("login", bay.address, "--token-file", str(tmp_path / "token"))).code == 0
        ended = await bay("init", bay.address, "--token-file", str(tmp_path / "token"))
        assert ended.code == 1
        assert "was not taken: this join token was used already; a new one: `bayplan-manager" in ended.err


class TestContexts:
    async def test_none_says_how_to_begin(self, bay: Secured) -> None:
        ended = await bay("get", "pods")
        assert (ended.code, ended.err) == (1, f"error: {contexts.NOT_LOGGED_IN}\n")
        assert (await bay("config", "get-contexts")).err == "Nothing found.\n"
        assert (await bay("config", "current-context")).err == "error: current-context is not set\n"

    async def test_are_shown_chosen_and_deleted(self, bay: Secured) -> None:
        bay.knows("one")
        bay.knows("two")

        rows = [line.split() for line in (await bay("config", "get-contexts")).out.splitlines()]
        assert rows == [
            ["CURRENT", "NAME", "CLUSTER", "MANAGERS", "USER", "ROLE"],
            ["one", CLUSTER, bay.address, "admin", "admin"],
            ["*", "two", CLUSTER, bay.address, "admin", "admin"],
        ]
        assert (await bay("config", "get-contexts", "-q")).out == "one\ntwo\n"
        shown = json.loads((await bay("config", "get-contexts", "-o", "json")).out)
        assert [one["current"] for one in shown] == [False, True]
        assert (await bay("config", "use-context", "one")).out == 'Switched to context "one".\n'
        assert (await bay("config", "current-context")).out == "one\n"
        assert (await bay("config", "current-context", "--context", "two")).out == "two\n"
        ended = await bay("config", "delete-context", "one")
        assert ended.out == f'deleted context "one" from {bay.file}\n'
        assert "this was the current context" in ended.err
        assert "no context is chosen" in (await bay("nodes")).err

    async def test_the_word_may_stand_anywhere(self, bay: Secured) -> None:
        bay.knows("one")
        for words in (("nodes", "-q", "--context", "one"), ("--context=one", "nodes", "-q")):
            assert (await bay(*words)).out == "n1\n"
        ended = await bay("nodes", "--context", "oen")
        assert (ended.code, ended.err) == (1, 'error: there is no context "oen". Did you mean one?\n')
        ended = await bay("nodes", env={"BAYPLAN_CONTEXT": "two"})
        assert 'there is no context "two"' in ended.err

    async def test_managers_on_the_line_stand_for_those_of_the_context(self, bay: Secured) -> None:
        bay.knows("one")
        ended = await bay("nodes", "--managers", "127.0.0.1:1")
        assert "127.0.0.1:1: connection refused" in ended.err
        assert f'context "one" (cluster {CLUSTER[:8]})' in ended.err
        ended = await bay("nodes", "-q", env={"BAYPLAN_MANAGERS": f"127.0.0.1:1,{bay.address}"})
        assert ended.out == "n1\n"
        assert (await bay("nodes", "--managers", ",")).code == 2

    async def test_a_damaged_file_is_said_with_its_line(self, bay: Secured) -> None:
        bay.file.parent.mkdir()
        bay.file.write_text("contexts:\n  one: [\n")
        ended = await bay("nodes")
        assert ended.code == 1
        assert ended.err.startswith(f"error: {bay.file}:3: is no YAML")

    async def test_typing_errors(self, bay: Secured) -> None:
        bay.knows("one")
        for command in ("use-context", "delete-context"):
            ended = await bay("config", command, "oen")
            assert (ended.code, ended.err) == (1, 'error: there is no context "oen". Did you mean one?\n')
            assert (await bay("config", command)).code == 2
        assert "Did you mean 'use-context'" in (await bay("config", "use-contxt", "one")).err

    async def test_tab_offers_them(self, bay: Secured) -> None:
        bay.knows("one")
        env = {
            "_BAY_COMPLETE": "complete_bash",
            "COMP_WORDS": "bay\nconfig\nuse-context\no",
            "COMP_CWORD": "3",
        }
        assert (await bay(env=env)).out.split() == ["one"]
        env = {"_BAY_COMPLETE": "complete_bash", "COMP_WORDS": "bay\ncordon\nn", "COMP_CWORD": "2"}
        assert (await bay(env=env)).out.split() == ["n1"]


class TestCertificate:
    async def test_is_renewed_in_passing(self, bay: Secured) -> None:
        bay.knows("one", age_s=80_000)
        assert await bay("nodes", "-q") == Ended(0, "n1\n", "")
        assert await bay("nodes", "-q") == Ended(0, "n1\n", "")

        assert len(bay.access.named("RenewRequest")) == 1

    async def test_two_at_once_do_not_clash(self, bay: Secured) -> None:
        bay.knows("one", age_s=80_000)
        ended = await asyncio.gather(*(bay("nodes", "-q") for _ in range(3)))

        assert ended == [Ended(0, "n1\n", "")] * 3
        assert len(bay.access.named("RenewRequest")) == 1

    async def test_that_ended_and_is_not_renewed_leads_to_a_login(self, bay: Secured) -> None:
        bay.knows("one", age_s=91_000, life_s=3600)
        bay.access.renewals = [(grpc.StatusCode.PERMISSION_DENIED, "user admin was revoked")]
        ended = await bay("nodes")
        assert ended.code == 1
        assert ended.err == (
            "error: your certificate expired 24 h ago and was not renewed: user admin was revoked;"
            " ask an admin for `bay user create admin`'s token and log in again\n"
        )


class TestInsecure:
    async def test_is_warned_of_and_refused_elsewhere(self, bay: Secured) -> None:
        env = {"BAYPLAN_INSECURE_LOOPBACK": "1", "BAYPLAN_MANAGERS": "10.0.0.1:7400"}
        process = await bay.start("nodes", env=env)
        _, err = await process.communicate()
        assert process.returncode == 1
        assert err.decode().splitlines() == [
            "warning: no encryption and no identity (BAYPLAN_INSECURE_LOOPBACK)",
            (
                "error: BAYPLAN_INSECURE_LOOPBACK does not go with 10.0.0.1:7400: without encryption only loopback"
                " addresses are allowed, such as 127.0.0.1"
            ),
        ]

    async def test_a_tls_manager_does_not_take_it(self, bay: Secured) -> None:
        env = {"BAYPLAN_INSECURE_LOOPBACK": "1", "BAYPLAN_MANAGERS": bay.address}
        ended = await bay("nodes", env=env)
        assert "the manager closed the connection during the handshake" in ended.err
