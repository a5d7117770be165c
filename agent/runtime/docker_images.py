"""Images: whether one is here, pulling it, and removing what we pulled and nobody uses.

What is here is never asked for again unless the policy says so: a failover must not need the registry.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

import structlog

from agent.runtime import sandbox_program
from agent.runtime.engine_client import SLOW_S, EngineClient, RefusedError
from agent.runtime.image_name import DOCKER_HUB, ImageName, is_image_id, parse_image_name, qualify
from agent.runtime.port import Credential, EngineError, EngineUnavailableError, ImageError
from agent.runtime.pulled_images import PulledImage, PulledImages

log = structlog.get_logger()

# Docker's own default for layers at once; more only makes each slower.
PULLS_MAX = 3
# The engine itself waits 15 s for a registry's answer, twice (https, then http). While layers come it
# reports several times a second.
PULL_IDLE_S = 60.0
PULL_S = 1800.0
PROGRESS_BYTES_MAX = 1024 * 1024


class DockerImages:
    """The images of one engine."""

    def __init__(self, client: EngineClient, pulled: PulledImages) -> None:
        self._client = client
        self._pulled = pulled
        self._slots = asyncio.Semaphore(PULLS_MAX)
        self._architecture = ""  # In the engine's words; asked once.
        # Ten pods of one image pull it once. A lock lives as long as somebody waits for it.
        self._pulling: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def ensure(
        self, image: str, *, policy: str, credentials: Mapping[str, Credential]
    ) -> tuple[str, str]:
        """See `Runtime.ensure_image`."""
        if is_image_id(image):
            return await self._local_by_id(image)
        name = parse_image_name(image)
        # What a digest names never changes: if it is here there is nothing to ask, whatever the policy says.
        if (policy != "Always" or name.digest) and (found := await self._find(str(name))):
            return _to_run(name, found)
        if policy == "Never":
            raise ImageError(
                f'image "{image}" is not on this node, and imagePullPolicy is Never',
                reason="ErrImageNeverPull",
            )
        lock = self._pulling.setdefault(str(name), asyncio.Lock())
        async with lock:
            if (policy != "Always" or name.digest) and (found := await self._find(str(name))):
                return _to_run(name, found)
            return await self._pull(name, credentials)

    async def ensure_sandbox(self) -> str:
        """The id of the sandbox's image, which is made here. Somebody may remove it: then it is made again."""
        if not self._architecture:
            self._architecture = str((await self._client.get("info"))["Architecture"])
        if not sandbox_program.has_program(self._architecture):
            raise EngineError(f"there is no sandbox for pods of several containers on {self._architecture}")
        repository, tag = sandbox_program.image_name(self._architecture)
        name = f"{repository}:{tag}"
        async with self._pulling.setdefault(name, asyncio.Lock()):
            if found := await self._find(name):
                return str(found["Id"])
            # The engine's own word for the processor is not an image's; it takes an import's for its own.
            archive = sandbox_program.archive(self._architecture)
            params = {"fromSrc": "-", "repo": repository, "tag": tag}
            answer = await self._client.post("images/create", params=params, body=archive, deadline_s=SLOW_S)
            found = await self._find(name)
        if found is None:
            raise EngineError(f"the image of the sandbox cannot be made: {answer}")
        log.info("sandbox_image.made", image=name, image_id=found["Id"])
        return str(found["Id"])

    async def prune(self, *, keep: frozenset[str], target_bytes: int) -> int:
        """See `Runtime.prune_images`."""
        containers = await self._client.get("containers/json", params={"all": True})
        used = {row["ImageID"] for row in containers}
        freed_bytes = 0
        for image in self._pulled.oldest_first():
            if freed_bytes >= target_bytes:
                break
            found = await self._find(image.id)
            if found is None:
                self._pulled.discard(image.id)
            elif image.id not in used and not _names(found) & keep:
                freed_bytes += await self._remove(image, found)
        return freed_bytes

    async def _pull(self, name: ImageName, credentials: Mapping[str, Credential]) -> tuple[str, str]:
        before = await self._client.get("images/json")
        async with self._slots:
            log.info("image.pull_started", image=str(name))
            try:
                async with asyncio.timeout(PULL_S):
                    await self._stream_pull(name, credentials)
            except TimeoutError as error:
                raise ImageError(f"pulling {name} took more than {PULL_S:.0f} s") from error
        found = await self._find(str(name))
        if found is None:
            raise ImageError(f"{name} was pulled, and is gone again")
        if found["Id"] in self._pulled or all(found["Id"] != image["Id"] for image in before):
            self._pulled.add(found["Id"], str(name))
        log.info("image.pulled", image=str(name), image_id=found["Id"])
        return _to_run(name, found)

    async def _stream_pull(self, name: ImageName, credentials: Mapping[str, Credential]) -> None:
        params = {"fromImage": name.name, "tag": name.digest or name.tag}
        headers = _authorization(name, credentials)
        try:
            # The head of the answer comes when the registry has answered.
            async with self._client.stream(
                "images/create", method="POST", params=params, headers=headers, deadline_s=PULL_IDLE_S
            ) as response:
                begun = b""
                while True:
                    async with asyncio.timeout(PULL_IDLE_S):
                        data = await response.content.readany()
                    if not data:
                        return
                    *lines, begun = (begun + data)[-PROGRESS_BYTES_MAX:].split(b"\n")
                    _raise_failure(name, lines)
        except RefusedError as error:
            raise ImageError(str(error)) from error
        except EngineUnavailableError as error:
            if isinstance(error.__cause__, TimeoutError):
                raise ImageError(
                    f"pulling {name}: no progress for {PULL_IDLE_S:.0f} s (is the registry reachable?)"
                ) from error
            raise

    async def _find(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._client.get(f"images/{name}/json")
        except RefusedError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def _local_by_id(self, image_id: str) -> tuple[str, str]:
        if await self._find(image_id) is None:
            raise ImageError(f"image {image_id} is not on this node, and an id cannot be pulled")
        return image_id, image_id

    async def _remove(self, image: PulledImage, found: Mapping[str, Any]) -> int:
        """Bytes freed. An image to which somebody else gave a name is theirs too, and stays."""
        tags = [str(tag) for tag in found["RepoTags"] or ()]
        if {qualify(tag) for tag in tags} - set(image.names):
            return 0
        changes: list[dict[str, str]] = []
        try:
            # The engine removes by id only what has names in one repository; so the names go first.
            for reference in (*tags, image.id):
                changes += await self._delete(reference)
        except RefusedError as error:
            # A container was made from it just now, or another image is built on it: not unused after all.
            log.info("image.kept", image=image.names[0], reason=str(error))
            return 0
        self._pulled.discard(image.id)
        if not any(change.get("Deleted") == image.id for change in changes):
            return 0
        log.info("image.removed", image=image.names[0], image_id=image.id)
        # Layers that other images share are not freed; nobody can tell without asking for the whole disk's use.
        return int(found["Size"])

    async def _delete(self, reference: str) -> list[dict[str, str]]:
        try:
            changes: list[dict[str, str]] = await self._client.delete(f"images/{reference}")
        except RefusedError as error:
            if error.status == 404:
                return []
            raise
        return changes


def _to_run(name: ImageName, found: Mapping[str, Any]) -> tuple[str, str]:
    """(repository@digest, digest) if the image has one in this repository, else its id twice."""
    if name.digest:
        return f"{name.name}@{name.digest}", name.digest
    for reference in found["RepoDigests"] or ():
        known = parse_image_name(reference)
        if known.name == name.name:
            return f"{known.name}@{known.digest}", known.digest
    return found["Id"], found["Id"]


def _names(found: Mapping[str, Any]) -> frozenset[str]:
    references = (*(found["RepoTags"] or ()), *(found["RepoDigests"] or ()))
    return frozenset((found["Id"], *references, *(qualify(reference) for reference in references)))


def _raise_failure(name: ImageName, lines: list[bytes]) -> None:
    """The engine says 200 and then, in one of the lines, that it failed."""
    for line in lines:
        if not line.strip():
            continue
        message = json.loads(line)
        if "errorDetail" in message or "error" in message:
            detail = message.get("errorDetail") or {}
            raise ImageError(detail.get("message") or message.get("error") or f"pulling {name} failed")


def _authorization(name: ImageName, credentials: Mapping[str, Credential]) -> dict[str, str]:
    credential = credentials.get(name.registry)
    if credential is None:
        return {}
    address = "https://index.docker.io/v1/" if name.registry == DOCKER_HUB else name.registry
    account = {
        "username": credential.username,
        "password": credential.password,
        "serveraddress": address,
    }
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(account).encode()).decode()}
