"""How we speak to the Docker Engine: one connection pool, a deadline on every call, foreign errors stop here.

aiodocker gives the connection, the API version and hijacked streams. Its richer helpers are not
used: its event channel does not reconnect, its logs lose which stream a line came from, and its
calls wait for ever by default. So requests are made here, in one way, each with a deadline.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiodocker
import aiohttp
from aiodocker.execs import Exec

from agent.runtime.port import ContainerGoneError, EngineError, EngineUnavailableError

# Answers come in milliseconds; an engine that starts many containers at once has been seen to take
# seconds for a listing. Longer than that it is hung, and the caller had better know.
QUICK_S = 10.0
# Making or removing a container moves files; on a slow disk that takes seconds.
SLOW_S = 60.0

# aiodocker's status for "no connection".
_STATUS_NO_CONNECTION = 900
# The engine's words when it goes down in the middle of a call, which it reports like any other failure.
_GOING_DOWN = (
    "connection error: desc",
    "transport is closing",
    "client connection is closing",
    "ttrpc: closed",
    "context canceled",
    "daemon is shutting down",
)

Params = Mapping[str, str | int | bool]


class EngineClient:
    """Requests to one engine through its unix socket. Made inside a running event loop."""

    def __init__(self, socket: str) -> None:
        # No limit of connections: with aiohttp's 100, as many followed logs would block every other call.
        self._connector = aiohttp.UnixConnector(socket, limit=0)
        self._docker = aiodocker.Docker(
            url="unix://localhost",
            connector=self._connector,
            timeout=aiohttp.ClientTimeout(total=None, connect=5.0),
            api_version="auto",
        )
        self._socket = socket

    async def get(self, path: str, *, params: Params | None = None, deadline_s: float = QUICK_S) -> Any:
        """The parsed JSON answer."""
        return await self._request("GET", path, params=params, body=None, deadline_s=deadline_s)

    async def post(
        self, path: str, *, params: Params | None = None, body: Any = None, deadline_s: float = QUICK_S
    ) -> Any:
        """The parsed JSON answer, None if there is none. A body of bytes is a tar file."""
        return await self._request("POST", path, params=params, body=body, deadline_s=deadline_s)

    async def delete(self, path: str, *, params: Params | None = None, deadline_s: float = SLOW_S) -> Any:
        """The parsed JSON answer, None if there is none."""
        return await self._request("DELETE", path, params=params, body=None, deadline_s=deadline_s)

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        *,
        method: str = "GET",
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        deadline_s: float = QUICK_S,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer to be read piece by piece; `deadline_s` holds for its beginning only.

        Errors of reading, inside the block, become EngineErrors too.
        """
        with translated(path):
            response = await self._begin(
                method, path, params=params, headers=headers, body=None, deadline_s=deadline_s
            )
            try:
                yield response
            finally:
                response.close()  # Not release(): that would wait for the end of an endless answer.

    async def now(self) -> str:
        """The engine's time as an HTTP date."""
        with translated("_ping"):
            response = await self._begin(
                "GET", "_ping", params=None, headers=None, body=None, deadline_s=QUICK_S
            )
            response.close()
            return response.headers["Date"]

    def exec(self, exec_id: str, *, tty: bool) -> Exec:
        """aiodocker's handle of a prepared exec."""
        return Exec(self._docker, exec_id, tty)

    def forget_version(self) -> None:
        """Ask for the API version again: the engine that comes back may be another one."""
        self._docker.api_version = "auto"

    async def aclose(self) -> None:
        """Close every connection."""
        await self._docker.close()
        await self._connector.close()

    async def _request(
        self, method: str, path: str, *, params: Params | None, body: Any, deadline_s: float
    ) -> Any:
        with translated(path):
            async with asyncio.timeout(deadline_s):
                response = await self._begin(
                    method, path, params=params, headers=None, body=body, deadline_s=deadline_s
                )
                try:
                    data = await response.read()
                finally:
                    response.close()  # Read to its end, the connection is back in the pool already.
        return json.loads(data) if data else None

    async def _begin(
        self,
        method: str,
        path: str,
        *,
        params: Params | None,
        headers: Mapping[str, str] | None,
        body: Any,
        deadline_s: float,
    ) -> aiohttp.ClientResponse:
        if isinstance(body, bytes):
            headers = {**(headers or {}), "Content-Type": "application/x-tar"}
        elif body is not None:
            body = json.dumps(body).encode()
        async with asyncio.timeout(deadline_s):
            # aiodocker's own classes are made of this method; it has no public name for it.
            return await self._docker._do_query(  # noqa: SLF001
                path,
                method,
                params=params,
                headers=headers,
                data=body,
            )


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn errors of aiodocker, aiohttp and the clock into ours; `path` says what was asked."""
    try:
        yield
    except aiodocker.DockerError as error:
        raise engine_error(error.status, error.message) from error
    except TimeoutError as error:
        raise EngineUnavailableError(
            f"the container engine did not answer in time ({_asked(path)})"
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise EngineUnavailableError(f"lost the container engine: {error or type(error).__name__}") from error


def engine_error(status: int, message: str) -> EngineError:
    """The error that says what to do about an answer of the engine."""
    text = message.strip()
    if status in (_STATUS_NO_CONNECTION, 502, 503, 504) or any(words in text for words in _GOING_DOWN):
        return EngineUnavailableError(text)
    if status == 404 and "no such container" in text.lower():
        return ContainerGoneError(text)
    return RefusedError(text, status=status)


class RefusedError(EngineError):
    """The engine answered no. `status` is HTTP's. Whoever asked gives it a better name where there is one."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def _asked(path: str) -> str:
    """`containers/0123…/start` without the long id."""
    return "/".join(part[:12] if len(part) == 64 else part for part in path.split("/"))
