"""Calls about registries: what nodes pull images with."""

from __future__ import annotations

from bayplan.client.calls import Calls
from bayplan.client.managers import RepeatedNotFoundError
from bayplan.client.types import Registry, RegistryChange
from bayplan.v1 import control_pb2 as control


class RegistryCalls(Calls):
    """Set, delete, list. Passwords go in and never come out."""

    async def set_registry(self, registry: str, *, username: str, password: str) -> RegistryChange:
        """Have nodes show this user name and password to a registry (host, or host:port); whether it takes them is not tried.

        Raises: ForbiddenStateError for what is no registry, or empty.
        """
        request = control.SetRegistryRequest(registry=registry, username=username, password=password)
        reply = await self._ask(lambda stub: stub.SetRegistry, request)
        return RegistryChange(registry=reply.registry, result=reply.result)

    async def delete_registry(self, registry: str) -> str:
        """Have nodes forget it; returns the registry's name as it was stored. Raises: NotFoundError."""
        request = control.DeleteRegistryRequest(registry=registry)
        try:
            reply = await self._ask(lambda stub: stub.DeleteRegistry, request)
        except RepeatedNotFoundError:
            return registry  # The first attempt did it, its answer was lost.
        return reply.registry

    async def registries(self) -> tuple[Registry, ...]:
        """Every registry that nodes have a login for."""
        reply = await self._ask(lambda stub: stub.ListRegistries, control.ListRegistriesRequest())
        return tuple(Registry(registry=each.registry, username=each.username) for each in reply.registries)
