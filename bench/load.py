"""A constant load against deploy/demo_app, in a process of its own, and a report of what failed.

    python -m bench.load --target http://172.31.85.21 --target http://172.31.85.22 --seconds 60 --report load.jsonl

Ends with 0 when nothing failed, 1 when something did, and 3 when the load itself was too late to say.
With --commands it obeys lines on its standard input: `stop URL` (use that target no more), `use URL`,
`mark TEXT` (a line of the report, with the time), `end`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from bench.load_generator import Load, NoTargetError
from bench.load_record import Summary
from bench.load_report import ReportWriter

FAILED, CANNOT_SAY = 1, 3
# It stands for other machines' clients: of two processors that it shares with a whole cluster it needs a fifth
# of one, but at once. Niceness does not give that: the kernel weighs sessions and cgroups first (sched(7), "The
# autogroup feature"), and beside other tests it let the load wait for 0.1 s.
AT_ONCE = (os.SCHED_RR, os.sched_param(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the command line asks for."""

    targets: list[str]
    rate: float
    seconds: float | None
    report: Path
    websockets: int
    downloads: int
    has_commands: bool


async def run(order: Order) -> Summary:
    """The whole load."""
    with order.report.open("w") as file:
        report = ReportWriter(file, targets=order.targets, rate=order.rate, began_at=time.time())
        load = Load(
            order.targets,
            rate=order.rate,
            websockets=order.websockets,
            downloads=order.downloads,
            on_record=report.add,
        )
        async with load:
            obeying = asyncio.create_task(_obey(load, report)) if order.has_commands else None
            # What is there by now stays; only what the load makes needs to be looked through.
            gc.freeze()
            await load.run(order.seconds)
            if obeying is not None:
                obeying.cancel()
                await asyncio.gather(obeying, return_exceptions=True)
        summary = load.summary()
        report.end(summary)
    return summary


async def _obey(load: Load, report: ReportWriter) -> None:
    """Until its input ends, which is an order to end too."""
    async for line in _lines_of_stdin():
        verb, _, rest = line.strip().partition(" ")
        try:
            match verb:
                case "stop":
                    load.stop_using(rest)
                case "use":
                    load.use(rest)
                case "mark":
                    report.mark(rest, load.now_s())
                case "end":
                    break
                case _:
                    print(f"not understood: {line.strip()}", file=sys.stderr, flush=True)
        except NoTargetError as error:
            print(f"{line.strip()}: {error}", file=sys.stderr, flush=True)
    load.end()


async def _lines_of_stdin() -> AsyncIterator[str]:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        yield line.decode()


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m bench.load")
    parser.add_argument(
        "--target", action="append", required=True, metavar="URL", help="may be repeated; they take turns"
    )
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    parser.add_argument("--seconds", type=float, help="by default until `end`, or Ctrl-C")
    parser.add_argument("--report", type=Path, required=True, metavar="FILE")
    parser.add_argument("--websockets", type=int, default=10)
    parser.add_argument("--downloads", type=int, default=10)
    parser.add_argument("--commands", action="store_true", help="obey lines on standard input")
    given = parser.parse_args()
    order = Order(
        targets=[target.rstrip("/") for target in given.target],
        rate=given.rate,
        seconds=given.seconds,
        report=given.report,
        websockets=given.websockets,
        downloads=given.downloads,
        has_commands=given.commands,
    )
    # Only root may; without it the lag says whether it was needed.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, *AT_ONCE)
    summary = asyncio.run(run(order))
    print("\n".join(summary.lines()))
    if summary.doubts():
        sys.exit(CANNOT_SAY)
    sys.exit(FAILED if summary.failures else 0)


if __name__ == "__main__":
    main()
