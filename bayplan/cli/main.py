"""`bay`: where the process begins."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# Imported for the commands that they add.
from bayplan.cli import cluster_commands, complete, workload_commands  # noqa: F401
from bayplan.cli.app import app


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Ends the process with the exit codes of bayplan.cli.run."""
    if "_BAY_COMPLETE" in os.environ:
        # Typer does this itself only where it adds its own --install-completion.
        from typer._completion_classes import completion_init  # has no public name

        completion_init()
        complete.rejoin_words(os.environ)
    app(_managers_first(list(sys.argv[1:] if arguments is None else arguments)), prog_name="bay")


def _managers_first(arguments: list[str]) -> list[str]:
    """`--managers` may stand anywhere before a `--`, as people expect of it."""
    first: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word == "--managers":
            first += [word, *(value for value in [next(words, None)] if value is not None)]
        elif word.startswith("--managers="):
            first.append(word)
        else:
            rest.append(word)
    return first + rest
