"""The name server: follows the zone file and the host's resolv.conf, and listens where the zone says.

It needs neither the agent nor a manager: without them the zone stays as it was. What it cannot do at
the moment (an address that somebody else has, a damaged file) it tries again, and says so meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import structlog

from agent.dns.exchange import DNS_PORT, ask_server
from agent.dns.forwarder import Forwarder
from agent.dns.listeners import Clients, Listeners
from agent.dns.resolv_conf import ResolvConf, parse_servers
from agent.dns.responder import Responder
from agent.dns.stats import SOCKET_NAME, Counters, DnsStats
from agent.dns.upstreams import Exchange, Upstreams
from agent.dns.zone import Zone
from agent.dns.zone_file import FILE_NAME, DamagedZoneError, ZoneFile

log = structlog.get_logger(__name__)

T = TypeVar("T")

# A look is one `stat`: 20 a second are a thousandth of a core.
LOOK_EVERY_S = 0.05
RESOLV_CONF_EVERY_S = 1.0
BIND_EVERY_S = 1.0


class DnsServer:
    """One per process.

    Args:
        run_dir: where the zone file is, and where the socket for `stats` is made.
        port: 0 leaves it to the kernel.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        port: int = DNS_PORT,
        resolv_conf: ResolvConf | None = None,
        exchange: Exchange = ask_server,
    ) -> None:
        self._run_dir = run_dir
        self._zone_file = ZoneFile(run_dir / FILE_NAME)
        self._resolv_conf = resolv_conf or ResolvConf()
        self._parts = asyncio.TaskGroup()
        self._counters = Counters()
        self._upstreams = Upstreams(exchange)
        forwarder = Forwarder(self._upstreams, self._counters, self._spawn)
        self._responder = Responder(forwarder, self._counters)
        self._listeners = Listeners(self._responder, self._counters, self._spawn, port=port)
        self._zone: Zone | None = None
        self._resolvers_text = ""
        self._zone_problem = "no zone yet: the agent has not written it"
        self._bind_problem = ""

    @property
    def port(self) -> int:
        return self._listeners.port

    def stats(self) -> DnsStats:
        zone = self._zone
        return DnsStats(
            counters=replace(self._counters),
            address=self._listeners.address,
            problem=self._bind_problem or self._zone_problem,
            services=len(zone.services) if zone is not None else 0,
            zone_serial=zone.serial if zone is not None else 0,
            upstreams=self._upstreams.servers,
        )

    async def run(self) -> None:
        """Serve until cancelled."""
        log.info("dns.started", zone=str(self._run_dir / FILE_NAME))
        try:
            async with self._parts as parts:
                parts.create_task(self._follow_zone(), name="zone")
                parts.create_task(self._follow_resolv_conf(), name="resolv.conf")
                parts.create_task(self._tell(), name="stats")
        finally:
            self._listeners.close()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        return self._parts.create_task(work)

    async def _follow_zone(self) -> None:
        loop = asyncio.get_running_loop()
        bind_again_s = 0.0
        while True:
            try:
                zone = self._zone_file.read()
            except DamagedZoneError as error:
                self._zone_problem = str(error)
                log.warning("zone.not_read", error=str(error))
                zone = None
            if zone is not None:
                self._use(zone)
                bind_again_s = 0.0
            if not self._is_bound() and loop.time() >= bind_again_s:
                await self._bind()
                bind_again_s = loop.time() + BIND_EVERY_S
            await asyncio.sleep(LOOK_EVERY_S)

    def _use(self, zone: Zone) -> None:
        if self._zone is None or self._zone.gateway != zone.gateway:
            log.info("zone.read", gateway=str(zone.gateway), domain=zone.domain, services=len(zone.services))
        self._zone = zone
        self._zone_problem = ""
        self._responder.use(zone)
        self._use_resolvers()

    def _is_bound(self) -> bool:
        return self._zone is None or self._listeners.address == str(self._zone.gateway)

    async def _bind(self) -> None:
        assert self._zone is not None
        address = str(self._zone.gateway)
        try:
            await self._listeners.open(address, Clients((self._zone.pod_range,)))
        except OSError as error:
            problem = f"cannot listen at {address}: {error.strerror}"
            if problem != self._bind_problem:
                log.error("dns.not_bound", address=address, error=error.strerror)  # noqa: TRY400 - it says all
            self._bind_problem = problem
        else:
            self._bind_problem = ""
            log.info("dns.bound", address=address, port=self.port)

    async def _follow_resolv_conf(self) -> None:
        while True:
            text = self._resolv_conf.changed()
            if text is not None:
                self._resolvers_text = text
                self._use_resolvers()
            await asyncio.sleep(RESOLV_CONF_EVERY_S)

    def _use_resolvers(self) -> None:
        own = {str(self._zone.gateway)} if self._zone is not None else set()
        servers = parse_servers(self._resolvers_text, own=own)
        if servers != self._upstreams.servers:
            self._upstreams.use(servers)

    async def _tell(self) -> None:
        path = self._run_dir / SOCKET_NAME
        while True:
            try:
                self._run_dir.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                server = await asyncio.start_unix_server(self._told, path)
                break
            except OSError as error:
                # Nobody sees what it does; names are answered all the same.
                log.warning("stats.not_bound", socket=str(path), error=str(error))
                await asyncio.sleep(BIND_EVERY_S)
        async with server:
            await server.serve_forever()

    async def _told(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(self.stats().to_json())
            await writer.drain()
        writer.close()
