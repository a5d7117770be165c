"""Over real sockets, in one process, each for some tenths of a second."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from bench import load_generator
from bench.load_generator import Load, NoTargetError
from bench.load_record import Kind, Record
from deploy.demo_app.app import App
from tests.free_ports import free_port

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
WITHIN_S = 10.0


@asynccontextmanager
async def an_app(said: list[str] | None = None) -> AsyncIterator[tuple[App, str]]:
    """And its URL."""
    listening = asyncio.Event()

    def say(line: str) -> None:
        listening.set()
        if said is not None:
            said.append(line)

    app = App(pod="web-0", node="n1", version="1", say=say)
    running = asyncio.create_task(app.run("127.0.0.1", 0))
    await listening.wait()
    try:
        yield app, f"http://127.0.0.1:{app.port}"
    finally:
        app.leave()
        await running


@asynccontextmanager
async def a_server(talk: Talk) -> AsyncIterator[str]:
    """One that does as the test says."""
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def records_of(
    *targets: str,
    seconds: float = 0.2,
    rate: float = 200.0,
    streams: dict[str, int] | None = None,
    posts: bool = True,
    meanwhile: Callable[[Load, list[Record]], Awaitable[None]] | None = None,
) -> list[Record]:
    """What a load sees; `meanwhile` decides when it ends, if it is given."""
    seen: list[Record] = []
    streams = streams or {"websockets": 0, "downloads": 0}
    async with (
        asyncio.timeout(WITHIN_S),
        Load([*targets], rate=rate, on_record=seen.append, posts=posts, **streams) as load,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(load.run(None if meanwhile else seconds))
        if meanwhile:
            await meanwhile(load, seen)
            load.end()
    return seen


async def until(is_true: Callable[[], bool]) -> None:
    while not is_true():  # noqa: ASYNC110 - what is waited for is seen from outside
        await asyncio.sleep(0.005)


def reasons(records: list[Record]) -> set[str]:
    return {record.failure for record in records}


class TestRequests:
    async def test_that_are_answered_went_well_and_posts_are_executed_once(self) -> None:
        said: list[str] = []
        async with an_app(said) as (_, url):
            records = await records_of(url)

        assert len(records) == 40
        assert reasons(records) == {""}
        assert {(record.pod, record.node) for record in records} == {("web-0", "n1")}
        posts = [record.id for record in records if record.kind is Kind.POST]
        assert len(posts) == 4
        assert sorted(f"executed {identifier}" for identifier in posts) == sorted(
            line for line in said if line.startswith("executed")
        )

    async def test_half_of_them_share_connections(self) -> None:
        async with an_app() as (app, url):
            opened = 0
            talk = app._talk

            async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                nonlocal opened
                opened += 1
                await talk(reader, writer)

            async with a_server(counted) as counted_url:
                records = await records_of(counted_url)
            del url

        assert sum(record.is_new for record in records) == 20
        assert 20 < opened < 30

    async def test_that_find_nobody_have_failed_and_the_others_have_not(self) -> None:
        nobody = f"http://127.0.0.1:{free_port()}"
        async with an_app() as (_, url):
            records = await records_of(url, nobody)

        assert reasons([record for record in records if record.target == url]) == {""}
        assert reasons([record for record in records if record.target == nobody]) == {
            "no connection: Connection refused"
        }

    async def test_that_find_their_kept_connection_closed_are_not_sent_again(self) -> None:
        """The server takes the second request of a connection and closes, as a proxy may that restarts."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            with contextlib.suppress(asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()

        async with a_server(talk) as url:
            # One at a time, so that there is a connection to be kept.
            records = await records_of(url, seconds=0.4, rate=50.0)

        kept = [record for record in records if not record.is_new and record.kind is Kind.GET]
        assert reasons(kept) == {"", "cut: ServerDisconnectedError"}

    async def test_that_are_answered_late_have_failed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load_generator, "LIMIT_S", 0.1)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with a_server(talk) as url:
            records = await records_of(url, seconds=0.1)

        assert len(records) == 20
        assert reasons(records) == {"no answer within 0 s"}

    async def test_with_another_status_have_failed(self) -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            writer.close()

        async with a_server(talk) as url:
            assert reasons(await records_of(url)) == {"status 503"}

    async def test_to_the_example_are_answered_by_the_pod_that_greets(self) -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            body = b"hello from my-app-0-abcde\n"
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            writer.close()

        async with a_server(talk) as url:
            records = await records_of(url, posts=False)

        assert {(record.kind, record.pod, record.failure) for record in records} == {
            (Kind.GET, "my-app-0-abcde", "")
        }


