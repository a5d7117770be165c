"""`bayplan-manager`: the command line of a manager."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import time

import structlog

import bayplan
from bayplan.log import configure_log
from bayplan.transport.grpc import GrpcTransport
from manager.manager import Manager, ManagerSettings
from manager.members import DuplicateManagerError
from manager.store.etcd import EtcdStore
from manager.store.meta import FormatVersionError
from manager.store.records import DamagedRecordError

log = structlog.get_logger(__name__)

DEFAULT_PORT = 7400


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
    option("listen", "address to listen on", f"0.0.0.0:{DEFAULT_PORT}")
    option("advertise", "address at which agents, users and other managers reach this one, host:port")
    option("default-registry", "registry of images whose name says none, e.g. registry:5000", "")
    parser.add_argument("--version", action="version", version=f"bayplan-manager {bayplan.__version__}")
    return parser


def _host_port(parser: argparse.ArgumentParser, text: str, option: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        parser.error(f"--{option} {text!r} is not host:port")
    return host, int(port)


async def _run(settings: ManagerSettings, endpoints: list[str]) -> None:
    loop = asyncio.get_running_loop()
    store = EtcdStore(endpoints)
    manager = Manager(
        settings,
        store=store,
        transport=GrpcTransport(),
        wall_s=time.time,
        chance=random.Random(),  # noqa: S311 - jitter and ids, no secrets
    )
    try:
        running = asyncio.ensure_future(manager.run())
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
    configure_log()
    settings = ManagerSettings(
        id=arguments.id,
        listen_host=host,
        listen_port=port,
        advertise=arguments.advertise,
        default_registry=arguments.default_registry,
    )
    try:
        asyncio.run(_run(settings, arguments.etcd.split(",")))
    except* (FormatVersionError, DuplicateManagerError, DamagedRecordError, OSError) as group:
        # What an operator must put right: words, no traceback.
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        sys.exit(f"bayplan-manager: {first}")


if __name__ == "__main__":
    main()
