"""The runtime on a simulated engine: the same promises as on Docker, in memory and on the loop's time.

Passes the same contract suite (tests/contracts/runtime.py), so that whole clusters run in one process,
in tests and at a scale for which there are no hosts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

from agent.runtime.image_name import ImageName, is_image_id, parse_image_name, qualify
from agent.runtime.ownership import is_ours, is_what_was_asked, owner_labels
from agent.runtime.port import (
    LABEL_POD,
    BridgeNetwork,
    Container,
    ContainerGoneError,
    ContainerSpec,
    ContainerState,
    CreateError,
    Credential,
    EngineError,
    EngineInfo,
    EngineUnavailableError,
    ExecSession,
    ImageError,
    Output,
)
from agent.runtime.simulated_engine import HINTS_MAX, SimulatedContainer, SimulatedEngine
from agent.runtime.simulated_images import SimulatedImage
from agent.runtime.simulated_streams import SimulatedExecSession, read_log

PULLS_MAX = 3
STARTS_MAX = 4
RECONNECT_S = 0.5


class SimulatedRuntime:
    """Obeys `Runtime`. Ours are containers of `cluster` on `node`, as with Docker."""

    def __init__(self, engine: SimulatedEngine, *, cluster: str, node: str) -> None:
        self._engine = engine
        self._cluster = cluster
        self._node = node
        self._labels = owner_labels(cluster=cluster, node=node)
        self._start_slots = asyncio.Semaphore(STARTS_MAX)
        self._pull_slots = asyncio.Semaphore(PULLS_MAX)

    def join(self, cluster: str) -> None:
        self._cluster = cluster
        self._labels = owner_labels(cluster=cluster, node=self._node)

    async def info(self) -> EngineInfo:
        await self._engine.answer()
        return EngineInfo(
            name="Simulated",
            cpu_millis=self._engine.cpu_millis,
            memory_bytes=self._engine.memory_bytes,
            root_dir="/",
        )

    async def list_containers(self) -> list[Container]:
        await self._engine.answer()
        return [found.shown for found in self._engine.containers.values() if self._is_ours(found)]

    async def inspect(self, container_id: str) -> Container:
        return (await self._get(container_id)).shown

    async def ensure_image(
        self, image: str, *, policy: str, credentials: Mapping[str, Credential]
    ) -> tuple[str, str]:
        await self._engine.answer()
        if is_image_id(image):
            if image not in self._engine.images:
                raise ImageError(f"image {image} is not on this node, and an id cannot be pulled")
            return image, image
        name = parse_image_name(image)
        if (policy != "Always" or name.digest) and (found := self._engine.images.get(str(name))):
            return _to_run(name, found)
        if policy == "Never":
            raise ImageError(
                f'image "{image}" is not on this node, and imagePullPolicy is Never',
                reason="ErrImageNeverPull",
            )
        async with self._pull_slots:
            if policy != "Always" and (found := self._engine.images.get(str(name))):
                return _to_run(name, found)
            return await self._pull(name, credentials.get(name.registry))

    async def ensure_sandbox_image(self) -> tuple[str, tuple[str, ...]]:
        await self._engine.answer()
        return self._engine.ensure_sandbox_image(), ("/wait",)

    async def create(self, spec: ContainerSpec) -> Container:
        await self._engine.answer()
        labels = {**spec.labels, **self._labels}
        existing = self._engine.named(spec.name)
        if existing is not None:
            if not is_what_was_asked(labels, existing.shown.labels):
                raise CreateError(f'the name "{spec.name}" is taken by another container')
            return existing.shown
        image = self._engine.images.get(spec.image if is_image_id(spec.image) else qualify(spec.image))
        if image is None:
            raise ImageError(f"No such image: {spec.image}")
        return self._engine.create(spec, image, labels).shown

    async def ensure_network(self, network: BridgeNetwork) -> None:
        await self._engine.answer()
        self._engine.ensure_network(network, self._labels)

    async def reconnect(self, container_id: str, *, network: str, address: str) -> None:
        del network, address  # Nothing here can be lost.
        with suppress(ContainerGoneError):
            await self._get(container_id)

    async def start(self, container_id: str) -> None:
        await self._get(container_id)
        async with self._start_slots:
            await self._engine.work(self._engine.start_delay_s)
            container = await self._get(container_id)
            if container.shown.state is ContainerState.PAUSED:
                raise EngineError("cannot start a paused container, try unpause instead")
            if container.shown.state is not ContainerState.RUNNING:
                self._engine.start(container)

    async def stop(self, container_id: str, *, grace_s: float) -> None:
        try:
            container = await self._get(container_id)
        except ContainerGoneError:
            return
        await self._engine.stop(container, grace_s)
        await self._engine.answer()

    async def unpause(self, container_id: str) -> None:
        await self._get(container_id)
        self._engine.unpause(container_id)

    async def remove(self, container_id: str) -> None:
        try:
            container = await self._get(container_id)
        except ContainerGoneError:
            return
        if container.is_running:
            raise EngineError(f"You cannot remove a running container {container_id}. Stop it before.")
        self._engine.remove_container(container_id)

    async def hints(self) -> AsyncIterator[str]:
        while True:
            try:
                await self._engine.answer()
            except EngineUnavailableError:
                await asyncio.sleep(RECONNECT_S)
                continue
            queue: asyncio.Queue[Container | None] = asyncio.Queue(HINTS_MAX)
            self._engine.subscribers.append(queue)
            try:
                yield ""
                while (changed := await queue.get()) is not None:
                    if is_ours(changed.labels, cluster=self._cluster, node=self._node):
                        yield changed.labels.get(LABEL_POD, "")
            finally:
                if queue in self._engine.subscribers:
                    self._engine.subscribers.remove(queue)

    async def logs(
        self, container_id: str, *, follow: bool, tail: int, since_s: float, timestamps: bool
    ) -> AsyncIterator[Output]:
        container = await self._get(container_id)
        async for piece in read_log(
            container, follow=follow, tail=tail, since_s=since_s, timestamps=timestamps
        ):
            yield piece

    async def exec(
        self, container_id: str, command: tuple[str, ...], *, tty: bool, stdin: bool, rows: int, columns: int
    ) -> ExecSession:
        container = await self._get(container_id)
        if container.shown.state is not ContainerState.RUNNING:
            raise EngineError(f"Container {container_id} is not running")
        known = self._engine.commands.get(command)
        self._engine.executed.append(command)
        killed = self._engine.killed_commands
        return SimulatedExecSession(
            command, known, tty=tty, stdin=stdin, rows=rows, columns=columns, killed=killed
        )

    async def usage(self, containers: list[Container]) -> dict[str, tuple[float, int]]:
        return {
            container.id: self._engine.usage(found)
            for container in containers
            if (found := self._engine.containers.get(container.id)) and found.is_running
        }

    async def prune_images(self, *, keep: frozenset[str], target_bytes: int) -> int:
        await self._engine.answer()
        used = {container.image.id for container in self._engine.containers.values()}
        freed_bytes = 0
        for image_id in list(self._engine.pulled):
            if freed_bytes >= target_bytes:
                break
            names = [name for name, image in self._engine.images.items() if image.id == image_id]
            if image_id in used or keep.intersection(names):
                continue
            freed_bytes += self._engine.images[image_id].size_bytes
            self._engine.pulled.remove(image_id)
            for name in names:
                del self._engine.images[name]
        return freed_bytes

    async def aclose(self) -> None:
        """Nothing to close: the engine is not ours."""

    async def _get(self, container_id: str) -> SimulatedContainer:
        await self._engine.answer()
        found = self._engine.get(container_id)
        if not self._is_ours(found):
            raise ContainerGoneError(f"No such container of ours: {container_id}")
        return found

    def _is_ours(self, container: SimulatedContainer) -> bool:
        return is_ours(container.shown.labels, cluster=self._cluster, node=self._node)

    async def _pull(self, name: ImageName, credential: Credential | None) -> tuple[str, str]:
        self._engine.pulls += 1
        await self._engine.work(self._engine.pull_delay_s)
        found = self._engine.registry.find(name, credential)
        if found.id not in self._engine.images:
            self._engine.pulled.append(found.id)
        for key in (str(name), f"{name.name}@{found.digest}", found.id):
            self._engine.images[key] = found
        return _to_run(name, found)


def _to_run(name: ImageName, found: SimulatedImage) -> tuple[str, str]:
    if not found.digest:
        return found.id, found.id
    return f"{name.name}@{found.digest}", found.digest
