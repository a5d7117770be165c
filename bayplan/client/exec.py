"""A command that runs in a pod: its input, its output, its exit code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from bayplan.client.errors import ManagerFailedError, UnavailableError
from bayplan.client.managers import to_error
from bayplan.client.types import Output
from bayplan.transport.errors import words_of
from bayplan.v1 import agent_link_pb2, control_pb2


class ExecSession:
    """Use it as a context manager: leaving it ends the command. One reader, any number of writers.

    ```
    async with client.exec("web-0-x7k4q", ["ls", "/"]) as session:
        async for output in session.output():
            ...
        code = session.exit_code
    ```
    """

    def __init__(
        self,
        begin: Callable[[], Awaitable[tuple[grpc.aio.StreamStreamCall[Any, Any], str]]],
        start: control_pb2.ExecStart,
    ) -> None:
        self._begin = begin
        self._start = start
        self._address = ""
        # gRPC bears one write in flight on a stream.
        self._writing = asyncio.Lock()
        self._exit_code: int | None = None

    async def __aenter__(self) -> Self:
        self._call, self._address = await self._begin()
        await self._write(control_pb2.ExecInput(start=self._start))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()

    @property
    def exit_code(self) -> int:
        """The command's own. Set once `output` has ended."""
        if self._exit_code is None:
            raise RuntimeError("the command has not ended: read its output first")
        return self._exit_code

    async def output(self) -> AsyncIterator[Output]:
        """Until the command ends. Raises the errors of this package when it could not run, or was cut off."""
        try:
            while True:
                message: Any = await self._call.read()
                if message is grpc.aio.EOF:
                    break
                match message.WhichOneof("kind"):
                    case "stdout":
                        yield Output(data=message.stdout)
                    case "stderr":
                        yield Output(data=message.stderr, is_stderr=True)
                    case "exit_code":
                        self._exit_code = message.exit_code
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise UnavailableError(
                    f"the connection to the command was lost: manager {self._address}: {words_of(error)}"
                ) from error
            raise to_error(error) from error
        if self._exit_code is None:
            raise ManagerFailedError("the stream ended without the command's exit code")

    async def write(self, data: bytes) -> None:
        """Send input. Once the command has ended it goes nowhere, as with a closed pipe that nobody minds."""
        await self._write(control_pb2.ExecInput(stdin=data))

    async def close_stdin(self) -> None:
        await self._write(control_pb2.ExecInput(stdin_end=True))

    async def resize(self, *, rows: int, columns: int) -> None:
        await self._write(control_pb2.ExecInput(resize=agent_link_pb2.Resize(rows=rows, columns=columns)))

    async def _write(self, message: control_pb2.ExecInput) -> None:
        async with self._writing:
            try:
                await self._call.write(message)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                # The call has ended: its reader learns why, and says so once.
                return
