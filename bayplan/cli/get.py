"""`bay get`: what there is, once or as it changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bayplan.cli import columns, kinds, shapes
from bayplan.cli.failures import CommandError
from bayplan.cli.run import flush, note, say
from bayplan.cli.text import Table, clean

if TYPE_CHECKING:
    from bayplan.client import Client, Document, ServiceEndpoints
    from bayplan.resources.kinds import Kind

# Nodes and endpoints have no watch of their own.
_LOOK_EVERY_S = 1.0

_HIDDEN = "note: values are hidden; --show-secrets shows them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to print, and how."""

    references: Sequence[kinds.Reference]
    namespace: str  # Empty: every one.
    selector: Mapping[str, str]
    output: str = ""
    quiet: bool = False
    with_headers: bool = True
    show_secrets: bool = False


async def get(client: Client, query: Query) -> None:
    """Print what `query` asks for, grouped by kind."""
    if query.selector and any(reference.name for reference in query.references):
        raise CommandError("a name and a selector exclude each other")
    _check_secrets(query)
    found: dict[str, tuple[Kind, list[Any]]] = {}
    for reference in query.references:
        items = await _items(client, reference, query)
        found.setdefault(reference.kind.name, (reference.kind, []))[1].extend(items)

    if query.output in {"json", "yaml"}:
        shaped = [columns.of_kind(kind).shape(item) for kind, items in found.values() for item in items]
        single = len(query.references) == 1 and bool(query.references[0].name)
        say(shapes.text_of(shaped, output=query.output, single=single))
        if any(_is_hidden(item) for kind, items in found.values() if kind is kinds.SECRET for item in items):
            note(_HIDDEN)
        return
    groups = [(kind, items) for kind, items in found.values() if items]
    if not groups:
        note(
            "No resources found."
            if not query.namespace
            else f"No resources found in {query.namespace} namespace."
        )
    for number, (kind, items) in enumerate(groups):
        if number and not _is_names(query):
            say()
        for line in _lines(kind, items, query, several=len(found) > 1):
            say(line)


def _check_secrets(query: Query) -> None:
    if query.show_secrets and query.output not in {"json", "yaml"}:
        raise CommandError("--show-secrets shows values, which only -o yaml and -o json do", exit_code=2)


def _is_hidden(document: Document) -> bool:
    annotations = (document.body.get("metadata") or {}).get("annotations") or {}
    return "bayplan.io/hidden" in annotations and bool(document.body.get("data"))


def _is_names(query: Query) -> bool:
    return query.quiet or query.output == "name"


def _lines(kind: Kind, items: Sequence[Any], query: Query, *, several: bool) -> list[str]:
    view = columns.of_kind(kind)
    if query.quiet:
        return [clean(view.bare_name(item)) for item in items]
    if query.output == "name":
        return [clean(view.name(item)) for item in items]
    return _table(view, items, query, several=several).lines(with_headers=query.with_headers)


def _table(view: columns.View[Any], items: Sequence[Any], query: Query, *, several: bool = False) -> Table:
    headers, _ = _row(view, None, query, several=several)
    return Table(headers, [_row(view, item, query, several=several)[1] for item in items])


