"""The commands about nodes, managers and the cluster, with their options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bayplan.cli import complete, options, workload_commands
from bayplan.cli.app import admin_app, app, node_app, top_app
from bayplan.cli.failures import CommandError
from bayplan.cli.run import run, run_local, say

if TYPE_CHECKING:
    from bayplan.client import Client


@app.command()
def nodes(
    ctx: typer.Context,
    *,
    output: options.Format = "",
    selector: options.Selector = "",
    watch: options.Watch = False,
    quiet: options.Quiet = False,
) -> None:
    """Show nodes; the same as `get nodes`."""
    workload_commands.get(ctx, things=["nodes"], output=output, selector=selector, watch=watch, quiet=quiet)


@app.command()
def cordon(ctx: typer.Context, node: options.NodeName) -> None:
    """Put no new pods on a node."""
    from bayplan.cli import nodes as work

    run(ctx, lambda client: work.cordon(client, options.name_of(node, "node")))


@app.command()
def uncordon(ctx: typer.Context, node: options.NodeName) -> None:
    """Put new pods on a node again; ends a drain too."""
    from bayplan.cli import nodes as work

    run(ctx, lambda client: work.uncordon(client, options.name_of(node, "node")))


@app.command()
def drain(
    ctx: typer.Context,
    *,
    node: options.NodeName,
    no_wait: options.NoWait = False,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT,
) -> None:
    """Move all pods off a node, and wait until it is empty."""
    from bayplan.cli import nodes as work

    async def command(client: Client) -> None:
        wait_s = None if no_wait else options.seconds(timeout)
        await work.drain(client, options.name_of(node, "node"), wait_s=wait_s)

    run(ctx, command)


@node_app.command("lost")
def node_lost(ctx: typer.Context, node: options.NodeName) -> None:
    """Swear that a host is dead: pods with data there may move."""
    from bayplan.cli import nodes as work

    run(ctx, lambda client: work.lost(client, options.name_of(node, "node")))


@node_app.command("remove")
def node_remove(ctx: typer.Context, node: options.NodeName) -> None:
    """Forget a node that is down and empty, or lost."""
    from bayplan.cli import nodes as work

    run(ctx, lambda client: work.remove(client, options.name_of(node, "node")))


@app.command()
def label(
    ctx: typer.Context,
    *,
    things: Annotated[
        list[str],
        typer.Argument(metavar="nodes NODE KEY=VALUE | KEY-", hidden=True, autocompletion=complete.things),
    ],
) -> None:
    """Set (KEY=VALUE) and remove (KEY-) labels of a node."""
    from bayplan.cli import nodes as work

    run(ctx, lambda client: work.label(client, things))


@app.command()
def taint(
    ctx: typer.Context,
    *,
    things: Annotated[
        list[str],
        typer.Argument(
            metavar="nodes NODE KEY=VALUE:EFFECT | KEY-", hidden=True, autocompletion=complete.things
        ),
    ],
) -> None:
    """Set (KEY=VALUE:EFFECT) and remove (KEY-) taints of a node."""
    from bayplan.cli import nodes as work

    run(ctx, lambda client: work.taint(client, things))


@top_app.command("nodes")
def top_nodes(
    ctx: typer.Context,
    *,
    node: Annotated[str, typer.Argument(metavar="NODE", hidden=True, autocompletion=complete.nodes)] = "",
) -> None:
    """Show processor and memory use of nodes."""
    from bayplan.cli import cluster

    run(ctx, lambda client: cluster.top_nodes(client, name=node))


@top_app.command("pods")
def top_pods(
    ctx: typer.Context,
    *,
    pod: Annotated[str, typer.Argument(metavar="POD", hidden=True, autocompletion=complete.pods)] = "",
    namespace: options.Namespace = "default",
    all_namespaces: options.AllNamespaces = False,
    selector: options.Selector = "",
) -> None:
    """Show processor and memory use of pods."""
    from bayplan.cli import cluster

    async def command(client: Client) -> None:
        place = "" if all_namespaces else namespace
        await cluster.top_pods(client, name=pod, namespace=place, selector=options.labels(selector))

    run(ctx, command)


@app.command()
def managers(ctx: typer.Context, *, output: options.Format = "", quiet: options.Quiet = False) -> None:
    """Show the managers, and which of them leads."""
    from bayplan.cli import cluster

    run(ctx, lambda client: cluster.managers(client, output=output, quiet=quiet))


@app.command()
def why(ctx: typer.Context, pod: options.PodName, namespace: options.Namespace = "default") -> None:
    """Say why a pod is where it is, pending, or replaced."""
    from bayplan.cli import cluster

    run(ctx, lambda client: cluster.why(client, options.name_of(pod, "pod"), namespace=namespace))


@app.command()
def version(
    ctx: typer.Context,
    *,
    client_only: Annotated[bool, typer.Option("--client", help="Of this program only.")] = False,
    output: options.Format = "",
) -> None:
    """Show this program's version, and the manager's."""
    if client_only:
        from bayplan import __version__

        say(__version__)
        return
    from bayplan.cli import cluster

    run(ctx, lambda client: cluster.version(client, output=output))


@app.command()
def completion(shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", hidden=True)]) -> None:
    """Print a script by which your shell completes commands.

    For bash: source <(bay completion bash)
    """

    def command() -> None:
        if shell not in {"bash", "zsh", "fish"}:
            raise CommandError(
                f'there is no completion for "{shell}"; there is for bash, zsh and fish', exit_code=2
            )
        from typer._completion_shared import get_completion_script  # has no public name

        say(get_completion_script(prog_name="bay", complete_var="_BAY_COMPLETE", shell=shell))

    run_local(command)


@app.command()
def adopt(
    ctx: typer.Context,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be taken over.")] = False,
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without", metavar="NODE", help="Leave behind what this node runs, instead of waiting for it."
        ),
    ] = None,
) -> None:
    """When the store is older than what runs: take what runs over."""
    from bayplan.cli import cluster

    run(ctx, lambda client: cluster.adopt(client, dry_run=dry_run, without=without or []))


@admin_app.command("accept-restore")
def accept_restore(
    ctx: typer.Context, *, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """When the store is older than what runs: stop what it lacks."""
    from bayplan.cli import cluster

    run(ctx, lambda client: cluster.accept_restore(client, yes=yes))
