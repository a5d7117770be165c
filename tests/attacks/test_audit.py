"""The record of what was refused: complete, and not to be pushed out by knocking."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from bayplan.v1 import access_pb2 as access
from bayplan.v1 import control_pb2 as control
from bayplan.v1.access_pb2_grpc import AccessStub
from bayplan.v1.callers_pb2 import ROLE_VIEWER
from bayplan.v1.control_pb2_grpc import ControlStub
from manager.access.audit import SAME_WITHIN_S
from tests.attacks.world import World, denial

pytestmark = [pytest.mark.etcd, pytest.mark.asyncio(loop_scope="package")]


class TestAudit:
    async def test_a_refusal_is_told_with_who_what_and_why(self, world: World) -> None:
        """By the manager that refused, to an admin who asks another one."""
        curious = await world.user("curious", ROLE_VIEWER)
        before_ms = int(time.time() * 1000)
        async with curious.channel(world.managers[1].address) as channel:
            await denial(ControlStub(channel).Scale(control.ScaleRequest(name="web", replicas=9)))

        (entry,) = await world.audit(who="curious")
        assert entry.who == str(curious.identity)
        assert entry.manager == "m2"
        assert entry.method == "bayplan.v1.Control/Scale"
        assert entry.target == "web"
        assert entry.why == "curious is a viewer: Scale is for operators and admins"
        assert entry.outcome == "PERMISSION_DENIED"
        assert entry.address == "127.0.0.1"
        assert not entry.allowed
        assert before_ms <= entry.at_ms <= time.time() * 1000

    async def test_the_same_many_times_is_one_line_and_a_number(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stubborn = await world.user("stubborn", ROLE_VIEWER)
        async with stubborn.channel(world.address) as channel:
            stub = ControlStub(channel)
            for _ in range(50):
                await denial(stub.Scale(control.ScaleRequest(name="web", replicas=9)))
        at_once = await world.audit(who="stubborn")
        # Ten seconds later, without waiting for them.
        audit = world.managers[0].access.audit
        monkeypatch.setattr(audit, "_wall_s", lambda: time.time() + SAME_WITHIN_S)
        async with asyncio.timeout(5):
            while len(found := await world.audit(who="stubborn")) < 2:  # noqa: ASYNC110 - the record's own pace
                await asyncio.sleep(0.05)

        assert [entry.count for entry in at_once] == [1]
        assert [entry.count for entry in found] == [1, 49]
        assert len({(entry.method, entry.target, entry.why) for entry in found}) == 1

    async def test_what_an_admin_did_stands_there_too(self, world: World) -> None:
        """So that it can be seen who let the intruder in."""
        await world.user("let-in", ROLE_VIEWER)
        done = [entry for entry in await world.audit(denied=False, who="admin") if entry.target == "let-in"]

        assert [(entry.method, entry.allowed, entry.outcome) for entry in done] == [
            ("bayplan.v1.Access/CreateUser", True, "OK")
        ]

    async def test_nobody_but_admins_reads_it(self, world: World) -> None:
        for who in ("node", "viewer", "operator"):
            async with world.members[who].channel(world.address) as channel:
                denied = await denial(AccessStub(channel).ListAudit(access.ListAuditRequest()))

            assert denied.code is grpc.StatusCode.PERMISSION_DENIED
