"""HAProxy's master socket: commands to the master, or through it to one of its workers.

Through the master a command reaches the very worker that is meant, also an old one that carries on what
it had before a reload; the workers' own socket belongs to whichever took its path last.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ANSWER_S = 5.0
# `show stat` of 20,000 servers has 10 MB.
ANSWER_BYTES_MAX = 64 * 1024 * 1024
# HAProxy reads commands into one buffer of 16 KiB.
BATCH_CHARACTERS_MAX = 8192
_PROCESS = re.compile(r"(\d+)\s+(master|worker)\s+(\d+)(?:\s+\[failed: (\d+)\])?")


class ProxyAnswerError(Exception):
    """HAProxy did not answer, or not as it should. The message is for people."""


class NotRunningError(ProxyAnswerError):
    """Nobody listens: it does not run, or its master replaces itself just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """What runs."""

    master: int  # Process ids.
    reloads: int
    failed: int  # Reloads in a row that did not come about.
    worker: int
    old_workers: tuple[int, ...]  # With connections from before a reload.


class HaproxySocket:
    """A connection per batch of commands: a master that was replaced is noticed by the next."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def processes(self) -> Processes:
        """Raises NotRunningError, ProxyAnswerError."""
        return parse_processes(await self._ask("show proc\n"))

    async def reload(self) -> None:
        """Ask for it. HAProxy 2.6 says nothing to that: `processes` tells what became of it."""
        await self._ask("reload\n")

    async def tell(self, worker: int, commands: Sequence[str]) -> str:
        """Do these in order; the answers as one text. Raises ProxyAnswerError."""
        answers: list[str] = []
        batch: list[str] = []
        characters = 0
        for command in commands:
            assert "\n" not in command
            assert ";" not in command
            line = f"@!{worker} {command}\n"
            if batch and characters + len(line) > BATCH_CHARACTERS_MAX:
                answers.append(await self._ask("".join(batch)))
                batch, characters = [], 0
            batch.append(line)
            characters += len(line)
        if batch:
            answers.append(await self._ask("".join(batch)))
        return "".join(answers)

    async def _ask(self, text: str) -> str:
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(str(self._path))
                try:
                    writer.write(text.encode())
                    # Else it waits for more.
                    writer.write_eof()
                    return (await _all_of(reader)).decode(errors="replace")
                finally:
                    writer.close()
        except TimeoutError as error:
            raise ProxyAnswerError(f"HAProxy did not answer within {ANSWER_S:.0f} s") from error
        except OSError as error:
            raise NotRunningError(f"HAProxy does not run: {error.strerror or error}") from error


def parse_processes(text: str) -> Processes:
    """From `show proc`. Raises ProxyAnswerError."""
    master, worker = None, 0
    old: list[int] = []
    is_old = False
    for line in text.splitlines():
        is_old = is_old or line.startswith("# old workers")
        found = _PROCESS.match(line)
        if found is None:
            continue
        if found[2] == "master":
            master = found
        elif is_old:
            old.append(int(found[1]))
        else:
            worker = int(found[1])
    if master is None or not worker:
        raise ProxyAnswerError("HAProxy has no worker")
    return Processes(
        master=int(master[1]),
        reloads=int(master[3]),
        failed=int(master[4] or 0),
        worker=worker,
        old_workers=tuple(sorted(old)),
    )


async def _all_of(reader: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    while data := await reader.read(256 * 1024):
        answer += data
        if len(answer) > ANSWER_BYTES_MAX:
            raise ProxyAnswerError(f"HAProxy answered more than {ANSWER_BYTES_MAX} bytes")
    return bytes(answer)
