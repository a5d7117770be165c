"""`python -m demo_app` in its image: serves on $PORT until SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

from .app import App


async def main() -> None:
    """Returns when it has left."""
    app = App(
        pod=socket.gethostname(),
        node=os.environ.get("NODE_NAME", ""),
        version=os.environ.get("VERSION", "1"),
        say=lambda line: print(line, flush=True),
    )
    # Process 1 of a container has no default for a signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, app.leave)
    await app.run("0.0.0.0", int(os.environ.get("PORT", "8080")))


asyncio.run(main())
