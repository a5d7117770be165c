"""What nodes pull images with: set, deleted and listed by any manager, told to agents by the leader.

Passwords come in and never go out here: agents alone are told them, over their streams.
"""

# ruff: noqa: N802 - gRPC names the methods
from __future__ import annotations

import re
from collections.abc import Callable

import structlog

from bayplan.v1 import control_pb2 as api
from bayplan.v1 import control_pb2_grpc
from manager.control_api.calls import Context, abort
from manager.control_api.documents import NotFoundError
from manager.errors import RefusedError
from manager.store.port import Compare, DeleteKey, Field, Store
from manager.store.records import DamagedRecordError
from manager.store.registries import (
    REGISTRIES,
    RegistryLogin,
    decode_login,
    encode_login,
    parse_registry_key,
    registry_key,
)
from manager.store.swap import retried, swap

log = structlog.get_logger(__name__)

# What the agents find in names of images (agent/runtime/image_name.py). With the host's own limit the
# key stays short enough also where every character takes three.
_HOST_PART = r"[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?"
_REGISTRY = re.compile(rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_REGISTRY_MAX = 253

# Tokens of cloud registries have a few KiB.
_LOGIN_MAX = 64 * 1024

# Docker Hub has three names; names of images without a registry mean this one.
_DOCKER_HUB = "docker.io"
_DOCKER_HUBS = frozenset({"index.docker.io", "registry-1.docker.io", _DOCKER_HUB})


def registry_named(text: str) -> str:
    """The registry that `text` means: a host, or what Docker's config.json calls it. Raises RefusedError."""
    host = text.removeprefix("https://").removeprefix("http://").partition("/")[0]
    if host in _DOCKER_HUBS:
        return _DOCKER_HUB
    if len(host) > _REGISTRY_MAX or not _REGISTRY.fullmatch(host):
        raise RefusedError(f"{text[:80]!r} is no registry: write its host, or host:port")
    return host


class Registries:
    """Reads and writes the logins in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, registry: str, login: RegistryLogin) -> tuple[str, int]:
        """Add or change one; returns (created, configured or unchanged; version)."""
        key = registry_key(registry)

        async def attempt() -> tuple[str, int] | None:
            found = await self._store.get(key)
            value = encode_login(login)
            if found is not None and found.value == value:
                return "unchanged", found.mod_revision
            written = await swap(
                self._store, key, value, version=found.mod_revision if found is not None else 0
            )
            return None if written is None else ("created" if found is None else "configured", written)

        return await retried(f"registry {registry}", attempt)

    async def remove(self, registry: str) -> int:
        """Delete one; returns the store's revision. Raises NotFoundError."""
        key = registry_key(registry)

        async def attempt() -> int | None:
            found = await self._store.get(key)
            if found is None:
                raise NotFoundError(f"there is no login for registry {registry}")
            guard = Compare(key=key, field=Field.MOD_REVISION, to=found.mod_revision)
            result = await self._store.txn([guard], [DeleteKey(key=key)])
            return result.revision if result.succeeded else None

        return await retried(f"registry {registry}", attempt)

    async def list_all(self) -> tuple[list[tuple[str, str]], int]:
        """(registry, user name) of each, and the store's revision."""
        listing = await self._store.list(REGISTRIES)
        found: list[tuple[str, str]] = []
        for item in listing.items:
            registry = parse_registry_key(item.key)
            if registry is None:
                continue
            try:
                found.append((registry, decode_login(item.value).username))
            except DamagedRecordError:
                continue  # The leader warns of it.
        return sorted(found), listing.revision


class RegistryMethods(control_pb2_grpc.ControlServicer):
    """The API's methods about registries."""

    def __init__(self, store: Store, mark: Callable[[int], api.Mark]) -> None:
        self._registries = Registries(store)
        self._mark = mark

    async def SetRegistry(self, request: api.SetRegistryRequest, context: Context) -> api.SetRegistryReply:
        """Add or change what nodes show to a registry. Whether the registry takes it is not tried here."""
        try:
            registry = registry_named(request.registry)
            login = _login(request)
            result, version = await self._registries.put(registry, login)
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await abort(context, error)
        log.info("registry.set", registry=registry, username=login.username, result=result)
        return api.SetRegistryReply(mark=self._mark(version), result=result, registry=registry)

    async def DeleteRegistry(
        self, request: api.DeleteRegistryRequest, context: Context
    ) -> api.DeleteRegistryReply:
        """Forget what nodes showed to a registry; images that they have stay."""
        try:
            registry = registry_named(request.registry)
            revision = await self._registries.remove(registry)
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await abort(context, error)
        log.info("registry.deleted", registry=registry)
        return api.DeleteRegistryReply(mark=self._mark(revision), registry=registry)

    async def ListRegistries(
        self, request: api.ListRegistriesRequest, context: Context
    ) -> api.ListRegistriesReply:
        """Which registries there are logins for, and by which users."""
        del request
        try:
            found, revision = await self._registries.list_all()
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await abort(context, error)
        return api.ListRegistriesReply(
            mark=self._mark(revision),
            registries=[api.Registry(registry=registry, username=username) for registry, username in found],
        )


def _login(request: api.SetRegistryRequest) -> RegistryLogin:
    if not request.username or not request.password:
        raise RefusedError("a login needs a user name and a password")
    if len(request.username) + len(request.password) > _LOGIN_MAX:
        raise RefusedError(f"a login may have {_LOGIN_MAX // 1024} KiB")
    return RegistryLogin(username=request.username, password=request.password)
