"""The demo's page: a gentle load through every node, and live in a browser who answers it and what fails.

    .venv/bin/python -m deploy.demo_page --project bayplan

It asks the cluster through `bayplan.client`, as any program would, and its own eyes are the load: what
the page counts as answered was answered. It listens on this machine alone, and ends with SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from bayplan.client import BayplanError, Client
from bench.load_generator import Load, NoTargetError
from deploy.demo_page_state import NodeState, PageState, PodState
from deploy.local_cluster import DEMO, NODES, TESTS, LocalCluster

APP = "my-app"
SERVICE_PORT = 80
FILES = Path(__file__).parent / "page"
RATE = 30.0  # Enough to see a gap of a tenth of a second, too little for a machine to notice.
SHOW_EACH_S = ASK_EACH_S = 0.5
ASK_TIMEOUT_S = 2.0


async def run(cluster: LocalCluster) -> None:
    """Until cancelled."""
    targets = {f"http://{cluster.address(node)}:{SERVICE_PORT}": node for node in NODES}
    state = PageState(targets)
    async with (
        Load([*targets], rate=RATE, websockets=0, downloads=0, posts=False, on_record=state.add) as load,
        Client.from_context(cluster.context, timeout_s=ASK_TIMEOUT_S) as client,
        _served(page(lambda: state.snapshot(load.now_s())), cluster.page_port),
        asyncio.TaskGroup() as parts,
    ):
        parts.create_task(load.run(), name="load")
        parts.create_task(_again(state, lambda: _look(client, state, load)), name="cluster")
        parts.create_task(_again(state, lambda: _follow_events(client, state)), name="events")


def page(look: Callable[[], dict[str, Any]]) -> web.Application:
    """The files, and `look` as server-sent events: the whole picture each time, so a late browser misses nothing."""

    async def index(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(FILES / "index.html")

    async def live(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(f"data: {json.dumps(look())}\n\n".encode())
                await asyncio.sleep(SHOW_EACH_S)
        return answer

    app = web.Application()
    app.router.add_get("/", index)
    app.router.add_get("/live", live)
    app.router.add_static("/", FILES)
    return app


@asynccontextmanager
async def _served(app: web.Application, port: int) -> AsyncIterator[None]:
    # Browsers hold their streams open, and connect again by themselves.
    runner = web.AppRunner(app, shutdown_timeout=0.5, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield
    finally:
        await runner.cleanup()


async def _again(state: PageState, look: Callable[[], Awaitable[None]]) -> None:
    """A cluster that does not answer for a while is a part of the show."""
    while True:
        try:
            await look()
        except BayplanError as error:
            # Its first line; the rest is advice for whoever typed a command.
            state.set_problem(str(error).partition("\n")[0])
        await asyncio.sleep(ASK_EACH_S)


async def _look(client: Client, state: PageState, load: Load) -> None:
    nodes = await client.nodes()
    pods = await client.pods(workload=APP)
    for target, name in state.targets.items():
        # As a load balancer in front of the nodes does, or a client that knows several addresses.
        if any(node.name == name and node.status == "Down" for node in nodes):
            with contextlib.suppress(NoTargetError):
                load.stop_using(target)
        else:
            load.use(target)
    state.set_cluster(
        [NodeState(name=node.name, status=node.status, why=node.why) for node in nodes],
        [
            PodState(name=pod.name, node=pod.node, status=pod.status, is_ready=pod.ready)
            for pod in pods
            if pod.node
        ],
    )


async def _follow_events(client: Client, state: PageState) -> None:
    async with aclosing(client.watch_events(since_ms=int(time.time() * 1000))) as events:
        async for event in events:
            state.add_event(
                at_ms=event.at_ms,
                is_warning=event.type == "Warning",
                about=event.object,
                text=f"{event.reason}: {event.message}",
            )


async def _until_told(cluster: LocalCluster) -> None:
    running = asyncio.ensure_future(run(cluster))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def main() -> None:
    """See the module's docstring."""
    clusters = {cluster.project: cluster for cluster in (DEMO, TESTS)}
    parser = argparse.ArgumentParser(prog="python -m deploy.demo_page")
    parser.add_argument("--project", choices=sorted(clusters), default=DEMO.project)
    cluster = clusters[parser.parse_args().project]
    if cluster.config is not None:
        os.environ["BAYPLAN_CONFIG"] = str(cluster.config)
    asyncio.run(_until_told(cluster))


if __name__ == "__main__":
    main()
