"""What an agent shows Prometheus: its pods, its engine, its name server; and the proxy's own figures behind them.

Nothing is labelled by pod or container: their names never end. What is not known is left out, never zero.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

import aiohttp
import structlog
from prometheus_client import CollectorRegistry, Counter, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.dns.stats import DnsStats

log = structlog.get_logger(__name__)

PROXY_S = 2.0
# Not of single servers: these are pods, of 2,000 services a hundred megabytes of them.
PROXY_PAGE = "http://proxy/metrics?scope=global&scope=frontend&scope=backend"
_DNS_HELP = {
    "queries": "Queries that the name server was sent",
    "ready": "Answered with a reply that was made already",
    "own": "Replies made from the cluster's names",
    "no_such_name": "Of those, that there is no such name",
    "malformed": "Packets that were no query, or asked for what is not done",
    "not_ours": "Packets of somebody who is neither a pod nor this host",
    "refused": "Not asked on, or not answered, because too many waited",
    "unsent": "Replies that the kernel did not take",
    "failed": "Faults of the name server itself",
    "cache_hits": "Answers of others that were remembered",
    "stale": "Answers of others that were too old, given because nobody answered",
    "upstream_queries": "Questions to the host's name servers",
    "upstream_failures": "Questions that none of them answered",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFigures:
    """How it is now."""

    pods: Mapping[str, int]  # By state, in lower case.
    is_engine_up: bool
    is_network_up: bool  # Pods can be connected.
    is_connected: bool  # A session with a leader stands.
    heartbeat_age_s: float | None  # Since the last one that was answered; None: there was none.
    traffic_version: int


class AgentMetrics:
    """One per agent, with a registry of its own.

    `figures` is called for each page. Where there is no other process beside the agent, `dns` and `proxy` stay
    as they are.
    """

    def __init__(self, figures: Callable[[], AgentFigures]) -> None:
        # What the name server says of itself; None: it does not answer.
        self.dns: Callable[[], Awaitable[DnsStats | None]] = _nothing
        # The proxy's own page, in the same format. May raise OSError.
        self.proxy: Callable[[], Awaitable[bytes]] = _no_page
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._restarts = Counter(
            "bayplan_container_restarts", "Containers started again after an end", registry=self._registry
        )
        self._image_failures = Counter(
            "bayplan_image_failures", "Times that an image could not be had", registry=self._registry
        )
        self._registry.register(_Now(figures))

    def container_restarted(self) -> None:
        """A container of a pod is started again."""
        self._restarts.inc()

    def image_failed(self) -> None:
        """An image could not be had; it is tried again."""
        self._image_failures.inc()

    async def page(self) -> bytes:
        """Everything, as text."""
        dns, proxy = await asyncio.gather(self.dns(), self._proxy_page())
        around = CollectorRegistry()
        around.register(_Around(dns, is_proxy_up=proxy is not None))
        return generate_latest(self._registry) + generate_latest(around) + (proxy or b"")

    async def _proxy_page(self) -> bytes | None:
        try:
            async with asyncio.timeout(PROXY_S):
                text = await self.proxy()
        except OSError as error:  # TimeoutError is one.
            log.debug("proxy.not_asked", error=str(error))
            return None
        return text if not text or text.endswith(b"\n") else text + b"\n"


async def read_proxy(session: aiohttp.ClientSession) -> bytes:
    """The proxy's own page; the session leads to its socket. Raises OSError."""
    try:
        async with session.get(PROXY_PAGE) as answer:
            answer.raise_for_status()
            return await answer.read()
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error)) from error


async def _nothing() -> DnsStats | None:
    return None


async def _no_page() -> bytes:
    return b""


class _Now(Collector):
    def __init__(self, figures: Callable[[], AgentFigures]) -> None:
        self._figures = figures

    def describe(self) -> Iterable[Metric]:
        """Said without looking: the registry asks before there are any."""
        return ()

    def collect(self) -> Iterable[Metric]:
        now = self._figures()
        pods = GaugeMetricFamily("bayplan_pods", "Pods of this node by state", labels=["state"])
        for state, count in sorted(now.pods.items()):
            pods.add_metric([state], count)
        yield pods
        yield GaugeMetricFamily("bayplan_engine_up", "The container engine answers", now.is_engine_up)
        yield GaugeMetricFamily("bayplan_network_up", "Pods can be connected", now.is_network_up)
        yield GaugeMetricFamily(
            "bayplan_session_connected", "A session with a leader stands", now.is_connected
        )
        if now.heartbeat_age_s is not None:
            yield GaugeMetricFamily(
                "bayplan_heartbeat_age_seconds",
                "Since the last heartbeat that was answered",
                now.heartbeat_age_s,
            )
        yield GaugeMetricFamily(
            "bayplan_traffic_version", "Of services and endpoints, as the leader counts", now.traffic_version
        )


class _Around(Collector):
    """The processes beside the agent."""

    def __init__(self, dns: DnsStats | None, *, is_proxy_up: bool) -> None:
        self._dns = dns
        self._is_proxy_up = is_proxy_up

    def collect(self) -> Iterable[Metric]:
        dns = self._dns
        yield GaugeMetricFamily("bayplan_proxy_up", "The proxy tells its figures", self._is_proxy_up)
        yield GaugeMetricFamily(
            "bayplan_dns_up", "The name server runs and listens", dns is not None and bool(dns.address)
        )
        if dns is None:
            return
        yield GaugeMetricFamily("bayplan_dns_services", "Services that it can name", dns.services)
        for name, count in asdict(dns.counters).items():
            yield CounterMetricFamily(f"bayplan_dns_{name}", _DNS_HELP[name], count)
