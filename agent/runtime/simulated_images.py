"""What simulated containers run, and the registry that they come from.

A `Program` says how a container behaves; a registry holds programs under image names, so
that a test speaks of images as users do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from agent.runtime.image_name import ImageName, parse_image_name
from agent.runtime.port import Credential, ImageError, Output

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """How a container's process behaves. By default it runs until it is stopped, and obeys SIGTERM at once."""

    runs_s: float | None = None  # None: until it is stopped.
    exit_code: int = 0  # When it ends by itself.
    start_exit_code: int = 0  # Not 0: it cannot be started, e.g. 127.
    start_error: str = ""
    ignores_sigterm: bool = False
    stop_s: float = 0.0  # From SIGTERM to its end.
    stop_exit_code: int = 143
    serves_after_s: float = 0.0  # From its start until probes find it listening.
    output: tuple[Output, ...] = ()  # The first piece is written as it starts,
    output_every_s: float = 0.0  # and each other one so long after the one before.
    cpu_cores: float = 0.0
    memory_bytes: int = _MIB  # Above the container's limit: the kernel kills it.


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedImage:
    """An image, in a registry or on a host."""

    id: str
    digest: str
    program: Program
    size_bytes: int


@dataclass(slots=True)
class SimulatedRegistry:
    """Every registry of the simulated world: it serves all hosts' names. Shared by engines.

    Set `is_up` to False and pulls are refused; put a `Credential` under a registry's name in
    `accounts` and pulls from it need it.
    """

    is_up: bool = True
    accounts: dict[str, Credential] = field(default_factory=dict)
    _tags: dict[str, SimulatedImage] = field(default_factory=dict)
    _digests: dict[str, SimulatedImage] = field(default_factory=dict)

    def push(self, image: str, program: Program | None = None, *, size_bytes: int = 10 * _MIB) -> str:
        """Offer `image`, or move its tag to another program; returns the digest."""
        name = parse_image_name(image)
        program = program or Program()
        pushed = SimulatedImage(
            id=_hash(f"image {program}"),
            digest=_hash(f"manifest {name.name} {program}"),
            program=program,
            size_bytes=size_bytes,
        )
        self._tags[f"{name.name}:{name.tag}"] = pushed
        self._digests[f"{name.name}@{pushed.digest}"] = pushed
        return pushed.digest

    def find(self, name: ImageName, credential: Credential | None) -> SimulatedImage:
        """What a pull gets. Raises ImageError in the words of real registries."""
        if not self.is_up:
            raise ImageError(f'Get "https://{name.registry}/v2/": dial tcp: connect: connection refused')
        if self.accounts.get(name.registry) not in (None, credential):
            raise ImageError(f'Get "https://{name.registry}/v2/": unauthorized: authentication required')
        if name.digest:
            found = self._digests.get(f"{name.name}@{name.digest}")
        else:
            found = self._tags.get(f"{name.name}:{name.tag}")
        if found is None:
            raise ImageError(f"manifest for {name} not found: manifest unknown: manifest unknown")
        return found


def _hash(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
