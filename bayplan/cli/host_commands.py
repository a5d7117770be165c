"""The commands that are about the host they run on: `install`, `node check`, `admin etcd-certs`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from bayplan.cli.app import admin_app, app, node_app
from bayplan.cli.failures import CommandError
from bayplan.cli.run import Settings, note, run_local, say

if TYPE_CHECKING:
    from bayplan.cli.install import Environment, Plan, Wanted
    from bayplan.cli.install_steps import Host, Step

install_app = typer.Typer(
    help="Lay down units and settings on this host.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(install_app, name="install")

DEFAULT_SOCKET = "unix:///var/run/docker.sock"

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]
Token = Annotated[
    str,
    typer.Option("--join-token", metavar="TOKEN|-", help="Lets it join; - reads it from standard input."),
]
TokenFile = Annotated[
    str, typer.Option("--join-token-file", metavar="FILE", help="Where the token is, or will be.")
]
DataDir = Annotated[str, typer.Option("--data-dir", metavar="DIR", help="Where it keeps what is its own.")]


@install_app.command("manager")
def install_manager(
    *,
    identifier: Annotated[str, typer.Option("--id", metavar="NAME", help="Its name, such as m1.")] = "",
    etcd: Annotated[
        str, typer.Option("--etcd", metavar="HOST:PORT,…", help="etcd's members; by default this host's.")
    ] = "",
    etcd_ca: Annotated[str, typer.Option("--etcd-ca", metavar="FILE", help="CA of etcd's members.")] = "",
    etcd_cert: Annotated[str, typer.Option("--etcd-cert", metavar="FILE", help="Certificate for etcd.")] = "",
    etcd_key: Annotated[str, typer.Option("--etcd-key", metavar="FILE", help="Its key.")] = "",
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen.")] = "",
    advertise: Annotated[
        str, typer.Option("--advertise", metavar="HOST:PORT", help="Where others reach this manager.")
    ] = "",
    join: Annotated[
        str, typer.Option("--join", metavar="HOST:PORT", help="A manager that is in the cluster already.")
    ] = "",
    join_token: Token = "",
    join_token_file: TokenFile = "",
    data_dir: DataDir = "",
    default_registry: Annotated[
        str, typer.Option("--default-registry", metavar="HOST", help="Of images whose name says none.")
    ] = "",
    certificate_life: Annotated[
        str, typer.Option("--certificate-life", metavar="TIME", help="How long certificates are good.")
    ] = "",
    pod_range: Annotated[
        str, typer.Option("--pod-range", metavar="A.B.C.D/N", help="Addresses of pods, in a new cluster.")
    ] = "",
    node_prefix: Annotated[
        int | None, typer.Option("--node-prefix", metavar="N", help="Length of each node's part of them.")
    ] = None,
    service_range: Annotated[
        str, typer.Option("--service-range", metavar="A.B.C.D/N", help="Addresses of services, likewise.")
    ] = "",
    cluster_domain: Annotated[
        str, typer.Option("--cluster-domain", metavar="NAME", help="End of all names in DNS, likewise.")
    ] = "",
    network: Annotated[
        str,
        typer.Option("--network", metavar="vxlan|wireguard|off", help="What joins the nodes, likewise."),
    ] = "",
    network_id: Annotated[
        int | None, typer.Option("--network-id", metavar="N", help="Number of the pods' network, likewise.")
    ] = None,
    network_port: Annotated[
        int | None, typer.Option("--network-port", metavar="PORT", help="UDP port between nodes, likewise.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Make this host a manager. What is not named stays as it was, or as the manager's default.

    The first manager on an empty etcd founds the cluster; others are given --join and a token.
    """
    from bayplan.cli.install import plan_manager

    settings: dict[str, str | int | list[str] | None] = {
        "id": identifier,
        "etcd": etcd,
        "etcd-ca": etcd_ca,
        "etcd-cert": etcd_cert,
        "etcd-key": etcd_key,
        "listen": listen,
        "advertise": _with_port(advertise),
        "join": _with_port(join),
        "join-token-file": join_token_file,
        "data-dir": data_dir,
        "default-registry": default_registry,
        "certificate-life": certificate_life,
        "pod-range": pod_range,
        "node-prefix": node_prefix,
        "service-range": service_range,
        "cluster-domain": cluster_domain,
        "network": network,
        "network-id": network_id,
        "network-port": network_port,
    }

    def plan(host: Host) -> Plan:
        return plan_manager(_wanted(settings, join_token), _environment(), host)

    run_local(lambda: _install(plan, dry_run=dry_run))


