"""What watching a container asks of the world: make a check, run a hook.

`HostProber` (agent/probes/prober.py) does so over sockets and the engine; in simulated clusters, where
containers have no sockets, `SimulatedProber` knows the answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from agent.probes.model import Check, Hook
from agent.runtime.port import Container


class Result(Enum):
    """Of one check or hook."""

    SUCCESS = "success"
    FAILURE = "failure"
    # The check could not be made: it says nothing about the container.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it."""

    result: Result
    words: str = ""  # Why not, for people: "connection refused at :8080".

    @classmethod
    def failure(cls, words: str) -> Outcome:
        return cls(result=Result.FAILURE, words=words)

    @classmethod
    def unknown(cls, words: str) -> Outcome:
        return cls(result=Result.UNKNOWN, words=words)


SUCCESS = Outcome(result=Result.SUCCESS)
NO_ADDRESS = "the container has no address"


class Prober(Protocol):
    """Every outcome is returned; nothing is raised but cancellation. Safe to call concurrently."""

    async def probe(self, container: Container, check: Check, *, timeout_s: float) -> Outcome:
        """Make a check once."""
        ...

    async def run_hook(self, container: Container, hook: Hook, *, timeout_s: float) -> Outcome:
        """Run a hook to its end. As in Kubernetes, any answer to a request is a success."""
        ...

    async def aclose(self) -> None: ...
