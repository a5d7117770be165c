"""`bayplan-manager`: the command line of a manager."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path

import structlog

import bayplan
from bayplan.log import configure_log
from bayplan.transport.grpc import GrpcTransport
from manager.manager import Manager, ManagerSettings
from manager.members import DuplicateManagerError
from manager.registry_auth import RegistryAuthError, read_registry_auth
from manager.store.etcd import EtcdStore
from manager.store.etcd_members import EtcdTls
from manager.store.meta import FormatVersionError
from manager.store.port import StoreUnavailableError, StoreVersionError
from manager.store.records import DamagedRecordError

log = structlog.get_logger(__name__)

DEFAULT_PORT = 7400
ETCD_RETRY_S = 1.0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bayplan-manager",
        description="A manager of a Bayplan cluster. Run one or, better, three; one of them leads.",
        epilog="Every option can be given as an environment variable: --etcd is BAYPLAN_ETCD.",
    )

    def option(name: str, text: str, default: str | None = None) -> None:
        variable = "BAYPLAN_" + name.upper().replace("-", "_")
        value = os.environ.get(variable, default)
        parser.add_argument(f"--{name}", default=value, required=value is None, help=text)

    option("id", "this manager's name, unique in the cluster, e.g. m1")
    option("etcd", "etcd's endpoints, e.g. 10.0.0.1:2379,10.0.0.2:2379", "127.0.0.1:2379")
    option("etcd-ca", "certificate of the CA that etcd's members must show (turns TLS on)", "")
    option("etcd-cert", "this manager's certificate for etcd", "")
    option("etcd-key", "its key", "")
    option("listen", "address to listen on", f"0.0.0.0:{DEFAULT_PORT}")
    option("advertise", "address at which agents, users and other managers reach this one, host:port")
    option("default-registry", "registry of images whose name says none, e.g. registry:5000", "")
    option("registry-auth", "file with registries' passwords, in the form of Docker's config.json", "")
    parser.add_argument("--version", action="version", version=f"bayplan-manager {bayplan.__version__}")
    return parser


def _host_port(parser: argparse.ArgumentParser, text: str, option: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        parser.error(f"--{option} {text!r} is not host:port")
    return host, int(port)


def _tls(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> EtcdTls | None:
    if bool(arguments.etcd_cert) != bool(arguments.etcd_key):
        parser.error("--etcd-cert and --etcd-key belong together")
    if not arguments.etcd_ca:
        if arguments.etcd_cert:
            parser.error("--etcd-cert needs --etcd-ca")
        return None
    return EtcdTls(
        ca=Path(arguments.etcd_ca),
        cert=Path(arguments.etcd_cert) if arguments.etcd_cert else None,
        key=Path(arguments.etcd_key) if arguments.etcd_key else None,
    )


async def _run(settings: ManagerSettings, endpoints: list[str], tls: EtcdTls | None) -> None:
    loop = asyncio.get_running_loop()
    store = EtcdStore(endpoints, tls)
    manager = Manager(
        settings,
        store=store,
        transport=GrpcTransport(),
        wall_s=time.time,
        chance=random.Random(),  # noqa: S311 - jitter and ids, no secrets
    )

    async def run() -> None:
        while True:
            try:
                await store.check_version()
                break
            except StoreUnavailableError as error:
                log.warning("store.unavailable", error=str(error))
                await asyncio.sleep(ETCD_RETRY_S)
        await manager.run()

    try:
        running = asyncio.ensure_future(run())
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, running.cancel)
        await running
    except asyncio.CancelledError:
        log.info("manager.stopped", manager=settings.id)
    finally:
        await store.aclose()


def main() -> None:
    """Run until SIGTERM."""
    parser = _arguments()
    arguments = parser.parse_args()
    host, port = _host_port(parser, arguments.listen, "listen")
    _host_port(parser, arguments.advertise, "advertise")
    tls = _tls(parser, arguments)
    configure_log()
    try:
        credentials = read_registry_auth(Path(arguments.registry_auth)) if arguments.registry_auth else ()
    except (RegistryAuthError, OSError) as error:
        parser.error(str(error))
    settings = ManagerSettings(
        id=arguments.id,
        listen_host=host,
        listen_port=port,
        advertise=arguments.advertise,
        default_registry=arguments.default_registry,
        credentials=credentials,
    )
    try:
        asyncio.run(_run(settings, arguments.etcd.split(","), tls))
    except* (
        FormatVersionError,
        DuplicateManagerError,
        DamagedRecordError,
        StoreVersionError,
        OSError,
    ) as group:
        # What an operator must put right: words, no traceback.
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        sys.exit(f"bayplan-manager: {first}")


if __name__ == "__main__":
    main()
