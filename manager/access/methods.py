"""What proto/ says of every method: who may call it. A method that says nothing is a fault found at start."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from bayplan.v1 import callers_pb2
from manager.access.caller import role_name

# Not ours, so they can carry no option: health is for load balancers, reflection for everybody who is known.
FOREIGN = {
    "/grpc.health.v1.Health/Check": callers_pb2.Callers(anyone=True),
    "/grpc.health.v1.Health/Watch": callers_pb2.Callers(anyone=True),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": callers_pb2.Callers(
        node=True, manager=True, user=callers_pb2.ROLE_VIEWER
    ),
}

# Fields by which requests name what they are about.
_NAMING = ("kind", "namespace", "node", "name", "pod", "object", "id", "registry", "method")


class UndeclaredMethodError(Exception):
    """A method in proto/ does not say who may call it."""


def callers_of(services: Iterable[ServiceDescriptor]) -> dict[str, callers_pb2.Callers]:
    """Path of each method → who may call it, those of FOREIGN too. Raises UndeclaredMethodError."""
    found = dict(FOREIGN)
    for service in services:
        for method in service.methods:
            declared: Any = method.GetOptions()
            callers: callers_pb2.Callers = declared.Extensions[callers_pb2.callers]
            if callers == callers_pb2.Callers():
                raise UndeclaredMethodError(
                    f"{service.full_name}/{method.name} does not say who may call it:"
                    " give it the option `callers` in proto/"
                )
            found[f"/{service.full_name}/{method.name}"] = callers
    return found


def words_of_callers(callers: callers_pb2.Callers) -> str:
    """`operators and admins`, `nodes`."""
    roles = [role for role in (1, 2, 3) if callers.user and role >= callers.user]
    names = [f"{role_name(role)}s" for role in roles]
    names += ["nodes"] * callers.node + ["managers"] * callers.manager
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def target_of(request: Any) -> str:
    """What a request is about, from the fields that name it; empty for a stream."""
    if not isinstance(request, Message):
        return ""
    named = request.DESCRIPTOR.fields_by_name
    parts = [getattr(request, name) for name in _NAMING if name in named]
    return "/".join(part for part in parts if isinstance(part, str) and part)
