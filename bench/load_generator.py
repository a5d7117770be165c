"""A load at a constant rate, on one event loop: requests, WebSockets and downloads, and a record of each.

Nothing is tried again in silence: a request that finds its kept connection closed has failed, though many a
client would hide that. What a pod ends politely (a WebSocket closed with 1001 or 1012) is no failure; what is
cut off is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self

import aiohttp

from bench.load_record import LIMIT_S, Durations, Kind, Record, Summary, plan_request

PING_EACH_S = 1.0
DOWNLOAD_S = 20.0
# After a failure of a stream; a failure each moment would say no more.
AGAIN_AFTER_S = 0.25
# For the answer to ours: a dead one gives none.
GOODBYE_TIMEOUT_S = 1.0
# Going away, and service restart (RFC 6455 and its registry): said before leaving.
POLITE_CODES = (1001, 1012)
# More cannot be under way at a sane rate: LIMIT_S of them.
UNDER_WAY_MAX = 10_000


# examples/my-app says it in its text, and in no header.
_GREETING = re.compile(rb"^hello from ([a-z0-9-]{1,63})$", re.MULTILINE)


class NoTargetError(Exception):
    """The last one is to be left alone."""

    def __init__(self) -> None:
        super().__init__("the load has no target left")


class _FailedError(Exception):
    """What was answered is not what it must be. The message is the failure."""


@dataclass(slots=True)
class _Attempt:
    """What is known so far of something under way."""

    kind: Kind
    target: str
    began_s: float
    opened_s: float
    is_new: bool = True
    pod: str = ""
    node: str = ""
    id: str = ""

    failure: str = ""

    def record(self, ended_s: float) -> Record:
        return Record(
            kind=self.kind,
            target=self.target,
            began_s=self.began_s,
            ended_s=ended_s,
            opened_s=self.opened_s,
            is_new=self.is_new,
            failure=self.failure,
            pod=self.pod,
            node=self.node,
            id=self.id,
        )

    def answered_by(self, headers: Mapping[str, str]) -> None:
        self.pod, self.node = headers.get("X-Pod", ""), headers.get("X-Node", "")


class Load:
    """`async with Load(…) as load: await load.run(60)`. Everything is called on its event loop."""

    def __init__(
        self,
        targets: list[str],
        *,
        rate: float = 300.0,
        websockets: int = 10,
        downloads: int = 10,
        posts: bool = True,
        on_record: Callable[[Record], None] | None = None,
    ) -> None:
        """`targets`: URLs without a path, such as http://10.0.0.1:80. `posts`: only deploy/demo_app takes them."""
        self._targets = list(targets)
        self._rate = rate
        self._streams = [self._websocket] * websockets + [self._download] * downloads
        self._has_posts = posts
        self._on_record = on_record
        self._run_id = uuid.uuid4().hex[:8]
        self._ended = asyncio.Event()
        self._began_s = 0.0
        self._under_way = 0
        self._due = self._sent = self._reconnects = 0
        self._lags, self._durations = Durations(), Durations()
        self._well: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._pods: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._began_s = loop.time()
        no_limit = aiohttp.ClientTimeout(total=None, sock_connect=None)
        self._new, self._kept = (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=force_close),
                timeout=no_limit,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
            for force_close in (True, False)
        )
        # Otherwise a GET whose kept connection was closed is sent again without a word.
        self._kept._retry_connection = False  # noqa: SLF001 - there is no public name for it
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(self._new.close(), self._kept.close())

    async def run(self, seconds: float | None = None) -> None:
        """Until that time is over, or `end` was called. What is under way then is waited for, streams are not."""
        async with asyncio.TaskGroup() as group:
            streams = [
                group.create_task(stream(number), name=f"stream-{number}")
                for number, stream in enumerate(self._streams)
            ]
            await self._pace(group, seconds)
            for each in streams:
                each.cancel()

    def end(self) -> None:
        self._ended.set()

    # Targets

    def stop_using(self, target: str) -> None:
        """Nothing new goes there; WebSockets to it are moved. Raises NoTargetError for the last one."""
        left = [each for each in self._targets if each != target]
        if not left:
            raise NoTargetError
        self._targets[:] = left

    def use(self, target: str) -> None:
        """Again, or from now on too."""
        if target not in self._targets:
            self._targets.append(target)

    # Seeing

    def now_s(self) -> float:
        """Since the load began."""
        return asyncio.get_running_loop().time() - self._began_s

    def summary(self) -> Summary:
        return Summary(
            seconds=self.now_s(),
            due=self._due,
            sent=self._sent,
            well=dict(self._well),
            failed=dict(self._failed),
            reasons=dict(self._reasons),
            pods=dict(self._pods),
            p50_s=self._durations.quantile_s(0.5),
            p99_s=self._durations.quantile_s(0.99),
            max_s=self._durations.max_s,
            lag_p99_s=self._lags.quantile_s(0.99),
            lag_max_s=self._lags.max_s,
            reconnects=self._reconnects,
        )

    def _note(self, record: Record) -> None:
        if record.failure:
            self._failed[record.kind] += 1
            self._reasons[record.failure] += 1
        else:
            self._well[record.kind] += 1
            if record.kind is not Kind.DOWNLOAD:
                self._durations.add(record.took_s)
        if record.pod:
            self._pods[record.pod] += 1
        if self._on_record is not None:
            self._on_record(record)

    @contextlib.contextmanager
    def _noted(self, attempt: _Attempt) -> Iterator[None]:
        """What happens within is noted: well, or with the reason for which it failed."""
        try:
            yield
        except TimeoutError:
            attempt.failure = f"no answer within {LIMIT_S:.0f} s"
        except (aiohttp.ClientError, OSError, ValueError, KeyError, _FailedError) as error:
            attempt.failure = _words(error)
        self._note(attempt.record(self.now_s()))

    # Requests

    async def _pace(self, group: asyncio.TaskGroup, seconds: float | None) -> None:
        began_s = self.now_s()
        while not self._ended.is_set():
            due_s = began_s + self._due / self._rate
            if seconds is not None and due_s >= began_s + seconds:
                return
            if (early_s := due_s - self.now_s()) > 0:
                # In pieces, so that its end is seen in time when the rate is low.
                await asyncio.sleep(min(early_s, 0.1))
                continue
            self._due += 1
            if self._under_way < UNDER_WAY_MAX:
                group.create_task(self._request(self._due - 1, due_s))

    async def _request(self, number: int, due_s: float) -> None:
        self._sent += 1
        self._under_way += 1
        self._lags.add(self.now_s() - due_s)
        planned = plan_request(number, self._targets)
        is_post = planned.is_post and self._has_posts
        attempt = _Attempt(
            kind=Kind.POST if is_post else Kind.GET,
            target=planned.target,
            began_s=due_s,
            opened_s=due_s,
            is_new=planned.is_new,
            id=f"{self._run_id}x{number}" if is_post else "",
        )
        try:
            with self._noted(attempt):
                async with asyncio.timeout_at(self._began_s + due_s + LIMIT_S):
                    await self._ask(attempt)
        finally:
            self._under_way -= 1

    async def _ask(self, attempt: _Attempt) -> None:
        session = self._new if attempt.is_new else self._kept
        is_post = attempt.kind is Kind.POST
        path = f"/once?id={attempt.id}" if is_post else "/"
        async with session.request("POST" if is_post else "GET", f"{attempt.target}{path}") as answer:
            attempt.answered_by(answer.headers)
            body = await answer.read()
            _check_status(answer)
        if not attempt.pod and (named := _GREETING.search(body)):
            attempt.pod = named[1].decode()
        if is_post:
            said = json.loads(body)
            if (said["id"], said["times"]) != (attempt.id, 1):
                raise _FailedError(f"executed {said['times']} times")

    # Streams

    def _target_of(self, number: int) -> str:
        return self._targets[number % len(self._targets)]

    async def _download(self, number: int) -> None:
        """One after another."""
        while True:
            began_s = self.now_s()
            attempt = _Attempt(
                kind=Kind.DOWNLOAD,
                target=self._target_of(number),
                began_s=began_s,
                opened_s=began_s,
            )
            with self._noted(attempt):
                await self._receive(attempt)
            if attempt.failure:
                await asyncio.sleep(AGAIN_AFTER_S)

    async def _receive(self, attempt: _Attempt) -> None:
        url = f"{attempt.target}/slow?seconds={DOWNLOAD_S:.0f}"
        async with asyncio.timeout(LIMIT_S) as patience, self._new.get(url) as answer:
            attempt.answered_by(answer.headers)
            _check_status(answer)
            while await answer.content.readany():
                patience.reschedule(asyncio.get_running_loop().time() + LIMIT_S)
        if (took_s := self.now_s() - attempt.began_s) > DOWNLOAD_S + LIMIT_S:
            raise _FailedError(f"a download of {DOWNLOAD_S:.0f} s took {took_s:.0f} s")

    async def _websocket(self, number: int) -> None:
        """One after another: when it ends, or its target is no longer used, there is another."""
        while True:
            target = self._target_of(number)
            began_s = self.now_s()
            attempt = _Attempt(kind=Kind.WEBSOCKET, target=target, began_s=began_s, opened_s=began_s)
            socket = None
            with self._noted(attempt):
                async with asyncio.timeout(LIMIT_S):
                    socket = await self._new.ws_connect(
                        f"{target}/ws", timeout=aiohttp.ClientWSTimeout(ws_close=GOODBYE_TIMEOUT_S)
                    )
                    attempt.pod, attempt.node = await _greeting(socket)
            try:
                if socket is not None and not attempt.failure:
                    await self._ping(socket, attempt)
            finally:
                if socket is not None:
                    await socket.close()
            if attempt.failure:
                await asyncio.sleep(AGAIN_AFTER_S)

    async def _ping(self, socket: aiohttp.ClientWebSocketResponse, attempt: _Attempt) -> None:
        """Each second, until it is over. `attempt` is that of connecting, and becomes that of the last ping."""
        for number in itertools.count(1):
            # Between two pings nothing comes but the end.
            came = await self._message(socket, within_s=PING_EACH_S)
            attempt.began_s = self.now_s()
            if came is None:
                if attempt.target not in self._targets:
                    return
                came = await self._echo(socket, str(number))
                if came is None:
                    attempt.failure = f"no answer within {LIMIT_S:.0f} s"
                elif came.type is aiohttp.WSMsgType.TEXT and came.data != str(number):
                    attempt.failure = "another echo than was sent"
            if came is not None and came.type is not aiohttp.WSMsgType.TEXT:
                if socket.close_code in POLITE_CODES:
                    self._reconnects += 1
                    return
                attempt.failure = f"the WebSocket was cut ({socket.close_code})"
            self._note(attempt.record(self.now_s()))
            if attempt.failure:
                return

    async def _echo(self, socket: aiohttp.ClientWebSocketResponse, text: str) -> aiohttp.WSMessage | None:
        # Where it is closed already, what it says next tells how.
        with contextlib.suppress(OSError, aiohttp.ClientError):
            await socket.send_str(text)
        return await self._message(socket, within_s=LIMIT_S)

    async def _message(
        self, socket: aiohttp.ClientWebSocketResponse, *, within_s: float
    ) -> aiohttp.WSMessage | None:
        """The next one; its end is one too. None if none comes."""
        try:
            async with asyncio.timeout(within_s):
                return await socket.receive()
        except TimeoutError:
            return None


async def _greeting(socket: aiohttp.ClientWebSocketResponse) -> tuple[str, str]:
    """Pod and node, which are the first that it says."""
    came = await socket.receive()
    if came.type is not aiohttp.WSMsgType.TEXT:
        raise _FailedError(f"the WebSocket was cut ({socket.close_code})")
    said = json.loads(came.data)
    return said["pod"], said["node"]


def _check_status(answer: aiohttp.ClientResponse) -> None:
    if answer.status != HTTPStatus.OK:
        raise _FailedError(f"status {answer.status}")


def _words(error: Exception) -> str:
    """The same for all of one kind, so that they can be counted: no addresses, no ports."""
    if isinstance(error, _FailedError):
        return str(error)
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return f"no connection: {os.strerror(number) if number else type(error.os_error).__name__}"
    if isinstance(error, OSError) and error.errno:
        return f"cut: {os.strerror(error.errno)}"
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError):
        return f"cut: {type(error).__name__}"
    return f"not understood: {type(error).__name__}"
