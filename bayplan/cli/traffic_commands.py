"""The commands about traffic, with their options. What they do stands in the modules beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bayplan.cli import complete, kinds, options
from bayplan.cli.app import app, doctor_app, top_app
from bayplan.cli.run import run

if TYPE_CHECKING:
    from bayplan.client import Client


@app.command("port-forward")
def port_forward(
    ctx: typer.Context,
    *,
    target: Annotated[
        str,
        typer.Argument(metavar="POD | deploy/NAME | svc/NAME", hidden=True, autocompletion=complete.sources),
    ],
    ports: Annotated[list[str], typer.Argument(metavar="[LOCAL:]REMOTE", hidden=True)],
    namespace: options.Namespace = "default",
    address: Annotated[
        str, typer.Option("--address", metavar="ADDRESS", help="Where to listen on this computer.")
    ] = "127.0.0.1",
) -> None:
    """Lead ports of this computer to a pod, until Ctrl-C.

    Of a workload or a service each connection goes to a pod that is ready then.
    """
    from bayplan.cli import forward

    async def command(client: Client) -> None:
        reference = kinds.reference(target, default=kinds.POD)
        await forward.forward(
            client, reference, forward.parse_ports(ports), namespace=namespace, address=address
        )

    run(ctx, command)


@top_app.command("services")
def top_services(
    ctx: typer.Context,
    *,
    service: Annotated[str, typer.Argument(metavar="SERVICE", hidden=True)] = "",
    namespace: options.Namespace = "default",
    all_namespaces: options.AllNamespaces = False,
) -> None:
    """Show requests, errors, latency and connections of services.

    Over all nodes, in the last 10 s; latency of HTTP alone, from a sample.
    """
    from bayplan.cli import traffic

    place = "" if all_namespaces else namespace
    run(ctx, lambda client: traffic.top_services(client, name=service, namespace=place))


@doctor_app.command("network")
def doctor_network(ctx: typer.Context) -> None:
    """Have every node try every other: address, name, TCP, UDP and MTU of the pods' network.

    Ends with 1 if anything does not work.
    """
    from bayplan.cli import traffic

    run(ctx, traffic.doctor_network)
