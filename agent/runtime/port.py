"""What the agent asks of a container engine.

Docker (agent/runtime/docker.py, the only place that imports aiodocker) and the simulated
engine (agent/runtime/simulated.py) pass one contract suite (tests/contracts/runtime.py).

A runtime handles only containers that carry our labels of our cluster and node; anything
else on the host is foreign and never touched, nor listed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

LABEL_CLUSTER = "bayplan.io/cluster"
LABEL_NODE = "bayplan.io/node"
LABEL_POD = "bayplan.io/pod"  # pod uid: <workload uid>.<slot>.<incarnation>
LABEL_POD_NAME = "bayplan.io/pod-name"
LABEL_NAMESPACE = "bayplan.io/namespace"
LABEL_WORKLOAD = "bayplan.io/workload"  # kind/name
LABEL_CONTAINER = "bayplan.io/container"  # name within the pod; empty: its sandbox
LABEL_SANDBOX = "bayplan.io/sandbox"  # the sandbox's run that a container was made for
LABEL_REVISION = "bayplan.io/revision"  # template hash
LABEL_EPOCH = "bayplan.io/epoch"  # that ordered it: create-revision of the leader key
LABEL_ATTEMPT = "bayplan.io/attempt"  # 0, 1, 2 …: restarts in place

SANDBOX = ""
"""The name within its pod of the container that only owns the pod's network; no container of a template has it."""
HOST_NETWORK = "host"
"""The name of the host's own network, for every engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A file or directory of the host, for reading."""

    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeNetwork:
    """A network of the engine on a bridge of the host; nothing of it is masqueraded or published by the engine."""

    name: str
    bridge: str  # The device's name.
    subnet: str
    gateway: str  # The bridge's own address.
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """One container to create.

    `name` is unique on the engine; a second create of one name and equal labels (the epoch apart,
    which says who ordered it) returns the container that is there.
    """

    name: str  # e.g. "bay-<pod name>-<container>-<attempt>"
    image: str  # What to run: a local image id or repo@digest, as `ensure_image` returned it.
    labels: Mapping[str, str]
    command: tuple[str, ...] | None = None  # Kubernetes' command: replaces the image's ENTRYPOINT.
    args: tuple[str, ...] | None = None  # Kubernetes' args: replaces the image's CMD.
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str | None = None
    hostname: str = ""
    cpu_request_millis: int = 0  # Shares of the processor under contention.
    cpu_limit_millis: int = 0  # 0: no limit.
    memory_limit_bytes: int = 0  # 0: no limit.
    pids_limit: int = 4096
    network: str = ""  # The engine's name of it; empty: the engine's default.
    address: str = ""  # In `network`; empty: the engine chooses.
    joins: str = (
        ""  # Id of a container: its network is shared, its hostname too. Then the two above are empty.
    )
    is_sandbox: bool = False  # It only waits, and needs no rights.
    mounts: tuple[Mount, ...] = ()


class ContainerState(Enum):
    """As the engine says it."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container of ours as the engine shows it. Times are seconds since the Unix epoch, 0 if not yet."""

    id: str
    name: str
    labels: Mapping[str, str]
    state: ContainerState
    image: str
    image_id: str
    created_s: float
    started_s: float = 0.0
    finished_s: float = 0.0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""  # The engine's own words when a start failed.
    address: str = ""  # Empty, too, of one that has joined another's network.
    pid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """For one registry."""

    registry: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """The engine and the host it may use."""

    name: str  # e.g. "Docker 20.10.24"
    cpu_millis: int
    memory_bytes: int
    root_dir: str  # Where the engine keeps its data, to watch the disk.


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A piece of a container's or a command's output."""

    data: bytes
    is_stderr: bool = False


class EngineError(Exception):
    """Base. The message is the engine's true text, fit for `bay ps`."""


class EngineUnavailableError(EngineError):
    """The engine does not answer (in time): try again later."""


