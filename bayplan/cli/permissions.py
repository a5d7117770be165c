"""`bay auth can-i`: kubectl's verbs as the methods that managers decide about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bayplan.cli import kinds
from bayplan.cli.failures import CommandError
from bayplan.cli.run import flush, note, say
from bayplan.cli.text import clean

if TYPE_CHECKING:
    from bayplan.client import Client

# Words for what has no kind among the documents.
_OWN_KINDS = {
    "audit": "audit",
    "ca": "ca",
    "join-token": "join-tokens",
    "join-tokens": "join-tokens",
    "keys": "keys",
    "manager": "managers",
    "managers": "managers",
    "pods/exec": "pods/exec",
    "pods/log": "pods/log",
    "registries": "registries",
    "registry": "registries",
    "user": "users",
    "users": "users",
}

# By kind; "": any other document, and none.
_READ = {
    "pods": "Control/ListPods",
    "nodes": "Control/ListNodes",
    "events": "Control/ListEvents",
    "endpoints": "Control/ListEndpoints",
    "managers": "Control/ListManagers",
    "registries": "Control/ListRegistries",
    "join-tokens": "Access/ListJoinTokens",
    "users": "Access/ListIdentities",
    "ca": "Access/ShowCa",
    "audit": "Access/ListAudit",
    "pods/log": "Control/Logs",
}
_APPLY = {"": "Control/Apply", "nodes": "Control/UpdateNode", "registries": "Control/SetRegistry"}
_NODE = {"": "Control/UpdateNode", "nodes": "Control/UpdateNode"}

VERBS: Mapping[str, Mapping[str, str]] = {
    "get": {**_READ, "": "Control/Get"},
    "describe": {**_READ, "": "Control/Get"},
    "list": {**_READ, "": "Control/List"},
    "watch": {
        "": "Control/Watch",
        "pods": "Control/WatchPods",
        "events": "Control/WatchEvents",
        "nodes": "Control/ListNodes",
        "endpoints": "Control/ListEndpoints",
    },
    "create": {
        "": "Control/Apply",
        "registries": "Control/SetRegistry",
        "join-tokens": "Access/CreateJoinToken",
        "users": "Access/CreateUser",
        "pods/exec": "Control/Exec",
    },
    "apply": _APPLY,
    "update": _APPLY,
    "patch": _APPLY,
    "delete": {
        "": "Control/Delete",
        "nodes": "Control/UpdateNode",
        "registries": "Control/DeleteRegistry",
        "join-tokens": "Access/RevokeJoinToken",
        "users": "Access/RevokeIdentity",
    },
    "revoke": {
        "join-tokens": "Access/RevokeJoinToken",
        "users": "Access/RevokeIdentity",
        "nodes": "Access/RevokeIdentity",
        "managers": "Access/RevokeIdentity",
    },
    "rotate": {"ca": "Access/RotateCa", "keys": "Access/RotateKeys"},
    "scale": {"": "Control/Scale"},
    "exec": {"": "Control/Exec", "pods": "Control/Exec"},
    "logs": {"": "Control/Logs", "pods": "Control/Logs", "nodes": "Control/Logs"},
    "why": {"": "Control/Why", "pods": "Control/Why"},
    "drain": _NODE,
    "cordon": _NODE,
    "uncordon": _NODE,
    "label": _NODE,
    "taint": _NODE,
    "adopt": {"": "Control/Adopt"},
    "accept-restore": {"": "Control/AcceptRestore"},
}


def method_of(verb: str, kind: str = "") -> str:
    """`scale deploy` → bayplan.v1.Control/Scale. A method's own name stays. Raises CommandError."""
    if "/" in verb or verb[:1].isupper():
        if kind:
            raise CommandError("a method stands alone, without a kind", exit_code=2)
        return verb
    methods = VERBS.get(verb)
    if methods is None:
        raise CommandError(
            f'there is no verb "{clean(verb)}". Known are {", ".join(sorted(VERBS))},'
            " and the names of methods, such as Scale",
            exit_code=2,
        )
    plural = _plural(kind) if kind else ""
    found = methods.get(plural)
    if found is None and not _is_own(plural):
        found = methods.get("")
    if found is None:
        fitting = ", ".join(sorted(each for each in methods if each)) or "no kind"
        raise CommandError(f'"{verb}" goes with {fitting}, not with "{clean(kind)}"', exit_code=2)
    return f"bayplan.v1.{found}"


def _plural(word: str) -> str:
    own = _OWN_KINDS.get(word.lower())
    if own is not None:
        return own
    try:
        return kinds.find(word).plural
    except CommandError as error:
        raise CommandError(str(error), exit_code=2) from error


def _is_own(plural: str) -> bool:
    """What is no document is not applied, scaled or deleted like one."""
    return plural in _OWN_KINDS.values() or any(
        kind.plural == plural and not kind.is_applied for kind in kinds.KINDS
    )


async def can_i(client: Client, verb: str, kind: str) -> None:
    """yes or no on stdout, why on stderr; ends with 1 for no."""
    answer = await client.can_i(method_of(verb, kind))
    say("yes" if answer.allowed else "no")
    flush()
    if not answer.allowed:
        if answer.why:
            note(clean(answer.why))
        raise CommandError("")
