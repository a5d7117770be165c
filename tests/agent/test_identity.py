"""How an agent comes by its certificate and keeps it. What goes over the wire for it: tests/attacks."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.identity import (
    DIRECTORY,
    JOIN_RETRY_S,
    REFUSED_RETRY_S,
    SPREAD_S,
    NoTokenError,
    Renewal,
    own_identity,
)
from agent.settings import AgentSettings
from bayplan.identity import certificates
from bayplan.identity.credentials import (
    Credentials,
    CredentialsError,
    OwnIdentity,
    load_credentials,
    save_credentials,
)
from bayplan.identity.joining import Joined, JoinError
from bayplan.identity.names import Identity, Kind
from bayplan.identity.tokens import JoinToken, new_token
from bayplan.transport.grpc import GrpcTransport

pytestmark = pytest.mark.virtual_time

START_S = 1_790_000_000.0
# Short, so that several of them fit into what virtual time allows a test.
LIFE_S = 2 * 3600.0
ROOT = certificates.new_root("c1", now_s=START_S)
TOKEN = new_token(certificates.digest(ROOT.certificate))
MANAGERS = ("m1:7400", "m2:7400", "m3:7400")

UNREACHABLE = JoinError("m1:7400: connection refused", is_final=False)
REVOKED = JoinError("the certificate of node n1 was revoked", is_final=True)


def some_credentials(name: str = "n1", *, kind: Kind = Kind.NODE, issued_s: float = START_S) -> Credentials:
    key = certificates.new_key()
    identity = Identity(cluster="c1", kind=kind, name=name)
    leaf = certificates.issue(ROOT, key.public_key(), identity, generation=1, life_s=LIFE_S, now_s=issued_s)
    return Credentials(
        identity=identity,
        issued_s=issued_s,
        expires_s=issued_s + LIFE_S,
        key_pem=certificates.key_to_pem(key),
        certificates_pem=certificates.to_pem(leaf),
        roots_pem=certificates.to_pem(ROOT.certificate),
    )


def wall_s() -> float:
    """It goes with the loop's time."""
    return START_S + asyncio.get_running_loop().time() - 1_000.0


@dataclass
class Managers:
    """Answer with a certificate, unless failures are left."""

    failures: list[Exception] = field(default_factory=list)
    asked: list[tuple[str, float, tuple[str, ...], Any]] = field(default_factory=list)
    kind: Kind = Kind.NODE  # Whom the token is for.
    keys: list[certificates.Key] = field(default_factory=list)  # Of those who wanted to join.
    slept_s: float = 0.0  # Wall time is ahead of the loop's by so much.

    def wall_s(self) -> float:
        return wall_s() + self.slept_s

    async def join(
        self, managers: Sequence[str], token: JoinToken, *, name: str, key: certificates.Key
    ) -> Joined:
        self.keys.append(key)
        return self._answer("join", managers, (token, name))

    async def renew(self, managers: Sequence[str], channel_to: Any) -> Joined:
        return self._answer("renew", managers, channel_to)

    async def rejoin(self, managers: Sequence[str], expired: Credentials) -> Joined:
        return self._answer("rejoin", managers, expired)

    def _answer(self, how: str, managers: Sequence[str], what: Any) -> Joined:
        self.asked.append((how, wall_s() - START_S, tuple(managers), what))
        if self.failures:
            raise self.failures.pop(0)
        return Joined(
            credentials=some_credentials(kind=self.kind, issued_s=round(self.wall_s())), managers=MANAGERS
        )

    @property
    def times_s(self) -> list[float]:
        return [at_s for _, at_s, _, _ in self.asked]

    @property
    def pauses_s(self) -> list[float]:
        return [later - before for before, later in itertools.pairwise(self.times_s)]

    @property
    def hows(self) -> list[str]:
        return [how for how, _, _, _ in self.asked]


@pytest.fixture
def managers() -> Managers:
    return Managers()


