"""What is done to nodes: cordon, drain, lost, remove, labels and taints."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast, get_args

from bayplan.cli import kinds
from bayplan.cli.failures import CommandError
from bayplan.cli.run import note, say
from bayplan.cli.text import clean

if TYPE_CHECKING:
    from bayplan.client import Client, Pod, Taint

_LOOK_EVERY_S = 0.3


async def _name(client: Client, wanted: str) -> str:
    return kinds.pick(await client.nodes(), wanted, kinds.NODE).name


async def cordon(client: Client, wanted: str) -> None:
    """No new pods there."""
    name = await _name(client, wanted)
    changed = await client.update_node(name, unschedulable=True)
    say(f"node/{clean(name)} {'cordoned' if changed else 'already cordoned'}")


async def uncordon(client: Client, wanted: str) -> None:
    """New pods again; a drain ends as well."""
    name = await _name(client, wanted)
    changed = await client.update_node(name, unschedulable=False, drain=False)
    say(f"node/{clean(name)} {'uncordoned' if changed else 'already uncordoned'}")


async def drain(client: Client, wanted: str, *, wait_s: float | None) -> None:
    """Its pods move elsewhere; wait until none is left."""
    from bayplan.client import UnavailableError

    name = await _name(client, wanted)
    await client.update_node(name, unschedulable=True, drain=True)
    say(f"node/{clean(name)} cordoned")
    if wait_s is None:
        return
    told: set[str] = set()
    left: list[Pod] = []
    try:
        async with asyncio.timeout(wait_s):
            while True:
                try:
                    pods = await client.pods(namespace="", node=name)
                except UnavailableError as error:
                    note(clean(str(error).splitlines()[0].rstrip(":")))
                    await asyncio.sleep(_LOOK_EVERY_S)
                    continue
                left = [pod for pod in pods if not pod.is_terminal]
                for pod in left:
                    if pod.uid not in told:
                        note(f"evicting pod {clean(pod.namespace)}/{clean(pod.name)}")
                        told.add(pod.uid)
                if not left:
                    break
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        rest = "".join(
            "\n" + clean(f"  {pod.namespace}/{pod.name}: {pod.status} {pod.why}".rstrip())
            for pod in left[:10]
        )
        raise CommandError(
            f"node/{clean(name)} still has {len(left)} pods after {wait_s:g} s; it goes on draining{rest}"
        ) from None
    say(f"node/{clean(name)} drained")


async def lost(client: Client, wanted: str) -> None:
    """The operator swears that the host is dead."""
    name = await _name(client, wanted)
    await client.update_node(name, lost=True)
    say(f"node/{clean(name)} declared lost")


async def remove(client: Client, wanted: str) -> None:
    """Forget the node. By its whole name only."""
    await client.update_node(wanted, remove=True)
    say(f"node/{clean(wanted)} removed")


def _nodes_and_changes(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """`nodes n1 a=b c-`, `node/n1 a=b` → (n1, changes)."""
    first, rest = words[0], words[1:]
    if "/" in first:
        reference = kinds.reference(first)
    else:
        reference = kinds.Reference(kinds.find(first), rest[0] if rest else "")
        rest = rest[1:]
    if reference.kind is not kinds.NODE:
        raise CommandError(
            "only nodes are labelled and tainted here; a workload's labels stand in its manifest"
        )
    if not reference.name or not rest:
        raise CommandError("write: nodes NODE KEY=VALUE, or KEY- to remove it", exit_code=2)
    return reference.name, rest


async def label(client: Client, words: Sequence[str]) -> None:
    """`k=v` sets, `k-` removes."""
    wanted, changes = _nodes_and_changes(words)
    added: dict[str, str] = {}
    removed: list[str] = []
    for change in changes:
        key, equals, value = change.partition("=")
        if equals and key:
            added[key] = value
        elif not equals and len(key) > 1 and key.endswith("-"):
            removed.append(key[:-1])
        else:
            raise CommandError(f'"{clean(change)}" is neither KEY=VALUE nor KEY-', exit_code=2)
    name = await _name(client, wanted)
    changed = await client.update_node(name, set_labels=added, remove_labels=removed)
    done = "labeled" if added else "unlabeled"
    say(f"node/{clean(name)} {done if changed else 'not changed'}")


async def taint(client: Client, words: Sequence[str]) -> None:
    """`k=v:Effect` or `k:Effect` sets, `k-` or `k:Effect-` removes."""
    wanted, changes = _nodes_and_changes(words)
    added: list[Taint] = []
    removed: list[str] = []
    for change in changes:
        if len(change) > 1 and change.endswith("-"):
            removed.append(change[:-1])
        else:
            added.append(_taint(change))
    name = await _name(client, wanted)
    changed = await client.update_node(name, set_taints=added, remove_taints=removed)
    done = "tainted" if added else "untainted"
    say(f"node/{clean(name)} {done if changed else 'not changed'}")


def _taint(text: str) -> Taint:
    from bayplan.model.nodes import Taint, TaintEffect

    rest, colon, effect = text.rpartition(":")
    key, _, value = rest.partition("=")
    if not colon or not key or effect not in get_args(TaintEffect):
        effects = ", ".join(get_args(TaintEffect))
        raise CommandError(f'"{clean(text)}" is not KEY=VALUE:EFFECT; effects are {effects}', exit_code=2)
    return Taint(key=key, value=value, effect=cast("TaintEffect", effect))
