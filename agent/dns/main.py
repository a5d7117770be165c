"""`bayplan-dns`: the node's name server, a process of its own, so that names go on when the agent is gone."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.dns.server import DnsServer
from agent.options import read_options
from bayplan.log import configure_log


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Takes the agent's settings, and uses where its processes meet."""
    given = read_options(
        "bayplan-dns",
        "Answers this node's pods: names of services and pods, and everything else as the host's name servers do.",
        argv=sys.argv[1:] if arguments is None else arguments,
        environ=os.environ,
    )
    configure_log()
    # What was imported stays: the collector need not look at it again and again.
    gc.freeze()
    asyncio.run(_run(Path(given.text("run-dir"))))


async def _run(run_dir: Path) -> None:
    serving = asyncio.ensure_future(DnsServer(run_dir).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        if not serving.cancelled():
            raise


if __name__ == "__main__":
    main()