def settings(tmp_path: Path, *, token: str = "", file: Path | None = None) -> AgentSettings:
    return AgentSettings(
        node="n1",
        data_dir=tmp_path / "data",
        managers=MANAGERS,
        address="10.0.0.7",
        join_token=token,
        join_token_file=file,
    )


class TestJoining:
    async def test_by_a_token(self, tmp_path: Path, managers: Managers) -> None:
        given = settings(tmp_path, token=str(TOKEN))
        own = await own_identity(given, joining=managers.join)

        assert own.credentials.identity == Identity(cluster="c1", kind=Kind.NODE, name="n1")
        assert load_credentials(given.data_dir / DIRECTORY) == own.credentials
        assert managers.asked == [("join", 0.0, MANAGERS, (TOKEN, "n1"))]

    async def test_happens_once(self, tmp_path: Path, managers: Managers) -> None:
        """From then on the token is of no use, and not needed."""
        own = await own_identity(settings(tmp_path, token=str(TOKEN)), joining=managers.join)
        again = await own_identity(settings(tmp_path), joining=managers.join)

        assert again.credentials == own.credentials
        assert managers.hows == ["join"]

    async def test_waits_for_the_file_with_the_token(self, tmp_path: Path, managers: Managers) -> None:
        """The host is installed before the token is brought to it; a file may be empty for a moment."""
        file = tmp_path / "token"
        joining = asyncio.ensure_future(own_identity(settings(tmp_path, file=file), joining=managers.join))
        await asyncio.sleep(60)
        file.touch()
        await asyncio.sleep(60)
        assert not joining.done()
        file.write_text(f"{TOKEN}\n")
        await joining

        assert managers.times_s[0] <= 120 + JOIN_RETRY_S
        assert managers.asked[0][3] == (TOKEN, "n1")

    async def test_without_a_token_says_how_to_get_one(self, tmp_path: Path, managers: Managers) -> None:
        with pytest.raises(NoTokenError) as caught:
            await own_identity(settings(tmp_path), joining=managers.join)

        assert str(caught.value) == (
            f"{tmp_path}/data/identity holds no identity: this host joins with --join-token-file or"
            " --join-token (`bay join-token create --role node` prints the whole command)"
        )

    @pytest.mark.parametrize("content", [b"hunter2", b"\xff\xfe\x00hunter2"])
    async def test_by_what_is_no_token_ends_in_words(
        self, tmp_path: Path, managers: Managers, content: bytes
    ) -> None:
        file = tmp_path / "token"
        file.write_bytes(content)
        with pytest.raises(NoTokenError, match="this is no join token") as caught:
            await own_identity(settings(tmp_path, file=file), joining=managers.join)

        assert "hunter2" not in str(caught.value)
        assert managers.asked == []

    async def test_is_tried_until_a_manager_answers(self, tmp_path: Path, managers: Managers) -> None:
        managers.failures = [UNREACHABLE] * 5
        await own_identity(settings(tmp_path, token=str(TOKEN)), joining=managers.join)

        assert managers.times_s == [JOIN_RETRY_S * number for number in range(6)]

    async def test_shows_the_same_key_after_a_crash(self, tmp_path: Path, managers: Managers) -> None:
        """The manager may have written the token's use down: who comes with another key is refused."""
        given = settings(tmp_path, token=str(TOKEN))
        managers.failures = [UNREACHABLE]
        first = asyncio.ensure_future(own_identity(given, joining=managers.join))
        await asyncio.sleep(JOIN_RETRY_S / 2)
        first.cancel()
        await asyncio.wait([first])
        await own_identity(given, joining=managers.join)

        before, after = map(certificates.key_to_pem, managers.keys)
        assert before == after

    async def test_a_crash_before_it_is_kept_costs_no_token(self, tmp_path: Path, managers: Managers) -> None:
        given = settings(tmp_path, token=str(TOKEN))
        in_the_way = given.data_dir / DIRECTORY / "roots.pem"
        in_the_way.mkdir(parents=True)
        with pytest.raises(IsADirectoryError):
            await own_identity(given, joining=managers.join)
        in_the_way.rmdir()
        await own_identity(given, joining=managers.join)

        before, after = map(certificates.key_to_pem, managers.keys)
        assert before == after

    async def test_leaves_nothing_but_the_identity(self, tmp_path: Path, managers: Managers) -> None:
        given = settings(tmp_path, token=str(TOKEN))
        await own_identity(given, joining=managers.join)

        left = {path.name for path in (given.data_dir / DIRECTORY).iterdir()}
        assert left == {"identity.pem", "roots.pem"}

    async def test_a_final_refusal_is_said_and_another_token_helps(
        self, tmp_path: Path, managers: Managers
    ) -> None:
        """The agent stays, so that its service manager does not give it up."""
        file, other = tmp_path / "token", new_token(TOKEN.root_digest)
        file.write_text(str(TOKEN))
        managers.failures = [JoinError("this token is used up; make a new one", is_final=True)]
        with structlog.testing.capture_logs() as logs:
            joining = asyncio.ensure_future(
                own_identity(settings(tmp_path, file=file), joining=managers.join)
            )
            await asyncio.sleep(1)
            file.write_text(str(other))
            await joining

        failed = next(entry for entry in logs if entry["event"] == "join.failed")
        assert (failed["error"], failed["final"]) == ("this token is used up; make a new one", True)
        assert managers.times_s == [0.0, REFUSED_RETRY_S]
        assert managers.asked[1][3] == (other, "n1")
        assert not any(token.secret in str(logs) for token in (TOKEN, other))

    @pytest.mark.parametrize("kind", [Kind.MANAGER, Kind.USER])
    async def test_by_a_token_for_somebody_else_ends_in_words(
        self, tmp_path: Path, managers: Managers, kind: Kind
    ) -> None:
        """A manager's key has no place on a node."""
        managers.kind = kind
        with pytest.raises(NoTokenError) as caught:
            await own_identity(settings(tmp_path, token=str(TOKEN)), joining=managers.join)

        assert str(caught.value) == (
            f"the join token is for a {kind}, not for a node: make another one with"
            " `bay join-token create --role node`"
        )
        assert list((tmp_path / "data" / DIRECTORY).iterdir()) == []

    async def test_the_data_of_another_node_is_not_taken_over(
        self, tmp_path: Path, managers: Managers
    ) -> None:
        given = settings(tmp_path, token=str(TOKEN))
        save_credentials(given.data_dir / DIRECTORY, some_credentials("n2"))
        with pytest.raises(NoTokenError, match="belongs to node n2, and --node says n1: to let this host"):
            await own_identity(given, joining=managers.join)

    async def test_a_damaged_identity_is_not_replaced_in_silence(
        self, tmp_path: Path, managers: Managers
    ) -> None:
        given = settings(tmp_path, token=str(TOKEN))
        save_credentials(given.data_dir / DIRECTORY, some_credentials())
        (given.data_dir / DIRECTORY / "identity.pem").write_bytes(b"junk")
        with pytest.raises(CredentialsError, match="is damaged"):
            await own_identity(given, joining=managers.join)
        assert managers.asked == []


