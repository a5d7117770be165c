"""`bayplan-agent`: flags and environment → an agent on real Docker, gRPC, time and chance."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import platform
import random
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

import bayplan
from agent.agent import Agent
from agent.host import LinuxHost
from agent.log_ring import LogRing
from agent.runtime.docker import DEFAULT_SOCKET, DockerRuntime
from agent.settings import WITNESS_PORT, AgentSettings
from bayplan.log import configure_log
from bayplan.model.names import is_name
from bayplan.resources.quantity import QuantityError, parse_cpu_millis, parse_memory_bytes
from bayplan.transport.grpc import GrpcTransport

log = structlog.get_logger(__name__)

MANAGER_PORT = 7400


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exits with 2 and words on wrong flags, 1 if a part failed."""
    parser = _parser()
    flags = parser.parse_args(arguments)
    try:
        settings = _settings(flags)
    except (QuantityError, ValueError) as error:
        parser.error(str(error))
    ring = LogRing()
    configure_log(ring)
    try:
        lock = _lock(settings.data_dir)
    except OSError as error:
        parser.exit(1, f"bayplan-agent: cannot use {settings.data_dir}: {error.strerror}\n")
    if lock is None:
        # Two agents on one journal and one engine would undo each other's work.
        parser.exit(1, f"bayplan-agent: another agent already runs with {settings.data_dir}\n")
    try:
        asyncio.run(
            _run(settings, docker_socket=_socket(flags.docker_host), boot_id=flags.boot_id, ring=ring)
        )
    except* Exception as failed:
        log.exception("agent.failed", errors=[str(error) for error in failed.exceptions])
        sys.exit(1)


async def _run(settings: AgentSettings, *, docker_socket: str, boot_id: str, ring: LogRing) -> None:
    runtime = DockerRuntime(
        cluster="",  # Known once the journal is read, or a manager was heard.
        node=settings.node,
        wall_s=time.time,
        socket=docker_socket,
        pulled_file=settings.data_dir / "pulled-images.json",
    )
    agent = Agent(
        settings,
        transport=GrpcTransport(),
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


def _lock(directory: Path) -> int | None:
    """Claim the directory for as long as this process lives. None: another process has it. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return lock


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bayplan-agent",
        description="Runs this host's pods through its container engine.",
        epilog="Each flag can be given as an environment variable too, e.g. --data-dir as BAYPLAN_DATA_DIR.",
    )
    parser.add_argument("--version", action="version", version=f"bayplan-agent {bayplan.__version__}")
    _flag(parser, "--node", platform.node().partition(".")[0].lower(), "this node's name")
    _flag(parser, "--managers", "", "addresses of managers, host:port, separated by commas")
    _flag(parser, "--advertise", "", "address at which other hosts reach this one")
    _flag(parser, "--data-dir", "/var/lib/bayplan", "where the journal is kept")
    _flag(parser, "--witness-port", str(WITNESS_PORT), "answers other nodes' signs-of-life checks")
    _flag(parser, "--docker-host", f"unix://{DEFAULT_SOCKET}", "the engine's unix socket")
    _flag(parser, "--cpu", "", "processors to offer, e.g. 4 or 3500m (default: all)")
    _flag(parser, "--memory", "", "memory to offer, e.g. 8Gi (default: all)")
    _flag(parser, "--reserved-cpu", "0", "kept back from pods")
    _flag(parser, "--reserved-memory", "0", "kept back from pods")
    _flag(parser, "--boot-id", "", "instead of the kernel's, for a node that is a container itself")
    labels = os.environ.get("BAYPLAN_LABELS", "")
    parser.add_argument(
        "--label",
        action="append",
        default=[label for label in labels.split(",") if label],
        metavar="KEY=VALUE",
        help="label of this node; may be repeated (BAYPLAN_LABELS: separated by commas)",
    )
    return parser


def _flag(parser: argparse.ArgumentParser, name: str, default: str, text: str) -> None:
    variable = "BAYPLAN_" + name.removeprefix("--").replace("-", "_").upper()
    value = os.environ.get(variable, default)
    parser.add_argument(name, default=value, help=f"{text} ({variable})")


def _settings(flags: argparse.Namespace) -> AgentSettings:
    """Raises ValueError in words."""
    if not is_name(flags.node):
        raise ValueError(
            f"--node {flags.node!r} is no node name: lower case letters, digits and '-', at most 63"
        )
    managers = tuple(_with_port(each.strip()) for each in flags.managers.split(",") if each.strip())
    if not managers:
        raise ValueError("--managers is missing: give at least one host:port")
    labels = dict(_label(text) for text in flags.label)
    return AgentSettings(
        node=flags.node,
        data_dir=Path(flags.data_dir),
        managers=managers,
        address=flags.advertise or _own_address(managers[0]),
        witness_port=int(flags.witness_port),
        labels=labels,
        cpu_millis=parse_cpu_millis(flags.cpu) if flags.cpu else 0,
        memory_bytes=parse_memory_bytes(flags.memory) if flags.memory else 0,
        reserved_cpu_millis=parse_cpu_millis(flags.reserved_cpu),
        reserved_memory_bytes=parse_memory_bytes(flags.reserved_memory),
    )


def _with_port(address: str) -> str:
    return address if ":" in address else f"{address}:{MANAGER_PORT}"


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f"--label {text!r} is not KEY=VALUE")
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
