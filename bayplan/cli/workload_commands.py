"""The commands about workloads and their pods, with their options. What they do stands in the modules beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bayplan.cli import complete, kinds, options
from bayplan.cli.app import app
from bayplan.cli.failures import CommandError
from bayplan.cli.run import run
from bayplan.cli.text import now_ms

if TYPE_CHECKING:
    from bayplan.client import Client


@app.command()
def apply(
    ctx: typer.Context,
    *,
    files: options.Files = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace",
            "-n",
            metavar="NAME",
            help="Of documents that name none.",
            autocompletion=complete.namespaces,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the manager check it, change nothing.")
    ] = False,
    no_wait: options.NoWait = False,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT,
    quiet: options.Quiet = False,
) -> None:
    """Create or change what manifests say, and wait until it runs."""
    from bayplan.cli import change
    from bayplan.cli import files as manifest_files

    async def command(client: Client) -> None:
        manifests = manifest_files.read(files or [], namespace=namespace)
        wait_s = None if no_wait else options.seconds(timeout)
        await change.apply(client, manifests, dry_run=dry_run, wait_s=wait_s, quiet=quiet)

    run(ctx, command)


@app.command()
def get(
    ctx: typer.Context,
    *,
    things: options.Things,
    namespace: options.Namespace = "default",
    all_namespaces: options.AllNamespaces = False,
    selector: options.Selector = "",
    output: options.Format = "",
    watch: options.Watch = False,
    no_headers: options.NoHeaders = False,
    quiet: options.Quiet = False,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="With the values of secrets; in yaml and json.")
    ] = False,
) -> None:
    """Show deploy, svc, ep, ingress, secrets, pods, nodes, events, or all."""
    from bayplan.cli import get as getting

    def query() -> getting.Query:
        return getting.Query(
            references=kinds.references(things),
            namespace="" if all_namespaces else namespace,
            selector=options.labels(selector),
            output=output,
            quiet=quiet,
            with_headers=not no_headers,
            show_secrets=show_secrets,
        )

    run(ctx, lambda client: (getting.watch if watch else getting.get)(client, query()))


@app.command()
def ps(
    ctx: typer.Context,
    *,
    workload: Annotated[
        str, typer.Argument(metavar="WORKLOAD", hidden=True, autocompletion=complete.workloads)
    ] = "",
    namespace: options.Namespace = "default",
    all_namespaces: options.AllNamespaces = False,
    output: options.Format = "",
    quiet: options.Quiet = False,
) -> None:
    """Show what became of each slot, earlier attempts too, and why."""
    from bayplan.cli import ps as listing

    place = "" if all_namespaces else namespace
    run(
        ctx,
        lambda client: listing.ps(client, workload=workload, namespace=place, output=output, quiet=quiet),
    )


@app.command()
def describe(ctx: typer.Context, things: options.Things, namespace: options.Namespace = "default") -> None:
    """Show all that is known of one thing."""
    from bayplan.cli import describe as describing

    async def command(client: Client) -> None:
        await describing.describe(client, kinds.kind_and_name(things), namespace=namespace)

    run(ctx, command)


@app.command()
def logs(
    ctx: typer.Context,
    *,
    source: Annotated[
        list[str],
        typer.Argument(metavar="POD | deploy/NAME | node/NAME", hidden=True, autocompletion=complete.sources),
    ],
    namespace: options.Namespace = "default",
    container: Annotated[str, typer.Option("--container", "-c", metavar="NAME", help="One of several.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they are written.")] = False,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Of the container before the last restart.")
    ] = False,
    tail: Annotated[
        int, typer.Option("--tail", metavar="LINES", help="That many from the end; -1: all.")
    ] = -1,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Not older than 30s, 5m, 1h.")] = "",
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Begin each line with its time.")] = False,
) -> None:
    """Print what a pod, a workload's pods or a node's agent wrote."""
    from bayplan.cli import logs as logging

    async def command(client: Client) -> None:
        wanted = logging.Wanted(
            container=container,
            follow=follow,
            previous=previous,
            tail=tail,
            since_ms=now_ms() - int(options.seconds(since) * 1000) if since else 0,
            timestamps=timestamps,
        )
        await logging.logs(client, source, namespace=namespace, wanted=wanted)

    run(ctx, command)


@app.command("exec", context_settings={"allow_interspersed_args": False})
def execute(
    ctx: typer.Context,
    *,
    pod: options.PodName,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND [ARG]", hidden=True)],
    namespace: options.Namespace = "default",
    container: Annotated[str, typer.Option("--container", "-c", metavar="NAME", help="One of several.")] = "",
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Pass our standard input on.")] = False,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Give it a terminal.")] = False,
) -> None:
    """Run a command in a pod; ends with the command's own exit code."""
    from bayplan.cli import exec as executing

    words = command[1:] if command[0] == "--" else command
    run(
        ctx,
        lambda client: executing.execute(
            client,
            options.name_of(pod, "pod"),
            words,
            namespace=namespace,
            container=container,
            tty=tty,
            stdin=stdin,
        ),
    )


