"""Logging in, and the certificate that is kept fresh: against a manager's true TLS on loopback."""

from __future__ import annotations

import asyncio
import os
import random
import stat
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import grpc
import pytest

from bayplan.client import (
    AccessDeniedError,
    Client,
    ContextError,
    UnavailableError,
    contexts,
)
from bayplan.client.contexts import Context
from bayplan.client.login import login
from bayplan.client.renewal import PATIENCE_EXPIRED_S, RETRY_S, Renewal, in_words
from bayplan.identity.credentials import Credentials, OwnIdentity, load_credentials
from bayplan.identity.names import Kind
from bayplan.identity.tokens import new_token
from tests.bayplan.client.fake_access import CLUSTER, DAY_S, FakeAccess, a_root, credentials_of, secured
from tests.bayplan.client.fake_control import FakeControl, pod

HOUR_S = 3600.0


class Manager:
    """One, with the configuration of one user."""

    def __init__(self, file: Path) -> None:
        self.access = FakeAccess()
        self.control = FakeControl()
        self.file = file
        self.address = "m1:7400"

    def logged_in(
        self,
        *,
        age_s: float = 0.0,
        life_s: float = DAY_S,
        cluster: str = CLUSTER,
        user: str = "admin",
        name: str = "demo",
    ) -> Credentials:
        """As the user was that long ago."""
        root = self.access.root if cluster == CLUSTER else a_root(cluster)
        held = credentials_of(
            root, Kind.USER, user, issued_s=time.time() - age_s, life_s=life_s, cluster=cluster
        )
        made = Context(name=name, managers=(self.address,), cluster=cluster, user=user)
        contexts.save_login(self.file, held, lambda _: made)
        return held

    def on_disk(self) -> Credentials:
        held = load_credentials(contexts.credentials_directory(self.file, "demo"))
        assert held is not None
        return held


@pytest.fixture
async def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Manager]:
    for name in ("BAYPLAN_MANAGERS", "BAYPLAN_CONTEXT", "BAYPLAN_INSECURE_LOOPBACK"):
        monkeypatch.delenv(name, raising=False)
    manager = Manager(tmp_path / "config.yaml")
    monkeypatch.setenv("BAYPLAN_CONFIG", str(manager.file))
    async with AsyncExitStack() as stack:
        manager.address = await stack.enter_async_context(secured(manager.access, manager.control))
        yield manager


