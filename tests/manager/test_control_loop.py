"""The loop as a part of real managers: what it does when the store, or a workload, behaves badly."""

from __future__ import annotations

import asyncio

import pytest

from bayplan.v1 import control_pb2 as api
from manager import control_loop
from manager.planning import plan
from manager.planning.plan import WorkloadPlan
from manager.planning.view import ClusterView, WorkloadView
from manager.store import keys, records
from manager.views import workload_view
from tests.manager.world import a_deployment, a_world

pytestmark = pytest.mark.virtual_time


class TestControlLoop:
    async def test_quarantines_a_workload_that_cannot_be_planned(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The others run; the reason is said; once it can be planned it runs."""
        is_poisonous = True
        plan_workload = plan.plan_workload

        def plan_or_raise(view: WorkloadView, cluster: ClusterView) -> WorkloadPlan:
            if view.name == "poison" and is_poisonous:
                raise ZeroDivisionError("division by zero")
            return plan_workload(view, cluster)

        monkeypatch.setattr(control_loop, "plan_workload", plan_or_raise)
        async with a_world() as world:
            node = await world.agent("n1")
            await world.apply(a_deployment("poison"), a_deployment("web"))
            await world.until(lambda: len(node.assignments) == 2)
            pods = await world.pods(workload="poison")
            assert {pod.why for pod in pods} == {"planning it failed: ZeroDivisionError: division by zero"}
            is_poisonous = False
            await world.until(lambda: len(node.assignments) == 4, within_s=70)

            assert not world.leadership.loop.quarantined

    async def test_survives_a_document_that_changes_while_its_pods_are_committed(self) -> None:
        async with a_world() as world:
            await world.agent("n1")
            for turn in range(40):
                await world.apply(a_deployment(replicas=1 + turn % 5, image=f"app:{turn}"))
                await asyncio.sleep(0.0005 * turn)
            await asyncio.sleep(5)

            assert world.leadership.term.epoch.revision == (await world.pods_mark()).epoch
            assert {pod.revision for pod in await world.pods()} == {
                workload_view(world.leadership.state, uid).revision  # type: ignore[union-attr]  # it exists
                for uid in world.leadership.state.workloads
            }

    async def test_keeps_one_template_a_workload_however_often_it_changes(self) -> None:
        async with a_world() as world:
            await world.agent("n1")
            for turn in range(12):
                await world.apply(a_deployment(replicas=2, image=f"app:{turn}"))
                await asyncio.sleep(3)
            await asyncio.sleep(30)

            assert len(world.etcd.items(keys.REVISIONS)) == 1

    async def test_keeps_decisions_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(control_loop, "DECISIONS_MAX", 10)
        async with a_world() as world:
            await world.agent("n1")
            for turn in range(30):
                await world.apply(a_deployment(replicas=turn % 2))
                await asyncio.sleep(1)

            assert len(world.etcd.items(keys.DECISIONS)) <= 10

    async def test_waits_until_a_full_store_takes_writes_again(self) -> None:
        async with a_world() as world:
            node = await world.agent("n1")
            await world.apply(a_deployment())
            await world.until(lambda: len(node.assignments) == 2)
            await world.control().Delete(api.DeleteRequest(kind="deploy", name="web"))
            world.etcd.is_full = True
            await asyncio.sleep(30)
            mark = await world.pods_mark()
            assert "etcdctl" in mark.notice or any(
                "etcdctl" in event.message for event in world.leadership.events.select()
            )
            world.etcd.is_full = False
            await world.until(lambda: not world.etcd.items(keys.RESOURCES))

    async def test_finds_what_the_watch_lost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Old etcd versions lose watch events: the sweep reads what differs."""
        async with a_world() as world:
            node = await world.agent("n1")
            await world.apply(a_deployment())
            await world.until(lambda: len(node.assignments) == 2)
            monkeypatch.setattr(control_loop, "apply_watched", lambda *_: set())
            await world.control().Scale(api.ScaleRequest(name="web", replicas=5))
            await asyncio.sleep(10)
            assert len(node.assignments) == 2
            monkeypatch.undo()
            await world.until(lambda: len(node.assignments) == 5, within_s=70)

    async def test_goes_on_after_the_store_was_compacted_under_its_watch(self) -> None:
        async with a_world() as world:
            node = await world.agent("n1")
            name = world.leader
            await world.apply(a_deployment())
            await world.until(lambda: len(node.assignments) == 2)
            world.etcd.cut(name)
            document = world.etcd.items(keys.RESOURCES)[0]
            stored = records.decode_document(document.value)
            stored.document["spec"]["replicas"] = 4
            world.etcd.put(document.key, records.encode_document(stored))
            revision = world.etcd.put("/elsewhere", b"")
            world.etcd.compact(revision)
            await asyncio.sleep(1)
            world.etcd.heal(name)
            await world.until(lambda: len(node.assignments) == 4, within_s=10)

    async def test_ignores_junk_under_its_prefix(self) -> None:
        async with a_world(2) as world:
            for suffix in ("nodes/x", "node-intents/x", "decisions/x", "resources/x", "resources/A/b/c", "x"):
                world.etcd.put(keys.ROOT + suffix, b"\xff\x00junk")
            node = await world.agent("n1")
            await world.apply(a_deployment())
            await world.until(lambda: len(node.assignments) == 2)
            await world.kill(world.leader)
            await world.until(lambda: any(each.leadership for each in world.managers.values()))

            assert len(await world.pods()) == 2
