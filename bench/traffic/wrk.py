"""wrk, a load generator in C: what it is asked, and what it says.

It runs on a node, in the node's own network or in that of a pod there, and keeps a fixed number of
connections busy. A round in which anything failed is no measurement.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from deploy.engine import docker
from deploy.local_cluster import NODES, LocalCluster
from deploy.shell import StepError, run

THREADS = 2
# Enough that the proxy never waits for work, few enough that they do not only wait for each other.
CONNECTIONS = 32
_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)$", re.MULTILINE)
_P99 = re.compile(r"^\s+99%\s+([\d.]+)(us|ms|s|m)$", re.MULTILINE)
_FAILED = re.compile(r"^\s+(Socket errors: .+|Non-2xx or 3xx responses: \d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Where requests come from."""

    local: LocalCluster
    node: str
    pod: str = ""  # The process of the node's container whose network it is in; empty: in the node's own.

    def command(self, *words: str) -> list[str]:
        """What to run here for the command to run there."""
        inside = ("nsenter", f"--target={self.pod}", "--net") if self.pod else ()
        return [*docker(), "exec", self.local.container(NODES[self.node]), *inside, *words]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a client saw for some seconds."""

    requests_per_s: float
    p99_ms: float


def run_wrk(client: Client, url: str, *, seconds: int) -> Round:
    """Load `url`. Raises StepError if a request failed."""
    words = ["wrk", f"--threads={THREADS}", f"--connections={CONNECTIONS}", f"--duration={seconds}s"]
    return parse(run(client.command(*words, "--latency", url)))


def parse(said: str) -> Round:
    """What wrk printed. Raises StepError if a request failed."""
    if failed := _FAILED.findall(said):
        raise StepError(f"not every request went well: {'; '.join(failed)}")
    rate, p99 = _RATE.search(said), _P99.search(said)
    if rate is None or p99 is None:
        raise StepError(f"wrk was not understood:\n{said}")
    return Round(requests_per_s=float(rate[1]), p99_ms=float(p99[1]) * _MS[p99[2]])
