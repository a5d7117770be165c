"""Output of simulated containers and of commands run inside them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime

from agent.runtime.port import Output
from agent.runtime.simulated_engine import SIGKILL_EXIT_CODE, Command, SimulatedContainer

COMMAND_NOT_FOUND = 127


async def read_log(
    container: SimulatedContainer, *, follow: bool, tail: int, since_s: float, timestamps: bool
) -> AsyncGenerator[Output, None]:
    """See `Runtime.logs`. Each entry of a log is taken for a line."""
    entries = [index for index, (at_s, _) in enumerate(container.log) if at_s >= since_s]
    position = len(container.log)
    for index in entries[-tail:] if tail > 0 else entries if tail < 0 else []:
        yield _with_time(*container.log[index]) if timestamps else container.log[index][1]
    while follow:
        changed = container.changed
        for entry in container.log[position:]:
            yield _with_time(*entry) if timestamps else entry[1]
            position += 1
        if container.is_removed or not container.is_running:
            return
        await changed.wait()


def _with_time(at_s: float, output: Output) -> Output:
    stamp = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return Output(data=f"{stamp} ".encode() + output.data, is_stderr=output.is_stderr)


class SimulatedExecSession:
    """See `ExecSession`. `known` is what the command does, None if there is no such command.

    What is killed is noted in `killed`.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        known: Command | None,
        *,
        tty: bool,
        stdin: bool,
        rows: int,
        columns: int,
        killed: list[tuple[str, ...]],
    ) -> None:
        self._command = command
        self._known = known or _not_found(command)
        self._tty = tty
        self._size = (rows, columns)
        self._killed = killed
        self._was_killed = asyncio.Event()
        self._has_ended = False
        self._input: asyncio.Queue[bytes] = asyncio.Queue(64)
        self._is_listening = stdin and self._known.echoes_input

    async def output(self) -> AsyncIterator[Output]:
        for piece in self._known.output:
            # A terminal has one output.
            yield Output(data=piece.data, is_stderr=piece.is_stderr and not self._tty)
        if self._is_listening:
            while data := await self._input.get():
                yield Output(data=data)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._known.runs_s):
                await self._was_killed.wait()
        if self._known.shows_size:
            yield Output(data=f"{self._size[0]} {self._size[1]}\n".encode())
        self._has_ended = True

    async def write(self, data: bytes) -> None:
        if data and self._is_listening:
            await self._input.put(data)

    async def close_stdin(self) -> None:
        if self._is_listening:
            await self._input.put(b"")

    async def resize(self, *, rows: int, columns: int) -> None:
        self._size = (rows, columns)

    async def exit_code(self) -> int:
        return SIGKILL_EXIT_CODE if self._was_killed.is_set() else self._known.exit_code

    async def kill(self) -> None:
        if not self._has_ended:
            self._was_killed.set()
            self._killed.append(self._command)

    async def aclose(self) -> None:
        """Nothing to close."""


def _not_found(command: tuple[str, ...]) -> Command:
    text = f'OCI runtime exec failed: exec: "{command[0]}": executable file not found in $PATH: unknown\r\n'
    return Command(output=(Output(data=text.encode()),), exit_code=COMMAND_NOT_FOUND)
