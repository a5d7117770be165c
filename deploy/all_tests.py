"""Every test, in three groups side by side: bare hosts, the compose cluster, and all the rest.

    python3 -m deploy.all_tests [OPTION OF PYTEST]…

The first two mostly wait for other machines' work, so that together they take little longer than
the longest alone. Each group's output is shown whole, once the group has ended; those that failed
come last, where a person looks. The rest gives way to the others (nice), which look at a clock.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.shell import CACHE, ROOT, StepError, ends

HOSTS, CLUSTER = "tests/e2e/test_install.py", "tests/e2e"
# CI's runners take a job that is silent for minutes for a dead one.
STILL_RUNNING_EACH_S = 60.0
POLL_S = 0.2
NO_TESTS_COLLECTED = 5  # pytest's exit code; with options such as -k a group may be empty.


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Tests that run one after another, in a process of their own."""

    name: str
    paths: tuple[str, ...]
    niceness: int = 0

    @property
    def log(self) -> Path:
        return CACHE / f"test-{self.name}.log"

    def command(self, options: Sequence[str]) -> list[str]:
        # A cache of its own: pytest writes it whole at the end, and three would undo each other's.
        cache = f"--override-ini=cache_dir={CACHE / 'pytest' / self.name}"
        return [sys.executable, "-m", "pytest", cache, *self.paths, *options]


GROUPS = (
    Group(name="hosts", paths=(HOSTS,)),
    Group(name="cluster", paths=(CLUSTER, f"--ignore={HOSTS}")),
    Group(name="rest", paths=(f"--ignore={CLUSTER}",), niceness=10),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a group ended."""

    group: Group
    code: int
    seconds: float

    @property
    def is_good(self) -> bool:
        return self.code in (0, NO_TESTS_COLLECTED)

    def line(self) -> str:
        lines = self.group.log.read_text(errors="replace").splitlines()
        last = lines[-1].strip("= ") if lines else "it said nothing"
        verdict = "passed" if self.is_good else "FAILED"
        return f"{self.group.name}: {verdict} after {self.seconds:.0f} s ({last})"


class Running:
    """A group's process."""

    def __init__(self, group: Group, options: Sequence[str]) -> None:
        self.group = group
        self._began_s = time.monotonic()
        group.log.parent.mkdir(parents=True, exist_ok=True)
        with group.log.open("wb") as log:
            # A process group of its own: Ctrl-C reaches it through us, and once. pytest takes a second one
            # for an order to leave its containers where they are.
            self._process = subprocess.Popen(
                group.command(options),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        if group.niceness:
            os.setpriority(os.PRIO_PROCESS, self._process.pid, group.niceness)

    def interrupt(self) -> None:
        """As Ctrl-C: it takes away what it made, and ends."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def outcome(self) -> Outcome | None:
        """None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return Outcome(group=self.group, code=code, seconds=time.monotonic() - self._began_s)


def run_all(options: Sequence[str] = (), groups: Sequence[Group] = GROUPS) -> None:
    """Raise StepError unless all pass; KeyboardInterrupt when that was what ended them."""
    running = [Running(group, options) for group in groups]
    print(f"Tests run in {len(groups)} groups: {', '.join(group.name for group in groups)}.", flush=True)
    with _interrupts_passed_on(running) as was_interrupted:
        outcomes = sorted(_until_all_ended(running), key=lambda outcome: not outcome.is_good)
    for outcome in outcomes:
        if not outcome.is_good:
            _show(outcome)
    print("\n".join(outcome.line() for outcome in outcomes), flush=True)
    if was_interrupted():
        raise KeyboardInterrupt
    if failed := [outcome.group.name for outcome in outcomes if not outcome.is_good]:
        raise StepError(f"tests failed: {' and '.join(failed)}")


def _until_all_ended(running: Sequence[Running]) -> Iterator[Outcome]:
    """Each as it ends; what a good one said is shown at once."""
    left, said_s = list(running), time.monotonic()
    while left:
        for one in list(left):
            if outcome := one.outcome():
                left.remove(one)
                if outcome.is_good:
                    _show(outcome)
                yield outcome
        if left and time.monotonic() - said_s > STILL_RUNNING_EACH_S:
            said_s = time.monotonic()
            print(f"Still running: {', '.join(one.group.name for one in left)}", flush=True)
        time.sleep(POLL_S)


def _show(outcome: Outcome) -> None:
    print(f"\n=== {outcome.line()}\n{outcome.group.log.read_text(errors='replace')}", flush=True)


@contextlib.contextmanager
def _interrupts_passed_on(running: Sequence[Running]) -> Iterator[Callable[[], bool]]:
    """Meanwhile Ctrl-C and SIGTERM interrupt the groups, and they are waited for."""
    received: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        received.append(number)
        print("Interrupted: the groups take away what they made. Again: at once.", flush=True)
        for one in running:
            one.interrupt()

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    ends(lambda: run_all(sys.argv[1:]))
