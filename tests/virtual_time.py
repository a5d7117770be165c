"""An event loop whose clock jumps: an hour of sleeping passes in microseconds.

Nothing waits for real time. When no callback is ready the clock is set to the next timer,
so a test of a ten-second grace takes no time and gives the same result on a loaded machine.
Two mistakes that would hang a test are errors instead: waiting for something that nobody
can bring any more (`Deadlock`), and waiting while only timers go on for ever (`TimeLimit`).

Callbacks run in the order they were made; equal timers run in an order that is the same each
time. Work given to an executor runs at once, in place, so that threads cannot bring chance back in.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# Not zero: code that takes 0.0 for "never" must fail here as it would in production.
START_S = 1_000.0
# A cluster of a dozen nodes lives a day of virtual time in a few real seconds.
LIMIT_S = 24 * 3600.0


class Deadlock(RuntimeError):  # noqa: N818 - the word for it
    """Nothing is ready, no timer is set: what is awaited can never come."""


class TimeLimit(RuntimeError):  # noqa: N818 - the word for it
    """The clock passed `limit_s`: timers go on, but what is awaited does not come."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A selector loop on virtual time. Sockets of real peers do not work on it."""

    def __init__(self, start_s: float = START_S) -> None:
        self._now_s = start_s
        self.limit_s = start_s + LIMIT_S
        super().__init__(_JumpingSelector(self._jump))

    def time(self) -> float:
        return self._now_s

    def run_in_executor(  # type: ignore[override]  # the stub's overloads say the same less plainly
        self, executor: concurrent.futures.Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Call `func` here and now: threads would make the outcome depend on real time."""
        del executor
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - the future carries it to whoever awaits
            future.set_exception(error)
        return future

    def _jump(self, wait_s: float | None) -> None:
        """Called when nothing is ready: go to the next timer, `wait_s` from now."""
        if wait_s is None:
            raise Deadlock(f"at {self._now_s:.3f} s everybody waits for somebody else:\n{self._waiting()}")
        if self._now_s + wait_s > self.limit_s:
            raise TimeLimit(f"nothing but timers for {LIMIT_S:.0f} s of virtual time:\n{self._waiting()}")
        self._now_s += wait_s

    def _waiting(self) -> str:
        lines = []
        for task in sorted(asyncio.all_tasks(self), key=lambda task: task.get_name()):
            frames = task.get_stack(limit=1)
            place = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "not started"
            lines.append(f"  {task.get_name()} at {place}")
        return "\n".join(lines) or "  (no task)"


class _JumpingSelector(selectors.DefaultSelector):
    """Asks the operating system what is ready, and lets the loop jump instead of waiting."""

    def __init__(self, jump: Callable[[float | None], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # The loop's own pipe is always there: signals and call_soon_threadsafe come through it.
        ready = super().select(0)
        if not ready and (timeout is None or timeout > 0):
            self._jump(timeout)
        return ready


def run_virtual(main: Coroutine[Any, Any, T], *, start_s: float = START_S) -> T:
    """Run `main` to its end on a virtual-time loop of its own, like `asyncio.run`."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(start_s)) as runner:
        return runner.run(main)
