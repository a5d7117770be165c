"""Runs a program of the host: bounded in time, its own words in the error."""

from __future__ import annotations

import asyncio

from agent.network.port import NetworkError

COMMAND_S = 20.0
_WORDS_MAX = 300


async def run(*command: str, text: str = "") -> str:
    """What it writes. Raises NetworkError: it is missing, it failed, it hangs."""
    code, out, errors = await attempt(*command, text=text)
    if code:
        words = " ".join(errors.split())[:_WORDS_MAX]
        raise NetworkError(f"{command[0]} failed: {words or f'exit code {code}'}")
    return out


async def attempt(*command: str, text: str = "") -> tuple[int, str, str]:
    """(exit code, output, errors). Raises NetworkError: it is missing, it hangs."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise NetworkError(f"cannot run {command[0]}: {(error.strerror or str(error)).lower()}") from error
    try:
        async with asyncio.timeout(COMMAND_S):
            out, errors = await process.communicate(text.encode())
    except TimeoutError as error:
        raise NetworkError(f"{command[0]} has not ended within {COMMAND_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(errors="replace"), errors.decode(errors="replace")
