"""The commands that make, choose and forget contexts, with their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayplan.cli import complete, options
from bayplan.cli.app import app, config_app
from bayplan.cli.failures import CommandError
from bayplan.cli.run import run_local, run_unconnected, settings_of
from bayplan.transport.addresses import addresses

_ContextName = Annotated[str, typer.Argument(metavar="NAME", hidden=True, autocompletion=complete.contexts)]


def _managers(text: str) -> tuple[str, ...]:
    found = addresses(text)
    for address in found:
        host, _, port = address.rpartition(":")
        if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
            raise CommandError(f"{address!r} is not HOST:PORT", exit_code=2)
    if not found:
        raise CommandError("name a manager: HOST:PORT", exit_code=2)
    return found


def _new_name(ctx: typer.Context) -> str:
    """That of --context. BAYPLAN_CONTEXT says whom commands mean, not whose place a login takes."""
    source = ctx.find_root().get_parameter_source("context")
    is_said = source is not None and source.name == "COMMANDLINE"
    return settings_of(ctx).context if is_said else ""


@app.command()
def login(
    ctx: typer.Context,
    *,
    managers: Annotated[str, typer.Argument(metavar="HOST:PORT[,HOST:PORT…]", hidden=True)],
    token: Annotated[
        str,
        typer.Option(
            "--token", metavar="TOKEN", help="From `bay user create`; others on this host can see it."
        ),
    ] = "",
    token_file: Annotated[
        str, typer.Option("--token-file", metavar="FILE", help="File that holds the token; -: stdin.")
    ] = "",
) -> None:
    """Get access to a cluster, as a context of its own.

    --context names it; without, it is called default, or after the cluster.
    """
    from bayplan.cli import login as work

    async def command() -> None:
        found = _managers(managers)
        given = work.given_token(token, token_file)
        await work.login(found, given, context=_new_name(ctx))

    run_unconnected(command)


@app.command()
def init(
    ctx: typer.Context,
    *,
    manager: Annotated[str, typer.Argument(metavar="[HOST:PORT]", hidden=True)] = "127.0.0.1:7400",
    token_file: Annotated[
        str, typer.Option("--token-file", metavar="FILE", help="Where the manager put the first token.")
    ] = "/var/lib/bayplan-manager/admin.token",  # noqa: S107  # a file's name
    timeout: options.Timeout = "60s",
) -> None:
    """Beside the first manager: become admin, see how others join."""
    from bayplan.cli import login as work

    async def command() -> None:
        wait_s = options.seconds(timeout)
        await work.init(_managers(manager), Path(token_file), context=_new_name(ctx), wait_s=wait_s)

    run_unconnected(command)


@config_app.command("get-contexts")
def get_contexts(*, output: options.Format = "", quiet: options.Quiet = False) -> None:
    """Show the clusters you know; * marks the current one."""
    from bayplan.cli import login as work

    run_local(lambda: work.get_contexts(output=output, quiet=quiet))


@config_app.command("use-context")
def use_context(name: _ContextName) -> None:
    """From now on, mean this cluster."""
    from bayplan.cli import login as work

    run_local(lambda: work.use_context(name))


@config_app.command("current-context")
def current_context(ctx: typer.Context) -> None:
    """Print the name of the cluster that is meant."""
    from bayplan.cli import login as work

    run_local(lambda: work.current_context(settings_of(ctx).context))


@config_app.command("delete-context")
def delete_context(name: _ContextName) -> None:
    """Forget a cluster, and the credentials for it."""
    from bayplan.cli import login as work

    run_local(lambda: work.delete_context(name))