class TestTargets:
    async def test_that_are_left_alone_get_nothing_more(self) -> None:
        async def meanwhile(load: Load, seen: list[Record]) -> None:
            await until(lambda: len(seen) > 10)
            load.stop_using(second)
            stopped_s = load.now_s()
            await until(lambda: seen[-1].began_s > stopped_s + 0.1)
            assert {record.target for record in seen if record.began_s > stopped_s} == {first}

        async with an_app() as (_, first), an_app() as (_, second):
            await records_of(first, second, meanwhile=meanwhile)

    async def test_the_last_one_cannot_be_left_alone(self) -> None:
        async with Load(["http://127.0.0.1:1"]) as load:
            with pytest.raises(NoTargetError):
                load.stop_using("http://127.0.0.1:1")


class TestWebSockets:
    @pytest.fixture(autouse=True)
    def often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load_generator, "PING_EACH_S", 0.02)

    async def test_are_pinged_and_their_polite_end_is_no_failure(self) -> None:
        """The pod leaves; the load connects anew, here to the other one."""

        async def meanwhile(load: Load, seen: list[Record]) -> None:
            await until(lambda: sum(record.pod != "" for record in seen) > 8)
            load.stop_using(leaving)
            left.leave()
            await until(lambda: load.summary().reconnects + (len(left._websockets) == 0) > 0)
            count = len(seen)
            await until(lambda: len(seen) > count + 8)

        async with an_app() as (left, leaving), an_app() as (_, staying):
            records = await records_of(
                leaving, staying, rate=10.0, streams={"websockets": 4, "downloads": 0}, meanwhile=meanwhile
            )

        assert reasons(records) == {""}

    async def test_a_goodbye_is_answered_by_another_one(self) -> None:
        async def meanwhile(load: Load, seen: list[Record]) -> None:
            await until(lambda: len(seen) > 3)
            for writer in app._websockets:
                writer.write(b"\x88\x02\x03\xe9")  # Closes it with 1001.
            await until(lambda: load.summary().reconnects == 2)
            count = len(seen)
            await until(lambda: len(seen) > count + 3)

        async with an_app() as (app, url):
            records = await records_of(
                url, rate=10.0, streams={"websockets": 2, "downloads": 0}, meanwhile=meanwhile
            )

        assert reasons(records) == {""}

    async def test_that_are_cut_have_failed(self) -> None:
        async def meanwhile(load: Load, seen: list[Record]) -> None:
            del load
            await until(lambda: len(seen) > 3)
            for writer in app._websockets:
                writer.transport.abort()
            await until(lambda: any(record.failure for record in seen))

        async with an_app() as (app, url):
            records = await records_of(
                url, rate=10.0, streams={"websockets": 1, "downloads": 0}, meanwhile=meanwhile
            )

        (failure,) = [record for record in records if record.failure]
        assert failure.kind is Kind.WEBSOCKET
        assert failure.failure == "the WebSocket was cut (1006)"
        assert failure.opened_s < failure.began_s


class TestDownloads:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load_generator, "DOWNLOAD_S", 0)

    async def test_go_on_one_after_another(self) -> None:
        async def meanwhile(load: Load, seen: list[Record]) -> None:
            del load
            await until(lambda: sum(record.kind is Kind.DOWNLOAD for record in seen) > 5)

        async with an_app() as (_, url):
            records = await records_of(
                url, rate=10.0, streams={"websockets": 0, "downloads": 2}, meanwhile=meanwhile
            )

        assert reasons(records) == {""}

    async def test_that_are_cut_or_stall_have_failed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load_generator, "LIMIT_S", 0.1)
        asked = 0

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            await reader.readuntil(b"\r\n\r\n")
            asked += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
            if asked % 2:
                writer.close()
            else:
                await reader.read()
                writer.close()

        async def meanwhile(load: Load, seen: list[Record]) -> None:
            del load
            await until(lambda: sum(record.kind is Kind.DOWNLOAD for record in seen) > 1)

        async with a_server(talk) as url:
            records = await records_of(
                url, rate=0.1, streams={"websockets": 0, "downloads": 1}, meanwhile=meanwhile
            )

        downloads = [record for record in records if record.kind is Kind.DOWNLOAD]
        assert all(record.failure for record in downloads)
