"""What concerns the cluster as a whole: managers, versions, load, decisions, a store from the past."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from bayplan import __version__
from bayplan.cli import kinds
from bayplan.cli.failures import CommandError
from bayplan.cli.run import flush, note, say
from bayplan.cli.text import age, clean, cpu, memory, percent, table

if TYPE_CHECKING:
    from bayplan.client import Client


async def managers(client: Client, *, output: str, quiet: bool) -> None:
    """Every manager, which one leads, and what alarms it."""
    found = await client.managers()
    if output in {"json", "yaml"}:
        items = [
            {
                "id": one.id,
                "address": one.address,
                "leader": one.leader,
                "state": one.state,
                "version": one.version,
                "alarms": list(one.alarms),
            }
            for one in found
        ]
        say(_text(items, output))
    elif quiet or output == "name":
        for one in found:
            say(clean(one.id if quiet else f"manager/{one.id}"))
    else:
        rows = [
            (one.id, one.address, one.state, one.version, "; ".join(one.alarms) or "<none>") for one in found
        ]
        for line in table(("ID", "ADDRESS", "STATE", "VERSION", "ALARMS"), rows):
            say(line)


def _text(value: object, output: str) -> str:
    if output == "json":
        return json.dumps(value, indent=4)
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False)).rstrip("\n")


async def version(client: Client, *, output: str) -> None:
    """Ours first: it is known also where no manager answers."""
    if output in {"json", "yaml"}:
        server = await client.version()
        value = {
            "client": __version__,
            "manager": server.version,
            "managerId": server.manager,
            "cluster": server.cluster,
            "etcd": server.etcd_version,
        }
        say(_text(value, output))
        return
    say(f"Client:  {__version__}")
    flush()
    server = await client.version()
    say(f"Manager: {clean(server.version)} ({clean(server.manager)})")
    say(f"Cluster: {clean(server.cluster)}")
    say(f"etcd:    {clean(server.etcd_version)}")


async def top_nodes(client: Client, *, name: str) -> None:
    """What hosts use, of what they have."""
    found = await client.nodes()
    if name:
        found = (kinds.pick(found, name, kinds.NODE),)
    rows = []
    for node in found:
        used, capacity = node.used, node.capacity
        if used is None:
            rows.append((node.name, *["<unknown>"] * 4))
            continue
        rows.append(
            (
                node.name,
                cpu(used.cpu_millis),
                percent(used.cpu_millis, capacity.cpu_millis),
                memory(used.memory_bytes),
                percent(used.memory_bytes, capacity.memory_bytes),
            )
        )
    for line in table(("NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"), rows):
        say(line)


async def top_pods(client: Client, *, name: str, namespace: str, selector: dict[str, str]) -> None:
    """What pods use."""
    found = await client.pods(namespace=namespace, selector=selector)
    if name:
        found = (kinds.pick(found, name, kinds.POD),)
    found = tuple(pod for pod in found if pod.node and not pod.is_terminal)
    if not found:
        note("No pods run here.")
        return
    head = ("NAMESPACE",) if not namespace else ()
    rows = []
    for pod in found:
        cells = ("<unknown>", "<unknown>")
        if pod.usage is not None:
            cells = (cpu(pod.usage.cpu_millis), memory(pod.usage.memory_bytes))
        rows.append((*((pod.namespace,) if head else ()), pod.name, *cells))
    for line in table((*head, "NAME", "CPU(cores)", "MEMORY(bytes)"), rows):
        say(line)


async def why(client: Client, pod: str, *, namespace: str) -> None:
    """One sentence, then the decisions that led there."""
    explanation = await client.why(pod, namespace=namespace)
    place = explanation.pod
    say(clean(explanation.summary or place.why or f"{place.name}: {place.status}"))
    if explanation.decisions:
        say()
        rows = [
            (age(event.at_ms), event.type, event.reason, event.source, event.message)
            for event in explanation.decisions
        ]
        for line in table(("AGE", "TYPE", "REASON", "FROM", "MESSAGE"), rows):
            say(line)


async def adopt(client: Client, *, dry_run: bool, without: list[str]) -> None:
    """Take what runs into the store."""
    adopted = await client.adopt(dry_run=dry_run, without=without)
    for document in adopted.documents:
        kind, _, rest = document.partition("/")
        say(
            f"{kinds.of_document(kind).full_name}/{clean(rest)} {'would be adopted' if dry_run else 'adopted'}"
        )
    say(f"{adopted.pods} pods {'would be adopted' if dry_run else 'adopted'}")
    if adopted.unheard:
        note(f"Nodes not heard of yet: {clean(', '.join(adopted.unheard))}. `bay adopt` waits for them.")


async def accept_restore(client: Client, *, yes: bool) -> None:
    """The store is right. What it does not know is stopped, so it is asked for twice."""
    if not yes:
        if not sys.stdin.isatty():
            raise CommandError(
                "this stops what the store does not know; say --yes if you mean it", exit_code=2
            )
        note("What runs but is not in the store will be stopped. Go on? [y/N]")
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            raise CommandError("nothing was changed")
    await client.accept_restore()
    say("restore accepted")
