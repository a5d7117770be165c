"""The frame of `bay`: what holds for every command. The commands add themselves to it."""

from __future__ import annotations

from typing import Annotated

import typer

from bayplan.cli import complete
from bayplan.cli.run import Settings

app = typer.Typer(
    name="bay",
    help="Bayplan: run containers on a few hosts or a few hundred.",
    no_args_is_help=True,
    add_completion=False,
    # Plain help: fast, and it can be grepped.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
node_app = typer.Typer(
    help="Say what became of a node that is gone.", no_args_is_help=True, rich_markup_mode=None
)
admin_app = typer.Typer(
    help="Decide what only an operator can decide.", no_args_is_help=True, rich_markup_mode=None
)
top_app = typer.Typer(help="Show what nodes and pods use.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(node_app, name="node")
app.add_typer(admin_app, name="admin")
app.add_typer(top_app, name="top")


@app.callback()
def _settings(
    ctx: typer.Context,
    *,
    managers: Annotated[
        str,
        typer.Option(
            "--managers",
            metavar="HOST:PORT,…",
            envvar="BAYPLAN_MANAGERS",
            help="Managers to ask, any of them.",
        ),
    ] = complete.DEFAULT_MANAGERS,
) -> None:
    addresses = complete.addresses(managers)
    if not addresses:
        raise typer.BadParameter("names no manager", param_hint="--managers")
    ctx.obj = Settings(managers=addresses)
