"""Run programs the way every deploy script does: say what fails, use sudo only where root is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"


class StepError(Exception):
    """A step failed; the message says what and what to do. `main` of a script prints it and exits with 1."""


def say(text: str) -> None:
    """A line of progress: on stderr, since stdout is for results."""
    print(text, file=sys.stderr, flush=True)


def as_root(command: Sequence[str]) -> list[str]:
    """`command` as root: itself if we are root, through sudo otherwise."""
    if os.geteuid() == 0:
        return list(command)
    if shutil.which("sudo") is None:
        raise StepError(f"`{' '.join(command)}` needs root, and there is no sudo: run this as root")
    return ["sudo", *command]


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    cwd: Path = ROOT,
    stdin: bytes | None = None,
    quiet: bool = True,
) -> str:
    """Run `command` and return its stdout. Not quiet: its output goes to the terminal, and "" is returned.

    Raises StepError with the command's own last lines when it fails, is missing or takes too long.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            timeout=timeout_s,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.PIPE if quiet else None,
            check=False,
        )
    except FileNotFoundError as error:
        raise StepError(f"{words[0]} is not installed: run `make setup`") from error
    except subprocess.TimeoutExpired as error:
        raise StepError(f"`{' '.join(words)}` took longer than {timeout_s:.0f} s") from error
    output = (done.stdout or b"").decode(errors="replace")
    if done.returncode != 0:
        tail = ((done.stderr or b"").decode(errors="replace") + output).strip().splitlines()[-20:]
        raise StepError("\n  ".join([f"`{' '.join(words)}` ended with exit code {done.returncode}", *tail]))
    return output


def works(command: Sequence[str | Path], *, timeout_s: float = 10) -> bool:
    """Whether `command` can be run and ends well in time."""
    try:
        run(command, timeout_s=timeout_s)
    except StepError:
        return False
    return True


def concurrently(*parts: Callable[[], None]) -> None:
    """Run `parts` side by side and wait for all; the first failure is raised then."""
    with ThreadPoolExecutor(len(parts)) as pool:
        running = [pool.submit(part) for part in parts]
    for part in running:
        part.result()


def ends(main: Callable[[], None]) -> None:
    """Run a script's `main`; a StepError becomes one message and exit code 1, Ctrl-C 130."""
    try:
        main()
    except StepError as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
