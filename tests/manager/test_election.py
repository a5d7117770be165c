from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from manager.election import Election, LeaderKey, Term
from manager.store import keys, records
from manager.store.meta import FormatVersionError
from manager.store.port import Put
from tests.fakes.store import FakeEtcd, FakeStore
from tests.virtual_time import VirtualTimeLoop

pytestmark = pytest.mark.virtual_time


class Manager:
    """One candidate, and what came of its terms."""

    def __init__(self, server: FakeEtcd, name: str, seed: int = 0) -> None:
        self.name = name
        self.server = server
        self.store = FakeStore(server, name)
        self.election = Election(
            self.store, manager_id=name, address=f"{name}:7400", chance=random.Random(f"{name}{seed}")
        )
        self.terms: list[Term] = []
        self.task: asyncio.Task[None] | None = None

    @property
    def leads(self) -> bool:
        return self.election.term is not None

    @property
    def commands(self) -> bool:
        """Whether it believes that it may command."""
        return self.election.term is not None and not self.election.term.is_suspended

    async def lead(self, term: Term) -> None:
        self.terms.append(term)
        await asyncio.Event().wait()

    async def writes(self) -> bool:
        """Whether a write of the latest term is accepted."""
        put = Put(key=keys.COMMIT, value=self.name.encode())
        return (await self.store.txn((self.terms[-1].guard,), (put,))).succeeded


@asynccontextmanager
async def running(*managers: Manager) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        for manager in managers:
            manager.task = tasks.create_task(manager.election.run(manager.lead))
        yield
        for manager in managers:
            assert manager.task is not None
            manager.task.cancel()


async def until(condition: Callable[[], bool], *, within_s: float) -> float:
    """Wait for `condition`; returns the seconds it took."""
    loop = asyncio.get_running_loop()
    before_s = loop.time()
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for is anything a test can see
            await asyncio.sleep(0.01)
    return loop.time() - before_s


def leader_of(managers: list[Manager]) -> Manager:
    (leader,) = [manager for manager in managers if manager.leads]
    return leader


@pytest.fixture
def server() -> FakeEtcd:
    return FakeEtcd()


@pytest.fixture
def managers(server: FakeEtcd) -> list[Manager]:
    return [Manager(server, name) for name in ("m1", "m2", "m3")]


class TestWinning:
    async def test_one_of_many_leads_and_all_know_it(self, server: FakeEtcd, managers: list[Manager]) -> None:
        async with running(*managers):
            await until(lambda: any(manager.leads for manager in managers), within_s=1)
            await asyncio.sleep(60)

            leader = leader_of(managers)
            known = [manager.election.leader for manager in managers]
            key = server.get(keys.LEADER)
            assert key is not None
            wanted = LeaderKey(
                id=leader.name,
                address=f"{leader.name}:7400",
                create_revision=key.create_revision,
                lease=key.lease,
            )
            assert known == [wanted] * 3
            assert sum(len(manager.terms) for manager in managers) == 1
            assert await leader.writes()

    async def test_the_epoch_names_the_store_and_grows(self, server: FakeEtcd) -> None:
        manager = Manager(server, "m1")
        async with running(manager):
            await until(lambda: manager.commands, within_s=1)
            server.delete(keys.LEADER)
            await until(lambda: len(manager.terms) == 2, within_s=5)

        meta = server.get(keys.META)
        assert meta is not None
        first, second = (term.epoch for term in manager.terms)
        assert first.store == second.store == records.decode_meta(meta.value).incarnation
        assert first.revision < second.revision
        assert second.to_wire().revision == second.revision

    async def test_a_lost_reply_to_the_campaign_is_no_lost_vote(self, server: FakeEtcd) -> None:
        manager = Manager(server, "m1")
        server.drop_next_reply("m1")  # That of founding the store.
        server.drop_next_reply("m1")  # That of the campaign.
        async with running(manager):
            await until(lambda: manager.commands, within_s=10)

            assert await manager.writes()

    async def test_a_store_of_another_format_is_refused(self, server: FakeEtcd) -> None:
        meta = records.Meta(format_version=4, cluster_id="c", incarnation="i")
        server.put(keys.META, records.encode_meta(meta))
        manager = Manager(server, "m1")

        with pytest.raises(ExceptionGroup) as caught:
            await manager.election.run(manager.lead)

        assert caught.group_contains(FormatVersionError, match="format 4, this manager understands 3")

    async def test_a_junk_leader_key_is_waited_for(self, server: FakeEtcd) -> None:
        server.put(keys.LEADER, b"\xff")
        server.put(keys.LEADER + "-junk", b"")
        manager = Manager(server, "m1")
        async with running(manager):
            await asyncio.sleep(10)
            assert not manager.leads

            server.delete(keys.LEADER)
            await until(lambda: manager.commands, within_s=1)


