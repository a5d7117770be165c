"""The frame of `bay`: what holds for every command. The commands add themselves to it."""

from __future__ import annotations

from typing import Annotated

import typer

from bayplan.cli import complete
from bayplan.cli.run import Settings
from bayplan.transport.addresses import addresses

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
    help="Say what became of a node that is gone, or end its access.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
admin_app = typer.Typer(
    help="Decide what only an operator can decide.", no_args_is_help=True, rich_markup_mode=None
)
top_app = typer.Typer(
    help="Show what nodes, pods and services use.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(node_app, name="node")
app.add_typer(admin_app, name="admin")
app.add_typer(top_app, name="top")
doctor_app = typer.Typer(help="Find out what is wrong.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(doctor_app, name="doctor")
config_app = typer.Typer(
    help="Choose among the clusters you know.", no_args_is_help=True, rich_markup_mode=None
)
auth_app = typer.Typer(help="Ask what you may do.", no_args_is_help=True, rich_markup_mode=None)
join_token_app = typer.Typer(
    help="Let nodes and managers join the cluster.", no_args_is_help=True, rich_markup_mode=None
)
user_app = typer.Typer(
    help="Give people and programs access, and end it.", no_args_is_help=True, rich_markup_mode=None
)
manager_app = typer.Typer(help="End a manager's access.", no_args_is_help=True, rich_markup_mode=None)
ca_app = typer.Typer(
    help="Show and replace the root behind all certificates.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(config_app, name="config")
app.add_typer(auth_app, name="auth")
app.add_typer(join_token_app, name="join-token")
app.add_typer(user_app, name="user")
app.add_typer(manager_app, name="manager")
app.add_typer(ca_app, name="ca")
create_app = typer.Typer(
    help="Make things without writing a manifest.", no_args_is_help=True, rich_markup_mode=None
)
create_secret_app = typer.Typer(help="Make a secret.", no_args_is_help=True, rich_markup_mode=None)
registry_app = typer.Typer(
    help="Say what nodes pull images with.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(create_app, name="create")
create_app.add_typer(create_secret_app, name="secret")
app.add_typer(registry_app, name="registry")
policy_app = typer.Typer(
    help="Say what pods of a namespace may ask of their hosts.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(policy_app, name="policy")


@app.callback()
def _settings(
    ctx: typer.Context,
    *,
    context: Annotated[
        str,
        typer.Option(
            "--context",
            metavar="NAME",
            envvar="BAYPLAN_CONTEXT",
            help="Which cluster, and as whom; see `bay config`.",
            autocompletion=complete.contexts,
        ),
    ] = "",
    managers: Annotated[
        str | None,
        typer.Option(
            "--managers",
            metavar="HOST:PORT,…",
            envvar="BAYPLAN_MANAGERS",
            help="Managers to ask, any of them, instead of the context's.",
        ),
    ] = None,
) -> None:
    given = addresses(managers or "")
    if managers is not None and not given:
        raise typer.BadParameter("names no manager", param_hint="--managers")
    ctx.obj = Settings(managers=given, context=context)
