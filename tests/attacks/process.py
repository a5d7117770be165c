"""A manager in a process of its own, to be flooded: its memory and sockets are nobody else's."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.attacks.world import World, serving
from tests.free_ports import free_port

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ManagerProcess:
    """Runs as m3."""

    port: int
    pid: int
    log: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def memory_bytes(self) -> int:
        """Resident now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE_BYTES

    def sockets(self) -> int:
        """Open now."""
        found = 0
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                found += str(entry.readlink()).startswith("socket:")
            except FileNotFoundError:
                continue
        return found


@asynccontextmanager
async def manager_process(world: World) -> AsyncIterator[ManagerProcess]:
    """One that has joined the world's cluster, until the end."""
    port, directory = free_port(in_a_row=2), world.directory / "m3"
    token, log = world.directory / "m3.token", world.directory / "m3.log"
    token.write_text(await world.token("manager"))
    command = [
        sys.executable, "-m", "manager.main", "--id", "m3", "--etcd", world.etcd.endpoint,
        "--listen", f"127.0.0.1:{port}", "--advertise", f"127.0.0.1:{port}", "--data-dir", str(directory),
        "--join", world.address, "--join-token-file", str(token),
    ]  # fmt: skip
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            command, stdout=output, stderr=output, env={**os.environ, "BAYPLAN_LOG": "debug"}
        )
    try:
        await serving(port)
        yield ManagerProcess(port, process.pid, log)
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 10)
