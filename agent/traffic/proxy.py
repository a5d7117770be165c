"""The node's HAProxy, kept as the leader says. See `Proxy` in agent/traffic/port.py.

The file is the truth, the runtime socket the shortcut: endpoints change over the socket at once, and in
the file soon after, so that a HAProxy that starts anew starts right; all else is a reload, at most one in
2 s. HAProxy is a process of its own (agent/traffic/main.py) that outlives the agent. One loop here
compares what it is with what it should be; whatever fails is told, and tried again with the next round.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace

import structlog

from agent.network.table import NetworkTable
from agent.settings import AgentSettings
from agent.traffic.haproxy_config import Configuration, Obstacles, configuration
from agent.traffic.haproxy_files import HaproxyFiles, haproxy_user
from agent.traffic.haproxy_head import ProxyHost
from agent.traffic.haproxy_socket import NotRunningError, ProxyAnswerError
from agent.traffic.latency_samples import listen
from agent.traffic.places import DIRECTORY, LOG_SOCKET, MASTER_SOCKET
from agent.traffic.running_haproxy import RunningHaproxy
from agent.traffic.table import TrafficTable
from agent.traffic.taken_ports import taken_ports
from bayplan.v1 import agent_link_pb2 as pb

log = structlog.get_logger(__name__)

COALESCE_S = 0.1
# How soon the end of HAProxy, and of an endpoint's last request, is noticed.
TICK_S = 0.5
TICK_DRAINING_S = 0.2
RELOAD_EVERY_S = 2.0
RETRY_S = 5.0
COUNT_EVERY_S = 5.0
# The file of 2,000 services takes 0.1 s to write: at most a tenth of the time goes there.
WRITE_SHARE = 10
# A HAProxy that was just starting may have read the file before it was written.
NOT_RUNNING_S = 2.0


class HaproxyProxy:
    """One per agent."""

    def __init__(self, settings: AgentSettings, *, binary: str = "haproxy") -> None:
        directory = settings.run_dir / DIRECTORY
        user = haproxy_user()
        self.on_applied: Callable[[], None] = lambda: None
        self._host = ProxyHost(
            node=settings.node,
            directory=directory,
            proxy_port=settings.proxy_port,
            publish_addresses=settings.publish_addresses or (settings.address,),
            threads=len(os.sched_getaffinity(0)),
            user=user,
            group=user,
        )
        self._files = HaproxyFiles(directory, binary=binary)
        self._haproxy = RunningHaproxy(directory / MASTER_SOCKET)
        self._tables = NetworkTable(), TrafficTable()
        self._news = asyncio.Event()
        self._obstacles = Obstacles()
        self._rendered: tuple[NetworkTable, TrafficTable] | None = None
        self._wanted: Configuration | None = None
        self._written: Configuration | None = None
        self._write_due_s = self._ports_due_s = self._reload_due_s = self._count_due_s = 0.0
        self._not_running_since_s = 0.0
        self._reloading: asyncio.Task[None] | None = None
        self._reload_reason = ""  # Why one is needed though the frame is the same.
        self._problem = ""
        self._problems: tuple[pb.PortProblem, ...] = ()  # Of what is in force.
        self._draining: set[str] = set()
        self._version = 0
        self._told = pb.TrafficApplied()

    def use(self, network: NetworkTable, traffic: TrafficTable) -> None:
        """See `Proxy`."""
        self._tables = network, traffic
        self._news.set()

    def applied(self) -> pb.TrafficApplied:
        """See `Proxy`."""
        # What is new is said at once, and what is over when HAProxy has it.
        wanted = self._wanted.problems if self._wanted is not None else ()
        problems = {(each.service, each.address, each.port): each for each in (*self._problems, *wanted)}
        return pb.TrafficApplied(
            version=self._version, draining=sorted(self._draining), problems=problems.values()
        )

    def problem(self) -> str:
        """Why this node's traffic is not as it should be; empty: it is."""
        return self._problem

    def service_use(self) -> list[pb.ServiceUse]:
        """See `Proxy`."""
        backends = self._wanted.backends.values() if self._wanted is not None else ()
        return self._haproxy.counters.take(backends)

    async def run(self) -> None:
        """See `Proxy`."""
        while True:
            try:
                await asyncio.to_thread(self._files.prepare)
                samples = await listen(
                    self._host.directory / LOG_SOCKET,
                    self._haproxy.counters.latency,
                    self._note_fall,
                    user=self._host.user,
                )
                break
            except OSError as error:
                self._say(f"{self._host.directory} cannot be used: {error.strerror}")
                await asyncio.sleep(RETRY_S)
        try:
            async with asyncio.TaskGroup() as parts:
                while True:
                    await self._wait()
                    await self._round(parts)
        finally:
            samples.close()

    def _note_fall(self) -> None:
        self._haproxy.are_nodes_known = False
        self._news.set()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(TICK_DRAINING_S if self._draining else TICK_S):
                await self._news.wait()
        except TimeoutError:
            return
        # What comes within this time goes out together.
        await asyncio.sleep(COALESCE_S)
        self._news.clear()

    async def _round(self, parts: asyncio.TaskGroup) -> None:
        if self._tables[0].settings is None:
            return
        try:
            await self._render()
            assert self._wanted is not None
            is_reloading = self._reloading is not None
            try:
                await self._bring(self._wanted, parts)
            except ProxyAnswerError as error:
                self._haproxy.forget()
                if not is_reloading:
                    await self._stand_by(self._wanted, error)
            await self._write_soon(self._wanted)
        except OSError as error:
            self._say(f"{self._host.directory} cannot be used: {error.strerror}")
        self._tell()

    async def _render(self) -> None:
        """What should be, with what is known to stand in its way."""
        network, traffic = tables = self._tables
        now_s = asyncio.get_running_loop().time()
        is_news = self._rendered is None or any(
            a is not b for a, b in zip(tables, self._rendered, strict=True)
        )
        if not is_news and now_s < self._ports_due_s:
            return
        self._ports_due_s = now_s + RETRY_S
        if self._rendered is None or self._rendered[1].ingress is not traffic.ingress:
            unusable = await self._files.unusable(traffic.ingress.certificates)
            self._obstacles = replace(self._obstacles, unusable=unusable)
        if is_news or self._wanted is None:
            wanted = await self._configuration(network, traffic)
        else:
            wanted = self._wanted
        # Known obstacles are tried again with every look, and new ports before they are bound.
        places = {(each.address, each.port) for each in wanted.ports} | self._obstacles.taken.keys()
        taken = await asyncio.to_thread(taken_ports, sorted(places))
        if taken != self._obstacles.taken:
            log.info(
                "published_ports.looked_at", taken={f"{at}:{port}": by for (at, port), by in taken.items()}
            )
            self._obstacles = replace(self._obstacles, taken=taken)
            wanted = await self._configuration(network, traffic)
        self._wanted, self._rendered = wanted, tables

    async def _configuration(self, network: NetworkTable, traffic: TrafficTable) -> Configuration:
        # Half a second for 2,000 services when everything is new.
        return await asyncio.to_thread(
            configuration, self._host, network, traffic, self._obstacles, before=self._wanted
        )

    async def _bring(self, wanted: Configuration, parts: asyncio.TaskGroup) -> None:
        """Bring the HAProxy that runs to what is wanted."""
        assert self._rendered is not None
        version, now_s = self._rendered[1].version, asyncio.get_running_loop().time()
        await self._haproxy.look(wanted)
        self._not_running_since_s = 0.0
        self._reload_reason = await self._haproxy.bring(wanted) or self._reload_reason
        is_in_frame = self._haproxy.digest == wanted.digest and not self._reload_reason
        if self._reloading is None:
            if is_in_frame:
                self._say("")
            elif now_s >= self._reload_due_s:
                self._reload_due_s = now_s + RELOAD_EVERY_S
                self._reloading = parts.create_task(self._reload(wanted), name="haproxy-reload")
        if now_s >= self._count_due_s:
            self._count_due_s = now_s + COUNT_EVERY_S
            await self._haproxy.count()
        draining = await self._haproxy.draining(wanted)
        # Together, and only after the servers were looked at: a version says that what is not draining has
        # nothing left. While a reload is under way the new worker may still start from an older file.
        self._draining = draining
        if is_in_frame and self._reloading is None:
            self._version, self._problems = version, wanted.problems

    async def _reload(self, wanted: Configuration) -> None:
        try:
            path = await asyncio.to_thread(self._files.write_frame, wanted)
            refusal = await self._files.refusal(path)
            if not refusal:
                await asyncio.to_thread(self._files.swap)
                self._written = wanted
                refusal = await self._haproxy.reload(wanted)
                # Whatever it was, it is clear now from which ports one cannot be had.
                self._ports_due_s = 0.0
            if refusal:
                self._reload_due_s = asyncio.get_running_loop().time() + RETRY_S
                self._say(f"HAProxy goes on with its old configuration: {refusal}")
            else:
                self._reload_reason = ""
                log.info("haproxy.reloaded", frame=wanted.digest)
                await asyncio.to_thread(self._files.forget_frames, [wanted.digest])
        except (OSError, ProxyAnswerError) as error:
            self._say(f"HAProxy cannot be reloaded: {error}")
        finally:
            self._reloading = None
            self._news.set()

    async def _stand_by(self, wanted: Configuration, error: ProxyAnswerError) -> None:
        """It does not run: what it will start with must be right, and able to start."""
        now_s = asyncio.get_running_loop().time()
        if not isinstance(error, NotRunningError):
            self._say(str(error))
            return
        if not self._not_running_since_s:
            # Perhaps somebody has taken a port of ours, and it cannot start.
            self._not_running_since_s, self._ports_due_s = now_s, 0.0
        if self._written is None or self._written.digest != wanted.digest:
            path = await asyncio.to_thread(self._files.write_frame, wanted)
            refusal = await self._files.refusal(path)
            if refusal:
                self._say(f"HAProxy refuses its configuration: {refusal}")
                return
            await self._write(wanted)
        self._say(str(error))
        self._draining = set()
        assert self._rendered is not None
        if now_s - self._not_running_since_s >= NOT_RUNNING_S and self._written is wanted:
            self._version = self._rendered[1].version

    async def _write_soon(self, wanted: Configuration) -> None:
        """Endpoints of the frame that is in force; another frame is written before its reload."""
        if self._reloading is not None or self._written is wanted:
            return
        frame = self._written.digest if self._written is not None else self._haproxy.digest
        if frame == wanted.digest and asyncio.get_running_loop().time() >= self._write_due_s:
            await self._write(wanted)

    async def _write(self, wanted: Configuration) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await asyncio.to_thread(self._files.write_frame, wanted)
        await asyncio.to_thread(self._files.swap)
        self._written = wanted
        self._write_due_s = loop.time() + (loop.time() - began_s) * WRITE_SHARE

    def _say(self, problem: str) -> None:
        if problem == self._problem:
            return
        self._problem = problem
        if problem:
            log.warning("proxy.not_as_wanted", problem=problem)
        else:
            log.info("proxy.as_wanted")

    def _tell(self) -> None:
        applied = self.applied()
        if applied != self._told:
            self._told = applied
            self.on_applied()
