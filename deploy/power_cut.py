"""A host loses its power under load: what happened, second by second, and what a client saw of it.

    make demo-power-cut             on Bayplan's local cluster, which is started if it is not up
    VS=swarm make demo-power-cut    the same on Docker Swarm on the same nodes, Bayplan idling beside it

The load is bench/load.py's: requests on new and on kept connections, POSTs, WebSockets, downloads,
through every node's published port. From the cut on nothing new is sent to the dead host, as a load balancer
or a client with several addresses would do; what was under way there, or through it, is lost and is counted.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bench.load_process import LoadProcess
from bench.load_record import Kind, Record, late_failures
from bench.load_report import Report
from deploy import images
from deploy.bayplan_side import BayplanSide
from deploy.local_cluster import DEMO, TESTS
from deploy.shell import CACHE, ROOT, ends
from deploy.swarm_side import SwarmSide

BEFORE_S, AFTER_S = 5, 20
RATE, STREAMS = 100.0, 6
# As long as a client may see anything of a host that died (the aim for requests that go elsewhere).
ALLOWED_S = 1.0
REPORT = CACHE / "power-cut.jsonl"
LOOK_EACH_S = 0.25


class Side(Protocol):
    """Who runs the app: Bayplan or Swarm."""

    name: str
    caveat: str  # What has to be said of the comparison; may be empty.

    def prepare(self) -> None:
        """The app runs, and answers through every target. Raises StepError."""
        ...

    def targets(self) -> Mapping[str, str]:
        """Node → the URL of its published port."""
        ...

    def victim(self) -> str:
        """The node whose power is cut: one with pods, and without a manager whose loss would be another story."""
        ...

    def cut(self, node: str) -> None: ...

    def node_states(self) -> Mapping[str, str]:
        """As its own managers see them."""
        ...

    def running(self) -> int:
        """Pods of the app that run, as the nodes' own engines say."""
        ...

    def restore(self, node: str) -> None:
        """The host comes back."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """At the cluster, at a moment after the cut."""

    at_s: float
    nodes: Mapping[str, str]
    running: int


class Watch:
    """Looks again and again, beside the load; a look that hangs delays only the next one."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._ended = threading.Event()
        self.looks: list[Look] = []
        self._began_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            at_s = time.monotonic() - self._began_s
            self.looks.append(Look(at_s=at_s, nodes=self._side.node_states(), running=self._side.running()))
            self._ended.wait(LOOK_EACH_S)


def run(side: Side, say: Callable[[str], None]) -> None:
    """All of it. Raises StepError."""
    side.prepare()
    targets = side.targets()
    victim = side.victim()
    say(
        f"\n=== {side.name}: {RATE:.0f} requests a second through {', '.join(targets)}; in {BEFORE_S} s the power of {victim} is cut"
    )
    if side.caveat:
        say(side.caveat)
    try:
        with LoadProcess(
            [*targets.values()], REPORT, rate=RATE, websockets=STREAMS, downloads=STREAMS
        ) as load:
            time.sleep(BEFORE_S)
            watch = Watch(side)
            load.mark("cut")
            load.stop_using(targets[victim])
            side.cut(victim)
            time.sleep(AFTER_S)
            watch.end()
            report = load.end()
        for line in story(report, watch.looks, targets, victim):
            say(line)
    finally:
        # Also after Ctrl-C: a dead host, or a swarm, would be in the next one's way.
        say(f"\n=== The power of {victim} comes back")
        side.restore(victim)
    say(f"{victim} is there again")


def story(report: Report, looks: Sequence[Look], targets: Mapping[str, str], victim: str) -> list[str]:
    """A line for each second, and what it comes to. Pure."""
    cut_s = report.marks["cut"]
    lines = [
        f"{'second':>7}  {'answered':>8} {'failed':>6}  {'slowest':>8}  {'pods':>4}  nodes; who answered"
    ]
    for second in report.seconds:
        number = second["second"]
        at = number - int(cut_s)
        if not -3 <= at <= AFTER_S:
            continue
        look = next((look for look in reversed(looks) if look.at_s < at + 1), None) if at >= 0 else None
        lines.append(
            f"{at:+6d} s  {second['well']:8d} {second['failed']:6d}  {second['p99_s'] * 1000:5.0f} ms  "
            f"{look.running if look else '':>4}  {_states(look)}{_who(second)}"
        )
    return [*lines, "", *_sums(report, cut_s, targets, victim)]


def _states(look: Look | None) -> str:
    return " ".join(f"{node}:{state}" for node, state in sorted(look.nodes.items())) + "; " if look else ""


def _who(second: Mapping[str, Any]) -> str:
    answered = sorted(second["pods"].items())
    return f"{len(answered)} pods: " + " ".join(f"{pod or '?'}={count}" for pod, count in answered)


def _sums(report: Report, cut_s: float, targets: Mapping[str, str], victim: str) -> list[str]:
    dead = [targets[victim]]
    after = [failure for failure in report.failures if failure.ended_s >= cut_s]
    through = [failure for failure in after if failure.target in dead]
    late = late_failures(after, fault_s=cut_s, allowed_s=ALLOWED_S, dead=dead)
    excused = [failure for failure in after if failure not in late and failure not in through]
    lines = [
        f"Failed before the cut: {len(report.failures) - len(after)}",
        f"Failed because they were under way through the dead host: {_kinds(through)}",
        f"Failed elsewhere, under way at the cut or begun within {ALLOWED_S:.0f} s of it: {_kinds(excused)}",
        f"Failed later, through hosts that live: {_kinds(late)}",
    ]
    if elsewhere := [*excused, *late]:
        last_s = max(failure.began_s for failure in elsewhere) - cut_s
        lines.append(f"The last of these two began {last_s:.1f} s after the cut")
    return lines + [f"This run proves nothing: {doubt}" for doubt in report.doubts]


def _kinds(failures: Sequence[Record]) -> str:
    counts = Counter(failure.kind for failure in failures)
    named = ", ".join(f"{counts[kind]} {kind}" for kind in Kind if counts[kind])
    return f"{len(failures)}" + (f" ({named})" if named else "")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m deploy.power_cut")
    parser.add_argument("--vs", choices=["", "swarm"], default="", help="what else to do it on")
    parser.add_argument("--cluster", choices=["demo", "tests"], default="demo")
    given = parser.parse_args()
    cluster = {"demo": DEMO, "tests": TESTS}[given.cluster]
    sides: list[Side] = [BayplanSide(cluster)]
    if given.vs:
        sides.append(SwarmSide(cluster))
    images.build_all()
    for side in sides:
        run(side, lambda line: print(line, flush=True))
    print(f"Each failure of the last one: {REPORT.relative_to(ROOT)}. End the cluster: make demo-down")


if __name__ == "__main__":
    ends(main)
