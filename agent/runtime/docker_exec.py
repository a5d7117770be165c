"""A command inside a container, with its input, output, terminal and exit code.

Docker keeps the command running when whoever watches it leaves; closing its input at least
ends shells and everything that reads. It has no call to end a command, but says which process
it is: on the engine's host that can be ended by anybody who may.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from aiodocker.stream import Stream

from agent.runtime.engine_client import QUICK_S, EngineClient, translated
from agent.runtime.port import EngineError, EngineUnavailableError, Output

_STDERR = 2
# The engine closes the output a moment before it books the exit code.
EXIT_CODE_WAIT_S = 5.0
_EXIT_CODE_RETRY_S = 0.02
# A command that was begun this moment is no process yet.
PID_WAIT_S = 2.0
# A terminal can be given its size only once the command has started, which the engine does not announce.
_RESIZE_TRIES = 10
_RESIZE_RETRY_S = 0.05


class DockerExecSession:
    """See `ExecSession`. Made by `start_exec`."""

    def __init__(self, client: EngineClient, container_id: str, exec_id: str, stream: Stream) -> None:
        self._client = client
        self._container_id = container_id
        self._exec_id = exec_id
        self._stream = stream

    async def output(self) -> AsyncIterator[Output]:
        with translated("exec"):
            while (message := await self._stream.read_out()) is not None:
                yield Output(data=message.data, is_stderr=message.stream == _STDERR)

    async def write(self, data: bytes) -> None:
        if self._is_disconnected():
            return  # The command has ended; its output and exit code say so.
        with translated("exec"):
            await self._stream.write_in(data)

    async def close_stdin(self) -> None:
        response = self._stream._resp  # noqa: SLF001 - aiodocker can only close both directions
        if response is None or response.connection is None or response.connection.transport is None:
            return
        response.connection.transport.write_eof()

    async def resize(self, *, rows: int, columns: int) -> None:
        await self._client.post(f"exec/{self._exec_id}/resize", params={"h": rows, "w": columns})

    async def exit_code(self) -> int:
        try:
            async with asyncio.timeout(EXIT_CODE_WAIT_S):
                while True:
                    found = await self._client.get(f"exec/{self._exec_id}/json")
                    if not found["Running"] and found["ExitCode"] is not None:
                        return int(found["ExitCode"])
                    await asyncio.sleep(_EXIT_CODE_RETRY_S)
        except TimeoutError as error:
            raise EngineUnavailableError("the command's output ended, but the engine says it runs") from error

    async def kill(self) -> None:
        try:
            async with asyncio.timeout(PID_WAIT_S):
                while True:
                    found = await self._client.get(f"exec/{self._exec_id}/json")
                    if found["Pid"] or found["ExitCode"] is not None:
                        break
                    await asyncio.sleep(_EXIT_CODE_RETRY_S)
        except TimeoutError as error:
            raise EngineUnavailableError("the engine does not say which process a command is") from error
        if found["Running"]:
            _kill(found["Pid"], self._container_id)

    async def aclose(self) -> None:
        if self._is_disconnected():
            # aiodocker's close() asserts that the connection is there. It has ended: nothing is left open.
            self._stream._closed = True  # noqa: SLF001
            return
        await self._stream.close()

    def _is_disconnected(self) -> bool:
        response = self._stream._resp  # noqa: SLF001 - aiodocker has no public word for it
        return response is None or response.connection is None or response.connection.transport is None


def _kill(pid: int, container_id: str) -> None:
    try:
        # An engine on another host, or behind a wall of namespaces, means another process by this number.
        if container_id not in Path(f"/proc/{pid}/cgroup").read_text():
            raise EngineError("a command cannot be ended from here")
        os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return  # It has just ended.
    except OSError as error:
        raise EngineError(f"a command cannot be ended: {error.strerror}") from error


async def start_exec(
    client: EngineClient,
    container_id: str,
    command: tuple[str, ...],
    *,
    tty: bool,
    stdin: bool,
    rows: int,
    columns: int,
) -> DockerExecSession:
    """Run `command`; what cannot be started shows in its output and as exit code 126 or 127."""
    body = {
        "Cmd": list(command),
        "Tty": tty,
        "AttachStdin": stdin,
        "AttachStdout": True,
        "AttachStderr": True,
    }
    exec_id = (await client.post(f"containers/{container_id}/exec", body=body))["Id"]
    stream = client.exec(exec_id, tty=tty).start(timeout=None)
    with translated("exec"):
        async with asyncio.timeout(QUICK_S):
            await stream.__aenter__()
    session = DockerExecSession(client, container_id, exec_id, stream)
    try:
        if tty and rows and columns:
            await _set_first_size(session, rows=rows, columns=columns)
    except BaseException:
        await session.aclose()
        raise
    return session


async def _set_first_size(session: DockerExecSession, *, rows: int, columns: int) -> None:
    for _ in range(_RESIZE_TRIES):
        try:
            await session.resize(rows=rows, columns=columns)
        except EngineUnavailableError:
            raise
        except EngineError:
            await asyncio.sleep(_RESIZE_RETRY_S)
        else:
            return
    # It may have ended already; and a terminal of the default size is better than none.
