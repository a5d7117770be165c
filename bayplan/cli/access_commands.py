"""The commands about who may do what, with their options. What they do stands in bayplan.cli.access."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bayplan.cli import options
from bayplan.cli.app import admin_app, app, auth_app, ca_app, join_token_app, manager_app, node_app, user_app
from bayplan.cli.failures import CommandError
from bayplan.cli.run import run
from bayplan.cli.text import clean, now_ms

if TYPE_CHECKING:
    from bayplan.client import Client

_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_TokenOnly = Annotated[bool, typer.Option("--quiet", "-q", help="The token only.")]


@app.command()
def whoami(ctx: typer.Context, *, output: options.Format = "") -> None:
    """Show who the cluster takes you for."""
    from bayplan.cli import access

    run(ctx, lambda client: access.whoami(client, output=output))


@auth_app.command("can-i")
def can_i(
    ctx: typer.Context,
    *,
    verb: Annotated[str, typer.Argument(metavar="VERB [KIND] | METHOD", hidden=True)],
    kind: Annotated[str, typer.Argument(metavar="KIND", hidden=True)] = "",
) -> None:
    """Say whether you may: get pods, scale deploy, exec, create join-token.

    Prints yes or no; ends with 1 for no.
    """
    from bayplan.cli import permissions

    run(ctx, lambda client: permissions.can_i(client, verb, kind))


# Tokens


@join_token_app.command("create")
def create_join_token(
    ctx: typer.Context,
    *,
    role: Annotated[str, typer.Option("--role", metavar="node|manager", help="What may join with it.")],
    ttl: Annotated[str, typer.Option("--ttl", metavar="TIME", help="How long it can be used.")] = "1h",
    uses: Annotated[int, typer.Option("--uses", metavar="N", min=1, max=1000, help="How often.")] = 1,
    quiet: _TokenOnly = False,
) -> None:
    """Print the command with which a host joins."""
    from bayplan.cli import access

    async def command(client: Client) -> None:
        await access.create_join_token(client, role, ttl_ms=options.lifetime_ms(ttl), uses=uses, quiet=quiet)

    if role not in {"node", "manager"}:
        raise typer.BadParameter(f'"{clean(role)}" is neither node nor manager', param_hint="--role")
    run(ctx, command)


@join_token_app.command("list")
def list_join_tokens(
    ctx: typer.Context, *, output: options.Format = "", quiet: options.Quiet = False
) -> None:
    """Show the tokens that were made; never their secrets."""
    from bayplan.cli import access

    run(ctx, lambda client: access.join_tokens(client, output=output, quiet=quiet))


@join_token_app.command("revoke")
def revoke_join_token(
    ctx: typer.Context, *, token: Annotated[str, typer.Argument(metavar="ID", hidden=True)]
) -> None:
    """Let nobody join with it any more."""
    from bayplan.cli import access

    run(ctx, lambda client: access.revoke_join_token(client, token))


# Users, nodes, managers


@user_app.command("create")
def create_user(
    ctx: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    role: Annotated[str, typer.Option("--role", metavar="viewer|operator|admin", help="What they may do.")],
    ttl: Annotated[
        str,
        typer.Option(
            "--ttl", metavar="TIME", help="How long they have access: 720h, 30d. Without: until revoked."
        ),
    ] = "",
    quiet: _TokenOnly = False,
) -> None:
    """Print the command with which somebody logs in."""
    from bayplan.cli import access

    async def command(client: Client) -> None:
        _demand_name(name)
        await access.create_user(client, name, role, ttl_ms=options.lifetime_ms(ttl), quiet=quiet)

    run(ctx, command)


def _demand_name(name: str) -> None:
    from bayplan.identity.names import is_identity_name

    if not is_identity_name(name):
        raise CommandError(
            f'"{clean(name)}" is no name: letters, digits, "-", "_" and ".", at most 63, a letter or digit first',
            exit_code=2,
        )


@user_app.command("list")
def list_users(ctx: typer.Context, *, output: options.Format = "", quiet: options.Quiet = False) -> None:
    """Show who has access."""
    from bayplan.cli import access

    run(ctx, lambda client: access.users(client, output=output, quiet=quiet))


@user_app.command("revoke")
def revoke_user(
    ctx: typer.Context, *, name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)]
) -> None:
    """End a user's access at once."""
    from bayplan.cli import access

    async def command(client: Client) -> None:
        await access.revoke(client, "user", name.removeprefix("user/"))

    run(ctx, command)


@node_app.command("revoke")
def revoke_node(ctx: typer.Context, *, node: options.NodeName, yes: _Yes = False) -> None:
    """Do not listen to a node any more; its pods go on running."""
    from bayplan.cli import access

    run(ctx, lambda client: access.revoke_node(client, node, yes=yes))


@manager_app.command("revoke")
def revoke_manager(
    ctx: typer.Context,
    *,
    manager: Annotated[str, typer.Argument(metavar="ID", hidden=True)],
    yes: _Yes = False,
) -> None:
    """Shut a manager out until it joins again."""
    from bayplan.cli import access

    run(ctx, lambda client: access.revoke_manager(client, manager, yes=yes))


# Certificates and keys


@ca_app.command("show")
def show_ca(ctx: typer.Context, *, output: options.Format = "") -> None:
    """Show the roots that are trusted, and who still needs an old one."""
    from bayplan.cli import access

    run(ctx, lambda client: access.show_ca(client, output=output))


@ca_app.command("rotate")
def rotate_ca(
    ctx: typer.Context,
    *,
    finish: Annotated[
        bool, typer.Option("--finish", help="Trust the old root no longer, whoever still needs it.")
    ] = False,
    stolen: Annotated[
        bool,
        typer.Option("--stolen", help="Never trust the old root again: users log in, and nodes join, anew."),
    ] = False,
    yes: _Yes = False,
) -> None:
    """Replace the root; certificates follow as they are renewed."""
    from bayplan.cli import access

    run(ctx, lambda client: access.rotate_ca(client, finish=finish, stolen=stolen, yes=yes))


@admin_app.command("rotate-keys")
def rotate_keys(ctx: typer.Context) -> None:
    """Encrypt the store again with new keys."""
    from bayplan.cli import access

    run(ctx, access.rotate_keys)


@app.command()
def audit(
    ctx: typer.Context,
    *,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Not older than 30s, 5m, 1h.")] = "",
    denied: Annotated[bool, typer.Option("--denied", help="Only what was not allowed.")] = False,
    who: Annotated[str, typer.Option("--who", metavar="X", help="Only of this caller, or part of it.")] = "",
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="The newest this many.")
    ] = 200,
    output: options.Format = "",
) -> None:
    """Show who called what, and what was allowed."""
    from bayplan.cli import access

    async def command(client: Client) -> None:
        since_ms = now_ms() - int(options.seconds(since) * 1000) if since else 0
        await access.audit(client, since_ms=since_ms, limit=limit, denied=denied, who=who, output=output)

    run(ctx, command)
