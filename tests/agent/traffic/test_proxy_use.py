"""What the proxy tells of its services' use, from a real HAProxy."""

from __future__ import annotations

import asyncio

import pytest

from agent.traffic import haproxy_head
from bayplan.v1 import agent_link_pb2 as pb
from tests.agent.traffic.world import DB, WEB, a_world, web


class TestUse:
    async def test_counts_requests_errors_and_latencies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which requests are sampled is chance: here all are."""
        monkeypatch.setattr(haproxy_head, "SAMPLE_OF", 1)
        async with a_world() as world:
            await world.start_pod("a")
            await world.until_applied(world.endpoints("a"))
            await asyncio.sleep(0.6)
            world.proxy.service_use()
            for _ in range(20):
                await world.get("/slow=0.02")
            await world.until_applied(world.endpoints())
            for _ in range(3):
                await world.get()
            # A reload in between loses nothing.
            service = web(name="more", vip="10.96.1.1", ports=[pb.ServicePort(port=80)])
            await world.until_applied(world.say(services=[service]))
            await world.proxy._haproxy.count()
            uses = {use.service: use for use in world.proxy.service_use()}
            assert (uses[WEB].requests, uses[WEB].errors) == (23, 3)
            assert sum(uses[WEB].latency_counts) == 23
            assert (uses[DB].requests, uses[DB].errors) == (0, 0)

    @pytest.mark.parametrize(("busy_from", "samples"), [(1_000_000, range(25, 601)), (0, range(25))])
    async def test_tells_a_tenth_of_the_latencies_and_of_a_busy_node_a_hundredth(
        self, monkeypatch: pytest.MonkeyPatch, busy_from: int, samples: range
    ) -> None:
        """Chance has them outside of these bounds less than once in 100,000 runs."""
        monkeypatch.setattr(haproxy_head, "BUSY_REQUESTS_PER_S", (busy_from,))
        async with a_world() as world:
            await world.start_pod("a")
            await world.until_applied(world.endpoints("a"))
            await asyncio.sleep(0.6)
            world.proxy.service_use()
            for _ in range(600):
                await world.get()
            await world.proxy._haproxy.count()
            (use,) = (use for use in world.proxy.service_use() if use.service == WEB)
            assert use.requests == 600
            assert sum(use.latency_counts) in samples

    async def test_counts_of_a_haproxy_that_was_restarted_are_missing_not_zero(self) -> None:
        async with a_world() as world:
            await asyncio.sleep(0.6)
            world.proxy.service_use()
            world.haproxy.kill()
            world.haproxy.start()
            await world.until(lambda: not world.proxy.problem())
            await asyncio.sleep(1)
            await world.proxy._haproxy.count()
            assert world.proxy.service_use() == []
            await world.proxy._haproxy.count()
            assert {use.service for use in world.proxy.service_use()} == {WEB, DB}
