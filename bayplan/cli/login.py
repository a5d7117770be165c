"""`bay login`, `bay init` and `bay config`: how this user comes to know clusters."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bayplan.cli import access
from bayplan.cli.failures import CommandError
from bayplan.cli.listing import Listing, show
from bayplan.cli.run import flush, note, say
from bayplan.cli.text import clean

if TYPE_CHECKING:
    from bayplan.client.contexts import Context

_LOOK_EVERY_S = 0.3
# A token is 113 characters; whatever else the file is, not more of it is read.
_TOKEN_FILE_MAX = 4096

_NEW_TOKEN = "a new one: `bayplan-manager --new-admin-token` on this host"  # noqa: S105  # words


def given_token(token: str, token_file: str) -> str:
    """From the command line, a file, or stdin (`-`). Raises CommandError."""
    if bool(token) == bool(token_file):
        raise CommandError("give one of --token TOKEN and --token-file FILE", exit_code=2)
    if token:
        return token
    if token_file == "-":  # noqa: S105  # stdin
        return sys.stdin.readline(_TOKEN_FILE_MAX)
    return _read(Path(token_file))


def _read(path: Path) -> str:
    try:
        with path.open(encoding="ascii") as file:
            return file.read(_TOKEN_FILE_MAX)
    except OSError as error:
        raise CommandError(f"cannot read {clean(str(path))}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{clean(str(path))} holds no join token") from error


async def login(managers: Sequence[str], token: str, *, context: str) -> Context:
    """Use up a token, and say what came of it."""
    from bayplan.client.login import login as log_in

    made = await log_in(managers, token, context=context)
    if context not in {"", made.name}:
        note(f'warning: context "{clean(context)}" is another user\'s, and was left alone')
    role = f" ({clean(made.role)})" if made.role else ""
    say(
        f"logged in to cluster {clean(made.cluster)} as {clean(made.user)}{role};"
        f' context "{clean(made.name)}" is now current'
    )
    flush()
    return made


async def init(managers: Sequence[str], token_file: Path, *, context: str, wait_s: float) -> None:
    """The first admin: the token lies beside the manager that founded the cluster."""
    from bayplan.client import AccessDeniedError, Client

    token = await _appears(token_file, wait_s=wait_s)
    try:
        made = await login(managers, token, context=context)
    except AccessDeniedError as error:
        raise CommandError(
            f"the token in {clean(str(token_file))} was not taken: {clean(str(error))}; {_NEW_TOKEN}"
        ) from error
    try:
        await asyncio.to_thread(token_file.unlink)
    except OSError as error:
        note(f"warning: cannot remove {clean(str(token_file))}, which is of no more use: {error.strerror}")
    async with Client.from_context(made.name, managers=managers) as client:
        for role in ("manager", "node"):
            new = await client.create_join_token(role)
            say(f"\nTo add a {role}, run on its host within 1 h:\n\n    {access.join_command(new, role)}")


async def _appears(path: Path, *, wait_s: float) -> str:
    """What the file holds, once it is there."""
    is_told = False
    try:
        async with asyncio.timeout(wait_s):
            while True:
                try:
                    if await asyncio.to_thread(path.exists):
                        return _read(path)
                except PermissionError as error:
                    raise CommandError(
                        f"cannot read {clean(str(path))}: {error.strerror}; run it as root: sudo bay init"
                    ) from error
                if not is_told:
                    note(
                        f"waiting for {clean(str(path))}: the manager writes it when it has founded the cluster"
                    )
                    is_told = True
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        raise CommandError(
            f"there is no {clean(str(path))} after {wait_s:g} s: the manager does not run, keeps its state"
            f" elsewhere (--token-file), or the token was used already; {_NEW_TOKEN}"
        ) from None


# Contexts


def get_contexts(*, output: str, quiet: bool) -> None:
    """Every cluster that this user knows."""
    from bayplan.client import contexts

    config = contexts.read_config(contexts.config_file())
    listing: Listing[Context] = Listing(
        kind="context",
        headers=("CURRENT", "NAME", "CLUSTER", "MANAGERS", "USER", "ROLE"),
        row=lambda one: (
            "*" if one.name == config.current else "",
            one.name,
            one.cluster,
            ",".join(one.managers),
            one.user,
            one.role or "<none>",
        ),
        name=lambda one: one.name,
        shape=lambda one: {
            "name": one.name,
            "current": one.name == config.current,
            "managers": list(one.managers),
            "cluster": one.cluster,
            "user": one.user,
            "role": one.role,
        },
    )
    show(listing, list(config.contexts.values()), output=output, quiet=quiet)


def use_context(name: str) -> None:
    """From now on commands mean this cluster."""
    from bayplan.client import contexts

    contexts.use(contexts.config_file(), name)
    say(f'Switched to context "{clean(name)}".')


def current_context(wanted: str) -> None:
    """The one that commands mean; also where `wanted` (--context, BAYPLAN_CONTEXT) names another than the file."""
    from bayplan.client import contexts

    config = contexts.read_config(contexts.config_file())
    if not (wanted or config.current):
        raise CommandError("current-context is not set")
    say(clean(contexts.named(config, wanted or config.current).name))


def delete_context(name: str) -> None:
    """With its credentials."""
    from bayplan.client import contexts

    file = contexts.config_file()
    was_current = contexts.delete(file, name)
    say(f'deleted context "{clean(name)}" from {clean(str(file))}')
    if was_current:
        note("warning: this was the current context: choose another with `bay config use-context NAME`")