@app.command()
def scale(
    ctx: typer.Context,
    *,
    things: Annotated[
        list[str], typer.Argument(metavar="deploy/NAME", hidden=True, autocompletion=complete.workloads)
    ],
    replicas: Annotated[int, typer.Option("--replicas", min=0, metavar="N", help="How many pods.")],
    current: Annotated[
        int | None, typer.Option("--current-replicas", metavar="N", help="Only if it has so many now.")
    ] = None,
    namespace: options.Namespace = "default",
    no_wait: options.NoWait = False,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT,
    quiet: options.Quiet = False,
) -> None:
    """Set how many pods a workload has, and wait until they run."""
    from bayplan.cli import change

    async def command(client: Client) -> None:
        reference = kinds.kind_and_name(things, default=kinds.DEPLOYMENT)
        if reference.kind not in kinds.WORKLOADS:
            raise CommandError(f"a {reference.kind.full_name} has no replicas")
        wait_s = None if no_wait else options.seconds(timeout)
        await change.scale(
            client,
            reference,
            namespace=namespace,
            replicas=replicas,
            current=current,
            wait_s=wait_s,
            quiet=quiet,
        )

    run(ctx, command)


@app.command()
def delete(
    ctx: typer.Context,
    *,
    things: options.ThingsIfAny = None,
    files: options.Files = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", "-n", metavar="NAME", help="The namespace.", autocompletion=complete.namespaces
        ),
    ] = None,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="What is not there is no error.")
    ] = False,
    no_wait: options.NoWait = False,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT,
    quiet: options.Quiet = False,
) -> None:
    """Delete things, and wait until they and their pods are gone."""
    from bayplan.cli import change

    async def command(client: Client) -> None:
        await change.delete(
            client,
            change.named(things or [], files or [], namespace),
            wait_s=None if no_wait else options.seconds(timeout),
            ignore_not_found=ignore_not_found,
            quiet=quiet,
        )

    run(ctx, command)


@app.command()
def events(
    ctx: typer.Context,
    *,
    of: Annotated[
        str, typer.Argument(metavar="KIND/NAME | POD", hidden=True, autocompletion=complete.sources)
    ] = "",
    namespace: options.Namespace = "default",
    all_namespaces: options.AllNamespaces = False,
    output: options.Format = "",
    watch: options.Watch = False,
    no_headers: options.NoHeaders = False,
) -> None:
    """Show what happened, and why."""
    from bayplan.cli import get as getting

    async def command(client: Client) -> None:
        found = kinds.reference(of, default=kinds.POD) if of else None
        about = await getting.object_of(client, found, namespace=namespace) if found else ""
        query = getting.Query(
            references=[kinds.Reference(kinds.EVENT, about)],
            namespace="" if all_namespaces or (found and not found.kind.is_namespaced) else namespace,
            selector={},
            output=output,
            with_headers=not no_headers,
        )
        await (getting.watch if watch else getting.get)(client, query)

    run(ctx, command)
