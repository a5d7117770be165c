"""What a container said last, for people who ask why it ended."""

from __future__ import annotations

import asyncio
import contextlib

from agent.outputs import closed_after
from agent.pod_status import LAST_LOG_LINES_MAX_BYTES
from agent.runtime.port import EngineError, Runtime

LINES = 20
TIMEOUT_S = 2.0


async def last_words(runtime: Runtime, container_id: str) -> tuple[str, str]:
    """Its last lines, and the last one of its stderr, else of its stdout; empty if the engine has none to give."""
    tail = b""
    ends = {False: b"", True: b""}  # By whether it is stderr.
    with contextlib.suppress(EngineError, TimeoutError):
        outputs = runtime.logs(container_id, follow=False, tail=LINES, since_s=0.0, timestamps=False)
        async with asyncio.timeout(TIMEOUT_S), closed_after(outputs):
            async for output in outputs:
                tail = (tail + output.data)[-LAST_LOG_LINES_MAX_BYTES:]
                end = ends[output.is_stderr] + output.data
                ends[output.is_stderr] = end[-LAST_LOG_LINES_MAX_BYTES:]
    last = (ends[True].strip() or ends[False].strip()).rpartition(b"\n")[2]
    return tail.decode(errors="replace"), last.decode(errors="replace").strip()