def _row(
    view: columns.View[Any], item: Any, query: Query, *, several: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(headers, cells of `item`). Of several kinds together the names say which kind."""
    headers = view.headers + (view.wide_headers if query.output == "wide" else ())
    with_namespace = not query.namespace and view.namespace is not None
    if with_namespace:
        headers = ("NAMESPACE", *headers)
    if item is None:
        return headers, ()
    cells = view.row(item) + (view.wide_row(item) if query.output == "wide" else ())
    if several and view.headers[0] == "NAME":
        cells = (view.name(item), *cells[1:])
    if with_namespace and view.namespace is not None:
        cells = (view.namespace(item), *cells)
    return headers, cells


async def _items(client: Client, reference: kinds.Reference, query: Query) -> list[Any]:
    kind, name = reference.kind, reference.name
    namespace = query.namespace or ("default" if name else "")
    found: Sequence[Any]
    if kind is kinds.POD:
        found = await client.pods(namespace=namespace, selector={} if name else query.selector)
    elif kind is kinds.NODE:
        found = [node for node in await client.nodes() if query.selector.items() <= dict(node.labels).items()]
    elif kind is kinds.ENDPOINTS:
        found = await _endpoints(client, namespace, query.selector)
    elif kind is kinds.EVENT:
        return list(await client.events(namespace=namespace, object=name))
    elif name:
        return [await client.get(kind.name, name, namespace=namespace, show_secrets=query.show_secrets)]
    else:
        found = await client.list(
            kind.name, namespace=namespace, selector=query.selector, show_secrets=query.show_secrets
        )
    return [kinds.pick(found, name, kind)] if name else list(found)


async def _endpoints(
    client: Client, namespace: str, selector: Mapping[str, str]
) -> Sequence[ServiceEndpoints]:
    """They have no labels but those of their service."""
    services = await client.endpoints(namespace=namespace)
    if not selector:
        return services
    labelled = await client.list(kinds.SERVICE.name, namespace=namespace, selector=selector)
    wanted = {(document.namespace, document.name) for document in labelled}
    return [one for one in services if (one.namespace, one.name) in wanted]


async def object_of(client: Client, reference: kinds.Reference, *, namespace: str) -> str:
    """What events call `reference`. A pod may be named by a prefix; one that is gone still has events."""
    name = reference.name
    if reference.kind is kinds.POD:
        pods = await client.pods(namespace=namespace, attempts=True)
        if any(pod.name.startswith(name) for pod in pods):
            name = kinds.pick_pod(pods, name).name
    return f"{reference.kind.name.lower()}/{name}"


async def watch(client: Client, query: Query) -> None:
    """Print what there is, then every item that looks different from how it was printed last."""
    if len(query.references) != 1:
        raise CommandError("only one kind can be watched at a time")
    _check_secrets(query)
    reference = query.references[0]
    view = columns.of_kind(reference.kind)
    printed: dict[str, str] = {}
    layout: Table | None = None
    async for items in _steps(client, reference, query):
        wanted = [
            item for item in items if not reference.name or view.bare_name(item).startswith(reference.name)
        ]
        if layout is None and not _is_names(query) and query.output not in {"json", "yaml"}:
            layout = _table(view, wanted, query)
            if query.with_headers:
                say(layout.lines()[0])
        for item in wanted:
            if _is_names(query) or layout is None:
                text = _one(view, item, query)
            else:
                text = layout.later(_row(view, item, query, several=False)[1])
            # The age alone is no change.
            looks = json.dumps(view.shape(item), sort_keys=True)
            if printed.get(view.key(item)) != looks:
                printed[view.key(item)] = looks
                say(text)
        flush()


def _one(view: columns.View[Any], item: Any, query: Query) -> str:
    if query.quiet:
        return clean(view.bare_name(item))
    if query.output == "name":
        return clean(view.name(item))
    return shapes.text_of([view.shape(item)], output=query.output, single=True)


async def _steps(client: Client, reference: kinds.Reference, query: Query) -> AsyncIterator[Sequence[Any]]:
    """What there is, then what changed, step by step."""
    if reference.kind is kinds.POD:
        async for pods in client.watch_pods(namespace=query.namespace, selector=query.selector):
            yield pods.pods
    elif reference.kind in (kinds.NODE, kinds.ENDPOINTS):
        while True:
            yield await _items(client, reference, query)
            await asyncio.sleep(_LOOK_EVERY_S)
    elif reference.kind is kinds.EVENT:
        async for event in client.watch_events(namespace=query.namespace, object=reference.name):
            yield [event]
    else:
        name = reference.kind.name
        if reference.kind is kinds.SECRET and query.output in {"json", "yaml"} and not query.show_secrets:
            note(_HIDDEN)
        async for documents in client.watch(
            name, namespace=query.namespace, selector=query.selector, show_secrets=query.show_secrets
        ):
            yield documents.documents
