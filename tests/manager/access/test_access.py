"""How a manager begins: it founds a cluster, or is who it was before. Without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from bayplan.identity import certificates
from bayplan.identity.names import Kind
from bayplan.v1.callers_pb2 import ROLE_ADMIN
from manager.access.access import ADMIN_TOKEN_FILE, NotAMemberError
from manager.access.tokens import NotLetInError
from manager.store import keys
from manager.store.port import Compare, Operation, StoreError, StoreUnavailableError, TxnResult
from manager.store.sealed import KeyringError
from manager.store.sealing import ClusterKey, WrongClusterKeyError, read_cluster_key, write_cluster_key
from tests.fakes.store import FakeEtcd, FakeStore
from tests.manager.access.host import LIFE_S, Host, a_token, kept_up, let_in
from tests.manager.access.world import DAY_S, Clock

pytestmark = pytest.mark.virtual_time


class TestFounding:
    async def test_makes_a_cluster_with_one_manager_and_a_first_admin(self, host: Host) -> None:
        access = await host.begin()
        own = access.own.credentials.identity
        admin = await let_in(access, host.admin_token())

        assert (own.kind, own.name, own.cluster) == (Kind.MANAGER, "m1", access.cluster)
        assert admin.leaf.identity.name == "admin"
        assert admin.issued.role == ROLE_ADMIN
        assert host.admin_token().root_digest == access.roots.signing_digest
        assert access.registry.identities.keys() == {("manager", "m1"), ("user", "admin")}
        assert len(access.roots.trusted) == 1

    async def test_keeps_its_files_for_itself(self, host: Host) -> None:
        host.directory.mkdir()
        host.directory.chmod(0o755)
        await host.begin()

        assert host.directory.stat().st_mode & 0o777 == 0o700
        assert host.modes() == {
            "admin.token": "600", "cluster.key": "600", "identity": "700", "identity.pem": "600", "roots.pem": "600",
        }  # fmt: skip

    async def test_says_what_to_do_next_and_tells_no_secret(self, host: Host) -> None:
        with structlog.testing.capture_logs() as logs:
            access = await host.begin()

        founded = next(entry for entry in logs if entry["event"] == "cluster.founded")
        assert founded["next"].startswith("run `bay init` on this host")
        assert str(host.directory / ADMIN_TOKEN_FILE) in founded["next"]
        key, _ = access.cluster_keys.current()
        assert host.admin_token().secret not in str(logs)
        assert key.decode() not in str(logs)

    async def test_etcd_holds_nothing_that_lets_anybody_in(self, host: Host, server: FakeEtcd) -> None:
        await host.begin()
        token, key = host.admin_token(), read_cluster_key(host.directory / "cluster.key")
        held = b"".join(item.value for item in server.items())

        assert not any(secret in held for secret in (token.secret.encode(), key.secret, b"PRIVATE"))

    async def test_a_second_start_changes_nothing(self, host: Host, server: FakeEtcd) -> None:
        first, token = await host.begin(), host.admin_token()
        revision = server.revision
        again = await host.begin()

        assert again.own.credentials == first.own.credentials
        assert again.roots.signing_digest == first.roots.signing_digest
        assert host.admin_token() == token
        assert server.revision == revision


class CrashError(Exception):
    """The process was killed."""


class Killed(FakeStore):
    """Of a manager that is killed when it writes for the nth time."""

    def __init__(self, server: FakeEtcd, *, writes: int, is_done: bool) -> None:
        super().__init__(server, "m1")
        self._left = writes
        self._is_done = is_done

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        self._left -= 1
        if self._left >= 0:
            return await super().txn(compares, operations)
        if self._is_done:
            await super().txn(compares, operations)
        raise CrashError


class TestCrashInTheMiddleOfFounding:
    @pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize("writes", range(6))
    async def test_the_next_start_ends_it(
        self, host: Host, server: FakeEtcd, writes: int, *, is_done: bool
    ) -> None:
        """At each of its writes: meta, keyring, CA, its own identity, the admin's token, the admin."""
        host.etcd = Killed(server, writes=writes, is_done=is_done)
        with pytest.raises(CrashError):
            await host.begin()
        host.etcd = None
        access = await host.begin()

        assert access.registry.identities.keys() == {("manager", "m1"), ("user", "admin")}
        assert access.registry.identities[("manager", "m1")].generation == 1
        admin = await let_in(access, host.admin_token())
        assert admin.issued.role == ROLE_ADMIN
        assert (await host.begin()).own.credentials == access.own.credentials

    async def test_those_are_all_its_writes(self, host: Host, server: FakeEtcd) -> None:
        host.etcd = Killed(server, writes=6, is_done=False)
        await host.begin()

    @pytest.mark.parametrize("write", range(6))
    async def test_a_lost_reply_is_borne(self, host: Host, server: FakeEtcd, write: int) -> None:
        """At once, or by starting again."""
        host.etcd = LosesReply(server, write)
        try:
            await host.begin()
        except StoreError:
            await host.begin()

        assert len(server.items(keys.PKI_IDENTITIES)) == 2


class LosesReply(FakeStore):
    """The reply to one write does not come."""

    def __init__(self, server: FakeEtcd, write: int) -> None:
        super().__init__(server, "m1")
        self._server = server
        self._left = write

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        if self._left == 0:
            self._server.drop_next_reply("m1")
        self._left -= 1
        return await super().txn(compares, operations)


