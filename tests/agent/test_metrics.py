from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from agent.dns.stats import Counters, DnsStats
from agent.metrics import _DNS_HELP, AgentFigures, AgentMetrics, read_proxy

FIGURES = AgentFigures(
    pods={"running": 3, "pulling": 1},
    is_engine_up=True,
    is_network_up=False,
    is_connected=True,
    heartbeat_age_s=0.4,
    traffic_version=17,
)
DNS = DnsStats(counters=Counters(queries=10, ready=7, upstream_failures=2), address="10.42.3.1", services=5)
PROXY = b"# TYPE haproxy_frontend_bytes_in_total counter\nhaproxy_frontend_bytes_in_total 4"


def metrics(
    figures: AgentFigures = FIGURES, *, dns: DnsStats | None = DNS, proxy: bytes | OSError = PROXY
) -> AgentMetrics:
    async def stats() -> DnsStats | None:
        return dns

    async def text() -> bytes:
        if isinstance(proxy, OSError):
            raise proxy
        return proxy

    made = AgentMetrics(lambda: figures)
    made.dns, made.proxy = stats, text
    return made


async def samples(of: AgentMetrics) -> dict[str, float]:
    """As Prometheus reads the page: `name{label}` and the value."""
    page = (await of.page()).decode()
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


class TestPage:
    async def test_says_how_it_is_now(self) -> None:
        found = await samples(metrics())

        assert found["bayplan_pods{running}"] == 3
        assert found["bayplan_pods{pulling}"] == 1
        assert found["bayplan_engine_up"] == 1
        assert found["bayplan_network_up"] == 0
        assert found["bayplan_session_connected"] == 1
        assert found["bayplan_heartbeat_age_seconds"] == 0.4
        assert found["bayplan_traffic_version"] == 17
        assert found["process_resident_memory_bytes"] > 0

    async def test_what_is_not_known_is_left_out(self) -> None:
        """Never zero: a heartbeat that there never was is not a fresh one."""
        found = await samples(metrics(replace(FIGURES, heartbeat_age_s=None), dns=None))

        assert "bayplan_heartbeat_age_seconds" not in found
        assert "bayplan_dns_queries_total" not in found
        assert found["bayplan_dns_up"] == 0

    async def test_counts_restarts_and_images_that_could_not_be_had(self) -> None:
        counted = metrics()
        counted.container_restarted()
        counted.image_failed()
        counted.image_failed()
        found = await samples(counted)

        assert found["bayplan_container_restarts_total"] == 1
        assert found["bayplan_image_failures_total"] == 2

    async def test_counts_from_zero_where_nothing_failed_yet(self) -> None:
        """A counter that begins to exist with its first failure shows no increase."""
        assert (await samples(metrics()))["bayplan_image_failures_total"] == 0

    async def test_says_what_the_name_server_did(self) -> None:
        found = await samples(metrics())

        assert found["bayplan_dns_up"] == 1
        assert found["bayplan_dns_queries_total"] == 10
        assert found["bayplan_dns_upstream_failures_total"] == 2
        assert found["bayplan_dns_services"] == 5

    async def test_a_name_server_that_listens_nowhere_is_not_up(self) -> None:
        assert (await samples(metrics(dns=replace(DNS, address=""))))["bayplan_dns_up"] == 0

    def test_knows_words_for_all_that_it_counts(self) -> None:
        assert {field.name for field in fields(Counters)} == set(_DNS_HELP)

    async def test_the_proxys_own_figures_stand_behind(self) -> None:
        found = await samples(metrics())

        assert found["haproxy_frontend_bytes_in_total"] == 4
        assert found["bayplan_proxy_up"] == 1

    @pytest.mark.virtual_time
    @pytest.mark.parametrize("why", [ConnectionRefusedError(), TimeoutError()])
    async def test_without_the_proxy_the_rest_is_there(self, why: OSError) -> None:
        found = await samples(metrics(proxy=why))

        assert found["bayplan_proxy_up"] == 0
        assert found["bayplan_engine_up"] == 1

    @pytest.mark.virtual_time
    async def test_does_not_wait_long_for_the_proxy(self) -> None:
        async def never() -> bytes:
            await asyncio.Event().wait()
            raise AssertionError

        made = metrics()
        made.proxy = never

        found = await samples(made)

        assert found["bayplan_proxy_up"] == 0
        assert found["bayplan_engine_up"] == 1

    async def test_two_agents_in_one_process_count_apart(self) -> None:
        one, other = metrics(), metrics()
        one.container_restarted()

        assert (await samples(other))["bayplan_container_restarts_total"] == 0


@asynccontextmanager
async def a_proxy(socket: Path, answer: web.Response | None) -> AsyncIterator[list[str]]:
    """One that answers so, or hangs up; what it is asked for."""
    asked: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return answer

    application = web.Application()
    application.router.add_get("/metrics", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    try:
        yield asked
    finally:
        await runner.cleanup()


async def page_with(socket: Path) -> dict[str, float]:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
        made = metrics()
        made.proxy = lambda: read_proxy(session)
        return await samples(made)


class TestProxyPage:
    async def test_names_no_pods(self, tmp_path: Path) -> None:
        """HAProxy would tell of every server of every service."""
        async with a_proxy(tmp_path / "s", web.Response(body=PROXY)) as asked:
            found = await page_with(tmp_path / "s")

        assert found["haproxy_frontend_bytes_in_total"] == 4
        assert asked == ["/metrics?scope=global&scope=frontend&scope=backend"]

    @pytest.mark.parametrize(
        "answer", [None, web.Response(status=503, text="<html>Service Unavailable</html>")]
    )
    async def test_of_a_proxy_in_trouble_takes_nothing_else_away(
        self, tmp_path: Path, answer: web.Response | None
    ) -> None:
        async with a_proxy(tmp_path / "s", answer):
            found = await page_with(tmp_path / "s")

        assert (found["bayplan_proxy_up"], found["bayplan_engine_up"]) == (0, 1)
