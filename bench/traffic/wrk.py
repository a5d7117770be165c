"""wrk, a load generator in C: what it is asked, and what it says.

It runs on a node, in the node's own network or in that of a pod there, and keeps a fixed number of
connections busy. A round in which anything failed is no measurement.

What two proxies answer is compared by turns: this machine's speed changes by a fifth from one second to the
next. What each takes to answer is not: who is stopped waits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.traffic import turns_program
from deploy.engine import docker
from deploy.local_cluster import NODES, LocalCluster
from deploy.shell import StepError, run

THREADS = 2
# Enough that the proxy never waits for work, few enough that they do not only wait for each other.
CONNECTIONS = 32
_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
# Some thousand requests, of which those that a change of turns holds up do not matter.
TURN_S = 0.05
# By turns it is ended before; it ends by itself when nobody is left to do so.
DURATION_MAX_S = 60
PYTHON = "/opt/bayplan/venv/bin/python"
_REQUESTS = re.compile(r"^\s+(\d+) requests in ", re.MULTILINE)
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
class Answered:
    """What a client was answered, in the time that was its turn."""

    requests: int
    seconds: float

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds


def p99_ms(client: Client, url: str, *, seconds: int) -> float:
    """Of all answers for so long. Raises StepError if a request failed."""
    return parse_p99_ms(run(client.command(*_words(url, seconds))))


def take_turns(client: Client, urls: Sequence[str], *, seconds: float) -> list[Answered]:
    """So many seconds of each URL, by turns. Raises StepError if a request failed."""
    order = {
        "commands": [_words(url, DURATION_MAX_S) for url in urls],
        "turn_s": TURN_S,
        "turns": round(seconds / TURN_S),
    }
    program = Path(turns_program.__file__).read_text()
    said = run(client.command(PYTHON, "-c", program, json.dumps(order)))
    return [
        Answered(requests=parse_requests(found["said"]), seconds=found["ran_s"]) for found in json.loads(said)
    ]


def parse_p99_ms(said: str) -> float:
    """What wrk printed. Raises StepError if a request failed."""
    number, unit = _found(_P99, said)
    return float(number) * _MS[unit]


def parse_requests(said: str) -> int:
    """How many were answered, by what wrk printed. Raises StepError if a request failed."""
    return int(_found(_REQUESTS, said)[0])


def _words(url: str, seconds: int) -> list[str]:
    words = ["wrk", f"--threads={THREADS}", f"--connections={CONNECTIONS}", f"--duration={seconds}s"]
    return [*words, "--latency", url]


def _found(pattern: re.Pattern[str], said: str) -> tuple[str, ...]:
    if failed := _FAILED.findall(said):
        raise StepError(f"not every request went well: {'; '.join(failed)}")
    if (found := pattern.search(said)) is None:
        raise StepError(f"wrk was not understood:\n{said}")
    return found.groups()
