"""`bayplan-agent`: settings → an agent on real Docker, gRPC, time and chance."""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from agent.agent import Agent
from agent.host import LinuxHost
from agent.identity import NoTokenError, own_identity
from agent.log_ring import LogRing
from agent.runtime.docker import DEFAULT_SOCKET, DockerRuntime
from agent.settings import WITNESS_PORT, AgentSettings
from bayplan.identity.credentials import CredentialsError, OwnIdentity
from bayplan.log import configure_log
from bayplan.model.names import is_name
from bayplan.resources.quantity import QuantityError, parse_cpu_millis, parse_memory_bytes
from bayplan.settings import Setting, Settings, is_loopback, read_settings
from bayplan.transport.grpc import GrpcTransport

log = structlog.get_logger(__name__)

MANAGER_PORT = 7400
PORT_MAX = 65535
# Exit code for what must be mended on this host first, as for wrong settings: the unit does not restart.
MEND_FIRST = 2
SETTINGS_FILE = Path("/etc/bayplan/agent.toml")

SETTINGS = (
    Setting(name="node", help="this node's name", default=platform.node().partition(".")[0].lower()),
    Setting(name="managers", help="addresses of managers, host:port, separated by commas"),
    Setting(name="advertise", help="address at which other hosts reach this one"),
    Setting(name="data-dir", help="where journal and identity are kept", default="/var/lib/bayplan"),
    Setting(
        name="witness-port",
        help="answers other nodes' signs-of-life checks",
        default=WITNESS_PORT,
        is_number=True,
    ),
    Setting(name="docker-host", help="the engine's unix socket", default=f"unix://{DEFAULT_SOCKET}"),
    Setting(name="cpu", help="processors to offer, e.g. 4 or 3500m; all if not given"),
    Setting(name="memory", help="memory to offer, e.g. 8Gi; all if not given"),
    Setting(name="reserved-cpu", help="kept back from pods", default="0"),
    Setting(name="reserved-memory", help="kept back from pods", default="0"),
    Setting(name="boot-id", help="instead of the kernel's, for a node that is a container itself"),
    Setting(name="label", help="label of this node", form="KEY=VALUE", is_repeated=True),
    Setting(
        name="join-token",
        help="what lets a new node join; others on this host can see it in a flag, not in a file",
        is_secret=True,
    ),
    Setting(name="join-token-file", help="file that holds the join token, or will", form="FILE"),
    Setting(
        name="insecure-loopback",
        help="no encryption, no authentication; managers at loopback addresses only",
        is_flag=True,
    ),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exits with 2 and words on what an operator must put right, 1 if a part failed."""
    given = _given(sys.argv[1:] if arguments is None else arguments, os.environ)
    try:
        settings = _settings(given)
    except ValueError as error:
        given.fail(str(error))
    ring = LogRing()
    configure_log(ring)
    try:
        lock = _lock(settings.data_dir)
    except OSError as error:
        sys.exit(f"bayplan-agent: cannot use {settings.data_dir}: {error.strerror}")
    if lock is None:
        # Two agents on one journal and one engine would undo each other's work.
        sys.exit(f"bayplan-agent: another agent already runs with {settings.data_dir}")
    code = 0
    try:
        asyncio.run(
            _run(
                settings,
                docker_socket=_socket(given.text("docker-host")),
                boot_id=given.text("boot-id"),
                ring=ring,
            )
        )
    except* (NoTokenError, CredentialsError) as refused:
        sys.stderr.write(f"bayplan-agent: {refused.exceptions[0]}\n")
        code = MEND_FIRST
    except* Exception as failed:
        log.exception("agent.failed", errors=[str(error) for error in failed.exceptions])
        code = code or 1
    # Not in the handlers: if both run, two exits would come out as a group, with a traceback.
    if code:
        sys.exit(code)


async def _run(settings: AgentSettings, *, docker_socket: str, boot_id: str, ring: LogRing) -> None:
    own = await _identity(settings)
    runtime = DockerRuntime(
        cluster="",  # Known once the journal is read, or a manager was heard.
        node=settings.node,
        wall_s=time.time,
        socket=docker_socket,
        pulled_file=settings.data_dir / "pulled-images.json",
    )
    agent = Agent(
        settings,
        transport=GrpcTransport(own),
        own=own,
        runtime=runtime,
        host=LinuxHost(boot_id=boot_id),
        wall_s=time.time,
        rng=random.SystemRandom(),
        ring=ring,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    try:
        await agent.run()
    finally:
        await runtime.aclose()


async def _identity(settings: AgentSettings) -> OwnIdentity | None:
    """None in the insecure mode. A stop while it waits for a token, or a manager, ends the process."""
    if settings.insecure_loopback:
        log.warning(
            "agent.insecure",
            warning="NO ENCRYPTION AND NO IDENTITY: everybody on this host can act as this node and read all it is told",
        )
        return None
    loop, joining = asyncio.get_running_loop(), asyncio.ensure_future(own_identity(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, joining.cancel)
    try:
        return await joining
    except asyncio.CancelledError:
        sys.exit(0)


def _lock(directory: Path) -> int | None:
    """Claim the directory for as long as this process lives. None: another process has it. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return lock


def _given(argv: Sequence[str], environ: Mapping[str, str], file: Path = SETTINGS_FILE) -> Settings:
    return read_settings(
        "bayplan-agent",
        "Runs this host's pods through its container engine.",
        SETTINGS,
        argv=argv,
        environ=environ,
        default_file=file,
    )


def _settings(given: Settings) -> AgentSettings:
    """Raises ValueError in words."""
    node = given.text("node")
    if not is_name(node):
        raise ValueError(
            f"--node {node!r} is no node name: lower case letters, digits and '-', at most 63{given.whence('node')}"
        )
    if not given.text("data-dir"):
        raise ValueError(f"--data-dir is empty{given.whence('data-dir')}")
    if given.number("witness-port") > PORT_MAX:
        raise ValueError(f"--witness-port is larger than {PORT_MAX}{given.whence('witness-port')}")
    managers = _managers(given)
    token_file = given.text("join-token-file")
    return AgentSettings(
        node=node,
        data_dir=Path(given.text("data-dir")),
        managers=managers,
        address=given.text("advertise") or _own_address(managers[0]),
        witness_port=given.number("witness-port"),
        labels=dict(_label(text, given) for text in given.all("label")),
        cpu_millis=_quantity(given, "cpu", parse_cpu_millis),
        memory_bytes=_quantity(given, "memory", parse_memory_bytes),
        reserved_cpu_millis=_quantity(given, "reserved-cpu", parse_cpu_millis),
        reserved_memory_bytes=_quantity(given, "reserved-memory", parse_memory_bytes),
        join_token=given.text("join-token"),
        join_token_file=Path(token_file) if token_file else None,
        insecure_loopback=given.flag("insecure-loopback"),
    )


def _managers(given: Settings) -> tuple[str, ...]:
    managers = tuple(_with_port(each.strip()) for each in given.text("managers").split(",") if each.strip())
    if not managers:
        raise ValueError("--managers is missing: give at least one host:port")
    if given.flag("insecure-loopback"):
        for address in managers:
            if not is_loopback(address.rpartition(":")[0]):
                raise ValueError(
                    f"--insecure-loopback does not go with --managers {address}{given.whence('managers')}: "
                    "without encryption only loopback addresses are allowed, such as 127.0.0.1"
                )
    return managers


def _quantity(given: Settings, name: str, parse: Callable[[str], int]) -> int:
    """0 where nothing is said."""
    text = given.text(name)
    try:
        return parse(text) if text else 0
    except QuantityError as error:
        raise ValueError(f"--{name} {error}{given.whence(name)}") from error


def _with_port(address: str) -> str:
    return address if ":" in address else f"{address}:{MANAGER_PORT}"


def _label(text: str, given: Settings) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f"--label {text!r} is not KEY=VALUE{given.whence('label')}")
    return key, value


def _own_address(manager: str) -> str:
    """The address from which this host would speak to a manager; its name where that cannot be told."""
    host, _, port = manager.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing; it only picks the route.
            probe.connect((host, int(port)))
            return str(probe.getsockname()[0])
        except OSError:
            return platform.node()


def _socket(docker_host: str) -> str:
    return docker_host.removeprefix("unix://")


if __name__ == "__main__":
    main()
