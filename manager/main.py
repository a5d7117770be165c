"""`bayplan-manager`: the command line of a manager."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from bayplan.identity.credentials import CredentialsError
from bayplan.log import configure_log
from bayplan.settings import Setting, Settings, metrics_address, read_settings
from bayplan.transport.grpc import GrpcTransport
from manager.access.access import Access, NotAMemberError, begin
from manager.access.settings import ACCESS_SETTINGS, AccessSettings, host_port, read_access_settings
from manager.founding import NETWORK_SETTINGS, NetworkSettingsError, read_network_choice
from manager.manager import Manager, ManagerSettings
from manager.members import DuplicateManagerError
from manager.store.etcd import EtcdStore
from manager.store.etcd_members import EtcdTls
from manager.store.meta import FormatVersionError
from manager.store.port import StoreError, StoreVersionError
from manager.store.records import DamagedRecordError
from manager.store.sealed import KeyringError
from manager.store.sealing import ClusterKeyError, WrongClusterKeyError

log = structlog.get_logger(__name__)

DEFAULT_PORT = 7400
METRICS = "127.0.0.1:7490"
ETCD_RETRY_S = 1.0
# Exit code for what must be mended on this host first, as for wrong settings: the unit does not restart.
MEND_FIRST = 2
SETTINGS_FILE = Path("/etc/bayplan/manager.toml")

SETTINGS = (
    Setting(name="id", help="this manager's name, unique in the cluster, e.g. m1", default=None),
    Setting(name="etcd", help="etcd's endpoints, e.g. 10.0.0.1:2379,10.0.0.2:2379", default="127.0.0.1:2379"),
    Setting(name="etcd-ca", help="certificate of the CA that etcd's members must show (turns TLS on)"),
    Setting(name="etcd-cert", help="this manager's certificate for etcd"),
    Setting(name="etcd-key", help="its key"),
    Setting(name="listen", help="address to listen on", default=f"0.0.0.0:{DEFAULT_PORT}"),
    Setting(
        name="advertise",
        help="address at which agents, users and other managers reach this one, host:port",
        default=None,
    ),
    Setting(name="default-registry", help="registry of images whose name says none, e.g. registry:5000"),
    *NETWORK_SETTINGS,
    Setting(name="metrics", help="address of /metrics, host:port; empty: none", default=METRICS),
    *ACCESS_SETTINGS,
    Setting(
        name="new-admin-token",
        help="write a login token for the user admin into --data-dir, say where, and end",
        is_flag=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arguments:
    manager: ManagerSettings
    access: AccessSettings
    etcd: list[str]  # host:port of each endpoint.
    etcd_tls: EtcdTls | None  # None: plain text.
    new_admin_token: bool


def _arguments(argv: Sequence[str], environ: Mapping[str, str], file: Path = SETTINGS_FILE) -> _Arguments:
    """Ends the program with words and exit code 2 where something is wrong."""
    given = read_settings(
        "bayplan-manager",
        "A manager of a Bayplan cluster. Run one or, better, three; one of them leads.",
        SETTINGS,
        argv=argv,
        environ=environ,
        default_file=file,
    )
    try:
        host, port = host_port(given, "listen")
        host_port(given, "advertise")
        return _Arguments(
            manager=ManagerSettings(
                id=given.text("id"),
                listen_host=host,
                listen_port=port,
                advertise=given.text("advertise"),
                default_registry=given.text("default-registry"),
                network=read_network_choice(given),
                metrics=metrics_address(given),
            ),
            access=read_access_settings(given),
            etcd=given.text("etcd").split(","),
            etcd_tls=_tls(given),
            new_admin_token=given.flag("new-admin-token"),
        )
    except (ValueError, OSError) as error:
        given.fail(str(error))


def _tls(given: Settings) -> EtcdTls | None:
    """Raises ValueError in words."""
    ca, cert, key = (given.text(name) for name in ("etcd-ca", "etcd-cert", "etcd-key"))
    if bool(cert) != bool(key):
        raise ValueError("--etcd-cert and --etcd-key belong together")
    if not ca:
        if cert:
            raise ValueError("--etcd-cert needs --etcd-ca")
        return None
    return EtcdTls(ca=Path(ca), cert=Path(cert) if cert else None, key=Path(key) if key else None)


async def _run(arguments: _Arguments) -> None:
    settings = arguments.manager
    loop = asyncio.get_running_loop()
    etcd = EtcdStore(arguments.etcd, arguments.etcd_tls)
    chance = random.Random()  # noqa: S311 - jitter and ids, no secrets

    async def run() -> None:
        access = await _access(arguments, etcd, chance)
        if arguments.new_admin_token:
            assert access is not None
            sys.stdout.write(f"{await access.new_admin_token()}\n")
            return
        manager = Manager(
            settings,
            store=access.store if access is not None else etcd,
            transport=GrpcTransport(access.own if access is not None else None),
            access=access,
            wall_s=time.time,
            chance=chance,
        )
        await manager.run()

    try:
        running = asyncio.ensure_future(run())
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, running.cancel)
        await running
    except asyncio.CancelledError:
        log.info("manager.stopped", manager=settings.id)
    finally:
        await etcd.aclose()


async def _access(arguments: _Arguments, etcd: EtcdStore, chance: random.Random) -> Access | None:
    """As soon as etcd answers; None in the insecure mode."""
    while True:
        try:
            await etcd.check_version()
            if arguments.access.insecure_loopback:
                log.warning(
                    "manager.insecure",
                    warning="NO ENCRYPTION AND NO AUTHENTICATION: everybody on this host controls the cluster",
                )
                return None
            return await begin(
                arguments.access, manager_id=arguments.manager.id, etcd=etcd, wall_s=time.time, chance=chance
            )
        except (WrongClusterKeyError, KeyringError, StoreVersionError):
            raise
        except StoreError as error:
            log.warning("store.unavailable", error=str(error))
            await asyncio.sleep(ETCD_RETRY_S)


def main() -> None:
    """Run until SIGTERM. Exits with 2 and words on what must be mended on this host first."""
    arguments = _arguments(sys.argv[1:], os.environ)
    configure_log()
    code = 0
    try:
        asyncio.run(_run(arguments))
    except* (
        # Mended elsewhere, in etcd or where the cluster key comes from; then a restart helps.
        ClusterKeyError,
        DamagedRecordError,
        DuplicateManagerError,
        KeyringError,
        StoreVersionError,
        OSError,
    ) as group:
        _say(group)
        code = 1
    except* (
        CredentialsError,
        FormatVersionError,
        NetworkSettingsError,
        NotAMemberError,
        WrongClusterKeyError,
    ) as group:
        _say(group)
        code = MEND_FIRST
    # Not in the handlers: if both run, two exits would come out as a group, with a traceback.
    if code:
        sys.exit(code)


def _say(group: BaseExceptionGroup[BaseException]) -> None:
    """What an operator must put right: words, no traceback."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    sys.stderr.write(f"bayplan-manager: {first}\n")


if __name__ == "__main__":
    main()