@install_app.command("agent")
def install_agent(
    ctx: typer.Context,
    *,
    node: Annotated[
        str, typer.Option("--node", metavar="NAME", help="The node's name; by default the host's.")
    ] = "",
    advertise: Annotated[
        str, typer.Option("--advertise", metavar="HOST", help="Where other hosts reach this one.")
    ] = "",
    join_token: Token = "",
    join_token_file: TokenFile = "",
    data_dir: DataDir = "",
    docker_host: Annotated[
        str, typer.Option("--docker-host", metavar="unix://PATH", help="The engine's socket.")
    ] = "",
    witness_port: Annotated[
        int | None, typer.Option("--witness-port", metavar="PORT", help="Answers signs-of-life checks.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="Label of the node; may be repeated."),
    ] = None,
    publish_address: Annotated[
        list[str] | None,
        typer.Option(
            "--publish-address",
            metavar="ADDRESS",
            help="Where published ports are bound, if not at --advertise; may be repeated.",
        ),
    ] = None,
    cpu: Annotated[str, typer.Option("--cpu", metavar="CPU", help="Processors to offer.")] = "",
    memory: Annotated[str, typer.Option("--memory", metavar="SIZE", help="Memory to offer.")] = "",
    reserved_cpu: Annotated[
        str, typer.Option("--reserved-cpu", metavar="CPU", help="Kept back from pods.")
    ] = "",
    reserved_memory: Annotated[
        str, typer.Option("--reserved-memory", metavar="SIZE", help="Kept back from pods.")
    ] = "",
    dry_run: DryRun = False,
) -> None:
    """Make this host a node of the managers that --managers names.

    What is not named stays as it was, or as the agent's default.
    """
    from bayplan.cli.install import plan_agent

    settings: dict[str, str | int | list[str] | None] = {
        "node": node,
        "managers": ",".join(_with_port(address) for address in _named_managers(ctx)),
        "advertise": advertise,
        "join-token-file": join_token_file,
        "data-dir": data_dir,
        "docker-host": docker_host,
        "witness-port": witness_port,
        "labels": label,
        "publish-addresses": publish_address,
        "cpu": cpu,
        "memory": memory,
        "reserved-cpu": reserved_cpu,
        "reserved-memory": reserved_memory,
    }

    def plan(host: Host) -> Plan:
        return plan_agent(_wanted(settings, join_token), _environment(), host)

    run_local(lambda: _install(plan, dry_run=dry_run))


@install_app.command("etcd")
def install_etcd(
    *,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The member's name, such as e1.")],
    address: Annotated[str, typer.Option("--address", metavar="IP", help="Where the others reach it.")],
    member: Annotated[
        list[str] | None,
        typer.Option("--member", metavar="NAME=IP", help="Another member; may be repeated."),
    ] = None,
    existing: Annotated[
        bool, typer.Option("--existing", help="Joins members that run, after `etcdctl member add`.")
    ] = False,
    program: Annotated[
        str, typer.Option("--program", metavar="FILE", help="etcd's program; by default that on the PATH.")
    ] = "",
    dry_run: DryRun = False,
) -> None:
    """Make this host a member of etcd, with TLS.

    The certificates are those of `bay admin etcd-certs /etc/bayplan/etcd`.
    """
    from bayplan.cli.install import plan_etcd

    def plan(host: Host) -> Plan:
        found = program or shutil.which("etcd")
        if not found:
            raise CommandError("etcd is not installed: Debian and Ubuntu have it as etcd-server")
        return plan_etcd(name, address, member or [], is_existing=existing, program=found, host=host)

    run_local(lambda: _install(plan, dry_run=dry_run))


@admin_app.command("etcd-certs")
def etcd_certs(
    directory: Annotated[Path, typer.Argument(metavar="DIR", hidden=True)],
    *,
    host: Annotated[
        list[str],
        typer.Option("--host", metavar="NAME|IP", help="Where others reach the member; may be repeated."),
    ],
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="A member on another host: made in DIR/NAME.")
    ] = "",
    owner: Annotated[
        str, typer.Option("--owner", metavar="USER", help="Whom server.key shall belong to.")
    ] = "",
    renew: Annotated[bool, typer.Option("--renew", help="Also what is good for long.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Make certificates for etcd: a CA, once; a member's; a manager's.

    Without --name they are for this host. With it, DIR/NAME holds all that is to be copied to
    another host. The CA's key stays in DIR.
    """

    def command() -> None:
        import time

        from bayplan.cli.etcd_certs import Order, make_certificates
        from bayplan.cli.install_steps import HostAccounts

        order = Order(
            directory=directory, hosts=host, name=name, owner=owner, is_renewal=renew, dry_run=dry_run
        )
        target = make_certificates(order, HostAccounts(), say, now_s=time.time())
        if name:
            say(f"next: copy {target} to that host, as /etc/bayplan/etcd")

    run_local(command)


@node_app.command("check")
def node_check(
    ctx: typer.Context,
    *,
    docker_host: Annotated[
        str, typer.Option("--docker-host", metavar="unix://PATH", help="The engine's socket.")
    ] = DEFAULT_SOCKET,
    data_dir: DataDir = "/var/lib/bayplan",
    witness_port: Annotated[
        int | None,
        typer.Option("--witness-port", metavar="PORT", min=1, max=65535, help="The agent's, if not 7443."),
    ] = None,
) -> None:
    """Say what this host lacks to be a node; ends with 1 if anything is.

    With --managers it is also tried whether they can be reached from here.
    """

    def command() -> None:
        from bayplan.cli.node_check import PORTS, WITNESS_PORT, Verdict, check_node
        from bayplan.cli.node_check_facts import gather

        port = witness_port or WITNESS_PORT
        facts = gather(
            engine_socket=docker_host.removeprefix("unix://"),
            data_dir=data_dir,
            witness_port=port,
            managers=[_with_port(address) for address in _named_managers(ctx)],
            ports=PORTS,
        )
        checks = check_node(facts, witness_port=port)
        for check in checks:
            say(check.line())
        lacking = sum(check.verdict is Verdict.LACKS for check in checks)
        if lacking:
            raise CommandError(f"this host cannot be a node yet: {lacking} of {len(checks)} checks failed")

    run_local(command)


def _install(plan: Callable[[Host], Plan], *, dry_run: bool) -> None:
    from bayplan.cli.install_steps import Host, TextFile, carry_out

    if os.geteuid() != 0 and not dry_run:
        raise CommandError("this changes the host: run it as root, or see with --dry-run what it would do")
    host = Host()
    planned = plan(host)
    unit = f"{planned.unit}.service"
    there = {
        PurePosixPath(step.path).name
        for step in planned.steps
        if isinstance(step, TextFile) and host.path(step.path).exists()
    }
    changed = carry_out(planned.steps, host, say, dry_run=dry_run)
    for each in planned.notes:
        note(f"note: {each}")
    if dry_run:
        say("nothing was done: --dry-run")
    elif unit not in there:
        say(f"next: systemctl enable --now {planned.unit}")
    elif changed:
        say(f"next: systemctl daemon-reload && systemctl restart {planned.unit}")
        beside = _services(changed) & there - {unit}
        if beside:
            say(f"and when a second without them does no harm: systemctl restart {' '.join(sorted(beside))}")


def _services(steps: Sequence[Step]) -> set[str]:
    """Names of the units that they lay down."""
    from bayplan.cli.install_steps import TextFile

    names = {PurePosixPath(step.path).name for step in steps if isinstance(step, TextFile)}
    return {name for name in names if name.endswith(".service")}


def _wanted(settings: dict[str, str | int | list[str] | None] | dict[str, str], token: str) -> Wanted:
    """What was named. Raises CommandError."""
    from bayplan.cli.install import Wanted
    from bayplan.identity.tokens import TokenError, parse_token

    if token and settings.get("join-token-file"):
        raise CommandError("give one of --join-token TOKEN and --join-token-file FILE", exit_code=2)
    is_piped = token == "-"  # noqa: S105 - what stands for standard input
    text = sys.stdin.readline().strip() if is_piped else token
    try:
        if text or is_piped:
            parse_token(text)
    except TokenError as error:
        raise CommandError(str(error), exit_code=2) from error
    given = {key: value for key, value in settings.items() if value not in ("", None, [])}
    return Wanted(settings={key: value for key, value in given.items() if value is not None}, token=text)


def _environment() -> Environment:
    from bayplan.cli.install import Environment

    # Not resolved: the environment's python is a link to the one that it was made from.
    return Environment(programs=str(Path(sys.executable).parent), python=sys.base_prefix)


def _named_managers(ctx: typer.Context) -> list[str]:
    """Those of --managers or BAYPLAN_MANAGERS; none if only a context names some."""
    settings = ctx.find_object(Settings)
    assert settings is not None
    return list(settings.managers)


def _with_port(address: str) -> str:
    """An empty address stays so."""
    has_port = address.rpartition(":")[2].isdigit() and not address.endswith("]")
    return address if has_port or not address else f"{address}:7400"
