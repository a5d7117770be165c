"""What a user may name on the command line: `deploy`, `deployments.apps`, `deploy/web`.

A table of its own beside bayplan.resources.kinds, because that one needs pydantic, which takes
longer to import than a completion may take. A test keeps the two equal.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from bayplan.cli.failures import CommandError
from bayplan.cli.text import clean


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of thing."""

    name: str  # As in documents: Deployment.
    full_name: str  # As kubectl prints it: deployment.apps.
    words: tuple[str, ...]  # What users type for it; the first is the plural.
    is_document: bool = False
    is_namespaced: bool = True


DEPLOYMENT = Kind(
    name="Deployment",
    full_name="deployment.apps",
    words=("deployments", "deployment", "deploy", "deployments.apps", "deployment.apps", "deploy.apps"),
    is_document=True,
)
SERVICE = Kind(name="Service", full_name="service", words=("services", "service", "svc"), is_document=True)
POD = Kind(name="Pod", full_name="pod", words=("pods", "pod", "po"))
NODE = Kind(name="Node", full_name="node", words=("nodes", "node", "no"), is_namespaced=False)
EVENT = Kind(name="Event", full_name="event", words=("events", "event", "ev"))

KINDS = (DEPLOYMENT, SERVICE, POD, NODE, EVENT)
WORKLOADS = (DEPLOYMENT,)

# What `bay get all` shows, in this order.
ALL = (POD, SERVICE, DEPLOYMENT)


def find(word: str) -> Kind:
    """The kind that `word` means. Raises CommandError that names what is near."""
    lower = word.lower()
    for kind in KINDS:
        if lower in kind.words:
            return kind
    known = [kind.words[0] for kind in KINDS]
    near = difflib.get_close_matches(lower, [word for kind in KINDS for word in kind.words], n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(known)}."
    raise CommandError(f'there is no kind "{clean(word)}". {hint}')


def of_document(name: str) -> Kind:
    """The kind named as in documents; one made up for those that this version does not know."""
    for kind in KINDS:
        if kind.name == name:
            return kind
    return Kind(name=name, full_name=name.lower(), words=(name.lower(),), is_document=True)


def display(kind: str, name: str) -> str:
    """As kubectl prints it: `deployment.apps/web`."""
    return f"{of_document(kind).full_name}/{clean(name)}"


@dataclass(frozen=True, slots=True)
class Reference:
    """A thing that was named; without a name: every one of the kind."""

    kind: Kind
    name: str = ""


def references(words: Sequence[str]) -> list[Reference]:
    """`deploy web api`, `deploy/web svc/web`, `deploy,svc`, `all` → what they mean."""
    if not words:
        raise CommandError("name a kind, for example: bay get pods")
    if any("/" in word for word in words):
        return [reference(word) for word in words]
    kinds: list[Kind] = []
    for word in words[0].split(","):
        kinds += ALL if word.lower() == "all" else (find(word),)
    return [Reference(kind, name) for kind in kinds for name in (words[1:] or [""])]


def reference(word: str, *, default: Kind | None = None) -> Reference:
    """`deploy/web`; a bare name means one of `default`, if there is one."""
    kind, slash, name = word.partition("/")
    if not slash:
        if default is None:
            raise CommandError(f'write "{clean(word)}" as KIND/NAME, for example deploy/{clean(word)}')
        return Reference(default, word)
    if not name:
        raise CommandError(f'"{clean(word)}" names nothing')
    return Reference(find(kind), name)


def kind_and_name(words: Sequence[str], *, default: Kind | None = None) -> Reference:
    """Exactly one thing: `deploy/web`, `deploy web`, or a bare name of `default`."""
    match words:
        case [word]:
            return reference(word, default=default)
        case [kind, name] if "/" not in kind:
            return Reference(find(kind), name)
    raise CommandError("name one thing: KIND/NAME or KIND NAME")


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str: ...


_Item = TypeVar("_Item", bound=Named)


def pick(items: Iterable[_Item], wanted: str, kind: Kind) -> _Item:
    """The item named `wanted`, or the only one whose name begins so. Raises CommandError."""
    found = list(items)
    for item in found:
        if item.name == wanted:
            return item
    found = [item for item in found if item.name.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise CommandError(f'{kind.full_name} "{clean(wanted)}" not found')
    names = ", ".join(sorted(clean(item.name) for item in found)[:5]) + (", …" if len(found) > 5 else "")
    raise CommandError(f'"{clean(wanted)}" fits {len(found)} {kind.words[0]}: {names}')
