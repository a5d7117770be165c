"""The commands that take passwords and other secrets in, with their options."""

from __future__ import annotations

from typing import Annotated

import typer

from bayplan.cli import complete, options
from bayplan.cli.app import create_secret_app, registry_app
from bayplan.cli.run import run

_Registry = Annotated[str, typer.Argument(metavar="HOST", hidden=True, autocompletion=complete.registries)]


@create_secret_app.callback()
def _keep_generic_a_word() -> None:
    """Make a secret."""  # With a single command and no callback, Typer would leave its name out.


@create_secret_app.command("generic")
def create_generic(
    ctx: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    literals: Annotated[
        list[str] | None,
        typer.Option(
            "--from-literal", metavar="KEY=VALUE", help="A value; others on this host can see it meanwhile."
        ),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--from-file", metavar="[KEY=]PATH", help="A file, or the files of a directory, by their names."
        ),
    ] = None,
    env_files: Annotated[
        list[str] | None,
        typer.Option("--from-env-file", metavar="PATH", help="Lines of KEY=VALUE."),
    ] = None,
    kind: Annotated[str, typer.Option("--type", metavar="TYPE", help="Opaque unless said.")] = "",
    namespace: options.Namespace = "default",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the manager check it, change nothing.")
    ] = False,
) -> None:
    """Make a secret from values and files."""
    from bayplan.cli import create

    sources = create.Sources(literals=literals or (), files=files or (), env_files=env_files or ())
    run(
        ctx,
        lambda client: create.secret(client, name, sources, namespace=namespace, kind=kind, dry_run=dry_run),
    )


@registry_app.command("login")
def registry_login(
    ctx: typer.Context,
    *,
    registry: _Registry,
    username: Annotated[str, typer.Option("--username", "-u", metavar="USER", help="The user.")],
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
) -> None:
    """Store a login, by which every node pulls from a registry."""
    from bayplan.cli import registry as work

    run(ctx, lambda client: work.login(client, registry, username=username, password_stdin=password_stdin))


@registry_app.command("logout")
def registry_logout(ctx: typer.Context, registry: _Registry) -> None:
    """Forget a login."""
    from bayplan.cli import registry as work

    run(ctx, lambda client: work.logout(client, registry))


@registry_app.command("list")
def registry_list(ctx: typer.Context, *, output: options.Format = "", quiet: options.Quiet = False) -> None:
    """Show which registries there are logins for; never passwords."""
    from bayplan.cli import registry as work

    run(ctx, lambda client: work.show(client, output=output, quiet=quiet))
