"""`bay exec`: a command in a pod, on this terminal, ending as the command ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bayplan.cli import kinds, several
from bayplan.cli.failures import CommandError

if TYPE_CHECKING:
    from bayplan.client import Client, ExecSession

_READ_BYTES = 32 * 1024


async def execute(
    client: Client,
    pod: str,
    command: list[str],
    *,
    namespace: str,
    container: str,
    tty: bool,
    stdin: bool,
) -> None:
    """Run it. Raises CommandError with the command's own exit code unless that is 0."""
    if tty and not sys.stdin.isatty():
        raise CommandError("-t needs a terminal; leave it out to pipe data in", exit_code=2)
    found = kinds.pick(await client.pods(namespace=namespace), pod, kinds.POD)
    several.tell_default(found, container)
    size = os.get_terminal_size(sys.stdin.fileno()) if tty else os.terminal_size((0, 0))
    session = client.exec(
        found.name,
        command,
        namespace=namespace,
        container=container,
        tty=tty,
        stdin=stdin,
        rows=size.lines,
        columns=size.columns,
    )
    async with session:
        with _raw_terminal() if tty else contextlib.nullcontext():
            await _talk(session, tty=tty, stdin=stdin)
    if session.exit_code:
        raise CommandError("", exit_code=session.exit_code)


async def _talk(session: ExecSession, *, tty: bool, stdin: bool) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as parts:
        feeders = []
        if stdin:
            feeders.append(parts.create_task(_feed(session)))
        if tty:
            resized = asyncio.Event()
            loop.add_signal_handler(signal.SIGWINCH, resized.set)
            feeders.append(parts.create_task(_resize(session, resized)))
        try:
            async for output in session.output():
                stream = (sys.stderr if output.is_stderr else sys.stdout).buffer
                stream.write(output.data)
                stream.flush()
        finally:
            if tty:
                loop.remove_signal_handler(signal.SIGWINCH)
            for feeder in feeders:
                feeder.cancel()


async def _feed(session: ExecSession) -> None:
    """Send our stdin. A thread reads it: files and pipes bear no other way, and a read cannot be cancelled."""
    loop = asyncio.get_running_loop()
    # One piece at a time: whoever types faster than the network takes it waits.
    pieces: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1)

    def read() -> None:
        with contextlib.suppress(RuntimeError, OSError, asyncio.CancelledError):  # The command has ended.
            while True:
                data = os.read(sys.stdin.fileno(), _READ_BYTES)
                asyncio.run_coroutine_threadsafe(pieces.put(data), loop).result()
                if not data:
                    return

    # A daemon, so that a read which never returns does not keep the process.
    threading.Thread(target=read, name="stdin", daemon=True).start()
    while data := await pieces.get():
        await session.write(data)
    await session.close_stdin()


async def _resize(session: ExecSession, resized: asyncio.Event) -> None:
    while True:
        await resized.wait()
        resized.clear()
        size = os.get_terminal_size(sys.stdin.fileno())
        await session.resize(rows=size.lines, columns=size.columns)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Keys go to the command as they are typed, Ctrl-C too; whatever happens the terminal is given back."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin.fileno())
    tty.setraw(sys.stdin.fileno())
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