class ImageError(EngineError):
    """The image cannot be had now: `reason` is ErrImagePull, ErrImageNeverPull or InvalidImageName."""

    def __init__(self, message: str, *, reason: str = "ErrImagePull") -> None:
        super().__init__(message)
        self.reason = reason


class CreateError(EngineError):
    """The engine refuses the spec: trying again changes nothing."""


class StartError(EngineError):
    """The container was created but its process cannot start. `exit_code` as the engine gives it, e.g. 127."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class AddressTakenError(StartError):
    """Another container has its address: one that somebody connected to our network by hand."""


class NetworkTakenError(EngineError):
    """The name, the bridge or the range is used by something that is not ours; the message says by what."""


class ContainerGoneError(EngineError):
    """No such container."""


class ExecSession(Protocol):
    """A command inside a container."""

    def output(self) -> AsyncIterator[Output]:
        """Until the command ends."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def resize(self, *, rows: int, columns: int) -> None: ...

    async def exit_code(self) -> int:
        """After the output has ended."""
        ...

    async def kill(self) -> None:
        """End the command if it still runs; what it has started itself may live on."""
        ...

    async def aclose(self) -> None: ...


class Runtime(Protocol):
    """All methods have deadlines; every error is a EngineError. Safe to call concurrently."""

    def join(self, cluster: str) -> None:
        """Containers of `cluster` are ours from now on: a new node learns its cluster after it was started."""
        ...

    async def info(self) -> EngineInfo: ...

    async def list_containers(self) -> list[Container]:
        """Every container of ours, running or not: the truth."""
        ...

    async def inspect(self, container_id: str) -> Container: ...

    async def ensure_image(
        self, image: str, *, policy: str, credentials: Mapping[str, Credential]
    ) -> tuple[str, str]:
        """Make `image` present and say what to run: (reference to run, digest or image id).

        `policy`: Always, IfNotPresent, Never, as in Kubernetes. `image` is fully qualified, or by digest.
        At most three pulls at once.
        """
        ...

    async def ensure_sandbox_image(self) -> tuple[str, tuple[str, ...]]:
        """Have the image of a program that only waits, without a registry: (what to run, its command)."""
        ...

    async def create(self, spec: ContainerSpec) -> Container: ...

    async def ensure_network(self, network: BridgeNetwork) -> None:
        """Have it as it is described. Raises NetworkTakenError when another's is in the way."""
        ...

    async def reconnect(self, container_id: str, *, network: str, address: str) -> None:
        """Connect a running container anew: its device was lost. A missing one is no error."""
        ...

    async def start(self, container_id: str) -> None:
        """Start it; a running one is no error. At most a few at once (the engine serialises network set-up).

        Raises StartError, also when the container that it joins does not run; AddressTakenError.
        """
        ...

    async def stop(self, container_id: str, *, grace_s: float) -> None:
        """SIGTERM, after `grace_s` SIGKILL; returns when it has exited. A stopped or missing one is no error."""
        ...

    async def unpause(self, container_id: str) -> None: ...

    async def remove(self, container_id: str) -> None:
        """Remove a stopped container; a missing one is no error."""
        ...

    def hints(self) -> AsyncIterator[str]:
        """Pod uids of containers that may have changed; "" when anything may have. Reconnects by itself, may lose."""
        ...

    def logs(
        self, container_id: str, *, follow: bool, tail: int, since_s: float, timestamps: bool
    ) -> AsyncIterator[Output]:
        """`tail` lines (-1: all) from `since_s` on. With `follow` until the container ends."""
        ...

    async def exec(
        self, container_id: str, command: tuple[str, ...], *, tty: bool, stdin: bool, rows: int, columns: int
    ) -> ExecSession: ...

    async def usage(self, containers: list[Container]) -> dict[str, tuple[float, int]]:
        """By container id: (total cpu seconds since its start, memory in bytes without page cache), from cgroups."""
        ...

    async def prune_images(self, *, keep: frozenset[str], target_bytes: int) -> int:
        """Remove images that this agent pulled and no container uses, oldest first; returns bytes freed."""
        ...

    async def aclose(self) -> None: ...
