"""How a manager joins a cluster; what goes over the wire for it: tests/attacks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bayplan.identity import certificates
from bayplan.identity.credentials import Credentials
from bayplan.identity.joining import Joined, JoinError
from bayplan.identity.names import Kind
from bayplan.identity.tokens import JoinToken
from manager.access.access import JOIN_RETRY_S, Access, NotAMemberError
from manager.store.sealing import ClusterKey, write_cluster_key
from tests.manager.access.host import Host, a_token, let_in

pytestmark = pytest.mark.virtual_time


@dataclass
class OtherManager:
    """One that lets in, unless failures are left."""

    access: Access
    failures: list[Exception] = field(default_factory=list)
    asked: int = 0
    is_answer_lost: bool = False

    async def join(
        self, managers: Sequence[str], token: JoinToken, *, name: str, key: certificates.Key
    ) -> Joined:
        assert list(managers) == ["m1:7400"]
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        member = await let_in(self.access, token, name, key=key)
        if self.is_answer_lost:
            raise JoinError("m1:7400: connection reset", is_final=False)
        cluster_key = self.access.cluster_keys.current()[0]
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
            cluster_key=cluster_key if member.leaf.identity.kind is Kind.MANAGER else b"",
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

    async def test_goes_on_where_it_was_killed(self, second: Host, other: OtherManager) -> None:
        """The token was used by then, and its answer was lost."""
        token = await a_token(other.access, Kind.MANAGER)
        second.token = str(token)
        other.is_answer_lost = True
        joining = asyncio.ensure_future(second.begin())
        await asyncio.sleep(1)
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)
        other.is_answer_lost = False

        assert (await second.begin()).cluster == other.access.cluster

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
        assert [(name[:9], mode) for name, mode in second.modes().items()] == [(".joining-", "600")]

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
