"""How a manager begins, and what it keeps up from then on; without sockets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from bayplan.identity import certificates
from bayplan.identity.credentials import Credentials
from bayplan.identity.joining import Joined, JoinError
from bayplan.identity.names import Kind
from bayplan.identity.tokens import JoinToken, parse_token
from bayplan.v1.callers_pb2 import ROLE_ADMIN
from manager.access.access import ADMIN_TOKEN_FILE, JOIN_RETRY_S, Access, NotAMemberError, begin
from manager.access.backup import read_backup
from manager.access.settings import AccessSettings
from manager.access.tokens import NotLetInError
from manager.store import keys
from manager.store.port import Compare, Operation, StoreError, StoreUnavailableError, TxnResult
from manager.store.sealed import KeyringError
from manager.store.sealing import ClusterKey, WrongClusterKeyError, read_cluster_key, write_cluster_key
from tests.fakes.store import FakeEtcd, FakeStore
from tests.manager.access.world import DAY_S, START_S, Clock, Member

pytestmark = pytest.mark.virtual_time

LIFE_S = 2 * 3600.0  # Several of them fit into what virtual time allows a test.


@dataclass
class Host:
    """Where a manager is installed."""

    server: FakeEtcd
    clock: Any
    directory: Path
    name: str = "m1"
    join: str = ""
    token: str = ""
    token_file: Path | None = None
    joining: Any = None
    etcd: FakeStore | None = None

    async def begin(self) -> Access:
        settings = AccessSettings(
            data_dir=self.directory, join=self.join, join_token=self.token, join_token_file=self.token_file,
            cluster_key_command="", certificate_life_s=LIFE_S, insecure_loopback=False,
        )  # fmt: skip
        more = {"joining": self.joining} if self.joining is not None else {}
        return await begin(
            settings,
            manager_id=self.name,
            etcd=self.etcd or FakeStore(self.server, self.name),
            wall_s=self.clock,
            chance=random.Random(1),
            **more,
        )

    def admin_token(self) -> JoinToken:
        return parse_token((self.directory / ADMIN_TOKEN_FILE).read_text())

    def modes(self) -> dict[str, str]:
        files = {path.name: path for path in self.directory.rglob("*")}
        return {name: f"{path.stat().st_mode & 0o777:o}" for name, path in files.items()}


@pytest.fixture
def host(server: FakeEtcd, clock: Clock, tmp_path: Path) -> Host:
    return Host(server, clock, tmp_path / "m1")


async def let_in(access: Access, token: JoinToken, name: str = "") -> Member:
    key = certificates.new_key()
    issued = await access.authority.join_by_token(
        certificates.certificate_request(key), token_id=token.id, secret=token.secret, name=name
    )
    return Member(key, issued)


async def a_token(access: Access, kind: Kind) -> JoinToken:
    token, _ = await access.tokens.create(kind, access.roots.signing_digest, ttl_ms=0, uses=1, made_by="anna")
    return token


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


@dataclass
class OtherManager:
    """One that lets in, unless failures are left."""

    access: Access
    failures: list[Exception] = field(default_factory=list)
    asked: int = 0

    async def join(self, managers: Sequence[str], token: JoinToken, *, name: str) -> Joined:
        assert list(managers) == ["m1:7400"]
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        member = await let_in(self.access, token, name)
        key = self.access.cluster_keys.current()[0]
        return Joined(
            credentials=Credentials(
                identity=member.leaf.identity,
                issued_s=member.leaf.issued_s,
                expires_s=member.leaf.expires_s,
                key_pem=certificates.key_to_pem(member.key),
                certificates_pem=member.issued.certificates_pem,
                roots_pem=member.issued.roots_pem,
            ),
            managers=("m1:7400",),
            cluster_key=key if member.leaf.identity.kind is Kind.MANAGER else b"",
        )


@pytest.fixture
async def other(host: Host) -> OtherManager:
    return OtherManager(await host.begin())


@pytest.fixture
def second(host: Host, other: OtherManager, tmp_path: Path) -> Host:
    """That is told to join the first."""
    return Host(host.server, host.clock, tmp_path / "m2", "m2", join="m1:7400", joining=other.join)


class TestJoining:
    async def test_gives_it_the_cluster_key_and_a_certificate(
        self, second: Host, other: OtherManager
    ) -> None:
        second.token = str(await a_token(other.access, Kind.MANAGER))
        access = await second.begin()

        assert str(access.own.credentials.identity).endswith("/manager/m2")
        assert access.cluster == other.access.cluster
        assert access.cluster_keys.current() == other.access.cluster_keys.current()
        assert access.roots.signing_digest == other.access.roots.signing_digest
        assert second.modes() == {
            "cluster.key": "600", "identity": "700", "identity.pem": "600", "roots.pem": "600",
        }, "no admin token"  # fmt: skip

    async def test_happens_once(self, second: Host, other: OtherManager) -> None:
        """What the unit file says about joining stays there."""
        second.token = str(await a_token(other.access, Kind.MANAGER))
        first = await second.begin()

        assert (await second.begin()).own.credentials == first.own.credentials
        assert other.asked == 1

    async def test_needs_a_token(self, second: Host) -> None:
        with pytest.raises(NotAMemberError) as caught:
            await second.begin()

        assert str(caught.value) == (
            "joining needs --join-token-file or --join-token: `bay join-token create --role manager`"
        )

    async def test_waits_for_the_file_with_the_token(
        self, second: Host, other: OtherManager, tmp_path: Path
    ) -> None:
        second.token_file = tmp_path / "token"
        joining = asyncio.ensure_future(second.begin())
        await asyncio.sleep(60)
        second.token_file.touch()
        await asyncio.sleep(60)
        assert not joining.done()
        second.token_file.write_text(f"{await a_token(other.access, Kind.MANAGER)}\n")

        assert (await joining).cluster == other.access.cluster

    @pytest.mark.parametrize("content", [b"hunter2", b"\xff\xfehunter2"])
    async def test_by_what_is_no_token_ends_in_words(
        self, second: Host, tmp_path: Path, content: bytes
    ) -> None:
        second.token_file = tmp_path / "token"
        second.token_file.write_bytes(content)
        with pytest.raises(NotAMemberError, match="this is no join token") as caught:
            await second.begin()
        assert "hunter2" not in str(caught.value)

    async def test_is_tried_until_the_other_answers(self, second: Host, other: OtherManager) -> None:
        second.token = str(await a_token(other.access, Kind.MANAGER))
        other.failures = [JoinError("m1:7400: connection refused", is_final=False)] * 5
        began_s = asyncio.get_running_loop().time()
        await second.begin()

        assert other.asked == 6
        assert asyncio.get_running_loop().time() - began_s == pytest.approx(5 * JOIN_RETRY_S, abs=0.5)

    async def test_a_refusal_ends_it_in_the_others_words(self, second: Host, other: OtherManager) -> None:
        second.token = str(await a_token(other.access, Kind.MANAGER))
        other.failures = [JoinError("this token is used up; make a new one", is_final=True)]
        with pytest.raises(NotAMemberError) as caught:
            await second.begin()

        assert str(caught.value) == "m1:7400: this token is used up; make a new one"
        assert second.modes() == {}

    @pytest.mark.parametrize("kind", [Kind.NODE, Kind.USER])
    async def test_by_a_token_for_somebody_else_ends_in_words(
        self, second: Host, host: Host, other: OtherManager, kind: Kind
    ) -> None:
        second.token = str(host.admin_token() if kind is Kind.USER else await a_token(other.access, kind))
        with pytest.raises(NotAMemberError) as caught:
            await second.begin()

        assert str(caught.value) == (
            f"the join token is for a {kind}, not for a manager: make another one with"
            " `bay join-token create --role manager`"
        )
        assert second.modes() == {}

    async def test_after_a_founding_that_the_other_was_faster_with(
        self, second: Host, other: OtherManager
    ) -> None:
        """Two were started on an empty etcd; the cluster key of the slower one is good for nothing."""
        second.directory.mkdir()
        write_cluster_key(second.directory / "cluster.key", ClusterKey.generate())
        second.token = str(await a_token(other.access, Kind.MANAGER))
        access = await second.begin()

        assert access.cluster_keys.current() == other.access.cluster_keys.current()


# -- what it keeps up ----------------------------------------------------------------------------------


def wall_s() -> float:
    """It goes with the loop's time."""
    return START_S + asyncio.get_running_loop().time() - 1_000.0


