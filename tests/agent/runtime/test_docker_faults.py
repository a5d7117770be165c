"""DockerRuntime against an engine that misbehaves: a small HTTP server on a unix socket says what tests want."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent.runtime import docker, docker_images, engine_client
from agent.runtime.docker import DockerRuntime
from agent.runtime.ownership import owner_labels
from agent.runtime.port import (
    LABEL_POD,
    ContainerState,
    EngineUnavailableError,
    ImageError,
    Output,
    StartError,
)

LABELS = {**owner_labels(cluster="c", node="n"), LABEL_POD: "uid.0.1"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def shown(container_id: str) -> dict[str, Any]:
    return {
        "Id": container_id,
        "Name": f"/{container_id}",
        "Created": "2026-01-02T03:04:05.123456789Z",
        "Image": "sha256:1",
        "Config": {"Labels": LABELS, "Image": "web"},
        "State": {
            "Status": "running",
            "StartedAt": "2026-01-02T03:04:06Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
            "ExitCode": 0,
            "OOMKilled": False,
            "Error": "",
            "Pid": 7,
        },
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "10.0.0.2"}}},
    }


def row(container_id: str, state: str = "running") -> dict[str, Any]:
    return {
        "Id": container_id,
        "Names": [f"/{container_id}"],
        "Image": "web",
        "ImageID": "sha256:1",
        "Created": 1,
        "Labels": LABELS,
        "State": state,
        "NetworkSettings": {"Networks": {}},
    }


class FakeEngine:
    """Answers what `answers` says, by method and path without the version; hangs where that says nothing."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.answers: dict[str, Handler | Any] = {"GET /version": {"ApiVersion": "1.41"}}
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        self._closing.clear()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def stop(self) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/v1.41")
        answer = self.answers.get(f"{request.method} {path}")
        if answer is None:
            await self._closing.wait()
            return web.Response(status=503)
        if callable(answer):
            response: web.StreamResponse = await answer(request)
            return response
        return web.json_response(answer)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    engine = FakeEngine(tmp_path / "docker.sock")
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
async def runtime(engine: FakeEngine) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(cluster="c", node="n", wall_s=lambda: 0.0, socket=str(engine.socket))
    yield runtime
    await runtime.aclose()


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "INSPECTION_S", 0.1)
    monkeypatch.setattr(docker, "START_S", 0.2)
    monkeypatch.setattr(docker_images, "PULL_IDLE_S", 0.2)
    monkeypatch.setattr(engine_client, "QUICK_S", 0.2)


class TestHungEngine:
    async def test_is_given_up(self, runtime: DockerRuntime, engine: FakeEngine) -> None:
        engine.answers["GET /containers/a/json"] = shown("a")
        await runtime.inspect("a")
        del engine.answers["GET /containers/a/json"]

        with pytest.raises(EngineUnavailableError, match="in time"):
            await runtime.inspect("a")
        with pytest.raises(EngineUnavailableError, match=r"in time \(containers/a/start\)"):
            await runtime.start("a")

    async def test_one_stuck_container_hides_no_other(
        self, runtime: DockerRuntime, engine: FakeEngine
    ) -> None:
        """Its start hangs, and with it all that looks at it; the listing still knows that it is there."""
        engine.answers["GET /containers/json"] = [row("a"), row("stuck", state="created")]
        engine.answers["GET /containers/a/json"] = shown("a")

        first, second = await runtime.list_containers()

        assert (first.id, first.state, first.pid) == ("a", ContainerState.RUNNING, 7)
        assert (second.id, second.state) == ("stuck", ContainerState.CREATED)

    async def test_an_engine_that_only_lists_is_unavailable(
        self, runtime: DockerRuntime, engine: FakeEngine
    ) -> None:
        engine.answers["GET /containers/json"] = [row("a"), row("b")]

        with pytest.raises(EngineUnavailableError):
            await runtime.list_containers()

    async def test_a_hundred_followed_logs_leave_room(
        self, runtime: DockerRuntime, engine: FakeEngine
    ) -> None:
        async def silence(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"\x01\0\0\0\0\0\0\x03hey")
            await asyncio.Event().wait()
            return response

        engine.answers["GET /containers/a/json"] = shown("a")
        engine.answers["GET /containers/a/logs"] = silence
        followed = [runtime.logs("a", follow=True, tail=-1, since_s=0, timestamps=False) for _ in range(120)]
        for pieces in followed:
            assert await anext(pieces) == Output(data=b"hey")

        assert (await runtime.inspect("a")).id == "a"
        for pieces in followed:
            await pieces.aclose()  # type: ignore[attr-defined]  # the port promises an iterator; this is a generator


