"""Who answered, what was executed, and how a pod leaves without cutting anybody off.

    GET  /              pod, node, version
    POST /once?id=…     executes the id: notes it, and says so on stdout, where it outlives the pod
    GET  /ids           what was executed here
    GET  /slow?seconds= a download that takes that long
    GET  /ws            a WebSocket that says who it is, and then echoes
    GET  /healthz       200, or 503 after /toggle-ready
    GET  /crash         ends the process at once

Each answer names pod, node and version in its headers too. On SIGTERM the pod goes on serving until
what is under way has ended; WebSockets are told that it leaves. A pod that closed its port at once
would refuse what proxies sent before they had heard of it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from . import websocket
from .http1 import HEAD_BYTES_MAX, BadRequestError, Request, as_json, head, read_request
from .websocket import Opcode, ProtocolError

CHUNK_BYTES = 1024
CHUNK_EACH_S = 0.25
SLOW_SECONDS_MAX = 120.0
# A client that does not answer a goodbye is cut off then.
GOODBYE_TIMEOUT_S = 2.0
ID_LENGTH_MAX = 64


class App:
    """One pod's. `say` writes a line to where logs go."""

    def __init__(self, *, pod: str, node: str, version: str, say: Callable[[str], None]) -> None:
        self._identity = {"pod": pod, "node": node, "version": version}
        self._say = say
        self._executed: dict[str, int] = {}  # Id → how often.
        self._is_ready = True
        self._is_leaving = False
        self._under_way = 0  # Requests and WebSockets.
        self._may_end = asyncio.Event()
        self._websockets: set[asyncio.StreamWriter] = set()
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self.port = 0  # Once it listens.

    async def run(self, host: str, port: int) -> None:
        """Serve until `leave` was called and nothing is under way any more."""
        server = await asyncio.start_server(self._talk, host, port, limit=HEAD_BYTES_MAX)
        self.port = server.sockets[0].getsockname()[1]
        self._say(f"{self._identity['pod']} listens on port {self.port}")
        try:
            await self._may_end.wait()
        finally:
            # Not `async with`: from Python 3.12 on that waits for kept connections, which wait for us.
            server.close()
        handlers = [*self._connections.values()]
        for writer in self._connections:
            writer.close()
        await asyncio.gather(*handlers)
        self._say(f"{self._identity['pod']} has left")

    def leave(self) -> None:
        """What SIGTERM means. Twice is once."""
        if self._is_leaving:
            return
        self._is_leaving = True
        for writer in self._websockets:
            writer.write(websocket.goodbye())
        asyncio.get_running_loop().call_later(GOODBYE_TIMEOUT_S, self._cut_websockets)
        self._end_if_idle()

    def _cut_websockets(self) -> None:
        for writer in self._websockets:
            writer.transport.abort()

    def _end_if_idle(self) -> None:
        if self._is_leaving and not self._under_way:
            self._may_end.set()

    # Connections

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        self._connections[writer] = handler
        try:
            while request := await read_request(reader):
                self._under_way += 1
                try:
                    goes_on = await self._answer(request, reader, writer)
                    await writer.drain()
                finally:
                    self._under_way -= 1
                    self._end_if_idle()
                if not goes_on:
                    break
        except BadRequestError as error:
            self._write(writer, HTTPStatus.BAD_REQUEST, {"error": str(error)}, is_last=True)
        except ConnectionError:
            pass  # The client went away, which is its right.
        finally:
            del self._connections[writer]
            writer.close()

    async def _answer(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Whether the connection goes on after it."""
        if request.path == "/ws":
            return await self._echo(request, reader, writer)
        if request.path == "/slow":
            return await self._drip(request, writer)
        status, document = self._plain(request)
        is_last = request.is_last or self._is_leaving
        self._write(writer, status, document, is_last=is_last)
        return not is_last

    def _plain(self, request: Request) -> tuple[HTTPStatus, Mapping[str, Any]]:
        match request.method, request.path:
            case "GET", "/":
                return HTTPStatus.OK, self._identity
            case "POST", "/once":
                return self._execute(request.query.get("id", ""))
            case "GET", "/ids":
                return HTTPStatus.OK, {**self._identity, "executed": self._executed}
            case "GET", "/healthz":
                return (
                    HTTPStatus.OK if self._is_ready else HTTPStatus.SERVICE_UNAVAILABLE,
                    {"ready": self._is_ready},
                )
            case "GET" | "POST", "/toggle-ready":
                self._is_ready = not self._is_ready
                return HTTPStatus.OK, {**self._identity, "ready": self._is_ready}
            case "GET" | "POST", "/crash":
                self._say("crashes, as it was asked to")
                os._exit(1)
        return HTTPStatus.NOT_FOUND, {"error": f"there is no {request.method} {request.path}"}

    def _execute(self, identifier: str) -> tuple[HTTPStatus, Mapping[str, Any]]:
        if not identifier.isalnum() or len(identifier) > ID_LENGTH_MAX:
            return HTTPStatus.BAD_REQUEST, {
                "error": f"id must be letters and digits, at most {ID_LENGTH_MAX}"
            }
        self._executed[identifier] = self._executed.get(identifier, 0) + 1
        self._say(f"executed {identifier}")
        return HTTPStatus.OK, {**self._identity, "id": identifier, "times": self._executed[identifier]}

    # Long answers

    async def _drip(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        try:
            seconds = float(request.query.get("seconds", "20"))
        except ValueError:
            seconds = -1.0
        if not 0.0 <= seconds <= SLOW_SECONDS_MAX:
            error = {"error": f"seconds must be from 0 to {SLOW_SECONDS_MAX:.0f}"}
            self._write(writer, HTTPStatus.BAD_REQUEST, error, is_last=True)
            return False
        chunks = max(1, round(seconds / CHUNK_EACH_S))
        headers = self._headers(chunks * CHUNK_BYTES, "application/octet-stream", is_last=request.is_last)
        writer.write(head(HTTPStatus.OK, headers))
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number in range(1, chunks + 1):
            # By the plan, not by the last chunk: small delays must not add up.
            await asyncio.sleep(began_s + number * seconds / chunks - loop.time())
            writer.write(bytes(CHUNK_BYTES))
            await writer.drain()
        return not (request.is_last or self._is_leaving)

    async def _echo(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        accepted = websocket.accept_headers(request.headers)
        if accepted is None:
            error = {"error": "this is for WebSockets"}
            self._write(writer, HTTPStatus.UPGRADE_REQUIRED, error, is_last=True)
            return False
        writer.write(head(HTTPStatus.SWITCHING_PROTOCOLS, {**accepted, **self._names()}))
        writer.write(websocket.frame(Opcode.TEXT, as_json(self._identity)))
        self._websockets.add(writer)
        if self._is_leaving:
            writer.write(websocket.goodbye())
        try:
            await self._echo_frames(reader, writer)
        except (asyncio.IncompleteReadError, ProtocolError):
            pass  # It ended without a goodbye, or cannot speak: nothing to be said to it.
        finally:
            self._websockets.discard(writer)
        return False

    async def _echo_frames(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            came = await websocket.read_frame(reader)
            match came.opcode:
                case Opcode.CLOSE:
                    if not self._is_leaving:
                        writer.write(websocket.frame(Opcode.CLOSE, came.payload))
                    return
                case Opcode.PING:
                    writer.write(websocket.frame(Opcode.PONG, came.payload))
                case Opcode.TEXT | Opcode.BINARY:
                    writer.write(websocket.frame(came.opcode, came.payload))
                case Opcode.PONG:
                    pass
            await writer.drain()

    # Writing

    def _write(
        self,
        writer: asyncio.StreamWriter,
        status: HTTPStatus,
        document: Mapping[str, Any],
        *,
        is_last: bool,
    ) -> None:
        body = as_json(document)
        writer.write(head(status, self._headers(len(body), "application/json", is_last=is_last)) + body)

    def _headers(self, length: int, kind: str, *, is_last: bool) -> dict[str, str]:
        return {
            "Content-Type": kind,
            "Content-Length": str(length),
            "Connection": "close" if is_last else "keep-alive",
            **self._names(),
        }

    def _names(self) -> dict[str, str]:
        return {f"X-{name.capitalize()}": value for name, value in self._identity.items()}
