"""The engine under a runtime's contract suite, and what the suite runs there.

Commands are real shell commands; the simulated engine is told what they do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from agent.runtime.port import (
    LABEL_EPOCH,
    LABEL_POD,
    Container,
    ContainerSpec,
    ContainerState,
    Output,
    Runtime,
)

CLUSTER = "test-cluster"
NODE = "n1"
MIB = 1024 * 1024

# Ends with 0 when it gets SIGTERM.
FOREVER = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done")
# The same, and it says when: a signal that comes before the trap is lost on process 1.
SAYS_WHEN_IT_HEEDS = (
    "sh", "-c", "trap 'exit 0' TERM; echo heeds; while :; do sleep 1 & wait $!; done"
)  # fmt: skip
IGNORES_SIGTERM = ("sh", "-c", "trap '' TERM; while :; do sleep 1; done")
EXITS_3 = ("sh", "-c", "exit 3")
NO_SUCH_PROGRAM = ("no-such-program",)
# `tail` keeps what it reads until it has seen a line. The shell waits before and after: under load, engines before 2026
# miss the kernel's word if it comes as the container starts, or just before it ends (containerd's #12405, #12714).
HOG = ("sh", "-c", "sleep 1; tail /dev/zero; code=$?; sleep 1; exit $code")
BUSY = ("sh", "-c", "while :; do :; done")
TALKS = ("sh", "-c", "echo one; sleep 0.3; echo two >&2; sleep 0.3; echo three")

EXEC_FAILS = ("sh", "-c", "echo out; sleep 0.1; echo err >&2; exit 7")
EXEC_CAT = ("cat",)
EXEC_HANGS = ("sleep", "1000")
EXEC_SIZE = ("sh", "-c", "sleep 0.5; stty size")


class World(Protocol):
    """A runtime's surroundings, and what a test does there behind the agent's back."""

    runtime: Runtime
    image: str  # On the host, in no registry.
    registry: str  # Where `push` pushes to, host and port.

    def another_agent(self, *, node: str) -> Runtime:
        """Another client of the same engine; closed with the world."""
        ...

    async def push(self, name: str) -> None:
        """Offer an image in the registry; it is not on the host."""
        ...

    async def stop_registry(self) -> None: ...

    async def kill_container(self, container_id: str) -> None: ...

    async def remove_container(self, container_id: str) -> None: ...

    async def pause(self, container_id: str) -> None: ...

    async def add_foreign(self, name: str) -> str:
        """A running container that is not ours; returns its id."""
        ...

    async def add_foreign_network(self, name: str, subnet: str) -> None:
        """A network that is not ours."""
        ...

    async def is_running(self, container_id: str) -> bool: ...


def spec(
    world: World, name: str = "web", command: tuple[str, ...] = FOREVER, memory_limit_bytes: int = 0
) -> ContainerSpec:
    return ContainerSpec(
        name=f"bay-contract-{name}",
        image=world.image,
        labels={LABEL_POD: f"uid.{name}.1", LABEL_EPOCH: "5"},
        command=command,
        memory_limit_bytes=memory_limit_bytes,
    )


async def started(
    world: World, name: str = "web", command: tuple[str, ...] = FOREVER, memory_limit_bytes: int = 0
) -> Container:
    made = await world.runtime.create(spec(world, name, command, memory_limit_bytes))
    await world.runtime.start(made.id)
    return await world.runtime.inspect(made.id)


async def heeding(world: World, container: Container) -> None:
    """Until SIGTERM would end it."""

    async def has_said() -> bool:
        said = world.runtime.logs(container.id, follow=False, tail=-1, since_s=0, timestamps=False)
        return (await text_of(said))[0] == "heeds\n"

    await eventually(has_said)


async def ended(world: World, container: Container) -> Container:
    async def has_ended() -> bool:
        return (await world.runtime.inspect(container.id)).state is ContainerState.EXITED

    await eventually(has_ended)
    return await world.runtime.inspect(container.id)


async def eventually(is_true: Callable[[], Awaitable[bool]], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not await is_true():  # noqa: ASYNC110 - what it waits for may be in another process
            await asyncio.sleep(0.05)


async def text_of(pieces: AsyncIterator[Output]) -> tuple[str, str]:
    """(standard output, standard error)."""
    texts = {False: b"", True: b""}
    async for piece in pieces:
        texts[piece.is_stderr] += piece.data
    return texts[False].decode(), texts[True].decode()