class TestDeadEngine:
    async def test_is_unavailable(self, runtime: DockerRuntime, engine: FakeEngine) -> None:
        await engine.stop()

        with pytest.raises(EngineUnavailableError, match="Cannot connect"):
            await runtime.list_containers()

    async def test_hints_come_back_with_it(self, runtime: DockerRuntime, engine: FakeEngine) -> None:
        async def events(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            # Written in two pieces: a line is whole only at its end.
            await response.write(b'{"Actor": {"Attri')
            await response.write(b'butes": {"%s": "uid.0.1"}}}\n' % LABEL_POD.encode())
            return response

        async def ping(_: web.Request) -> web.StreamResponse:
            return web.Response(text="OK")

        engine.answers |= {"GET /_ping": ping, "GET /events": events}
        async with aclosing(runtime.hints()) as hints:  # type: ignore[type-var]  # a generator, see above
            assert [await anext(hints) for _ in range(4)] == ["", "uid.0.1", "", "uid.0.1"]
            await engine.stop()
            coming = asyncio.ensure_future(anext(hints))
            await asyncio.sleep(0.1)
            await engine.start()
            assert await coming == ""

    async def test_a_start_that_it_dies_in_is_no_fault_of_the_container(
        self, runtime: DockerRuntime, engine: FakeEngine
    ) -> None:
        async def dying(_: web.Request) -> web.StreamResponse:
            return web.json_response({"message": "ttrpc: closed: unknown"}, status=500)

        engine.answers |= {"GET /containers/a/json": shown("a"), "POST /containers/a/start": dying}

        with pytest.raises(EngineUnavailableError):
            await runtime.start("a")

    async def test_a_start_that_it_refuses_is_one(self, runtime: DockerRuntime, engine: FakeEngine) -> None:
        async def refusing(_: web.Request) -> web.StreamResponse:
            return web.json_response({"message": "no space left on device"}, status=500)

        engine.answers |= {"GET /containers/a/json": shown("a"), "POST /containers/a/start": refusing}

        with pytest.raises(StartError, match="no space") as caught:
            await runtime.start("a")

        assert caught.value.exit_code == 128


class TestPull:
    """A registry or an engine that fails half-way."""

    @pytest.fixture(autouse=True)
    def nothing_local(self, engine: FakeEngine) -> None:
        async def missing(_: web.Request) -> web.StreamResponse:
            return web.json_response({"message": "No such image"}, status=404)

        engine.answers["GET /images/reg.example/web:1/json"] = missing
        engine.answers["GET /images/json"] = []

    async def pull(self, runtime: DockerRuntime) -> None:
        await runtime.ensure_image("reg.example/web:1", policy="IfNotPresent", credentials={})

    async def test_that_stalls_is_given_up(self, runtime: DockerRuntime, engine: FakeEngine) -> None:
        async def stalling(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b'{"status": "Downloading"}\n')
            await asyncio.sleep(5)
            return response

        engine.answers["POST /images/create"] = stalling

        with pytest.raises(ImageError, match="no progress"):
            await self.pull(runtime)

    async def test_that_never_begins_is_given_up(self, runtime: DockerRuntime) -> None:
        with pytest.raises(ImageError, match="no progress"):
            await self.pull(runtime)

    async def test_that_fails_in_the_middle_says_why(
        self, runtime: DockerRuntime, engine: FakeEngine
    ) -> None:
        async def failing(_: web.Request) -> web.StreamResponse:
            text = '{"status": "Downloading"}\n{"errorDetail": {"message": "filesystem layer verification failed"}}'
            return web.Response(text=f"{text}\n")

        engine.answers["POST /images/create"] = failing

        with pytest.raises(ImageError, match="verification failed"):
            await self.pull(runtime)

    async def test_that_the_engine_drops_is_tried_again_later(
        self, runtime: DockerRuntime, engine: FakeEngine
    ) -> None:
        async def dropping(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b'{"status": "Downloading"}\n')
            assert request.transport is not None
            request.transport.abort()
            return response

        engine.answers["POST /images/create"] = dropping

        with pytest.raises(EngineUnavailableError, match="lost"):
            await self.pull(runtime)
