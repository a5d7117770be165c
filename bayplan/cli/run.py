"""Where commands meet the cluster, and where every error becomes words and an exit code.

Exit codes: 0 done; 1 it failed; 2 the command line is wrong; 130 Ctrl-C; 141 the reader of our
output went away. `exec` ends with the command's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from bayplan.cli.failures import CommandError
from bayplan.cli.text import clean

if TYPE_CHECKING:
    from bayplan.client import BayplanError, Client

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

INSECURE_WARNING = "warning: no encryption and no identity (BAYPLAN_INSECURE_LOOPBACK)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What holds for every command."""

    managers: tuple[str, ...] = ()  # Empty: the context's.
    context: str = ""  # Empty: the current one.


def say(text: str = "") -> None:
    """A line of the result, on stdout."""
    sys.stdout.write(f"{text}\n")


def flush() -> None:
    """Let the reader of stdout have what was said, before something that takes long."""
    sys.stdout.flush()


def note(text: str) -> None:
    """A line that is no result: progress, a warning. On stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def run(ctx: typer.Context, command: Callable[[Client], Awaitable[None]]) -> None:
    """Connect, run, and end the process truthfully."""
    settings = settings_of(ctx)
    run_unconnected(lambda: _connected(settings, command))


def settings_of(ctx: typer.Context) -> Settings:
    """What holds for every command."""
    settings = ctx.find_object(Settings)
    assert settings is not None
    return settings


def run_unconnected(command: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """As `run`, for what connects by itself."""
    import asyncio  # Help and completion of words do without.

    try:
        asyncio.run(command())
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        _forget_stdout()
        raise SystemExit(EXIT_BROKEN_PIPE) from None
    except BaseExceptionGroup as group:
        # Parts that ran side by side fail together; the first that failed is the cause.
        raise SystemExit(_tell(next(_leaves(group)))) from None
    except Exception as error:  # noqa: BLE001  # the last place: users see words, not tracebacks
        raise SystemExit(_tell(error)) from None


def run_local(command: Callable[[], None]) -> None:
    """As `run`, for what needs no cluster."""
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        raise SystemExit(EXIT_BROKEN_PIPE) from None
    except Exception as error:  # noqa: BLE001  # as above
        raise SystemExit(_tell(error)) from None


async def _connected(settings: Settings, command: Callable[[Client], Awaitable[None]]) -> None:
    from bayplan.client import Client
    from bayplan.client.insecure import is_insecure

    if is_insecure():
        note(INSECURE_WARNING)
    async with Client.from_context(settings.context or None, managers=settings.managers) as client:
        try:
            await command(client)
        finally:
            mark = client.mark
            if not mark.complete:
                note(
                    f"note: status may be incomplete: {clean(mark.notice) or 'there is no leader right now'}"
                )
            elif mark.notice:
                note(f"note: {clean(mark.notice)}")


def _tell(error: BaseException) -> int:
    """Say what went wrong; the exit code."""
    from bayplan.client import BayplanError

    if isinstance(error, CommandError):
        if str(error):
            note(f"error: {error}")
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        _forget_stdout()
        return EXIT_BROKEN_PIPE
    if isinstance(error, BayplanError):
        note(f"error: {words_of(error)}")
        return 1
    if isinstance(error, OSError):
        note(f"error: {clean(str(error))}")
        return 1
    if os.environ.get("BAYPLAN_DEBUG"):
        raise error
    note(
        f"error: this is a bug in bay: {type(error).__name__}: {clean(str(error))}\n"
        "Please report it with what BAYPLAN_DEBUG=1 shows."
    )
    return 1


def words_of(error: BayplanError) -> str:
    """An error's text, fit for a terminal."""
    lines = [clean(line) for line in str(error).splitlines()]
    for problem in getattr(error, "problems", ()):
        line = f"{problem.path}: {problem.message}" if problem.path else problem.message
        if problem.message not in str(error):
            lines.append(f"  {clean(line)}")
    return "\n".join(lines)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _forget_stdout() -> None:
    """So that the interpreter's own flush at its end does not fail as well."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
