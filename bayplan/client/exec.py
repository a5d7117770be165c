"""A command that runs in a pod: its input, its output, its exit code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from bayplan.client.errors import ManagerFailedError
from bayplan.client.pod_stream import Begin, PodStream
from bayplan.client.types import Output
from bayplan.v1 import agent_link_pb2, control_pb2


class ExecSession(PodStream):
    """Use it as a context manager: leaving it ends the command. One reader, any number of writers.

    ```
    async with client.exec("web-0-x7k4q", ["ls", "/"]) as session:
        async for output in session.output():
            ...
        code = session.exit_code
    ```
    """

    def __init__(self, begin: Begin, start: control_pb2.ExecStart) -> None:
        super().__init__(begin, control_pb2.ExecInput(start=start), what="command")
        self._exit_code: int | None = None

    @property
    def exit_code(self) -> int:
        """The command's own. Set once `output` has ended."""
        if self._exit_code is None:
            raise RuntimeError("the command has not ended: read its output first")
        return self._exit_code

    async def output(self) -> AsyncIterator[Output]:
        """Until the command ends. Raises the errors of this package when it could not run, or was cut off."""
        async with aclosing(self._messages()) as messages:
            async for message in messages:
                match message.WhichOneof("kind"):
                    case "stdout":
                        yield Output(data=message.stdout)
                    case "stderr":
                        yield Output(data=message.stderr, is_stderr=True)
                    case "exit_code":
                        self._exit_code = message.exit_code
        if self._exit_code is None:
            raise ManagerFailedError("the stream ended without the command's exit code")

    async def write(self, data: bytes) -> None:
        """Send input. Once the command has ended it goes nowhere, as with a closed pipe that nobody minds."""
        await self._write(control_pb2.ExecInput(stdin=data))

    async def close_stdin(self) -> None:
        await self._write(control_pb2.ExecInput(stdin_end=True))

    async def resize(self, *, rows: int, columns: int) -> None:
        await self._write(control_pb2.ExecInput(resize=agent_link_pb2.Resize(rows=rows, columns=columns)))