class TestLogin:
    async def test_makes_a_context_with_which_calls_are_made(self, manager: Manager) -> None:
        made = await login([manager.address], str(manager.access.token))

        assert (made.name, made.user, made.role, made.cluster) == ("default", "admin", "admin", CLUSTER)
        assert made.managers == (manager.address,), "as they were given, not as the manager names them"
        async with Client.from_context() as client:
            assert (await client.whoami()).role == "admin"

    async def test_again_replaces_the_same_context(self, manager: Manager) -> None:
        manager.logged_in()
        made = await login([manager.address], str(manager.access.token))

        assert made.name == "demo"

    async def test_a_used_token_is_refused_in_the_managers_words(self, manager: Manager) -> None:
        await login([manager.address], str(manager.access.token))
        with pytest.raises(AccessDeniedError, match="this join token was used already"):
            await login([manager.address], str(manager.access.token))

    async def test_a_token_of_another_cluster_is_not_sent(self, manager: Manager) -> None:
        with pytest.raises(AccessDeniedError, match="The token's secret was not sent"):
            await login([manager.address], str(new_token("0" * 64)))
        assert not manager.access.requests

    async def test_what_is_no_token_is_not_repeated(self, manager: Manager) -> None:
        with pytest.raises(AccessDeniedError, match="this is no join token") as raised:
            await login([manager.address], "hunter2")
        assert "hunter2" not in str(raised.value)

    async def test_a_token_for_nodes_is_none_for_users(self, manager: Manager) -> None:
        manager.access.kind = Kind.NODE
        with pytest.raises(AccessDeniedError, match="not for a user but for a node"):
            await login([manager.address], str(manager.access.token))

    async def test_another_clusters_context_is_not_overwritten_and_the_token_stays_good(
        self, manager: Manager
    ) -> None:
        manager.logged_in(cluster="other")
        with pytest.raises(ContextError, match='context "demo" is of another cluster than the token'):
            await login([manager.address], str(manager.access.token), context="demo")
        assert not manager.access.requests

        made = await login([manager.address], str(manager.access.token), context="second")
        assert made.name == "second"

    @pytest.mark.parametrize("context", ["", "second"])
    async def test_an_answer_that_was_lost_costs_no_token(self, manager: Manager, context: str) -> None:
        manager.access.loses_answers = 1
        with pytest.raises(UnavailableError):
            await login([manager.address], str(manager.access.token), context=context)

        made = await login([manager.address], str(manager.access.token), context=context)
        assert made.user == "admin"
        directory = contexts.all_credentials(manager.file)
        assert [path.name for path in directory.iterdir()] == [made.name], "no key is left behind"

    async def test_the_key_waits_for_its_answer_in_a_file_for_its_owner_alone(self, manager: Manager) -> None:
        manager.access.loses_answers = 1
        with pytest.raises(UnavailableError):
            await login([manager.address], str(manager.access.token))

        directory = contexts.all_credentials(manager.file)
        (key,) = directory.iterdir()
        assert [stat.S_IMODE(path.stat().st_mode) for path in (directory, key)] == [0o700, 0o600]

    async def test_a_place_where_no_key_can_be_kept_is_said_before_the_token_is_used_up(
        self, manager: Manager
    ) -> None:
        contexts.all_credentials(manager.file).write_bytes(b"in the way")
        with pytest.raises(ContextError, match=r"cannot change .*/credentials"):
            await login([manager.address], str(manager.access.token))
        assert not manager.access.requests

    async def test_another_users_context_is_left_alone(self, manager: Manager) -> None:
        bob = manager.logged_in(user="bob")
        made = await login([manager.address], str(manager.access.token), context="demo")

        assert (made.name, made.user) == ("default", "admin")
        assert manager.on_disk().key_pem == bob.key_pem

    async def test_a_damaged_file_is_said_before_the_token_is_used_up(self, manager: Manager) -> None:
        manager.file.write_text("contexts: [")
        with pytest.raises(ContextError, match="is no YAML"):
            await login([manager.address], str(manager.access.token))
        assert not manager.access.requests

    async def test_where_nobody_listens_it_says_so(self, manager: Manager) -> None:
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1: Connection refused"):
            await login(["127.0.0.1:1"], str(manager.access.token))


