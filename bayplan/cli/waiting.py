"""Waiting with the user: live lines on a terminal, a line a change elsewhere, and a truthful end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from bayplan.cli import kinds
from bayplan.cli.columns import pod_status
from bayplan.cli.failures import CommandError
from bayplan.cli.run import note
from bayplan.cli.text import clean

if TYPE_CHECKING:
    from rich.live import Live

    from bayplan.client import Client, Pod
    from bayplan.client.progress import Progress, Target

_PODS_TOLD_MAX = 5
_LOG_LINES_TOLD = 10
_LOG_TIMEOUT_S = 3.0


async def wait_for(
    client: Client, targets: Sequence[Target], *, timeout_s: float, quiet: bool = False
) -> None:
    """Until every target is as it was applied. Raises CommandError with the reasons where one is not."""
    if not targets:
        return
    with _shown(targets, quiet=quiet) as board:
        async with asyncio.TaskGroup() as parts:
            waits = [parts.create_task(_wait_for_one(client, target, timeout_s, board)) for target in targets]
    ends = [wait.result() for wait in waits]
    unfinished = [end for end in ends if not end.is_done]
    if not unfinished:
        return
    errors = ["\n".join(await _reasons(client, end, timeout_s=timeout_s)) for end in unfinished]
    target = unfinished[0].target
    one = f" {kinds.display(target.kind, target.name)}" if len(unfinished) == 1 else ""
    place = "" if target.namespace == "default" else f" -n {clean(target.namespace)}"
    raise CommandError("\nerror: ".join(errors) + f"\nBayplan keeps trying. More: bay ps{one}{place}")


async def _wait_for_one(client: Client, target: Target, timeout_s: float, board: _Board) -> Progress:
    from bayplan.client.progress import Progress, follow

    last = Progress(target=target)
    try:
        async with asyncio.timeout(timeout_s), aclosing(follow(client, target)) as looks:
            async for last in looks:
                board.show(last)
                if last.is_done or last.lasting():
                    break
    except TimeoutError:
        pass
    return last


class _Board:
    """Where progress is shown. Off a terminal each new state of a target is one line."""

    def __init__(self, targets: Sequence[Target], *, quiet: bool, live: Live | None) -> None:
        self._live = live
        self._quiet = quiet
        self._texts = {target: f"{kinds.display(target.kind, target.name)}: waiting" for target in targets}

    def show(self, progress: Progress) -> None:
        text = _line(progress)
        if self._live is not None and progress.is_reached and not progress.is_done:
            text += ", watching whether they stay so"
        if self._quiet or text == self._texts[progress.target]:
            return
        self._texts[progress.target] = text
        if self._live is None:
            note(text)
        else:
            from rich.text import Text

            self._live.update(Text("\n".join(self._texts.values()), overflow="ellipsis", no_wrap=True))


@contextlib.contextmanager
def _shown(targets: Sequence[Target], *, quiet: bool) -> Iterator[_Board]:
    if quiet or not is_terminal():
        yield _Board(targets, quiet=quiet, live=None)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), refresh_per_second=8) as live:
        yield _Board(targets, quiet=quiet, live=live)


def is_terminal() -> bool:
    """Whether stderr may show things that move."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _line(progress: Progress) -> str:
    name = kinds.display(progress.target.kind, progress.target.name)
    if progress.note:
        return f"{name}: {clean(progress.note)}"
    text = f"{name}: {progress.ready}/{progress.desired} pods ready"
    statuses = Counter(pod_status(pod) for pod in progress.pods if pod.current and not pod.ready)
    if statuses:
        text += (
            " (" + ", ".join(f"{count} {clean(status)}" for status, count in sorted(statuses.items())) + ")"
        )
    if progress.total > progress.desired:
        text += f", {progress.total - progress.desired} to stop"
    return text


async def _reasons(client: Client, end: Progress, *, timeout_s: float) -> list[str]:
    """Why it is not ready: per pod the reason and, where it ran, its last lines."""
    target = end.target
    name = kinds.display(target.kind, target.name)
    waited = "" if end.lasting() else f" after {timeout_s:g} s"
    lines = [f"{name} is not ready{waited}: {end.ready} of {end.desired} pods are"]
    if end.note:
        lines.append(f"  {clean(end.note)}")
    told: set[tuple[str, str]] = set()
    for failing in end.failing:
        # Ten pods that fail alike are one thing to know.
        key = (failing.reason, failing.message)
        if key in told or len(told) == _PODS_TOLD_MAX:
            continue
        told.add(key)
        alike = sum((other.reason, other.message) == key for other in end.failing) - 1
        more = f" (and {alike} more like it)" if alike else ""
        lines.append(f"  {clean(str(failing))}{more}")
        lines += [f"    | {line}" for line in await _last_lines(client, failing.pod)]
    if not end.failing:
        unready = [pod for pod in end.pods if pod.current and not pod.ready][:_PODS_TOLD_MAX]
        for pod in unready:
            why = pod.why or pod.message or ("not ready yet" if pod.status == "Running" else "")
            lines.append(clean(f"  {pod.name}: {pod_status(pod)}{': ' if why else ''}{why}"))
    return lines


async def _last_lines(client: Client, pod: Pod) -> list[str]:
    """What the pod wrote last: as its agent kept it, else asked for."""
    from bayplan.client import BayplanError

    text = next((box.last_exit.last_log_lines for box in pod.containers if box.last_exit is not None), "")
    if not text and pod.node and pod.containers:
        data = b""
        with contextlib.suppress(BayplanError, TimeoutError):
            async with asyncio.timeout(_LOG_TIMEOUT_S):
                async for output in client.logs(pod.name, namespace=pod.namespace, tail=_LOG_LINES_TOLD):
                    data += output.data
        text = data.decode(errors="replace")
    return [clean(line.rstrip("\r")) for line in text.splitlines()[-_LOG_LINES_TOLD:]]
