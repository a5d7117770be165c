"""The election with real clocks, leases and connections; the cases are in tests/manager/test_election.py."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from manager.election import Election, Term
from manager.store import keys
from manager.store.etcd import EtcdStore
from tests.chaos_proxy import ChaosProxy
from tests.contracts.store_harness import put_until_done
from tests.real_etcd import RealEtcd

pytestmark = pytest.mark.etcd


class Manager:
    """A candidate behind a proxy of its own."""

    def __init__(self, name: str, proxy: ChaosProxy) -> None:
        self.name = name
        self.proxy = proxy
        self.store = EtcdStore([proxy.endpoint])
        self.election = Election(self.store, manager_id=name, address="", chance=random.Random(name))

    @property
    def commands(self) -> bool:
        return self.election.term is not None and not self.election.term.is_suspended


async def lead(term: Term) -> None:
    await term.wait_ended()


async def until(condition: Callable[[], bool], *, within_s: float) -> float:
    loop = asyncio.get_running_loop()
    before_s = loop.time()
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for is anything a test can see
            await asyncio.sleep(0.01)
    return loop.time() - before_s


class TestElectionOnEtcd:
    @pytest.fixture
    async def managers(self, etcd: RealEtcd) -> AsyncIterator[list[Manager]]:
        managers = []
        async with AsyncExitStack() as at_end:
            for name in ("m1", "m2"):
                proxy = ChaosProxy("127.0.0.1", etcd.port)
                await proxy.start()
                at_end.push_async_callback(proxy.stop)
                managers.append(Manager(name, proxy))
                at_end.push_async_callback(managers[-1].store.aclose)
            async with asyncio.TaskGroup() as tasks:
                runs = [tasks.create_task(manager.election.run(lead)) for manager in managers]
                yield managers
                etcd.ensure_running()
                # After a fault each connection waits out its back-off; only then can its lease be given back.
                for manager in managers:
                    await put_until_done(manager.store, "/connected", b"")
                for run in runs:
                    run.cancel()
            for manager in managers:
                assert await manager.store.get(keys.LEADER) is None

    async def test_a_leader_cut_off_is_replaced(self, managers: list[Manager]) -> None:
        await until(lambda: any(manager.commands for manager in managers), within_s=5)
        old = next(manager for manager in managers if manager.commands)
        other = next(manager for manager in managers if manager is not old)

        old.proxy.stall()
        suspended_s = await until(lambda: not old.commands, within_s=3)
        elected_s = suspended_s + await until(lambda: other.commands, within_s=5)
        old.proxy.flow()
        await until(lambda: old.election.leader == other.election.leader, within_s=5)

        assert suspended_s < 2.2
        assert 2 < elected_s < 5
        assert not old.commands

    async def test_taking_over_costs_well_under_a_second(self, managers: list[Manager]) -> None:
        await until(lambda: any(manager.commands for manager in managers), within_s=5)
        await until(lambda: all(manager.election.leader for manager in managers), within_s=5)
        old = next(manager for manager in managers if manager.commands)
        other = next(manager for manager in managers if manager is not old)
        observed = other.election.leader
        assert observed is not None

        old.proxy.stall()
        assert await other.election.take_over(observed)
        took_s = await until(lambda: other.commands, within_s=5)
        old.proxy.flow()

        assert took_s < 0.5
        await until(lambda: not old.commands, within_s=5)
        assert not await other.election.take_over(observed)

    async def test_a_restart_of_etcd_keeps_the_leader(self, managers: list[Manager], etcd: RealEtcd) -> None:
        await until(lambda: any(manager.commands for manager in managers), within_s=5)
        leader = next(manager for manager in managers if manager.commands)
        term = leader.election.term

        etcd.kill()
        await asyncio.sleep(4)
        assert not any(manager.commands for manager in managers)
        await etcd.restart()
        await until(lambda: leader.commands, within_s=5)

        assert leader.election.term is term
