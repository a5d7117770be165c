"""What pods of a namespace may ask of their hosts: set by admins, checked whenever a document is applied.

Agents check again, with what the leader says of the policy at the time.
"""

# ruff: noqa: N802 - gRPC names the methods
from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from bayplan.model.names import is_name
from bayplan.model.policy import PolicyLevel, asked_of_host, is_level
from bayplan.resources.document import Resource
from bayplan.resources.pods import template_json
from bayplan.resources.workloads import Deployment
from bayplan.v1 import control_pb2 as api
from bayplan.v1 import control_pb2_grpc
from manager.control_api.calls import Context, abort
from manager.errors import RefusedError
from manager.store import keys
from manager.store.port import Store
from manager.store.swap import retried, swap

log = structlog.get_logger(__name__)


class Policies:
    """Reads and writes them in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def level(self, namespace: str) -> PolicyLevel:
        """Of a namespace, now."""
        found = await self._store.get(keys.policy(namespace))
        level = found.value.decode(errors="replace") if found is not None else ""
        return level if is_level(level) else "baseline"

    async def put(self, namespace: str, level: PolicyLevel) -> tuple[str, int]:
        """Returns (configured or unchanged, version)."""
        key, value = keys.policy(namespace), level.encode()

        async def attempt() -> tuple[str, int] | None:
            found = await self._store.get(key)
            if found is not None and found.value == value:
                return "unchanged", found.mod_revision
            written = await swap(
                self._store, key, value, version=found.mod_revision if found is not None else 0
            )
            return None if written is None else ("configured", written)

        return await retried(f"the policy of namespace {namespace}", attempt)

    async def list_all(self) -> tuple[list[tuple[str, PolicyLevel]], int]:
        """(namespace, level) of each that has one, and the store's revision."""
        listing = await self._store.list(keys.POLICIES)
        found: list[tuple[str, PolicyLevel]] = []
        for item in listing.items:
            namespace, level = keys.parse_policy(item.key), item.value.decode(errors="replace")
            if namespace is not None and is_level(level):
                found.append((namespace, level))
        return found, listing.revision

    async def problems(self, resources: Iterable[tuple[int, Resource]]) -> list[tuple[int, str, str]]:
        """What documents ask of their hosts and may not: (position, path, message)."""
        problems: list[tuple[int, str, str]] = []
        for position, resource in resources:
            if not isinstance(resource, Deployment):
                continue
            asked = asked_of_host(template_json(resource.spec.template))
            namespace = resource.metadata.namespace
            if asked and await self.level(namespace) != "privileged":
                words = (
                    f"namespace {namespace} has the policy baseline, which refuses this;"
                    f" an admin can allow it: bay policy set {namespace} privileged"
                )
                problems += [(position, f"spec.template.{path}", words) for path in asked]
        return problems


class PolicyMethods(control_pb2_grpc.ControlServicer):
    """The API's methods about policies."""

    def __init__(self, store: Store, mark: Callable[[int], api.Mark]) -> None:
        super().__init__()
        self.policies = Policies(store)
        self._mark_policy = mark

    async def SetPolicy(self, request: api.SetPolicyRequest, context: Context) -> api.SetPolicyReply:
        """Pods that run stay as they are; new ones are judged by it."""
        policy = request.policy
        try:
            if not is_name(policy.namespace):
                raise RefusedError(f"{policy.namespace[:80]!r} is no namespace")  # noqa: TRY301
            if not is_level(policy.level):
                raise RefusedError(f"{policy.level[:80]!r} is no policy: baseline or privileged")  # noqa: TRY301
            result, version = await self.policies.put(policy.namespace, policy.level)
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await abort(context, error)
        log.info("policy.set", namespace=policy.namespace, level=policy.level, result=result)
        return api.SetPolicyReply(mark=self._mark_policy(version), result=result)

    async def ListPolicies(self, request: api.ListPoliciesRequest, context: Context) -> api.ListPoliciesReply:
        """Namespaces that have one."""
        del request
        try:
            found, revision = await self.policies.list_all()
        except Exception as error:  # noqa: BLE001 - every error becomes a status code
            await abort(context, error)
        return api.ListPoliciesReply(
            mark=self._mark_policy(revision),
            policies=[api.Policy(namespace=namespace, level=level) for namespace, level in found],
        )
