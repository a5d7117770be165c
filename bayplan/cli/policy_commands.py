"""`bay policy`: what pods of a namespace may ask of their hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bayplan.cli import complete, listing, options
from bayplan.cli.app import policy_app
from bayplan.cli.failures import CommandError
from bayplan.cli.run import run, say
from bayplan.cli.text import clean
from bayplan.model.policy import is_level

if TYPE_CHECKING:
    from bayplan.client import Client

_POLICIES: listing.Listing[tuple[str, str]] = listing.Listing(
    kind="policy",
    headers=("NAMESPACE", "LEVEL"),
    row=lambda one: one,
    name=lambda one: one[0],
    shape=lambda one: {"namespace": one[0], "level": one[1]},
)


@policy_app.command("set")
def set_policy(
    ctx: typer.Context,
    *,
    namespace: Annotated[
        str, typer.Argument(metavar="NAMESPACE", hidden=True, autocompletion=complete.namespaces)
    ],
    level: Annotated[str, typer.Argument(metavar="baseline|privileged", hidden=True)],
) -> None:
    """Let pods of a namespace ask anything of their hosts (privileged), or nothing special (baseline).

    Now that is hostNetwork alone. For admins; pods that run are left as they are.
    """

    async def command(client: Client) -> None:
        if not is_level(level):
            raise CommandError(f'"{clean(level)}" is no policy: baseline or privileged', exit_code=2)
        say(f"policy/{clean(namespace)} {await client.set_policy(namespace, level)}")

    run(ctx, command)


@policy_app.command("list")
def list_policies(ctx: typer.Context, *, output: options.Format = "", quiet: options.Quiet = False) -> None:
    """Show the namespaces that have one; all others are baseline."""

    async def command(client: Client) -> None:
        listing.show(_POLICIES, sorted((await client.policies()).items()), output=output, quiet=quiet)

    run(ctx, command)
