"""`bay` as users run it: a process of its own, against a manager's API on a loopback port."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest

from bayplan.cli.run import INSECURE_WARNING
from bayplan.transport.grpc import GrpcTransport
from bayplan.v1.access_pb2_grpc import add_AccessServicer_to_server
from tests.bayplan.cli.install_machine import Machine
from tests.bayplan.client.fake_access import FakeAccess
from tests.bayplan.client.fake_control import FakeControl, served

DAY_MS = 86_400_000

MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  selector:
    matchLabels:
      app: web
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
        - name: main
          image: app:1
---
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector:
    app: web
  ports:
    - port: 80
"""


def text(lines: str) -> str:
    return dedent(lines).lstrip("\n")


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str


@dataclass
class Bay:
    """Runs commands against `control`."""

    control: FakeControl
    access: FakeAccess
    address: str

    @property
    def environment(self) -> dict[str, str]:
        return {"BAYPLAN_MANAGERS": self.address, "BAYPLAN_INSECURE_LOOPBACK": "1"}

    async def __call__(self, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> Ended:
        process = await self.start(*words, env=env)
        out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode().removeprefix(f"{INSECURE_WARNING}\n"))

    async def start(
        self, *words: str, env: dict[str, str] | None = None, terminal: int | None = None
    ) -> asyncio.subprocess.Process:
        """On pipes, or on `terminal`."""
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("BAYPLAN_", "_BAY"))
        }
        return await asyncio.create_subprocess_exec(
            # A test run in the background of a script ignores Ctrl-C, and what it starts would too.
            "env",
            "--default-signal=INT",
            sys.executable,
            "-m",
            "bayplan.cli",
            *words,
            stdin=asyncio.subprocess.PIPE if terminal is None else terminal,
            stdout=asyncio.subprocess.PIPE if terminal is None else terminal,
            stderr=asyncio.subprocess.PIPE if terminal is None else terminal,
            env=inherited | self.environment | (env or {}),
        )


@pytest.fixture
async def bay() -> AsyncIterator[Bay]:
    control = FakeControl()
    async with AsyncExitStack() as stack:
        access = FakeAccess()
        register = partial(add_AccessServicer_to_server, access)
        address = await stack.enter_async_context(
            served(control, GrpcTransport(), "127.0.0.1", more=[register])
        )
        yield Bay(control, access, address)


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    path = tmp_path / "shop.yaml"
    path.write_text(MANIFEST)
    return str(path)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)
