"""The runtime on a Docker Engine, through its unix socket.

Puts together what the files beside it do: `engine_client` speaks, `container_config` translates,
`docker_images`, `docker_networks`, `docker_log`, `docker_exec`, `docker_hints` and `cgroup_usage` do what their names say.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from agent.runtime import sandbox_program
from agent.runtime.cgroup_usage import read_usage
from agent.runtime.container_config import from_inspection, from_listing, to_create_body
from agent.runtime.docker_exec import start_exec
from agent.runtime.docker_hints import watch_hints
from agent.runtime.docker_images import DockerImages
from agent.runtime.docker_log import read_log
from agent.runtime.docker_networks import DockerNetworks
from agent.runtime.engine_client import SLOW_S, EngineClient, RefusedError
from agent.runtime.ownership import is_ours, is_what_was_asked, owner_labels
from agent.runtime.port import (
    AddressTakenError,
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
    StartError,
)
from agent.runtime.pulled_images import PulledImages
from agent.settings import DOCKER_SOCKET

# The engine serialises network set-up: more at once only make each slower. One engine alone on two cores
# started most with four; three engines that share the two cores, with one each.
STARTS_MAX = 4
# Waiting for one of the places above. At ten starts a second this is some thousand containers.
START_QUEUE_S = 120.0
START_S = 60.0
# What the engine may need beyond the grace to kill and to book the end.
STOP_MARGIN_S = 30.0
INSPECTIONS_MAX = 8
# A container whose start hangs is locked in the engine, and so is looking at it; the others must not wait long.
INSPECTION_S = 5.0
LISTING_S = 15.0
# What Docker gives a container that its runtime could not start for another reason than the command.
EXIT_CODE_NOT_STARTED = 128
# The engine's words where the container whose network is to be shared does not run.
_JOINS_NOTHING = "non running container"


class DockerRuntime:
    """Obeys `Runtime`. Make it inside a running event loop, and `aclose` it.

    Args:
        cluster: whose containers are ours, together with `node`.
        node: this node's id.
        wall_s: seconds since the Unix epoch.
        socket: path of the engine's socket.
        pulled_file: where to note which images we pulled; None notes it in memory only.
        starts_max: starts at once.
    """

    def __init__(
        self,
        *,
        cluster: str,
        node: str,
        wall_s: Callable[[], float],
        socket: str = DOCKER_SOCKET,
        pulled_file: Path | None = None,
        starts_max: int = STARTS_MAX,
    ) -> None:
        self._cluster = cluster
        self._node = node
        self._labels = owner_labels(cluster=cluster, node=node)
        self._client = EngineClient(socket)
        self._images = DockerImages(self._client, PulledImages(pulled_file, wall_s))
        self._networks = DockerNetworks(self._client)
        self._start_slots = asyncio.Semaphore(starts_max)
        self._inspection_slots = asyncio.Semaphore(INSPECTIONS_MAX)
        # By id, each container of ours as it was last seen.
        self._seen: dict[str, Container] = {}

    def join(self, cluster: str) -> None:
        self._cluster = cluster
        self._labels = owner_labels(cluster=cluster, node=self._node)

    async def info(self) -> EngineInfo:
        found = await self._client.get("info")
        return EngineInfo(
            name=f"Docker {found['ServerVersion']}",
            cpu_millis=found["NCPU"] * 1000,
            memory_bytes=found["MemTotal"],
            root_dir=found["DockerRootDir"],
        )

    async def list_containers(self) -> list[Container]:
        filters = {"label": [f"{key}={value}" for key, value in self._labels.items()]}
        rows = await self._client.get("containers/json", params={"all": True, "filters": json.dumps(filters)})
        until = asyncio.get_running_loop().time() + LISTING_S
        async with asyncio.TaskGroup() as inspections:
            looks = [inspections.create_task(self._look_at(row, until)) for row in rows]
        outcomes = [look.result() for look in looks]
        if outcomes and all(isinstance(outcome, EngineUnavailableError) for outcome in outcomes):
            raise EngineUnavailableError(str(outcomes[0]))
        containers = [
            from_listing(row, self._seen.get(row["Id"])) if isinstance(outcome, EngineError) else outcome
            for row, outcome in zip(rows, outcomes, strict=True)
            if not isinstance(outcome, ContainerGoneError)
        ]
        self._seen = {container.id: container for container in containers}
        return containers

    async def inspect(self, container_id: str) -> Container:
        return await self._inspect(container_id)

    async def ensure_image(
        self, image: str, *, policy: str, credentials: Mapping[str, Credential]
    ) -> tuple[str, str]:
        return await self._images.ensure(image, policy=policy, credentials=credentials)

    async def ensure_sandbox_image(self) -> tuple[str, tuple[str, ...]]:
        return await self._images.ensure_sandbox(), (sandbox_program.PATH,)

    async def create(self, spec: ContainerSpec) -> Container:
        labels = {**spec.labels, **self._labels}
        body = to_create_body(spec, labels)
        try:
            created = await self._client.post(
                "containers/create", params={"name": spec.name}, body=body, deadline_s=SLOW_S
            )
        except RefusedError as error:
            if error.status == 409:
                return await self._existing(spec.name, labels)
            if error.status == 404:
                raise ImageError(str(error)) from error
            if error.status >= 500:
                raise  # A full disk, say: not the spec's fault.
            raise CreateError(str(error)) from error
        return await self._inspect(created["Id"])

    async def ensure_network(self, network: BridgeNetwork) -> None:
        await self._networks.ensure(network, self._labels)

    async def reconnect(self, container_id: str, *, network: str, address: str) -> None:
        try:
            await self._must_be_ours(container_id)
            await self._networks.reconnect(container_id, network=network, address=address)
        except ContainerGoneError:
            return

    async def start(self, container_id: str) -> None:
        await self._must_be_ours(container_id)
        try:
            async with asyncio.timeout(START_QUEUE_S):
                await self._start_slots.acquire()
        except TimeoutError as error:
            raise EngineUnavailableError("the container engine is busy starting others") from error
        try:
            await self._client.post(f"containers/{container_id}/start", deadline_s=START_S)
        except ContainerGoneError as error:
            # It, or the one that it joins.
            raise await self._start_error(container_id, str(error)) from error
        except RefusedError as error:
            if error.status == 409 and _JOINS_NOTHING not in str(error):
                raise  # Being removed, or paused.
            raise await self._start_error(container_id, str(error)) from error
        finally:
            self._start_slots.release()

    async def stop(self, container_id: str, *, grace_s: float) -> None:
        grace = math.ceil(grace_s)
        try:
            await self._must_be_ours(container_id)
            await self._client.post(
                f"containers/{container_id}/stop", params={"t": grace}, deadline_s=grace + STOP_MARGIN_S
            )
        except ContainerGoneError:
            return

    async def unpause(self, container_id: str) -> None:
        await self._must_be_ours(container_id)
        try:
            await self._client.post(f"containers/{container_id}/unpause")
        except RefusedError:
            # Not paused (any more) is what was asked for.
            if (await self._inspect(container_id)).state is ContainerState.PAUSED:
                raise

    async def remove(self, container_id: str) -> None:
        try:
            await self._must_be_ours(container_id)
            await self._client.delete(f"containers/{container_id}", params={"v": True})
        except ContainerGoneError:
            pass
        except RefusedError as error:
            if "already in progress" not in str(error):
                raise
        self._seen.pop(container_id, None)

    def hints(self) -> AsyncIterator[str]:
        return watch_hints(self._client, self._labels)

    async def logs(
        self, container_id: str, *, follow: bool, tail: int, since_s: float, timestamps: bool
    ) -> AsyncIterator[Output]:
        await self._must_be_ours(container_id)
        pieces = read_log(
            self._client, container_id, follow=follow, tail=tail, since_s=since_s, timestamps=timestamps
        )
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def exec(
        self, container_id: str, command: tuple[str, ...], *, tty: bool, stdin: bool, rows: int, columns: int
    ) -> ExecSession:
        await self._must_be_ours(container_id)
        return await start_exec(
            self._client, container_id, command, tty=tty, stdin=stdin, rows=rows, columns=columns
        )

    async def usage(self, containers: list[Container]) -> dict[str, tuple[float, int]]:
        pids = {container.id: container.pid for container in containers if container.pid}
        return await asyncio.to_thread(read_usage, pids)

    async def prune_images(self, *, keep: frozenset[str], target_bytes: int) -> int:
        return await self._images.prune(keep=keep, target_bytes=target_bytes)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _look_at(self, row: Mapping[str, Any], until: float) -> Container | EngineError:
        """A listed container in full, or why it cannot be had: one that is stuck must not hide the others."""
        try:
            async with asyncio.timeout_at(until), self._inspection_slots:
                return await self._inspect(row["Id"])
        except EngineError as error:
            return error
        except TimeoutError:
            return EngineUnavailableError("the container engine takes too long to show its containers")

    async def _inspect(self, name_or_id: str) -> Container:
        found = await self._client.get(f"containers/{name_or_id}/json", deadline_s=INSPECTION_S)
        container = from_inspection(found)
        if not is_ours(container.labels, cluster=self._cluster, node=self._node):
            raise ContainerGoneError(f"No such container of ours: {name_or_id}")
        self._seen[container.id] = container
        return container

    async def _must_be_ours(self, container_id: str) -> None:
        """Never touch what is foreign, whatever we are told. Costs a call for unknown ids only."""
        if container_id not in self._seen:
            await self._inspect(container_id)

    async def _existing(self, name: str, labels: Mapping[str, str]) -> Container:
        """The container that has the name we wanted, if it is the one we wanted."""
        taken = f'the name "{name}" is taken by another container'
        try:
            container = await self._inspect(name)
        except ContainerGoneError as error:
            # The engine reserves names before it shows containers: perhaps ours is just being made.
            if "of ours" in str(error):
                raise CreateError(taken) from error
            raise EngineUnavailableError(f'container "{name}" is being created or removed') from error
        if container.name != name or not is_what_was_asked(labels, container.labels):
            raise CreateError(taken)
        return container

    async def _start_error(self, container_id: str, message: str) -> StartError | ContainerGoneError:
        try:
            exit_code = (await self._inspect(container_id)).exit_code
        except ContainerGoneError as gone:
            return gone
        # No port of a host is published here: it can only be the container's own address.
        kind = AddressTakenError if "address already in use" in message.lower() else StartError
        return kind(message, exit_code=exit_code or EXIT_CODE_NOT_STARTED)