class TestAnotherStart:
    async def test_with_another_id_is_refused(self, host: Host) -> None:
        await host.begin()
        with pytest.raises(NotAMemberError) as caught:
            await replace(host, name="m2").begin()

        assert str(caught.value) == (
            f"{host.directory} belongs to manager m1, and --id says m2:"
            " give each manager a --data-dir of its own"
        )

    async def test_at_another_clusters_etcd_is_refused(self, host: Host, tmp_path: Path) -> None:
        own = await host.begin()
        theirs = Host(FakeEtcd(), host.clock, tmp_path / "theirs")
        other = await theirs.begin()
        with pytest.raises(NotAMemberError) as caught:
            await replace(host, server=theirs.server).begin()

        assert str(caught.value) == (
            f"{host.directory} belongs to cluster {own.cluster}, and this etcd to {other.cluster}:"
            " point --etcd at its own, or empty the directory and join this one"
        )

    async def test_without_the_cluster_key_says_how_to_join_again(self, host: Host) -> None:
        await host.begin()
        (host.directory / "cluster.key").unlink()
        with pytest.raises(
            NotAMemberError, match=r"has no cluster\.key: run `bay join-token create --role manager`"
        ):
            await host.begin()

    async def test_of_a_new_manager_without_join_is_no_second_cluster(
        self, host: Host, tmp_path: Path
    ) -> None:
        await host.begin()
        other = Host(host.server, host.clock, tmp_path / "m2", "m2")
        with pytest.raises(
            NotAMemberError, match=r"this cluster exists, and .* start this manager with --join"
        ):
            await other.begin()
        assert not (other.directory / "cluster.key").exists()

    async def test_with_another_cluster_key_is_told_so(self, host: Host) -> None:
        await host.begin()
        write_cluster_key(host.directory / "cluster.key", ClusterKey.generate())
        with pytest.raises(WrongClusterKeyError):
            await host.begin()

    async def test_while_the_store_is_away_can_be_repeated(self, host: Host) -> None:
        first = await host.begin()
        host.server.kill()
        with pytest.raises(StoreUnavailableError):
            await host.begin()
        host.server.restart()

        assert (await host.begin()).own.credentials == first.own.credentials

    async def test_in_the_middle_of_a_rotation_of_the_cluster_key(self, host: Host) -> None:
        """The next key has been taken; which of both the store is under is not known beforehand."""
        access = await host.begin()
        following = ClusterKey.generate()
        await access.cluster_keys.take(following.to_text().encode())
        assert (await host.begin()).store.cluster_key_id != following.id
        await access.store.rotate(following)
        again = await host.begin()

        assert again.store.cluster_key_id == again.cluster_keys.current()[1] == following.id
        assert read_cluster_key(host.directory / "cluster.key").id == following.id

    async def test_after_its_certificate_ran_out_has_a_new_one_at_once(
        self, host: Host, clock: Clock
    ) -> None:
        """It was stopped for long: whoever it serves first must see a good one."""
        await host.begin()
        clock.now_s += 60 * DAY_S
        again = await host.begin()

        assert again.own.credentials.expires_s == clock.now_s + LIFE_S

    async def test_after_it_was_revoked_meanwhile_is_refused(self, host: Host, clock: Clock) -> None:
        access = await host.begin()
        await access.authority.revoke("manager", "m1")
        clock.now_s += DAY_S
        with pytest.raises(NotAMemberError, match=r"was revoked\. To let this host join again, remove"):
            await host.begin()


class TestAWipedStore:
    async def test_gets_the_same_cluster_back(self, host: Host) -> None:
        """Nobody has to join again, and nobody who was revoked comes back."""
        before = await host.begin()
        admin = await let_in(before, host.admin_token())
        node = await let_in(before, await a_token(before, Kind.NODE), "n1")
        thief = await let_in(before, await a_token(before, Kind.NODE), "n2")
        await before.authority.revoke("node", "n2")
        async with kept_up(before._keep_copy()):
            await asyncio.sleep(2)
        (host.directory / ADMIN_TOKEN_FILE).unlink()
        host.server.wipe()
        after = await host.begin()

        assert after.cluster == before.cluster
        assert after.roots.signing_digest == before.roots.signing_digest
        assert after.own.credentials == before.own.credentials
        for member in (admin, node):
            leaf = member.leaf
            await after.authority.renew(leaf.identity, leaf.generation, certificates.new_key().public_key())
        with pytest.raises(NotLetInError, match="revoked"):
            await after.authority.renew(
                thief.leaf.identity, thief.leaf.generation, certificates.new_key().public_key()
            )
        assert not (host.directory / ADMIN_TOKEN_FILE).exists(), "there is an admin"

    async def test_beneath_a_running_manager(self, host: Host) -> None:
        access = await host.begin()
        digest = access.roots.signing_digest
        host.server.wipe()
        await access.establish()

        assert (await host.begin()).roots.signing_digest == digest
        assert {item.key for item in host.server.items(keys.PKI_IDENTITIES)} == {
            keys.pki_identity("manager", "m1"), keys.pki_identity("user", "admin"),
        }  # fmt: skip

    async def test_that_lost_its_keyring_alone_is_for_an_operator(self, host: Host) -> None:
        await host.begin()
        host.server.delete(keys.KEYRING)
        with pytest.raises(KeyringError, match="restore etcd from a backup"):
            await host.begin()
