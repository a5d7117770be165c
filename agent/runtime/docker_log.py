"""Containers' output: Docker's frames, read as they come.

Each piece is preceded by eight bytes: which stream, three zeros, the length. aiodocker's reader loses the
stream and replaces bytes that are not UTF-8; and a length is never believed so far as to hold that much.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing

import aiohttp

from agent.runtime.engine_client import EngineClient, Params
from agent.runtime.port import EngineError, Output

_HEADER = struct.Struct(">BxxxL")
_STDERR = 2
_SYSTEM_ERROR = 3
PIECE_BYTES_MAX = 32 * 1024
# The engine reads old logs from disk; between two pieces of them it needs milliseconds.
IDLE_S = 30.0


async def read_log(
    client: EngineClient, container_id: str, *, follow: bool, tail: int, since_s: float, timestamps: bool
) -> AsyncGenerator[Output, None]:
    """Pieces of at most 32 KiB; see `Runtime.logs`."""
    params: Params = {
        "stdout": True,
        "stderr": True,
        "follow": follow,
        "timestamps": timestamps,
        "tail": "all" if tail < 0 else str(tail),
        "since": f"{since_s:.9f}",
    }
    # A followed container may be silent for ever; whoever follows ends it by closing this iterator.
    idle_s = None if follow else IDLE_S
    async with (
        client.stream(f"containers/{container_id}/logs", params=params) as response,
        aclosing(read_frames(response.content, idle_s=idle_s)) as pieces,
    ):
        async for piece in pieces:
            yield piece


async def read_frames(content: aiohttp.StreamReader, *, idle_s: float | None) -> AsyncGenerator[Output, None]:
    """Split a multiplexed stream. `idle_s` limits each wait for bytes; a stream cut inside a frame just ends."""
    while len(header := await _read_up_to(content, _HEADER.size, idle_s)) == _HEADER.size:
        stream, left = _HEADER.unpack(header)
        if stream == _SYSTEM_ERROR:
            message = await _read_up_to(content, min(left, PIECE_BYTES_MAX), idle_s)
            raise EngineError(message.decode(errors="replace").strip())
        while left:
            data = await _read_up_to(content, min(left, PIECE_BYTES_MAX), idle_s)
            if not data:
                return
            yield Output(data=data, is_stderr=stream == _STDERR)
            left -= len(data)


async def _read_up_to(content: aiohttp.StreamReader, size: int, idle_s: float | None) -> bytes:
    """`size` bytes, fewer only at the end."""
    async with asyncio.timeout(idle_s):
        try:
            return await content.readexactly(size)
        except asyncio.IncompleteReadError as error:
            return error.partial
