"""`bay registry`: the user names and passwords that nodes show to registries."""

from __future__ import annotations

import getpass
import json
import sys
from typing import TYPE_CHECKING

from bayplan.cli.failures import CommandError
from bayplan.cli.run import note, say
from bayplan.cli.text import clean, table

if TYPE_CHECKING:
    from bayplan.client import Client


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
    found = await client.registries()
    if output in {"json", "yaml"}:
        items = [{"registry": one.registry, "username": one.username} for one in found]
        if output == "json":
            say(json.dumps(items, indent=4))
        else:
            import yaml

            say(str(yaml.safe_dump(items, sort_keys=False)).rstrip("\n"))
    elif quiet or output == "name":
        for one in found:
            say(clean(one.registry if quiet else f"registry/{one.registry}"))
    elif not found:
        note("No logins found.")
    else:
        for line in table(("HOST", "USERNAME"), [(one.registry, one.username) for one in found]):
            say(line)
