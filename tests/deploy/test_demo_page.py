from __future__ import annotations

import asyncio
import json
import re

import aiohttp
from aiohttp import web

from bench.load_record import Kind, Record
from deploy.demo_page import page
from deploy.demo_page_state import EVENTS_MAX, HISTORY_S, NodeState, PageState, PodState

FIRST, SECOND = "http://172.31.84.21:80", "http://172.31.84.22:80"


def a_record(ended_s: float, *, target: str = FIRST, pod: str = "web-0", failure: str = "") -> Record:
    return Record(
        kind=Kind.GET,
        target=target,
        began_s=ended_s - 0.01,
        ended_s=ended_s,
        opened_s=ended_s - 0.01,
        failure=failure,
        pod="" if failure else pod,
    )


def a_state(*records: Record) -> PageState:
    state = PageState({FIRST: "n1", SECOND: "n2"})
    for record in records:
        state.add(record)
    return state


class TestState:
    def test_counts_by_the_node_through_which_it_went_and_by_the_pod_that_answered(self) -> None:
        state = a_state(
            a_record(1.0), a_record(1.5, target=SECOND), a_record(1.6, target=SECOND, failure="cut")
        )
        state.set_cluster(
            [NodeState(name="n1", status="Ready"), NodeState(name="n2", status="Down", why="silent")],
            [PodState(name="web-0", node="n1", status="Running", is_ready=True)],
        )

        seen = state.snapshot(2.0)

        assert (seen["answered"], seen["failed"]) == (2, 1)
        assert seen["nodes"] == [
            {"name": "n1", "status": "Ready", "why": "", "answered": 1, "failed": 0},
            {"name": "n2", "status": "Down", "why": "silent", "answered": 1, "failed": 1},
        ]
        assert [(pod["name"], pod["answered"], pod["lately"]) for pod in seen["pods"]] == [("web-0", 2, 2)]
        assert [failure["text"] for failure in seen["failures"]] == ["cut"]

    def test_shows_whole_seconds_and_those_in_which_nothing_came(self) -> None:
        seen = a_state(a_record(1.2), a_record(4.2), a_record(5.1)).snapshot(5.5)

        assert [(second["second"], second["well"]) for second in seen["history"]] == [
            (1, 1),
            (2, 0),
            (3, 0),
            (4, 1),
        ]
        assert seen["history"][0]["p50_ms"] == 10.0

    def test_what_a_pod_answered_long_ago_is_not_lately(self) -> None:
        state = a_state(a_record(1.0), a_record(20.0))
        state.set_cluster([], [PodState(name="web-0", node="n1", status="Running", is_ready=True)])

        (pod,) = state.snapshot(21.0)["pods"]
        assert (pod["answered"], pod["lately"]) == (2, 1)

    def test_says_that_the_cluster_does_not_answer_and_keeps_what_it_knew(self) -> None:
        state = a_state()
        state.set_cluster([NodeState(name="n1", status="Ready")], [])
        state.set_problem("no leader")

        seen = state.snapshot(1.0)
        assert (seen["problem"], seen["nodes"][0]["status"]) == ("no leader", "Ready")

        state.set_cluster([], [])
        assert state.snapshot(1.0)["problem"] == ""

    def test_stays_small(self) -> None:
        state = a_state(
            *(a_record(second, pod=f"web-{second}") for second in range(1000)), a_record(10_000.0)
        )
        for second in range(1000):
            state.add_event(at_ms=second, is_warning=False, about="pod/web", text="Started")
            state.add(a_record(10_000.0, failure="cut"))

        seen = state.snapshot(10_001.0)
        assert len(seen["history"]) <= HISTORY_S
        assert len(seen["events"]) == EVENTS_MAX
        assert len(json.dumps(seen)) < 50_000

    def test_an_event_that_comes_twice_is_one(self) -> None:
        state = a_state()
        for _ in range(2):
            state.add_event(at_ms=5, is_warning=True, about="node/n2", text="Down: silent")

        assert len(state.snapshot(1.0)["events"]) == 1


class TestPage:
    async def test_serves_its_files_and_the_picture_as_it_changes(self) -> None:
        state = a_state()
        runner = web.AppRunner(page(lambda: state.snapshot(1.0)), shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            url = "http://{}:{}".format(*runner.addresses[0][:2])
            async with aiohttp.ClientSession() as browser, asyncio.timeout(10):
                text = await (await browser.get(url)).text()
                for name in re.findall(r'(?:src|href)="([^":]+)"', text):
                    async with browser.get(f"{url}/{name}") as answer:
                        assert answer.status == 200, name
                async with browser.get(f"{url}/live") as live:
                    assert live.content_type == "text/event-stream"
                    assert (await picture(live))["answered"] == 0
                    state.add(a_record(0.5))
                    assert (await picture(live))["answered"] == 1
        finally:
            await runner.cleanup()

    async def test_loads_nothing_from_elsewhere(self) -> None:
        for file in ("index.html", "page.css", "page.js"):
            text = (page.__globals__["FILES"] / file).read_text()
            assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == []


async def picture(live: aiohttp.ClientResponse) -> dict[str, object]:
    line = await live.content.readuntil(b"\n\n")
    found: dict[str, object] = json.loads(line.removeprefix(b"data: "))
    return found
