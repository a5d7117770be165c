"""What a user may name on the command line: `deploy`, `deployments.apps`, `deploy/web`.

The kinds of documents, and events, which exist only here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from bayplan.cli.failures import CommandError
from bayplan.cli.text import clean
from bayplan.resources import kinds as documents
from bayplan.resources.kinds import Kind

if TYPE_CHECKING:
    from bayplan.client import Pod

DEPLOYMENT = documents.KINDS["Deployment"]
SERVICE = documents.KINDS["Service"]
ENDPOINTS = documents.KINDS["Endpoints"]
INGRESS = documents.KINDS["Ingress"]
SECRET = documents.KINDS["Secret"]
POD = documents.KINDS["Pod"]
NODE = documents.KINDS["Node"]
EVENT = Kind(name="Event", plural="events", short_names=("ev",), api_version="v1", is_applied=False)

KINDS = (*documents.KINDS.values(), EVENT)
WORKLOADS = (DEPLOYMENT,)

# What `bay get all` shows, in this order.
ALL = (POD, SERVICE, INGRESS, DEPLOYMENT)


def find(word: str) -> Kind:
    """The kind that `word` means. Raises CommandError that names what is near."""
    lower = word.lower()
    for kind in KINDS:
        if lower in kind.words:
            return kind
    import difflib  # Only who mistypes waits for it.

    known = [kind.plural for kind in KINDS]
    near = difflib.get_close_matches(lower, [word for kind in KINDS for word in kind.words], n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(known)}."
    raise CommandError(f'there is no kind "{clean(word)}". {hint}')


def of_document(name: str) -> Kind:
    """The kind named as in documents; one made up for those that this version does not know."""
    for kind in KINDS:
        if kind.name == name:
            return kind
    return Kind(name=name, plural=f"{name.lower()}s", short_names=(), api_version="v1")


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


def pick_pod(pods: Sequence[Pod], wanted: str) -> Pod:
    """As `pick`, but an earlier attempt is only meant where no present pod is. Raises CommandError."""
    if not any(pod.name == wanted for pod in pods):
        pods = [pod for pod in pods if pod.current and pod.name.startswith(wanted)] or pods
    return pick(pods, wanted, POD)


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
    raise CommandError(f'"{clean(wanted)}" fits {len(found)} {kind.plural}: {names}')
