"""The preStop hook, run before SIGTERM and within the grace. As in Kubernetes, its failure is told and stops nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import structlog

from agent.probes.model import Hook
from agent.probes.port import Outcome, Prober, Result
from agent.race import until_first_ends
from agent.runtime.port import Container

log = structlog.get_logger(__name__)

# While the engine cannot be asked: without it, the container could not be stopped either.
RETRY_S = 0.5


async def run_pre_stop(
    prober: Prober,
    container: Container,
    hook: Hook,
    *,
    grace_s: float,
    until_ended: Coroutine[None, None, None],
) -> str:
    """Run the hook once. Returns why it failed, empty if it did not.

    Args:
        prober: what runs hooks.
        container: that is to be stopped.
        hook: of its template.
        grace_s: how long it may take.
        until_ended: returns when the container has ended: then it needs no more of its hook.
    """
    outcome: Outcome | None = None
    loop = asyncio.get_running_loop()
    until_s = loop.time() + grace_s

    async def run() -> None:
        nonlocal outcome
        while True:
            outcome = await prober.run_hook(container, hook, timeout_s=max(0.0, until_s - loop.time()))
            if outcome.result is not Result.UNKNOWN or loop.time() + RETRY_S >= until_s:
                return
            await asyncio.sleep(RETRY_S)

    try:
        await until_first_ends(run(), until_ended)
    except Exception as error:
        # A bug of ours must not keep a pod from being stopped.
        log.exception("pre_stop.not_run", container=container.name)
        return f"preStop hook failed: {type(error).__name__}: {error}"
    if outcome is None or outcome.result is Result.SUCCESS:
        return ""
    return f"preStop hook failed: {outcome.words}"