class TestLosing:
    async def test_a_deleted_key_ends_the_term_at_once(self, server: FakeEtcd) -> None:
        manager = Manager(server, "m1")
        async with running(manager):
            await until(lambda: manager.commands, within_s=1)
            term = manager.terms[0]

            server.delete(keys.LEADER)
            await term.wait_ended()

            assert term.is_suspended
            assert term.end_reason == "the leader key was deleted"

    async def test_a_leader_cut_off_for_10_s_is_replaced_and_harmless(
        self, server: FakeEtcd, managers: list[Manager]
    ) -> None:
        async with running(*managers):
            await until(lambda: any(manager.commands for manager in managers), within_s=1)
            await asyncio.sleep(5)
            old = leader_of(managers)
            others = [manager for manager in managers if manager is not old]
            term = old.terms[0]

            server.cut(old.name)
            suspended_s = await until(lambda: term.is_suspended, within_s=5)
            assert not any(manager.leads for manager in others), "nobody else leads while it commands"
            elected_s = await until(lambda: any(manager.commands for manager in others), within_s=5)
            await asyncio.sleep(10 - suspended_s - elected_s)
            server.heal(old.name)
            ended_s = await until(lambda: not old.leads, within_s=5)

            assert 1 <= suspended_s <= 2.1
            assert suspended_s + elected_s <= 3.2
            # Its own stuck calls may take their deadline; the commands stopped long ago.
            assert ended_s <= 3
            assert not await old.writes()
            new = leader_of(managers)
            assert new.terms[0].epoch.revision > term.epoch.revision
            assert await new.writes()

    async def test_a_process_that_was_paused_does_not_command_when_it_wakes(self, server: FakeEtcd) -> None:
        """Nothing but the clock could tell it so far."""
        manager = Manager(server, "m1")
        async with running(manager):
            await until(lambda: manager.commands, within_s=1)
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualTimeLoop)

            loop._now_s += 10

            assert not manager.commands

    async def test_never_two_command_at_once(self, server: FakeEtcd, managers: list[Manager]) -> None:
        """The leader is cut off again and again, for random times."""
        chance = random.Random(7)
        async with running(*managers):
            for _ in range(30):
                await until(lambda: any(manager.commands for manager in managers), within_s=15)
                victim = next(manager for manager in managers if manager.commands)
                server.cut(victim.name)
                for _ in range(chance.randrange(1, 600)):
                    await asyncio.sleep(0.01)
                    assert sum(manager.commands for manager in managers) <= 1
                server.heal(victim.name)
        epochs = [term.epoch.revision for manager in managers for term in manager.terms]
        assert len(set(epochs)) == len(epochs) > 5

    async def test_its_lease_ends_when_lead_fails(self, server: FakeEtcd) -> None:
        """The process is about to die: somebody else shall lead at once."""
        manager = Manager(server, "m1")

        async def fail(term: Term) -> None:
            raise RuntimeError(f"a bug in {term.epoch}")

        with pytest.raises(ExceptionGroup):
            await manager.election.run(fail)

        assert server.get(keys.LEADER) is None

    async def test_stopping_gives_the_leadership_to_another(self, managers: list[Manager]) -> None:
        async with running(*managers):
            await until(lambda: any(manager.commands for manager in managers), within_s=1)
            await asyncio.sleep(5)
            old = leader_of(managers)

            assert old.task is not None
            old.task.cancel()
            took_s = await until(
                lambda: any(manager.commands for manager in managers if manager is not old), within_s=5
            )

            assert took_s < 0.1

    async def test_resigning_gives_the_leadership_to_another(self, managers: list[Manager]) -> None:
        async with running(*managers):
            await until(lambda: any(manager.commands for manager in managers), within_s=1)
            old = leader_of(managers)

            await old.election.resign()
            assert not old.leads
            await asyncio.sleep(1)

            assert leader_of(managers) is not old
            await old.election.resign()  # Of nothing: no error.

    async def test_resigning_alone_costs_two_seconds(self, server: FakeEtcd) -> None:
        manager = Manager(server, "m1")
        async with running(manager):
            await until(lambda: manager.commands, within_s=1)
            await manager.election.resign()

            assert 1.5 < await until(lambda: manager.commands, within_s=5) < 3

    async def test_a_leader_whose_work_ends_gives_up(self, server: FakeEtcd) -> None:
        manager = Manager(server, "m1")
        ended = asyncio.Event()

        async def lead(term: Term) -> None:
            assert not term.is_suspended
            ended.set()

        run: Awaitable[None] = manager.election.run(lead)
        task = asyncio.ensure_future(run)
        await ended.wait()
        await asyncio.sleep(0.1)

        assert server.get(keys.LEADER) is None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class TestOutages:
    async def test_a_short_silence_suspends_and_resumes(self, server: FakeEtcd) -> None:
        manager = Manager(server, "m1")
        async with running(manager):
            await until(lambda: manager.commands, within_s=1)
            await asyncio.sleep(5)
            term = manager.terms[0]
            server.pause()
            await term.wait_suspended()
            commanded = [manager.commands]
            server.resume()
            await term.wait_active()
            commanded.append(manager.commands)

            assert manager.terms == [term]
            assert commanded == [False, True]
            assert await manager.writes()

    async def test_a_restart_of_etcd_keeps_the_leader(
        self, server: FakeEtcd, managers: list[Manager]
    ) -> None:
        """Also after minutes: etcd renews all leases when it starts."""
        async with running(*managers):
            await until(lambda: any(manager.commands for manager in managers), within_s=1)
            await asyncio.sleep(5)
            leader = leader_of(managers)
            server.kill()
            await asyncio.sleep(180)
            assert leader.terms[0].is_suspended
            server.restart()
            took_s = await until(lambda: leader.commands, within_s=5)

            assert took_s <= 1.2
            assert [len(manager.terms) for manager in managers].count(0) == 2

    async def test_etcd_frozen_for_minutes(self, server: FakeEtcd, managers: list[Manager]) -> None:
        """Its leases ended meanwhile: somebody is elected soon after it goes on."""
        async with running(*managers):
            await until(lambda: any(manager.commands for manager in managers), within_s=1)
            server.pause()
            await asyncio.sleep(180)
            server.resume()

            assert await until(lambda: any(manager.commands for manager in managers), within_s=5) < 5
            await asyncio.sleep(5)
            assert sum(manager.commands for manager in managers) == 1

    async def test_managers_start_before_etcd(self, server: FakeEtcd, managers: list[Manager]) -> None:
        server.kill()
        async with running(*managers):
            await asyncio.sleep(60)
            server.restart()

            assert await until(lambda: any(manager.commands for manager in managers), within_s=5) < 1.5

    async def test_a_wiped_store_is_another_store(self, server: FakeEtcd, managers: list[Manager]) -> None:
        async with running(*managers):
            await until(lambda: any(manager.commands for manager in managers), within_s=1)
            await asyncio.sleep(5)
            old = leader_of(managers).terms[0]

            server.wipe()
            await until(lambda: old.is_suspended, within_s=5)
            await until(lambda: any(manager.commands for manager in managers), within_s=10)

            assert leader_of(managers).terms[-1].epoch.store != old.epoch.store

    async def test_a_restored_backup_ends_the_term_it_holds(self, server: FakeEtcd) -> None:
        """The leader's key is in it, but not what the leader wrote since."""
        manager = Manager(server, "m1")
        async with running(manager):
            await until(lambda: manager.commands, within_s=1)
            backup = server.snapshot()
            for _ in range(50):
                await manager.writes()
            await asyncio.sleep(20)

            server.restore(backup)
            await until(lambda: len(manager.terms) == 2, within_s=10)

            assert manager.terms[0].end_reason == "the store was replaced"