class TestRenewal:
    async def test_a_young_certificate_is_left_alone(self, manager: Manager) -> None:
        manager.logged_in(age_s=0.4 * DAY_S)
        async with Client.from_context() as client:
            await client.whoami()

        assert not manager.access.named("RenewRequest")

    async def test_an_old_one_is_renewed_first_and_kept(self, manager: Manager) -> None:
        before = manager.logged_in(age_s=0.8 * DAY_S)
        async with Client.from_context() as client:
            await client.whoami()
            await client.whoami()

        assert len(manager.access.named("RenewRequest")) == 1
        assert manager.on_disk().expires_s > before.expires_s
        assert len(set(manager.access.callers)) == 1, "the first call showed the new one already"

    async def test_an_expired_one_comes_back_through_the_join_port(self, manager: Manager) -> None:
        manager.logged_in(age_s=5.5 * HOUR_S, life_s=2 * HOUR_S)
        async with Client.from_context() as client:
            assert (await client.whoami()).role == "admin"

        assert [one.WhichOneof("proof") for one in manager.access.named("JoinRequest")] == ["expired"]

    async def test_a_refusal_matters_only_once_it_has_expired(self, manager: Manager) -> None:
        refusal = (grpc.StatusCode.PERMISSION_DENIED, "user admin was revoked")
        manager.access.renewals = [refusal, refusal]
        manager.logged_in(age_s=0.8 * DAY_S)
        async with Client.from_context() as client:
            assert (await client.whoami()).role == "admin"

        manager.logged_in(age_s=5.5 * HOUR_S, life_s=2 * HOUR_S)
        async with Client.from_context() as client:
            with pytest.raises(AccessDeniedError) as raised:
                await client.whoami()
        assert str(raised.value) == (
            "your certificate expired 3 h ago and was not renewed: user admin was revoked;"
            " ask an admin for `bay user create admin`'s token and log in again"
        )

    async def test_an_expired_one_without_a_manager_is_no_reason_to_log_in(self, manager: Manager) -> None:
        manager.logged_in(age_s=5.5 * HOUR_S, life_s=2 * HOUR_S)
        async with Client.from_context(managers=["127.0.0.1:1"]) as client:
            with pytest.raises(
                UnavailableError, match=r"was not renewed: 127\.0\.0\.1:1: connection refused"
            ):
                await client.whoami()

    async def test_what_another_program_renewed_is_used(self, manager: Manager) -> None:
        manager.logged_in(age_s=0.8 * DAY_S)
        async with Client.from_context() as one, Client.from_context() as other:
            await asyncio.gather(one.whoami(), other.whoami())

        assert len(manager.access.named("RenewRequest")) == 1

    @pytest.mark.parametrize("user", ["admin", "bob"])
    async def test_a_login_meanwhile_is_not_overwritten(self, manager: Manager, user: str) -> None:
        """The client holds the old certificate when its user, or another one, logs in to its context."""
        manager.logged_in(age_s=0.8 * DAY_S)
        async with Client.from_context() as client:
            fresh = manager.logged_in(user=user)
            await client.whoami()

        assert manager.on_disk().key_pem == fresh.key_pem
        assert len(manager.access.named("RenewRequest")) == (user != "admin")

    async def test_a_context_deleted_meanwhile_does_not_come_back(self, manager: Manager) -> None:
        manager.logged_in(age_s=0.8 * DAY_S)
        async with Client.from_context() as client:
            contexts.delete(manager.file, "demo")
            assert (await client.whoami()).role == "admin"

        assert not contexts.credentials_directory(manager.file, "demo").exists()

    async def test_one_that_cannot_be_kept_is_shown_and_kept_later(self, manager: Manager) -> None:
        """A disk is full for a while: nobody is asked for another certificate meanwhile."""
        before = manager.logged_in(age_s=0.8 * DAY_S)
        own, passed_s = OwnIdentity(before), 0.0
        context = contexts.read_config(manager.file).contexts["demo"]
        renewal = Renewal(
            manager.file,
            context,
            own,
            context.managers,
            now_s=lambda: time.time() + passed_s,
            chance=random.Random(1),
        )
        # Where it would write first.
        in_the_way = contexts.credentials_directory(manager.file, "demo") / f".roots.pem.{os.getpid()}"
        in_the_way.mkdir()
        for _ in range(3):
            await renewal.refresh()
            passed_s += RETRY_S
        assert own.credentials != before
        assert manager.on_disk().key_pem == before.key_pem

        in_the_way.rmdir()
        await renewal.refresh()
        assert manager.on_disk() == own.credentials
        assert len(manager.access.named("RenewRequest")) == 1

    async def test_does_not_wait_for_that_of_another_context(self, manager: Manager) -> None:
        """Whose managers may be gone."""
        own = OwnIdentity(manager.logged_in(name="gone"))
        manager.logged_in(age_s=0.8 * DAY_S)
        gone = Renewal(manager.file, contexts.read_config(manager.file).contexts["gone"], own, [])
        async with gone._alone(asyncio.get_running_loop().time() + 1), Client.from_context("demo") as client:
            await client.whoami()

        assert len(manager.access.named("RenewRequest")) == 1

    async def test_a_watch_goes_on_with_the_new_certificate(self, manager: Manager) -> None:
        """The manager ends it as the certificate ends: not a word of that reaches the caller."""
        manager.control.pods = [pod()]
        manager.control.break_streams = 1
        manager.control.break_code = grpc.StatusCode.UNAUTHENTICATED
        manager.logged_in(age_s=0.4 * DAY_S)
        async with Client.from_context() as client:
            watch = client.watch_pods()
            async with aclosing(watch):
                assert (await anext(watch)).initial
                # As if the hours passed while it was open.
                renewal = client._managers._renewal
                assert renewal is not None
                renewal._due_s = 0.0
                assert (await anext(watch)).initial

        assert len(manager.access.named("RenewRequest")) == 1

    def test_times_read_well(self) -> None:
        assert [in_words(s) for s in (0, 59, 61, 3 * 3600 + 5, 49 * 3600)] == [
            "0 s",
            "59 s",
            "1 min",
            "3 h",
            "2 d",
        ]


