"""`bay registry`: the user names and passwords that nodes show to registries."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

from bayplan.cli import listing
from bayplan.cli.failures import CommandError
from bayplan.cli.run import say
from bayplan.cli.text import clean

if TYPE_CHECKING:
    from bayplan.client import Client, Registry

_LOGINS: listing.Listing[Registry] = listing.Listing(
    kind="registry",
    headers=("HOST", "USERNAME"),
    row=lambda one: (one.registry, one.username),
    name=lambda one: one.registry,
    shape=lambda one: {"registry": one.registry, "username": one.username},
)


async def login(client: Client, registry: str, *, username: str, password_stdin: bool) -> None:
    """Store a login for every node; the password is asked for, or read from standard input."""
    done = await client.set_registry(registry, username=username, password=_password(is_piped=password_stdin))
    say(f"registry/{clean(done.registry)} {clean(done.result)}")


def _password(*, is_piped: bool) -> str:
    # Never an option or a variable: others on the host can see those, and shells remember them.
    if sys.stdin.isatty():
        password = getpass.getpass()
    elif is_piped:
        # The one line end that `echo` and editors add is not part of it.
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    else:
        raise CommandError("pipe the password in, and say --password-stdin", exit_code=2)
    if not password:
        raise CommandError("the password is empty")
    return password


async def logout(client: Client, registry: str) -> None:
    """Have every node forget a login."""
    done = await client.delete_registry(registry)
    say(f'registry "{clean(done)}" deleted')


async def show(client: Client, *, output: str, quiet: bool) -> None:
    """Which registries there are logins for."""
    listing.show(_LOGINS, await client.registries(), output=output, quiet=quiet)
