"""Which image a pod really runs: a tag is resolved once per revision, and then stays.

Failover must not need the registry. So what a revision of this node was resolved to is kept, and
a node that has the image pulls nothing. `Always` (and `:latest`) asks the registry for the first
pod of a revision only; if the registry cannot be reached, or fails, the image that is here is
used, with a warning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from agent.journal import Journal
from agent.runtime.image_name import DOCKER_HUB, is_image_id, parse_image_name, qualify
from agent.runtime.port import Credential, ImageError, Runtime
from bayplan.transport.port import Contact, Transport

log = structlog.get_logger(__name__)

# A registry of the same site answers in milliseconds, one across an ocean in 300.
CONTACT_TIMEOUT_S = 1.0
# How long a registry that did not answer is not tried again while the image is here.
SILENCE_REMEMBERED_S = 10.0
# Fifty pods of one revision that start together need not look for its image fifty times.
PRESENCE_REMEMBERED_S = 5.0
_HTTPS_PORT = 443
_HUB_HOST = "registry-1.docker.io"
# The registry itself has spoken: what it says is the truth, and the image that is here is not wanted.
_REGISTRY_SPOKE = (
    "not found",
    "manifest unknown",
    "denied",
    "unauthorized",
    "authentication required",
    "no basic auth",
    "no matching manifest",
    "digest",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What to run, and how it is identified."""

    reference: str
    digest: str


class Images:
    """One per agent."""

    def __init__(self, runtime: Runtime, transport: Transport, journal: Journal) -> None:
        self._runtime = runtime
        self._transport = transport
        self._journal = journal
        self.credentials: Mapping[str, Credential] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._silent_until_s: dict[str, float] = {}  # By registry.
        # By revision. An image that is removed meanwhile is noticed by creating the container.
        self._present_until_s: dict[str, float] = {}

    async def resolve(self, *, workload_uid: str, revision: str, image: str, policy: str) -> Image:
        """Make the image of a revision present. Raises EngineError."""
        key = f"{workload_uid}/{revision}/{image}"
        # Fifty pods of one revision ask once, not fifty times.
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                return await self._resolve(key, image, policy)
        finally:
            if not lock.locked():
                self._locks.pop(key, None)

    async def _resolve(self, key: str, image: str, policy: str) -> Image:
        known = self._journal.facts.images.get(key)
        if known is not None:
            now_s = asyncio.get_running_loop().time()
            if now_s < self._present_until_s.get(key, 0.0):
                return Image(reference=known[0], digest=known[1])
            try:
                present = await self._ensure(known[0], "IfNotPresent" if policy != "Never" else "Never")
            except ImageError as error:
                log.warning("image.lost", image=image, was=known[0], error=str(error))
            else:
                current = {one: until_s for one, until_s in self._present_until_s.items() if now_s < until_s}
                self._present_until_s = current | {key: now_s + PRESENCE_REMEMBERED_S}
                return present
        name = qualify(image, self._journal.facts.default_registry)
        resolved = await self._ensure_always(name) if policy == "Always" else await self._ensure(name, policy)
        self._journal.facts.images[key] = (resolved.reference, resolved.digest)
        self._journal.touch()
        log.info("image.resolved", image=image, reference=resolved.reference, digest=resolved.digest)
        return resolved

    async def _ensure_always(self, name: str) -> Image:
        """Pull; but a registry that is out of reach must not keep a pod from an image that is here."""
        local = await self._local(name)
        if local is None or is_image_id(name):
            return await self._ensure(name, "Always")
        registry = parse_image_name(name).registry
        # The engine itself would wait half a minute for a registry whose host is gone.
        if not await self._is_in_reach(registry):
            log.warning("image.not_checked", image=name, why=f"registry {registry} cannot be reached")
            return local
        try:
            return await self._ensure(name, "Always")
        except ImageError as error:
            if any(words in str(error).lower() for words in _REGISTRY_SPOKE):
                raise
            log.warning("image.not_checked", image=name, why=str(error))
            return local

    async def _local(self, name: str) -> Image | None:
        try:
            return await self._ensure(name, "Never")
        except ImageError:
            return None

    async def _ensure(self, name: str, policy: str) -> Image:
        reference, digest = await self._runtime.ensure_image(
            name, policy=policy, credentials=self.credentials
        )
        return Image(reference=reference, digest=digest)

    async def _is_in_reach(self, registry: str) -> bool:
        """Whether the registry's host answers, remembered for some seconds if not."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._silent_until_s.get(registry, 0.0):
            return False
        host, colon, port = registry.rpartition(":")
        if not colon or not port.isdecimal():
            host, port = registry, str(_HTTPS_PORT)
        if host == DOCKER_HUB:
            host = _HUB_HOST
        contact = await self._transport.contact(host.strip("[]"), int(port), timeout_s=CONTACT_TIMEOUT_S)
        if contact is Contact.ANSWERED:
            self._silent_until_s.pop(registry, None)
            return True
        self._silent_until_s[registry] = loop.time() + SILENCE_REMEMBERED_S
        return False
