"""Which pods' containers may have changed: Docker's events, for as long as the agent lives.

Events are hints, never the truth: the engine keeps 256 of them, and drops what a slow listener has
not taken within 100 ms. aiodocker's event channel ends at the first disconnection; this one does not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from email.utils import parsedate_to_datetime

import aiohttp
import structlog

from agent.runtime.engine_client import EngineClient
from agent.runtime.port import LABEL_POD, EngineError

log = structlog.get_logger()

# What changes a container. Not `exec_*`: a probe that runs a command would be three hints each time.
EVENTS = ("create", "start", "die", "oom", "destroy", "pause", "unpause", "rename")
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0
# A whole event with its labels has a few KiB.
EVENT_BYTES_MAX = 1024 * 1024


async def watch_hints(client: EngineClient, labels: Mapping[str, str]) -> AsyncGenerator[str, None]:
    """See `Runtime.hints`; `labels` are those of containers that are ours. Never ends by itself."""
    retry_s = RETRY_FIRST_S
    while True:
        try:
            async with aclosing(_watch_once(client, labels)) as pods:
                async for pod in pods:
                    retry_s = RETRY_FIRST_S
                    yield pod
            reason = "the engine ended it"
        except EngineError as error:
            reason = str(error)
        log.warning("engine_events.lost", reason=reason, retry_s=retry_s)
        client.forget_version()
        await asyncio.sleep(retry_s)
        retry_s = min(RETRY_MAX_S, retry_s * 2)


async def _watch_once(client: EngineClient, labels: Mapping[str, str]) -> AsyncGenerator[str, None]:
    """Once it is connected an empty string, then pods' uids until the connection ends."""
    # The engine sends its answer's head before it subscribes us: `since` closes that gap. It is
    # the engine's own clock, in whole seconds, so that a few events may come twice.
    since_s = int(parsedate_to_datetime(await client.now()).timestamp())
    filters = {
        "type": ["container"],
        "event": list(EVENTS),
        "label": [f"{key}={value}" for key, value in labels.items()],
    }
    params = {"since": str(since_s), "filters": json.dumps(filters)}
    async with client.stream("events", params=params) as response:
        yield ""
        async with aclosing(_lines(response.content)) as lines:
            async for line in lines:
                yield json.loads(line)["Actor"]["Attributes"].get(LABEL_POD, "")


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """aiohttp's own readline gives up at 128 KiB."""
    begun = b""
    async for data in content.iter_any():
        *whole, begun = (begun + data).split(b"\n")
        for line in whole:
            if line.strip():
                yield line
        if len(begun) > EVENT_BYTES_MAX:
            raise EngineError(f"an event of more than {EVENT_BYTES_MAX} bytes")