class Agent:
    """What of an agent keeps its certificate."""

    def __init__(self, directory: Path, managers: Managers, *, seed: int = 1) -> None:
        self.directory = directory
        self.own = OwnIdentity(some_credentials())
        self.known = list(MANAGERS)
        self.transport = GrpcTransport(self.own)
        self.renewal = Renewal(
            self.own,
            directory,
            transport=self.transport,
            managers=lambda: self.known,
            wall_s=managers.wall_s,
            chance=random.Random(seed),
            renewing=managers.renew,
            rejoining=managers.rejoin,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.renewal.run())
        await asyncio.sleep(0)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled(), "nothing that the world can do ends it"


@pytest.fixture
def agent(tmp_path: Path, managers: Managers) -> Agent:
    return Agent(tmp_path / DIRECTORY, managers)


class TestRenewal:
    async def test_happens_between_half_and_seventy_percent_of_a_life(
        self, agent: Agent, managers: Managers
    ) -> None:
        async with agent.running():
            await asyncio.sleep(5 * LIFE_S)

        assert set(managers.hows) == {"renew"}
        lives = [later - before for before, later in itertools.pairwise([0.0, *managers.times_s])]
        assert 7 <= len(lives) <= 10
        assert all(0.5 * LIFE_S <= each <= 0.7 * LIFE_S + 1 for each in lives)

    async def test_is_kept_and_shown(self, agent: Agent, managers: Managers) -> None:
        async with agent.running():
            await agent.own.newer_than(1)

        assert load_credentials(agent.directory) == agent.own.credentials
        assert agent.own.credentials.issued_s == START_S + round(managers.times_s[0])
        assert managers.asked[0][3] == agent.transport.channel, "it shows the one before"

    async def test_of_many_agents_is_spread(self, tmp_path: Path) -> None:
        """Those that joined in the same minute."""
        all_managers = [Managers() for _ in range(20)]
        agents = [Agent(tmp_path / str(n), each, seed=n) for n, each in enumerate(all_managers)]
        tasks = [asyncio.ensure_future(each.renewal.run()) for each in agents]
        await asyncio.sleep(0.71 * LIFE_S)
        for task in tasks:
            task.cancel()

        first_s = sorted(each.times_s[0] for each in all_managers)
        assert first_s[-1] - first_s[0] > 0.1 * LIFE_S

    async def test_is_tried_again_with_pauses_that_grow(self, agent: Agent, managers: Managers) -> None:
        managers.failures = [UNREACHABLE] * 8
        with structlog.testing.capture_logs() as logs:
            async with agent.running():
                await agent.own.newer_than(1)

        most_s = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
        assert all(most / 2 <= pause <= most for most, pause in zip(most_s, managers.pauses_s, strict=True))
        warnings = [entry for entry in logs if entry["event"] == "certificate.not_renewed"]
        assert len(warnings) == 8
        assert warnings[0]["error"] == str(UNREACHABLE)
        assert 0.3 * LIFE_S - 1 <= warnings[0]["good_for_s"] <= 0.5 * LIFE_S

    async def test_is_tried_often_once_the_certificate_has_run_out(
        self, agent: Agent, managers: Managers
    ) -> None:
        """Without a good one the node is of no use: a link that comes back is found out soon."""
        agent.own.replace(some_credentials(issued_s=START_S - 2 * LIFE_S))
        managers.failures = [UNREACHABLE] * 20
        async with agent.running():
            await agent.own.newer_than(2)

        assert max(managers.pauses_s) <= 2.0

    async def test_who_was_refused_asks_seldom(self, agent: Agent, managers: Managers) -> None:
        """Even then."""
        agent.own.replace(some_credentials(issued_s=START_S - 2 * LIFE_S))
        managers.failures = [REVOKED] * 20
        async with agent.running():
            await agent.own.newer_than(2)

        assert all(15.0 <= pause <= 30.0 for pause in managers.pauses_s[6:])

    async def test_asks_the_managers_in_another_order_each_time(
        self, agent: Agent, managers: Managers
    ) -> None:
        """One that cannot be reached must not cost every agent its patience."""
        managers.failures = [UNREACHABLE] * 20
        async with agent.running():
            await agent.own.newer_than(1)

        assert {names[0] for _, _, names, _ in managers.asked} == set(MANAGERS)
        assert {frozenset(names) for _, _, names, _ in managers.asked} == {frozenset(MANAGERS)}

    async def test_follows_where_the_managers_are(self, agent: Agent, managers: Managers) -> None:
        async with agent.running():
            agent.known = ["m9:7400"]
            await agent.own.newer_than(1)

        assert managers.asked[0][2] == ("m9:7400",)

    async def test_one_that_ran_out_meanwhile_is_shown_at_the_join_port(
        self, agent: Agent, managers: Managers
    ) -> None:
        """Every manager was away for long."""
        before = agent.own.credentials
        managers.failures = [UNREACHABLE] * 12_000
        async with agent.running():
            await asyncio.sleep(LIFE_S + 60)
            managers.failures.clear()
            await agent.own.newer_than(1)

        assert managers.hows[0] == "renew"
        how, at_s, _, shown = managers.asked[-1]
        assert how == "rejoin"
        assert at_s > LIFE_S
        assert shown == before
        changed = managers.hows.index("rejoin")
        assert managers.times_s[changed - 1] < LIFE_S <= managers.times_s[changed]

    async def test_one_that_had_run_out_before_the_agent_started(
        self, tmp_path: Path, managers: Managers
    ) -> None:
        """The host was switched off."""
        agent = Agent(tmp_path / DIRECTORY, managers)
        agent.own.replace(some_credentials(issued_s=START_S - 3 * LIFE_S))
        async with agent.running():
            await asyncio.sleep(1)

        assert managers.hows == ["rejoin"]
        assert managers.times_s[0] < 1

    async def test_a_revoked_agent_goes_on_asking(self, agent: Agent, managers: Managers) -> None:
        """Its containers run on, and an admin may have erred; the log says why."""
        managers.failures = [REVOKED] * 20
        with structlog.testing.capture_logs() as logs:
            async with agent.running():
                await agent.own.newer_than(1)

        assert logs[0]["error"] == "the certificate of node n1 was revoked"

    async def test_a_full_disk_costs_no_certificate(self, agent: Agent, managers: Managers) -> None:
        """What was got is shown, and kept as soon as it can be."""
        agent.directory.write_bytes(b"in the way")
        with structlog.testing.capture_logs() as logs:
            async with agent.running():
                await agent.own.newer_than(1)
                await asyncio.sleep(600)
                agent.directory.unlink()
                await asyncio.sleep(60)
                assert load_credentials(agent.directory) == agent.own.credentials

        assert managers.hows == ["renew"]
        assert [entry["event"] for entry in logs].count("certificate.not_saved") == 10

    async def test_on_a_disk_that_stays_full_the_next_one_comes_all_the_same(
        self, agent: Agent, managers: Managers
    ) -> None:
        agent.directory.write_bytes(b"in the way")
        async with agent.running():
            await asyncio.sleep(5 * LIFE_S)

        assert set(managers.hows) == {"renew"}
        assert 7 <= len(managers.hows) <= 10

    async def test_a_host_that_was_asleep_renews_within_a_minute(
        self, agent: Agent, managers: Managers
    ) -> None:
        """Or whose clock was set: wall time leaps, the loop's does not."""
        async with agent.running():
            await asyncio.sleep(600)
            managers.slept_s = 2 * LIFE_S
            await asyncio.sleep(60)

        assert managers.hows == ["rejoin"]


