"""Who called: set by the gate in front of every method, asked by the methods."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import cast

from bayplan.identity.names import Kind
from bayplan.model.names import is_name
from bayplan.v1 import callers_pb2

UNCHECKED = "unchecked"


class DeniedError(Exception):
    """The caller may not do this. The text says who it is, and what is needed."""


@dataclass(slots=True, kw_only=True)
class Caller:
    """Of one call. A method adds what it learns: `target`, for the record of the call."""

    kind: str  # A Kind, "" for nobody, or UNCHECKED where there are no certificates at all.
    name: str = ""
    identity: str = ""
    generation: int = 0  # Of the certificate.
    expires_ms: int = 0  # The certificate.
    role: int = callers_pb2.ROLE_UNSPECIFIED
    via: str = ""  # Manager that passed the call on,
    via_generation: int = 0  # and of its certificate.
    address: str = ""
    target: str = ""
    denied: str = field(default="", init=False)  # Why a method refused what the gate had let in.

    @property
    def words(self) -> str:
        """For messages."""
        return f"{self.kind} {self.name}" if self.kind else "somebody without a certificate"


_caller: ContextVar[Caller] = ContextVar("caller", default=Caller(kind=UNCHECKED))  # noqa: B039 - never written to


def current_caller() -> Caller:
    """Of the call that is being served; unchecked where no gate stands before the methods."""
    return _caller.get()


def set_caller(caller: Caller) -> None:
    """For the rest of this call's task."""
    _caller.set(caller)


# Set by a manager that passes a call on: for whom. Believed of managers alone.
ON_BEHALF_OF = "bayplan-on-behalf-of"


def on_behalf() -> tuple[tuple[str, str], ...]:
    """Metadata for passing the present call on to another manager."""
    caller = _caller.get()
    if not caller.identity:
        return ()
    return ((ON_BEHALF_OF, f"{caller.identity}#{caller.generation}"),)


def may_pass_on() -> bool:
    """Whether the present call came through another manager, which is to be believed."""
    caller = _caller.get()
    return caller.kind == UNCHECKED or bool(caller.via)


def note_target(target: str) -> None:
    """What the call is about, for its record."""
    caller = _caller.get()
    if caller.kind != UNCHECKED:
        caller.target = target


def require_role(role: int, what: str) -> None:
    """Raises DeniedError unless the caller is a user with this role or one above it.

    Args:
        role: a value of callers_pb2.Role.
        what: "reading secrets".
    """
    caller = _caller.get()
    if caller.kind != UNCHECKED and caller.role < role:
        raise _denied(f"{caller.name} is {role_words(caller.role)}: {what} needs the role {role_name(role)}")


def require_node(node: str) -> None:
    """Raises DeniedError unless the caller is this node."""
    caller = _caller.get()
    if caller.kind != UNCHECKED and (caller.kind != Kind.NODE or caller.name != node):
        claimed = node if is_name(node) else repr(node[:80])
        raise _denied(f"the certificate of {caller.words} cannot speak for node {claimed}")


def _denied(why: str) -> DeniedError:
    _caller.get().denied = why
    return DeniedError(why)


def role_of(number: int) -> callers_pb2.Role:
    """As the generated code has it."""
    return cast("callers_pb2.Role", number)


def role_name(role: int) -> str:
    """`viewer` of ROLE_VIEWER; empty for none."""
    is_one = role and role in callers_pb2.Role.values()
    return callers_pb2.Role.Name(role_of(role)).removeprefix("ROLE_").lower() if is_one else ""


def role_words(role: int) -> str:
    """`an admin`, `a viewer`, `no user`."""
    name = role_name(role)
    return f"{'an' if name[:1] in 'ao' else 'a'} {name}" if name else "no user"
