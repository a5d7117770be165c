"""The page as it is fetched: over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from bayplan.metrics_page import PAGE_S, serve_metrics

Fetched = tuple[int, str, str]


async def fetched(
    page: Callable[[], Awaitable[bytes]], path: str = "/metrics", method: str = "GET"
) -> Fetched:
    """Status, content type and text."""
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(serve_metrics("127.0.0.1:0", page, bound=port.set_result))
    try:
        async with (
            asyncio.timeout(10),
            aiohttp.ClientSession() as session,
            session.request(method, f"http://127.0.0.1:{await port}{path}") as reply,
        ):
            return reply.status, reply.headers["Content-Type"], await reply.text()
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def some() -> bytes:
    return b"bayplan_leader 1.0\n"


class TestPage:
    async def test_is_prometheus_text(self) -> None:
        status, content_type, text = await fetched(some)

        assert (status, text) == (200, "bayplan_leader 1.0\n")
        assert content_type.startswith("text/plain; version=")

    @pytest.mark.parametrize(("path", "method"), [("/", "GET"), ("/metrics/x", "GET"), ("/metrics", "POST")])
    async def test_is_all_that_there_is(self, path: str, method: str) -> None:
        status, _, _ = await fetched(some, path, method)

        assert status in (404, 405)

    async def test_that_takes_too_long_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert PAGE_S < 10, "Prometheus' own limit"
        monkeypatch.setattr("bayplan.metrics_page.PAGE_S", 0.01)

        async def never() -> bytes:
            await asyncio.Event().wait()
            raise AssertionError

        status, _, text = await fetched(never)

        assert (status, text) == (503, "the figures could not be gathered in time\n")

    async def test_without_an_address_nothing_is_served(self) -> None:
        async with asyncio.timeout(1):
            await serve_metrics("", some)

    async def test_an_address_that_somebody_has_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bayplan.metrics_page.BIND_RETRY_S", 0.01)
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = int(server.sockets[0].getsockname()[1])
        bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.ensure_future(serve_metrics(f"127.0.0.1:{port}", some, bound=bound.set_result))
        await asyncio.sleep(0.05)
        assert not bound.done()
        server.close()
        await server.wait_closed()

        async with asyncio.timeout(10):
            assert await bound == port
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
