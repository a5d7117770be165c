"""`/metrics` over HTTP, for Prometheus. What a daemon counts is its own; this shows it.

Nothing else is served, and nobody is asked who they are: so it listens on loopback unless told otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

log = structlog.get_logger(__name__)

PATH = "/metrics"
BIND_RETRY_S = 5.0
# Of the whole page: Prometheus itself gives up after 10 s.
PAGE_S = 5.0


async def serve_metrics(
    address: str, page: Callable[[], Awaitable[bytes]], *, bound: Callable[[int], None] = lambda _: None
) -> None:
    """Serve until cancelled. Where the address cannot be had it is tried again: no daemon ends for want of it.

    Args:
        address: `host:port`; empty: nothing is served.
        page: what stands there now, in Prometheus' text format.
        bound: told the port, which may have been left to the kernel.
    """
    if not address:
        return
    host, _, port = address.rpartition(":")
    application = web.Application()
    application.router.add_get(PATH, _handler(page))
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        while True:
            try:
                await web.TCPSite(runner, host.removeprefix("[").removesuffix("]"), int(port)).start()
                break
            except OSError as error:
                log.warning("metrics.not_bound", address=address, error=str(error))
                await asyncio.sleep(BIND_RETRY_S)
        bound(runner.addresses[0][1])
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _handler(page: Callable[[], Awaitable[bytes]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(PAGE_S):
                body = await page()
        except TimeoutError:
            return web.Response(status=503, text="the figures could not be gathered in time\n")
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return handle
