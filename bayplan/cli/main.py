"""`bay`: where the process begins."""

from __future__ import annotations

import copy
import gc
import os
import sys
from collections.abc import Sequence

import typer
from typer.main import get_command_name
from typer.models import CommandInfo

from bayplan.cli import complete
from bayplan.cli.app import app

# isort: off
# Imported for the commands that they add, in the order in which help shows them.
from bayplan.cli import workload_commands, traffic_commands, cluster_commands, secret_commands  # noqa: F401
from bayplan.cli import login_commands, access_commands, policy_commands, host_commands  # noqa: F401
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
    settings, rest = _apart(list(sys.argv[1:] if arguments is None else arguments))
    try:
        _with_the_asked(rest)([*settings, *rest], prog_name="bay")
    finally:
        # The interpreter would search all that was imported for garbage before it ends: 60 ms for nothing.
        gc.freeze()


def _with_the_asked(words: Sequence[str]) -> typer.Typer:
    """`app` with the command that is asked for alone: typer evaluates every parameter of all it has (40 ms)."""
    asked = words[0] if words else ""
    commands = [command for command in app.registered_commands if _name(command) == asked]
    if not commands:
        return app  # A group, a slip, or help: all the names are needed.
    narrowed = copy.copy(app)
    narrowed.registered_commands, narrowed.registered_groups = commands, []
    return narrowed


def _name(command: CommandInfo) -> str:
    """As typer names it."""
    assert command.callback is not None
    return command.name or get_command_name(command.callback.__name__)


def _apart(arguments: list[str]) -> tuple[list[str], list[str]]:
    """`--managers` and `--context`, which may stand anywhere before a `--`, as people expect of them; the rest."""
    settings: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in _ANYWHERE:
            settings += [word, *(value for value in [next(words, None)] if value is not None)]
        elif word.partition("=")[0] in _ANYWHERE:
            settings.append(word)
        else:
            rest.append(word)
    return settings, rest