class TestBeingAsked:
    async def test_agents_come_within_seconds_but_not_all_at_once(self, tmp_path: Path) -> None:
        """After a rotation of the CA."""
        all_managers = [Managers() for _ in range(20)]
        agents = [Agent(tmp_path / str(n), each, seed=n) for n, each in enumerate(all_managers)]
        tasks = [asyncio.ensure_future(each.renewal.run()) for each in agents]
        await asyncio.sleep(60)
        for each in agents:
            each.renewal.ask()
        await asyncio.sleep(SPREAD_S + 1)
        for task in tasks:
            task.cancel()

        times_s = sorted(at_s for each in all_managers for at_s in each.times_s)
        assert len(times_s) == len(agents)
        assert 60 <= times_s[0] < times_s[-1] <= 60 + SPREAD_S
        assert times_s[-1] - times_s[0] > SPREAD_S / 2

    async def test_twice_at_once_is_one_renewal(self, agent: Agent, managers: Managers) -> None:
        async with agent.running():
            agent.renewal.ask()
            agent.renewal.ask()
            await asyncio.sleep(3600)

        assert len(managers.asked) == 1

    async def test_again_later_is_another(self, agent: Agent, managers: Managers) -> None:
        async with agent.running():
            for _ in range(2):
                agent.renewal.ask()
                await asyncio.sleep(60)

        assert len(managers.asked) == 2
        assert agent.own.version == 3
