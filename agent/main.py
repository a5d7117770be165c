"""`bayplan-agent`: settings → an agent on real Docker, gRPC, time and chance."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import structlog

from agent.agent import Agent
from agent.dns.publisher import ZonePublisher
from agent.dns.stats import SOCKET_NAME, read_stats
from agent.host import LinuxHost
from agent.identity import NoTokenError, own_identity
from agent.log_ring import LogRing
from agent.metrics import read_proxy
from agent.network.echo import Echo
from agent.network.linux import LinuxNetwork
from agent.options import agent_settings, read_options
from agent.probes.prober import HostProber
from agent.runtime.docker import DockerRuntime
from agent.settings import AgentSettings
from agent.traffic import places, ports
from agent.traffic.proxy import HaproxyProxy
from bayplan.identity.credentials import CredentialsError, OwnIdentity
from bayplan.log import configure_log
from bayplan.metrics_page import serve_metrics
from bayplan.transport.grpc import GrpcTransport

log = structlog.get_logger(__name__)

# Exit code for what must be mended on this host first, as for wrong settings: the unit does not restart.
MEND_FIRST = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exits with 2 and words on what an operator must put right, 1 if a part failed."""
    given = read_options(
        "bayplan-agent",
        "Runs this host's pods through its container engine.",
        argv=sys.argv[1:] if arguments is None else arguments,
        environ=os.environ,
    )
    try:
        settings = agent_settings(given)
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
    prober = HostProber(runtime)
    agent = Agent(
        settings,
        transport=GrpcTransport(own),
        own=own,
        runtime=runtime,
        network=LinuxNetwork(settings, runtime),
        proxy=HaproxyProxy(settings),
        beside=[ZonePublisher(settings.run_dir), Echo(port=settings.proxy_port + ports.ECHO)],
        prober=prober,
        host=LinuxHost(boot_id=boot_id),
        wall_s=time.time,
        rng=random.SystemRandom(),
        ring=ring,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    metrics = asyncio.create_task(_serve_metrics(agent, settings), name="metrics")
    try:
        await agent.run()
    finally:
        metrics.cancel()
        await asyncio.gather(metrics, return_exceptions=True)
        await prober.aclose()
        await runtime.aclose()


async def _serve_metrics(agent: Agent, settings: AgentSettings) -> None:
    """Beside the agent, not a part of it: it does not end for want of a page."""
    proxy = settings.run_dir / places.DIRECTORY / places.METRICS_SOCKET
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(proxy))) as session:
        agent.metrics.proxy = lambda: read_proxy(session)
        agent.metrics.dns = lambda: read_stats(settings.run_dir / SOCKET_NAME)
        await serve_metrics(settings.metrics, agent.metrics.page)


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


def _socket(docker_host: str) -> str:
    return docker_host.removeprefix("unix://")


if __name__ == "__main__":
    main()