@asynccontextmanager
async def kept_up(*parts: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.fixture
async def running(server: FakeEtcd, tmp_path: Path) -> Access:
    return await Host(server, wall_s, tmp_path / "m1").begin()


class TestItsOwnCertificate:
    async def test_is_renewed_at_half_to_seventy_percent_of_its_life(self, running: Access) -> None:
        async with kept_up(running.registry.run(), running._keep_certificate()):
            issued_s = running.own.credentials.issued_s
            for version in (1, 2, 3):
                await running.own.newer_than(version)
                age_s, issued_s = wall_s() - issued_s, running.own.credentials.issued_s
                assert 0.5 * LIFE_S <= age_s <= 0.7 * LIFE_S + 61

    async def test_is_on_disk_before_it_is_shown(
        self, running: Access, server: FakeEtcd, tmp_path: Path
    ) -> None:
        async with kept_up(running.registry.run(), running._keep_certificate()):
            await running.own.newer_than(1)
        again = await Host(server, wall_s, tmp_path / "m1").begin()

        shown = running.own.credentials
        assert again.own.credentials.certificates_pem == shown.certificates_pem
        assert again.own.credentials.key_pem == shown.key_pem

    async def test_is_renewed_at_once_when_the_roots_change(self, running: Access) -> None:
        """Whoever it serves and dials next may trust either."""
        async with kept_up(running.registry.run(), running._keep_certificate()):
            await asyncio.sleep(10)
            began_s = wall_s()
            await running.roots.rotate()
            await running.own.newer_than(1)
            assert wall_s() - began_s < 1

        assert running.own.credentials.roots_pem == running.roots.as_pem()
        assert running.roots.waiting() == []

    async def test_survives_an_outage_of_the_store(self, running: Access, server: FakeEtcd) -> None:
        async with kept_up(running.registry.run(), running._keep_certificate()) as tasks:
            server.kill()
            await running.own.newer_than(1)
            assert not any(task.done() for task in tasks)

    async def test_survives_a_store_that_was_wiped(self, running: Access, server: FakeEtcd) -> None:
        """Before any leader has put back what it lost."""
        async with kept_up(running.registry.run(), running._keep_certificate()) as tasks:
            server.wipe()
            await running.own.newer_than(1)
            assert not any(task.done() for task in tasks)

    async def test_of_a_manager_that_is_revoked_ends_it(self, running: Access) -> None:
        async with kept_up(running.registry.run(), running._keep_certificate()) as tasks:
            await asyncio.sleep(10)
            await running.authority.revoke("manager", "m1")
            with pytest.raises(NotAMemberError) as caught:
                await asyncio.wait_for(tasks[1], 2)

        assert str(caught.value).startswith("manager m1 was revoked: it stops. To let this host join again")


class TestTheCopyOnDisk:
    async def test_follows_what_changes(self, running: Access) -> None:
        async with kept_up(running.registry.run(), running._keep_copy()):
            await let_in(running, await a_token(running, Kind.NODE), "n1")
            await running.authority.revoke("node", "n1")
            await asyncio.sleep(3)

        key = read_cluster_key(running.directory / "cluster.key")
        copy = read_backup(running.directory, [key])
        assert copy.ca == running.registry.ca
        assert set(copy.identities) == set(running.registry.identities.values())
        assert any(record.is_revoked for record in copy.identities)

    async def test_that_cannot_be_written_stops_nothing(self, running: Access) -> None:
        in_the_way = running.directory / "identities.sealed"
        in_the_way.mkdir()
        with structlog.testing.capture_logs() as logs:
            async with kept_up(running.registry.run(), running._keep_copy()) as tasks:
                await asyncio.sleep(3)
                assert not any(task.done() for task in tasks)

        assert "identities_copy.not_written" in {entry["event"] for entry in logs}


class TestTheEndOfARotation:
    async def test_comes_when_nobody_needs_the_old_root(self, running: Access) -> None:
        node = await let_in(running, await a_token(running, Kind.NODE), "n1")
        async with kept_up(
            running.registry.run(), running._keep_certificate(), running._end_rotations(lambda: True)
        ):
            await running.roots.rotate()
            await asyncio.sleep(60)
            assert len(running.roots.trusted) == 2
            assert running.roots.waiting() == ["node n1"]

            leaf = node.leaf
            key = certificates.new_key().public_key()
            await running.authority.renew(leaf.identity, leaf.generation, key)
            await asyncio.sleep(60)
            assert len(running.roots.trusted) == 1

    async def test_does_not_wait_for_who_is_gone(self, running: Access) -> None:
        """Its certificate runs out."""
        await let_in(running, await a_token(running, Kind.NODE), "n1")
        async with kept_up(
            running.registry.run(), running._keep_certificate(), running._end_rotations(lambda: True)
        ):
            await running.roots.rotate()
            await asyncio.sleep(LIFE_S + 60)
            assert len(running.roots.trusted) == 1

    async def test_is_the_leaders_to_decide(self, running: Access) -> None:
        async with kept_up(
            running.registry.run(), running._keep_certificate(), running._end_rotations(lambda: False)
        ):
            await running.roots.rotate()
            await asyncio.sleep(LIFE_S + 60)
            assert len(running.roots.trusted) == 2