class TestTakingOver:
    async def test_a_deposed_leader_is_replaced_at_once(
        self, server: FakeEtcd, managers: list[Manager]
    ) -> None:
        async with running(*managers):
            await until(lambda: any(manager.commands for manager in managers), within_s=1)
            await asyncio.sleep(5)
            old = leader_of(managers)
            standby = next(manager for manager in managers if manager is not old)
            assert standby.election.leader is not None

            server.cut(old.name)
            assert await standby.election.take_over(standby.election.leader)
            took_s = await until(
                lambda: any(manager.commands for manager in managers if manager is not old), within_s=1
            )

            assert took_s < 0.1
            server.heal(old.name)
            await asyncio.sleep(5)
            assert sum(manager.commands for manager in managers) == 1
            assert not await old.writes()

    async def test_it_is_possible_once_in_30_s(self, managers: list[Manager]) -> None:
        async with running(*managers):
            await until(lambda: any(manager.commands for manager in managers), within_s=1)
            taken: list[float] = []
            loop = asyncio.get_running_loop()
            for _ in range(900):
                await asyncio.sleep(0.1)
                for manager in managers:
                    observed = manager.election.leader
                    if observed is not None and await manager.election.take_over(observed):
                        taken.append(loop.time())

        assert len(taken) >= 3
        assert all(later - earlier >= 30 for earlier, later in itertools.pairwise(taken))

    async def test_another_leader_by_now_is_left_alone(
        self, server: FakeEtcd, managers: list[Manager]
    ) -> None:
        async with running(*managers):
            await until(lambda: any(manager.commands for manager in managers), within_s=1)
            observed = managers[0].election.leader
            assert observed is not None
            server.delete(keys.LEADER)
            await asyncio.sleep(5)
            leader = leader_of(managers)

            assert not await managers[0].election.take_over(observed)
            assert leader.commands
            assert server.get(keys.TAKEOVER) is None

    async def test_a_lost_reply_does_not_stop_it(self, server: FakeEtcd, managers: list[Manager]) -> None:
        async with running(*managers):
            await until(lambda: any(manager.commands for manager in managers), within_s=1)
            await asyncio.sleep(5)
            old = leader_of(managers)
            standby = next(manager for manager in managers if manager is not old)
            assert standby.election.leader is not None
            server.drop_next_reply(standby.name)

            assert await standby.election.take_over(standby.election.leader)

    async def test_without_etcd_nobody_is_deposed(self, server: FakeEtcd, managers: list[Manager]) -> None:
        async with running(*managers):
            await until(lambda: any(manager.commands for manager in managers), within_s=1)
            await asyncio.sleep(1)
            observed = managers[0].election.leader
            assert observed is not None
            server.kill()

            assert not await managers[0].election.take_over(observed)


class TestNews:
    async def test_changes_are_told(self, server: FakeEtcd) -> None:
        leader, standby = Manager(server, "m1"), Manager(server, "m2")
        told: list[str | None] = []

        async def listen() -> None:
            async for key in standby.election.leader_changes():
                told.append(key.id if key else None)  # noqa: PERF401 - it never ends

        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(listen())
            async with running(leader):
                await until(lambda: leader.commands, within_s=1)
                async with running(standby):
                    await asyncio.sleep(5)
                    assert leader.task is not None
                    leader.task.cancel()
                    await asyncio.sleep(5)
            listening.cancel()

        assert told[0] is None
        assert told[1] == "m1"
        assert told[-1] == "m2"
