"""`bay logs`: of a pod, of all pods of a workload (each line with its pod's name), of a node's agent."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bayplan.cli import kinds, several
from bayplan.cli.failures import CommandError
from bayplan.cli.run import note
from bayplan.cli.text import clean

if TYPE_CHECKING:
    from bayplan.client import Client, Pod

# Each is a stream through a manager and an agent.
_STREAMS_MAX = 50
_PREFIXED_LINE_MAX = 1 << 20
_REOPEN_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which lines."""

    container: str = ""
    follow: bool = False
    previous: bool = False
    tail: int = -1
    since_ms: int = 0
    timestamps: bool = False


async def logs(client: Client, words: list[str], *, namespace: str, wanted: Wanted) -> None:
    """Print them, stdout's to stdout and stderr's to stderr, as the container wrote them."""
    reference = kinds.kind_and_name(words, default=kinds.POD)
    if reference.kind is kinds.NODE:
        node = kinds.pick(await client.nodes(), reference.name, kinds.NODE)
        await _print(client, "", namespace, wanted, node=node.name)
    elif reference.kind is kinds.POD:
        if not wanted.container:
            several.tell_default_of(await client.pods(namespace=namespace), reference.name)
        # An earlier attempt has logs as well, so the manager finds the pod, by name or prefix.
        await _print(client, reference.name, namespace, wanted)
    elif reference.kind in kinds.WORKLOADS:
        document = await client.get(reference.kind.name, reference.name, namespace=namespace)
        await _print_workload(client, document.kind, document.name, namespace, wanted)
    else:
        raise CommandError(f"a {reference.kind.full_name} has no logs; pods, workloads and nodes have")


async def _print(
    client: Client, pod: str, namespace: str, wanted: Wanted, *, node: str = "", prefix: bytes = b""
) -> None:
    from bayplan.client.managers import StreamBrokenError

    printers = {False: _Printer(prefix, is_stderr=False), True: _Printer(prefix, is_stderr=True)}
    while True:
        stream = client.logs(
            pod,
            namespace=namespace,
            node=node,
            container=wanted.container,
            follow=wanted.follow,
            previous=wanted.previous,
            tail=wanted.tail,
            since_ms=wanted.since_ms,
            timestamps=wanted.timestamps,
        )
        try:
            async with aclosing(stream):
                async for output in stream:
                    printers[output.is_stderr].write(output.data)
        except StreamBrokenError as error:
            if not wanted.follow:
                raise
            # Usually the leader changed.
            note(f"note: {clean(str(error))}; following again, some lines may be missing")
            wanted = replace(wanted, tail=0)
            await asyncio.sleep(_REOPEN_PAUSE_S)
        else:
            break
    for printer in printers.values():
        printer.end()


class _Printer:
    """Raw bytes, or whole lines with a prefix, so that sources do not mix within a line."""

    def __init__(self, prefix: bytes, *, is_stderr: bool) -> None:
        self._prefix = prefix
        self._stream = (sys.stderr if is_stderr else sys.stdout).buffer
        self._rest = b""

    def write(self, data: bytes) -> None:
        if not self._prefix:
            self._stream.write(data)
            self._stream.flush()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _PREFIXED_LINE_MAX:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._stream.write(self._prefix + line + b"\n")
        self._stream.flush()

    def end(self) -> None:
        if self._rest:
            self.write(b"\n")


async def _print_workload(client: Client, kind: str, name: str, namespace: str, wanted: Wanted) -> None:
    if not wanted.follow:
        pods = await client.pods(namespace=namespace, workload_kind=kind, workload=name)
        several.tell_default_of_any(pods, wanted.container)
        for pod in sorted(pods, key=lambda pod: pod.slot):
            if pod.node:
                await _print_one(client, pod, wanted)
        return
    async with asyncio.TaskGroup() as streams:
        running: dict[str, asyncio.Task[None]] = {}
        async for change in client.watch_pods(namespace=namespace, workload_kind=kind, workload=name):
            if change.initial:
                several.tell_default_of_any(change.pods, wanted.container)
            for pod in change.pods:
                if (
                    not pod.started_ms
                    or pod.is_terminal
                    or (pod.uid in running and not running[pod.uid].done())
                ):
                    continue
                if sum(not task.done() for task in running.values()) >= _STREAMS_MAX:
                    note(f"note: following {_STREAMS_MAX} pods, not {clean(pod.name)}")
                    continue
                # A pod seen again was printed up to where its container ended.
                again = pod.uid in running
                running[pod.uid] = streams.create_task(_print_one(client, pod, wanted, only_new=again))


async def _print_one(client: Client, pod: Pod, wanted: Wanted, *, only_new: bool = False) -> None:
    """One of several: that it fails is said, and does not end the others."""
    from bayplan.client import BayplanError

    prefix = f"{clean(pod.name)}@{clean(pod.node)} | ".encode()
    try:
        await _print(
            client,
            pod.name,
            pod.namespace,
            replace(wanted, tail=0) if only_new else wanted,
            prefix=prefix,
        )
    except BayplanError as error:
        note(f"warning: {clean(pod.name)}: {clean(str(error).splitlines()[0])}")
