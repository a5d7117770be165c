"""What TAB offers: kinds, and the names that the cluster knows, if it says so at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING

import typer

from bayplan.cli import kinds
from bayplan.transport.addresses import addresses

if TYPE_CHECKING:
    from bayplan.client import Client

# A TAB that takes longer is worse than one that offers nothing.
_TIMEOUT_S = 0.15


def things(ctx: typer.Context, incomplete: str) -> list[str]:
    """KIND, KIND/NAME, or a NAME after its KIND."""
    words = ctx.params.get("things") or []
    if "/" in incomplete:
        word = incomplete.partition("/")[0]
        return _begin([f"{word}/{name}" for name in _names(ctx, word)], incomplete)
    if words and "/" not in words[0]:
        return _begin(_names(ctx, words[0].split(",")[0]), incomplete)
    return _begin([*(kind.plural for kind in kinds.KINDS), "all"], incomplete)


def workloads(ctx: typer.Context, incomplete: str) -> list[str]:
    """deploy/NAME."""
    return _begin([f"deploy/{name}" for name in _names(ctx, "deploy")], incomplete)


def pods(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of pods."""
    return _begin(_names(ctx, "pods"), incomplete)


def sources(ctx: typer.Context, incomplete: str) -> list[str]:
    """What has logs: pods, workloads, nodes."""
    word = incomplete.partition("/")[0] if "/" in incomplete else ""
    if word:
        return _begin([f"{word}/{name}" for name in _names(ctx, word)], incomplete)
    return _begin([*_names(ctx, "pods"), "deploy/", "node/"], incomplete)


def nodes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of nodes."""
    return _begin(_names(ctx, "nodes"), incomplete)


def namespaces(ctx: typer.Context, incomplete: str) -> list[str]:
    """Namespaces that hold anything."""

    async def ask(client: Client) -> list[str]:
        return ["default", *(document.namespace for document in await client.list())]

    return _begin(set(_asked(ctx, ask)), incomplete)


def registries(ctx: typer.Context, incomplete: str) -> list[str]:
    """Registries that nodes have a login for."""

    async def ask(client: Client) -> list[str]:
        return [each.registry for each in await client.registries()]

    return _begin(_asked(ctx, ask), incomplete)


def contexts(incomplete: str) -> list[str]:
    """Names of contexts."""
    from bayplan.client import ContextError
    from bayplan.client.contexts import config_file, read_config

    try:
        return _begin(read_config(config_file()).contexts, incomplete)
    except ContextError:
        return []


def rejoin_words(environment: MutableMapping[str, str]) -> None:
    """Put together what bash cut: `127.0.0.1:7400` and `a=b` come as three words each.

    Its list of words cannot tell them from `a = b`, which means nothing here.
    """
    words = environment.get("COMP_WORDS", "").split("\n")
    current = environment.get("COMP_CWORD", "")
    if not current.isdecimal():
        return
    joined: list[str] = []
    place = 0
    is_glued = False
    for index, word in enumerate(words):
        is_cut = word in {":", "="} and bool(joined)
        if is_cut or is_glued:
            joined[-1] += word
        else:
            joined.append(word)
        is_glued = is_cut
        if index == int(current):
            place = len(joined) - 1
    environment["COMP_WORDS"], environment["COMP_CWORD"] = "\n".join(joined), str(place)


def _begin(words: Iterable[str], incomplete: str) -> list[str]:
    return sorted(word for word in words if word.startswith(incomplete))


def _names(ctx: typer.Context, word: str) -> list[str]:
    """Names of one kind; none if the cluster does not answer at once, whatever the reason."""
    from bayplan.cli.failures import CommandError

    try:
        kind = kinds.find(word)
    except CommandError:
        return []
    namespace = str(ctx.params.get("namespace") or "default")

    async def ask(client: Client) -> list[str]:
        if kind is kinds.POD:
            return [pod.name for pod in await client.pods(namespace=namespace)]
        if kind is kinds.NODE:
            return [node.name for node in await client.nodes()]
        if kind is kinds.ENDPOINTS:
            return [service.name for service in await client.endpoints(namespace=namespace)]
        return [document.name for document in await client.list(kind.name, namespace=namespace)]

    return _asked(ctx, ask)


def _asked(ctx: typer.Context, ask: Callable[[Client], Awaitable[list[str]]]) -> list[str]:
    import asyncio

    from bayplan.client import BayplanError, Client

    # While completing, the callback that reads the settings does not run.
    given = ctx.find_root().params

    async def main() -> list[str]:
        client = Client.from_context(
            given.get("context"),
            managers=addresses(given.get("managers") or ""),
            timeout_s=_TIMEOUT_S,
            may_renew=False,
        )
        async with client, asyncio.timeout(_TIMEOUT_S):
            return await ask(client)

    try:
        return asyncio.run(main())
    except (BayplanError, TimeoutError, OSError, ValueError):
        return []
