"""Collects from several nodes when each container of a workload first answered TCP (bench/tcp_probe.py)."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.runtime.port import LABEL_WORKLOAD
from bench import tcp_probe
from deploy.engine import docker
from deploy.local_cluster import NODES, LocalCluster

APP_PORT = 8080
STOP_TIMEOUT_S = 5


class AnswerWatch:
    """A probe within each of `nodes`, as long as the context is open."""

    def __init__(self, cluster: LocalCluster, workload: str, nodes: Iterable[str]) -> None:
        source = Path(tcp_probe.__file__).read_text()
        program = ["python3", "-u", "-c", source, f"{LABEL_WORKLOAD}={workload}", str(APP_PORT)]
        self._commands = [
            [*docker(), "exec", "--interactive", cluster.container(NODES[node]), *program] for node in nodes
        ]
        self._first_s: dict[str, float] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for command in self._commands:
            probe = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._open.callback(_end, probe)
            reader = threading.Thread(target=self._read, args=[probe], name="answer-watch", daemon=True)
            reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def first_s(self) -> dict[str, float]:
        """Container id → time.monotonic() when it first answered."""
        return dict(self._first_s)

    def _read(self, probe: subprocess.Popen[str]) -> None:
        assert probe.stdout is not None
        for line in probe.stdout:
            container, _, at_s = line.partition(" ")
            self._first_s[container] = float(at_s)


def _end(probe: subprocess.Popen[str]) -> None:
    assert probe.stdin is not None
    probe.stdin.close()
    try:
        probe.wait(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        probe.kill()
        probe.wait()
