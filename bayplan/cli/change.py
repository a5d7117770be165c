"""`bay apply`, `scale` and `delete`: change documents, then wait until the cluster is as they say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bayplan.cli import kinds
from bayplan.cli.failures import CommandError
from bayplan.cli.files import located, read
from bayplan.cli.run import flush, note, say
from bayplan.cli.text import clean
from bayplan.cli.waiting import wait_for

if TYPE_CHECKING:
    from bayplan.client import Client, Pod
    from bayplan.manifests.manifest import Manifest
    from bayplan.resources.kinds import Kind

_GONE_LOOK_EVERY_S = 0.3


async def apply(
    client: Client,
    manifests: Sequence[Manifest],
    *,
    dry_run: bool,
    wait_s: float | None,
    quiet: bool,
) -> None:
    """Apply, say what became of each document, and wait (`wait_s`; None: not) until all of it runs."""
    from bayplan.client import InvalidDocumentError
    from bayplan.client.progress import WAITED_KINDS, Target

    try:
        applied = await client.apply([manifest.document for manifest in manifests], dry_run=dry_run)
    except InvalidDocumentError as error:
        if not error.problems:
            raise
        raise CommandError(located(manifests, error.problems)) from error
    for one in applied:
        for warning in one.warnings:
            note(f"warning: {kinds.display(one.kind, one.name)}: {clean(warning)}")
        suffix = " (dry run)" if dry_run else ""
        say(f"{kinds.display(one.kind, one.name)} {clean(one.result)}{suffix}")
    if wait_s is None or dry_run:
        return
    flush()
    targets = [
        Target(one.kind, one.namespace, one.name, one.generation)
        for one in applied
        if one.kind in WAITED_KINDS
    ]
    await wait_for(client, targets, timeout_s=wait_s, quiet=quiet)


async def scale(
    client: Client,
    reference: kinds.Reference,
    *,
    namespace: str,
    replicas: int,
    current: int | None,
    wait_s: float | None,
    quiet: bool,
) -> None:
    """Set a workload's number of pods, and wait until they run."""
    from bayplan.client.progress import WAITED_KINDS, Target

    document = await client.get(reference.kind.name, reference.name, namespace=namespace)
    scaled = await client.scale(
        document.kind, document.name, replicas, namespace=namespace, expected_replicas=current
    )
    say(f"{kinds.display(document.kind, document.name)} scaled")
    if wait_s is None or document.kind not in WAITED_KINDS:
        return
    flush()
    target = Target(document.kind, namespace, document.name, scaled.generation)
    await wait_for(client, [target], timeout_s=wait_s, quiet=quiet)


def named(words: Sequence[str], sources: Sequence[str], namespace: str | None) -> list[tuple[Kind, str, str]]:
    """What to delete, as (kind, namespace, name): named by `words`, or by the documents in files."""
    if words and sources:
        raise CommandError("name things, or files with -f, not both", exit_code=2)
    if not sources:
        found = kinds.references(words)
        if any(not reference.name for reference in found):
            raise CommandError("name what to delete: KIND NAME or KIND/NAME", exit_code=2)
        return [(reference.kind, namespace or "default", reference.name) for reference in found]
    things = []
    for manifest in read(sources, namespace=namespace, check=False):
        kind, metadata = manifest.document.get("kind"), manifest.document.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if not isinstance(kind, str) or not isinstance(name, str) or not isinstance(metadata, dict):
            raise CommandError(str(manifest.locate_path("", "has no kind and name")))
        place = metadata.get("namespace")
        things.append((kinds.of_document(kind), place if isinstance(place, str) else "default", name))
    # What was made last may need what was made first.
    return things[::-1]


async def delete(
    client: Client,
    things: Sequence[tuple[Kind, str, str]],
    *,
    wait_s: float | None,
    ignore_not_found: bool,
    quiet: bool,
) -> None:
    """Delete documents (kind, namespace, name), and wait until they and their pods are gone."""
    from bayplan.client import NotFoundError

    begun: list[tuple[Kind, str, str, str]] = []
    missing: list[str] = []
    for kind, namespace, name in things:
        if kind is kinds.NODE:
            raise CommandError(
                f"a node is not deleted but drained and removed: bay node remove {clean(name)}"
            )
        if not kind.is_applied:
            raise CommandError(f"a {kind.full_name} is not deleted by itself: scale or delete its workload")
        try:
            uid = await client.delete(kind.name, name, namespace=namespace)
        except NotFoundError:
            if not ignore_not_found:
                missing.append(f'{kind.full_name} "{clean(name)}" not found')
            continue
        begun.append((kind, namespace, name, uid))
    if wait_s is None:
        for kind, _, name, _ in begun:
            say(f'{kind.full_name} "{clean(name)}" deleted')
    else:
        async with asyncio.TaskGroup() as parts:
            for kind, namespace, name, uid in begun:
                parts.create_task(_gone(client, kind, namespace, name, uid, wait_s=wait_s, quiet=quiet))
    if missing:
        raise CommandError("\n".join(missing))


async def _gone(
    client: Client,
    kind: Kind,
    namespace: str,
    name: str,
    uid: str,
    *,
    wait_s: float,
    quiet: bool,
) -> None:
    from bayplan.client import UnavailableError

    display = kinds.display(kind.name, name)
    told = ""
    left: list[Pod] = []
    try:
        async with asyncio.timeout(wait_s):
            while True:
                try:
                    # Not `get`: it would take the name for the prefix of another.
                    present = await client.list(kind.name, namespace=namespace)
                    if not any(document.name == name and uid in {document.uid, ""} for document in present):
                        break
                    if kind in kinds.WORKLOADS:
                        pods = await client.pods(namespace=namespace, workload_kind=kind.name, workload=name)
                        left = [pod for pod in pods if pod.node and not pod.is_terminal]
                    text = f"{display}: {len(left)} pods to stop" if left else f"{display}: waiting"
                except UnavailableError as error:
                    text = f"{display}: {clean(str(error).splitlines()[0].rstrip(':'))}"
                if text != told and not quiet:
                    note(text)
                told = text
                await asyncio.sleep(_GONE_LOOK_EVERY_S)
    except TimeoutError:
        pods_left = "".join(
            "\n" + clean(f"  {pod.name} on {pod.node}: {pod.status} {pod.why}".rstrip()) for pod in left[:5]
        )
        raise CommandError(f"{display} is not gone after {wait_s:g} s{pods_left}") from None
    say(f'{kind.full_name} "{clean(name)}" deleted')
