"""What goes through the proxies, and whether nodes reach each other."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from bayplan.cli.failures import CommandError
from bayplan.cli.run import note, say
from bayplan.cli.text import clean, table

if TYPE_CHECKING:
    from bayplan.client import Client, NetworkPath, ServiceTop

_HEADERS = ("NAME", "PORT", "REQUESTS/S", "ERRORS/S", "P50", "P99", "CONNECTIONS", "ENDPOINTS")


async def top_services(client: Client, *, name: str, namespace: str) -> None:
    """A row for each port of each service."""
    found = await client.top_services(namespace=namespace)
    if name:
        found = tuple(service for service in found if service.name == name)
    if not found:
        note("No traffic was counted here yet: nodes tell of it every 10 s.")
        return
    head = () if namespace else ("NAMESPACE",)
    rows = [(*((service.namespace,) if head else ()), *_row(service)) for service in found]
    for line in table((*head, *_HEADERS), rows):
        say(line)


def _row(service: ServiceTop) -> tuple[str, ...]:
    return (
        service.name,
        str(service.port),
        _rate(service.requests_per_s),
        _rate(service.errors_per_s),
        _latency(service.p50_ms),
        _latency(service.p99_ms),
        str(service.connections),
        str(service.endpoints),
    )


def _rate(per_s: float) -> str:
    return f"{per_s:.1f}" if per_s < 10 else f"{per_s:.0f}"


def _latency(latency_ms: float | None) -> str:
    if latency_ms is None:
        return "-"
    return f"{latency_ms:.1f}ms" if latency_ms < 10 else f"{latency_ms:.0f}ms"


async def doctor_network(client: Client) -> None:
    """A row for each pair of nodes that is listed. Raises CommandError when a way does not work."""
    check = await client.check_network()
    unlisted = check.healthy + check.failed
    if not check.paths and not check.silent and not unlisted:
        note("There is no pair of nodes to try.")
        return
    rows, failed = [], check.failed
    ordered = sorted(check.paths, key=lambda path: (path.source, path.target))
    for (source, target), paths in groupby(ordered, key=lambda path: (path.source, path.target)):
        tried = {path.what: path for path in paths}
        failed += sum(not path.ok for path in tried.values())
        rows.append((source, target, *(_outcome(tried.get(what)) for what in _WAYS)))
    if rows:
        for line in table(("FROM", "TO", *(what.upper() for what in _WAYS)), rows):
            say(line)
    if check.healthy:
        note(f"{check.healthy} {'more ' if rows else ''}ways were tried and work.")
    if check.failed:
        note(f"{check.failed} more ways were tried and do not work.")
    if check.silent:
        raise CommandError(f"not heard from within 10 s: {clean(', '.join(check.silent))}")
    if failed:
        raise CommandError(f"{failed} of {len(check.paths) + unlisted} ways do not work")


_WAYS = ("address", "name", "tcp", "udp", "mtu")


def _outcome(path: NetworkPath | None) -> str:
    if path is None:
        return "-"
    return path.detail if path.ok else f"FAILED: {path.detail}"
