from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest

from deploy.demo_app.app import CHUNK_BYTES, CHUNK_EACH_S, App
from deploy.shell import ROOT

WITHIN_S = 10.0


@dataclass
class Served:
    """An app that runs in this process, and a client of it."""

    app: App
    client: aiohttp.ClientSession
    said: list[str] = field(default_factory=list)
    running: asyncio.Task[None] | None = None

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.app.port}{path}"

    async def get(self, path: str) -> tuple[int, dict[str, object]]:
        async with self.client.get(self.url(path)) as answer:
            return answer.status, await answer.json(content_type=None)

    async def ended(self) -> None:
        assert self.running is not None
        async with asyncio.timeout(WITHIN_S):
            await self.running


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    said: list[str] = []
    listening = asyncio.Event()

    def say(line: str) -> None:
        said.append(line)
        listening.set()

    app = App(pod="web-0", node="n1", version="7", say=say)
    running = asyncio.create_task(app.run("127.0.0.1", 0))
    await listening.wait()
    try:
        async with aiohttp.ClientSession() as client:
            yield Served(app, client, said, running)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class TestAnswers:
    async def test_say_who_gave_them(self) -> None:
        async with served() as here, here.client.get(here.url("/")) as answer:
            assert await answer.json() == {"pod": "web-0", "node": "n1", "version": "7"}
            assert [answer.headers[name] for name in ("X-Pod", "X-Node", "X-Version")] == ["web-0", "n1", "7"]

    async def test_come_one_after_another_on_a_kept_connection(self) -> None:
        async with served() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.app.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\nPOST /once?id=a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi" * 2)
            writer.write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            said = await reader.read()
            writer.close()

        assert said.count(b"HTTP/1.1 200 OK") == 5

    @pytest.mark.parametrize(
        "request_", [b"nonsense\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nx\r\n\r\n", b"G" * 20_000]
    )
    async def test_to_nonsense_are_that_it_is_nonsense(self, request_: bytes) -> None:
        async with served() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.app.port)
            writer.write(request_)
            said = await reader.read()
            writer.close()

        assert said.startswith(b"HTTP/1.1 400 ")

    async def test_to_what_is_not_there_are_404(self) -> None:
        async with served() as here:
            assert (await here.get("/nowhere"))[0] == 404

    async def test_of_health_follow_the_toggle(self) -> None:
        async with served() as here:
            seen = []
            for _ in range(3):
                seen.append((await here.get("/healthz"))[0])
                await here.get("/toggle-ready")

        assert seen == [200, 503, 200]


class TestOnce:
    async def test_what_is_executed_is_known_and_said_where_it_outlives_the_pod(self) -> None:
        async with served() as here:
            for identifier in ("a1", "b2", "a1"):
                async with here.client.post(here.url(f"/once?id={identifier}")) as answer:
                    assert (await answer.json())["id"] == identifier
            _, document = await here.get("/ids")

        assert document["executed"] == {"a1": 2, "b2": 1}
        assert here.said[1:] == ["executed a1", "executed b2", "executed a1"]

    @pytest.mark.parametrize("query", ["", "?id=", "?id=a%0Aexecuted%20b", f"?id={'x' * 65}"])
    async def test_what_could_not_be_told_apart_in_the_log_is_refused(self, query: str) -> None:
        async with served() as here, here.client.post(here.url(f"/once{query}")) as answer:
            assert answer.status == 400
            assert len(here.said) == 1


class TestDownloads:
    async def test_take_as_long_as_they_are_asked_to(self) -> None:
        async with served() as here:
            began_s = asyncio.get_running_loop().time()
            async with here.client.get(here.url("/slow?seconds=0.5")) as answer:
                body = await answer.read()
            took_s = asyncio.get_running_loop().time() - began_s

        assert len(body) == CHUNK_BYTES * 2
        assert took_s > 0.5 - CHUNK_EACH_S / 2

    @pytest.mark.parametrize("seconds", ["x", "-1", "nan", "121"])
    async def test_of_no_sensible_length_are_refused(self, seconds: str) -> None:
        async with served() as here:
            assert (await here.get(f"/slow?seconds={seconds}"))[0] == 400


class TestWebSockets:
    @pytest.mark.parametrize("length", [0, 1, 125, 126, 65_000])
    async def test_echo(self, length: int) -> None:
        async with served() as here, here.client.ws_connect(here.url("/ws")) as socket:
            assert (await socket.receive_json())["pod"] == "web-0"
            await socket.send_str("x" * length)
            await socket.send_bytes(b"y" * length)

            assert await socket.receive_str() == "x" * length
            assert await socket.receive_bytes() == b"y" * length

    async def test_end_when_the_client_says_so(self) -> None:
        async with served() as here:
            socket = await here.client.ws_connect(here.url("/ws"))
            assert await socket.close(code=1000)

            assert socket.close_code == 1000

    async def test_are_for_those_who_ask_for_one(self) -> None:
        async with served() as here:
            assert (await here.get("/ws"))[0] == 426

    async def test_that_speak_nonsense_are_cut(self) -> None:
        """A frame that is not masked."""
        async with served() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.app.port)
            writer.write(
                b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n\x81\x01x\x81\x01x"
            )
            said = await reader.read()
            writer.close()

        assert said.startswith(b"HTTP/1.1 101 ")
        assert said.endswith(b'"version": "7"}\n')


class TestLeaving:
    async def test_at_rest_is_at_once(self) -> None:
        async with served() as here:
            here.app.leave()
            here.app.leave()

            await here.ended()

    async def test_tells_websockets_that_it_leaves(self) -> None:
        async with served() as here:
            socket = await here.client.ws_connect(here.url("/ws"))
            await socket.receive_json()
            here.app.leave()

            message = await socket.receive()

            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
            await here.ended()

    async def test_cuts_those_that_do_not_answer_the_goodbye(self) -> None:
        async with served() as here:
            socket = await here.client.ws_connect(here.url("/ws"), autoclose=False)
            here.app.leave()

            await here.ended()
            socket._response.close()

    async def test_finishes_downloads_and_answers_others_meanwhile(self) -> None:
        async with served() as here:
            download = await here.client.get(here.url("/slow?seconds=0.75"))
            here.app.leave()
            async with here.client.get(here.url("/")) as answer:
                assert (answer.status, answer.headers["Connection"]) == (200, "close")

            assert len(await download.read()) == CHUNK_BYTES * 3
            await here.ended()


class TestProcess:
    def test_ends_well_on_sigterm_and_not_well_on_crash(self) -> None:
        """As in its image: the package on its own, found below the working directory."""
        for path, code in (("", 0), ("/crash", 1)):
            process = subprocess.Popen(
                [sys.executable, "-m", "demo_app"],
                cwd=ROOT / "deploy",
                env={**os.environ, "PORT": "0", "PYTHONPATH": ""},
                stdout=subprocess.PIPE,
                text=True,
            )
            try:
                assert process.stdout is not None
                found = re.search(r"listens on port (\d+)", process.stdout.readline())
                assert found is not None
                if path:
                    subprocess.run(
                        [sys.executable, "-c", fetch(int(found[1]), path)], check=False, capture_output=True
                    )
                else:
                    process.send_signal(signal.SIGTERM)

                assert process.wait(WITHIN_S) == code
            finally:
                process.kill()
                process.communicate()


def fetch(port: int, path: str) -> str:
    return f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}{path}', timeout=5)"
