"""Calls about policies: what pods of a namespace may ask of their hosts."""

from __future__ import annotations

from bayplan.client.calls import Calls
from bayplan.model.policy import PolicyLevel, is_level
from bayplan.v1 import control_pb2 as control


class PolicyCalls(Calls):
    """Set and list. A namespace that has none is baseline."""

    async def set_policy(self, namespace: str, level: PolicyLevel) -> str:
        """For pods to come; those that run stay. Returns configured or unchanged. Raises: AccessDeniedError: admins may."""
        request = control.SetPolicyRequest(policy=control.Policy(namespace=namespace, level=level))
        reply = await self._ask(lambda stub: stub.SetPolicy, request)
        return reply.result

    async def policies(self) -> dict[str, PolicyLevel]:
        """By namespace, of those that have one."""
        reply = await self._ask(lambda stub: stub.ListPolicies, control.ListPoliciesRequest())
        return {each.namespace: each.level for each in reply.policies if is_level(each.level)}
