"""What a template asks to be checked and done in a container's life: probes and hooks.

Ports are numbers here: names were looked up when the template was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Role(Enum):
    """What a probe is for; the value is its word in messages."""

    STARTUP = "startup"
    READINESS = "readiness"
    LIVENESS = "liveness"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec:
    """A command inside the container; exit code 0 is success."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpGet:
    """A request. `path` begins with a slash and may hold a query."""

    port: int
    path: str = "/"
    host: str = ""  # Empty: the container's address.
    is_tls: bool = False
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def place(self) -> str:
        """Where, for messages."""
        return f"{self.host}:{self.port}{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpConnect:
    """A connection that is closed again."""

    port: int
    host: str = ""  # Empty: the container's address.

    @property
    def place(self) -> str:
        """Where, for messages."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcCheck:
    """gRPC's health protocol."""

    port: int
    service: str = ""  # Empty: the server as a whole.

    @property
    def place(self) -> str:
        """Where, for messages."""
        return f":{self.port}" + (f" (service {self.service})" if self.service else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
    """Nothing, for a while."""

    duration_s: float


Check = Exec | HttpGet | TcpConnect | GrpcCheck
Hook = Exec | HttpGet | Sleep


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A check that is made again and again. Defaults are Kubernetes'."""

    check: Check
    initial_delay_s: float = 0.0  # From the container's start.
    period_s: float = 10.0
    timeout_s: float = 1.0
    success_threshold: int = 1  # So many in a row change the verdict.
    failure_threshold: int = 3
    grace_s: float | None = None  # For stopping a container that failed it; None: the pod's.


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Of one container."""

    startup: Probe | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Of one container."""

    post_start: Hook | None = None
    pre_stop: Hook | None = None
