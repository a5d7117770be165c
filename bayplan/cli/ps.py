"""`bay ps`: the slots of workloads, each with its earlier attempts below it, and why they are as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bayplan.cli import kinds, shapes
from bayplan.cli.run import note, say
from bayplan.cli.text import clean

if TYPE_CHECKING:
    from bayplan.client import Client, Pod

_ATTEMPT = r" \_ "


async def ps(client: Client, *, workload: str, namespace: str, output: str, quiet: bool) -> None:
    """Print the pods of one workload, or of all."""
    kind = name = ""
    if workload:
        reference = kinds.reference(workload, default=kinds.DEPLOYMENT)
        document = await client.get(reference.kind.name, reference.name, namespace=namespace or "default")
        kind, name = document.kind, document.name
    pods = await client.pods(namespace=namespace, workload_kind=kind, workload=name, attempts=True)
    if output in {"json", "yaml"}:
        say(shapes.text_of([shapes.of_pod(pod) for pod in pods], output=output, single=False))
    elif quiet or output == "name":
        for pod in pods:
            say(clean(pod.name if quiet else f"pod/{pod.name}"))
    elif not pods:
        note("No pods found." if not namespace else f"No pods found in {namespace} namespace.")
    else:
        for line in lines(pods, with_namespace=not namespace):
            say(line)


def lines(pods: Sequence[Pod], *, with_namespace: bool = False) -> list[str]:
    """A line a pod: the newest of each slot, its earlier attempts indented below, newest first.

    Columns begin where the slots' own pods need them; the name of an attempt may push its
    line a little to the right.
    """
    ordered = sorted(
        pods,
        key=lambda pod: (
            pod.namespace,
            pod.workload,
            pod.workload_uid,
            pod.slot,
            not pod.current,
            -pod.incarnation,
        ),
    )
    table = [("NAME", "STATUS", "NODE", "WHY")]
    widths = [len(cell) for cell in table[0]]
    last_slot = None
    for pod in ordered:
        slot = (pod.workload_uid, pod.namespace, pod.workload, pod.slot)
        is_attempt = slot == last_slot
        last_slot = slot
        name = f"{pod.namespace}/{pod.name}" if with_namespace else pod.name
        row = (clean(name), clean(pod.status), clean(pod.node) or "-", clean(why(pod)))
        widths = [max(width, len(cell)) for width, cell in zip(widths, row, strict=True)]
        table.append((_ATTEMPT + row[0], *row[1:]) if is_attempt else row)
    starts = [0, widths[0] + len(_ATTEMPT)]
    starts.append(starts[1] + widths[1] + 2)
    starts.append(starts[2] + widths[2] + 2)
    text = []
    for line in table:
        built = ""
        for start, cell in zip(starts, line, strict=True):
            built = (built + " " if built and len(built) >= start else built.ljust(start)) + cell
        text.append(built.rstrip())
    return text


def why(pod: Pod) -> str:
    """One line: what the leader says, else the agent's own words."""
    if pod.why:
        return pod.why
    return ": ".join(part for part in (pod.reason, pod.message) if part and part != pod.status)