class TestRenewalElsewhere:
    @pytest.mark.virtual_time
    async def test_that_takes_too_long_is_said_to(self, tmp_path: Path) -> None:
        """Another program waits for a cluster that does not answer."""
        manager = Manager(tmp_path / "config.yaml")
        own = OwnIdentity(manager.logged_in(age_s=5.5 * HOUR_S, life_s=2 * HOUR_S))
        context = contexts.read_config(manager.file).contexts["demo"]
        one, other = (Renewal(manager.file, context, own, ["m1:7400"]) for _ in range(2))
        loop = asyncio.get_running_loop()
        async with one._alone(loop.time() + 1):
            began_s = loop.time()
            with pytest.raises(UnavailableError) as raised:
                await other.refresh()

        assert str(raised.value) == (
            "your certificate expired 3 h ago and was not renewed: another program is renewing"
            ' context "demo" and did not end in time: try again'
        )
        assert loop.time() - began_s == pytest.approx(PATIENCE_EXPIRED_S)


class TestWords:
    async def test_a_manager_of_another_cluster(self, manager: Manager) -> None:
        manager.logged_in(cluster="other")
        async with Client.from_context(timeout_s=1) as client:
            with pytest.raises(UnavailableError) as raised:
                await client.version()
        assert str(raised.value) == (
            "no manager can answer right now:\n"
            f"  {manager.address}: the manager there shows a certificate of another cluster than ours\n"
            'Check that the managers and etcd run, and that context "demo" (cluster other) names them,'
            " or --managers. If they are right, log in again: `bay login`."
        )

    async def test_a_certificate_that_the_manager_does_not_accept(self, manager: Manager) -> None:
        held = credentials_of(a_root(), Kind.USER, "admin", issued_s=time.time())
        trusting = Credentials(
            identity=held.identity,
            issued_s=held.issued_s,
            expires_s=held.expires_s,
            key_pem=held.key_pem,
            certificates_pem=held.certificates_pem,
            roots_pem=manager.logged_in().roots_pem,
        )
        made = Context(name="demo", managers=(manager.address,), cluster=CLUSTER, user="admin")
        contexts.save_login(manager.file, trusting, lambda _: made)

        async with Client.from_context(timeout_s=1) as client:
            with pytest.raises(UnavailableError, match="closed the connection during the handshake"):
                await client.version()


class TestInsecure:
    async def test_only_where_it_is_allowed_and_on_loopback(
        self, manager: Manager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(ContextError, match="a client needs an identity"):
            Client([manager.address])
        monkeypatch.setenv("BAYPLAN_INSECURE_LOOPBACK", "1")
        with pytest.raises(ContextError, match=r"does not go with 10\.0\.0\.1:7400"):
            Client.from_context(managers=["127.0.0.1:7400", "10.0.0.1:7400"])
        await Client.from_context(managers=["127.0.0.1:7400"]).__aexit__(None, None, None)
        monkeypatch.setenv("BAYPLAN_INSECURE_LOOPBACK", "yes")
        with pytest.raises(ContextError, match="not one of 1, true, 0, false"):
            Client.from_context()
