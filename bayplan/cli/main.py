"""`bay`: where the process begins."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from bayplan.cli import complete
from bayplan.cli.app import app

# isort: off
# Imported for the commands that they add, in the order in which help shows them.
from bayplan.cli import workload_commands, cluster_commands, secret_commands  # noqa: F401
from bayplan.cli import login_commands, access_commands, host_commands  # noqa: F401
# isort: on

_ANYWHERE = ("--managers", "--context")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Ends the process with the exit codes of bayplan.cli.run."""
    if "_BAY_COMPLETE" in os.environ:
        # Typer does this itself only where it adds its own --install-completion.
        from typer._completion_classes import completion_init  # has no public name

        completion_init()
        complete.rejoin_words(os.environ)
    # What gRPC itself writes to stderr is for those who work on gRPC.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    app(_settings_first(list(sys.argv[1:] if arguments is None else arguments)), prog_name="bay")


def _settings_first(arguments: list[str]) -> list[str]:
    """`--managers` and `--context` may stand anywhere before a `--`, as people expect of them."""
    first: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in _ANYWHERE:
            first += [word, *(value for value in [next(words, None)] if value is not None)]
        elif word.partition("=")[0] in _ANYWHERE:
            first.append(word)
        else:
            rest.append(word)
    return first + rest
