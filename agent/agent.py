"""The agent: puts its parts together and lives until it is stopped.

Its parts share one TaskGroup: if one fails all stop, for half an agent tells lies; whoever
started it starts it again, and it adopts what runs. Stopping it, or killing it, touches no container.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import structlog

import bayplan
from agent.engine import Engine
from agent.fence import Fence
from agent.host import Host
from agent.housekeeping import Housekeeping
from agent.identity import DIRECTORY, Renewal
from agent.images import Images
from agent.journal import Journal
from agent.log_ring import LogRing
from agent.metrics import AgentFigures, AgentMetrics
from agent.network.check import Checker
from agent.network.port import PodNetwork
from agent.pods import Pods
from agent.probes.port import Prober
from agent.route import Route
from agent.runtime.port import Credential, EngineError, EngineInfo, Runtime
from agent.session import Session
from agent.settings import AgentSettings
from agent.status_board import StatusBoard
from agent.streams import Streams, StreamSources
from agent.tables import Part, Tables
from agent.traffic import ports
from agent.traffic.port import Proxy
from agent.usage import UsageMeter
from agent.witness import Witness
from agent.workbench import Workbench
from bayplan.identity.credentials import OwnIdentity
from bayplan.model.states import PodState
from bayplan.transport.port import Transport
from bayplan.v1 import agent_link_pb2 as pb

log = structlog.get_logger(__name__)

# A report without the engine's word helps nobody; but a silent agent would be taken for dead.
FIRST_LOOK_S = 5.0
CONDITION_EVERY_S = 1.0
# While it takes no pods: of many that come at once the first to be ready would be given all of them.
CONDITION_SOON_S = 0.05
INFO_TIMEOUT_S = 2.0
INFO_RETRY_S = 2.0
STOP_WITHIN_S = 3.0


class _StoppedError(Exception):
    """Ends the TaskGroup after the Goodbye."""


class Agent:
    """One per host.

    Args:
        own: the identity that `transport` shows; None where there are no certificates.
        beside: what else acts on the leader's word of network and services: the name server's publisher.
        ring: where `structlog` leaves copies of the agent's own log lines.
        wall_s: seconds since the Unix epoch.
    """

    def __init__(
        self,
        settings: AgentSettings,
        *,
        transport: Transport,
        own: OwnIdentity | None = None,
        runtime: Runtime,
        network: PodNetwork,
        proxy: Proxy,
        beside: Sequence[Part] = (),
        prober: Prober,
        host: Host,
        wall_s: Callable[[], float],
        rng: random.Random,
        ring: LogRing | None = None,
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._host = host
        self._wall_s = wall_s
        self._journal = Journal(settings.data_dir)
        # New with each start: tells two agents of one identity apart.
        self._session_id = uuid.UUID(int=rng.getrandbits(128), version=4).hex
        self._board = StatusBoard()
        self._network = network
        self._proxy = proxy
        self.applied_changed = asyncio.Event()
        proxy.on_applied = self.applied_changed.set
        self.metrics = AgentMetrics(self._figures)
        self._route = Route(settings.managers, rng)
        self._session = Session(self, board=self._board, transport=transport, route=self._route)
        self._checker = Checker(
            settings.node, echo_port=settings.proxy_port + ports.ECHO, send=self._session.send
        )
        self._tables = Tables(settings.data_dir, settings.run_dir, [network, proxy, self._checker, *beside])
        self._pods = Pods()
        self._engine = Engine(runtime, self._pods.changed)
        self._images = Images(runtime, transport, self._journal)
        self._bench = Workbench(
            node=settings.node,
            address=settings.address,
            runtime=runtime,
            prober=prober,
            engine=self._engine,
            images=self._images,
            board=self._board,
            journal=self._journal,
            wall_s=wall_s,
            chance=rng,
            network=network,
            tables=self._tables,
            metrics=self.metrics,
        )
        self._usage = UsageMeter(runtime, self._engine, host)
        self._housekeeping = Housekeeping(
            runtime,
            self._engine,
            host,
            pods=self._pods.assignments,
            images=lambda: frozenset(image for image, _ in self._journal.facts.images.values()),
            wall_s=wall_s,
        )
        self._witness = Witness(transport, port=settings.witness_port, send=self._session.send)
        sources = StreamSources(
            runtime=runtime,
            engine=self._engine,
            ring=ring or LogRing(),
            spec_of=self._pods.spec_of,
            address=settings.address,
        )
        self._streams = Streams(transport, sources, send=self._session.send)
        self._renewal = (
            Renewal(
                own,
                settings.data_dir / DIRECTORY,
                transport=transport,
                managers=lambda: self._route.managers,
                wall_s=wall_s,
                chance=rng,
            )
            if own is not None
            else None
        )
        self._cluster_known = asyncio.Event()
        self._welcome = pb.Welcome()
        self._manager_address = ""

    async def run(self) -> None:
        """Run until `stop`, or until cancelled (then without a Goodbye)."""
        self._journal.load()
        facts = self._journal.facts
        self._route.learn(facts.managers)
        was_rebooted = facts.boot_id not in ("", self._host.boot_id)
        log.info(
            "agent.started", node=self._settings.node, pods=len(facts.assignments), rebooted=was_rebooted
        )
        if facts.label_cluster:
            self._join(facts.label_cluster)
        self._network.retain(facts.assignments.keys())
        self._tables.load()
        try:
            async with asyncio.TaskGroup() as parts:
                parts.create_task(self._journal.run(), name="journal")
                parts.create_task(self._tables.run(), name="tables")
                parts.create_task(self._pods.run(self._bench, was_rebooted=was_rebooted), name="pods")
                parts.create_task(self._watch_engine(), name="engine")
                parts.create_task(self._witness.run(), name="witness")
                parts.create_task(self._streams.run(), name="streams")
                parts.create_task(self._usage.run(), name="usage")
                parts.create_task(self._housekeeping.run(), name="housekeeping")
                parts.create_task(self._watch_condition(), name="condition")
                parts.create_task(self._run_session(), name="session")
                parts.create_task(self._end_at_last(), name="end")
                if self._renewal is not None:
                    parts.create_task(self._renewal.run(), name="certificate")
        except* _StoppedError:
            log.info("agent.stopped", node=self._settings.node)

    def stop(self) -> None:
        """Say Goodbye and end; containers run on."""
        self._session.stop()

    async def _run_session(self) -> None:
        await self._session.run()
        raise _StoppedError

    async def _end_at_last(self) -> None:
        """A manager, or an engine, that hangs must not keep the agent from ending."""
        await self._session.stopping.wait()
        await asyncio.sleep(STOP_WITHIN_S)
        raise _StoppedError

    async def _watch_engine(self) -> None:
        # Which containers are ours is known by the cluster's id, which a new node learns from its Welcome.
        await self._cluster_known.wait()
        await self._engine.run()

    async def _watch_condition(self) -> None:
        while True:
            is_usable = self._tell_condition()
            await asyncio.sleep(CONDITION_EVERY_S if is_usable else CONDITION_SOON_S)

    def _tell_condition(self) -> bool:
        """Returns whether it takes pods."""
        outage = self._engine.outage()
        if not self._engine.is_known.is_set():
            outage = outage or "the container engine was not seen yet"
        pressure, network_problem = self._housekeeping.disk_pressure, self._network.problem()
        self._board.set_condition(
            pb.NodeCondition(
                engine_ok=not outage,
                message=outage or pressure,
                disk_pressure=bool(pressure),
                network_problem=network_problem,
                proxy_problem=self._proxy.problem(),
            )
        )
        return not (outage or pressure or network_problem)

    def _figures(self) -> AgentFigures:
        """For Prometheus."""
        statuses = self._board.statuses()
        return AgentFigures(
            pods=Counter(
                PodState(status.state).name.lower() if status.state else "unknown" for status in statuses
            ),
            is_engine_up=not self._engine.outage() and self._engine.is_known.is_set(),
            is_network_up=not self._network.problem(),
            is_connected=self._session.is_connected,
            heartbeat_age_s=self._session.heartbeat_age_s,
            traffic_version=self._proxy.applied().version,
        )

    def _join(self, cluster: str) -> None:
        self._runtime.join(cluster)
        self._cluster_known.set()

    # What the session asks for

    @property
    def fence(self) -> Fence:
        return self._journal.facts.fence

    async def hello(self, *, relay: bool) -> pb.Hello:
        settings, facts = self._settings, self._journal.facts
        info = await self._info()
        hello = pb.Hello(
            node=settings.node,
            version=bayplan.__version__,
            boot_id=self._host.boot_id,
            session=self._session_id,
            labels=self._labels(),
            capacity=pb.Amounts(
                cpu_millis=max(0, (settings.cpu_millis or info.cpu_millis) - settings.reserved_cpu_millis),
                memory_bytes=max(
                    0, (settings.memory_bytes or info.memory_bytes) - settings.reserved_memory_bytes
                ),
                pods=settings.pods,
            ),
            address=settings.address,
            witness_port=settings.witness_port,
            commit_sequence=facts.fence.commit_sequence,
            relay=relay,
            engine=info.name,
            os=self._host.os,
            arch=self._host.arch,
            cluster=facts.cluster,
            peers=facts.peers,
            publish_addresses=settings.publish_addresses,
            wireguard_key=await self._network.wireguard_public_key(),
        )
        if facts.fence.store:
            hello.highest_epoch.store = facts.fence.store
            hello.highest_epoch.revision = facts.fence.revision
        return hello

    def _labels(self) -> dict[str, str]:
        return {
            **self._settings.labels,
            "kubernetes.io/os": self._host.os,
            "kubernetes.io/arch": self._host.arch,
            "kubernetes.io/hostname": self._settings.node,
        }

    async def _info(self) -> EngineInfo:
        """The engine's own word, else its last one; a new node waits for the first."""
        facts = self._journal.facts
        while True:
            try:
                async with asyncio.timeout(INFO_TIMEOUT_S):
                    info = await self._runtime.info()
            except (EngineError, TimeoutError) as error:
                if facts.engine is not None:
                    return facts.engine
                log.warning("engine.not_asked", error=str(error) or "no answer")
                await asyncio.sleep(INFO_RETRY_S)
                continue
            if info != facts.engine:
                facts.engine = info
                self._journal.touch()
            return info

    def welcomed(self, welcome: pb.Welcome, *, address: str) -> None:
        facts = self._journal.facts
        self._welcome = welcome
        self._manager_address = address
        self._learn_credentials(welcome.credentials)
        # Numbers of the leader before mean nothing to this one.
        self._tables.forget_version()
        facts.default_registry = welcome.default_registry
        facts.managers = tuple(self._route.managers)
        if not facts.cluster:
            facts.label_cluster = welcome.cluster
        self._journal.touch()
        self._join(facts.label_cluster)

    def _learn_credentials(self, credentials: Iterable[pb.RegistryCredential]) -> None:
        # In memory alone: a stolen disk must not give them away. The next Welcome brings them again.
        self._images.credentials = {
            each.registry: Credential(registry=each.registry, username=each.username, password=each.password)
            for each in credentials
        }

    async def first_look(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                await self._engine.is_known.wait()

    def full_report(self) -> pb.StatusReport:
        self._pods.report_all()
        self._tell_condition()
        report = self._board.take_all()
        assignments = self._pods.assignments()
        told_templates: set[tuple[str, str]] = set()
        for status in report.pods:
            assignment = assignments.get(status.uid)
            if assignment is None:
                continue
            status.assignment.CopyFrom(assignment)
            # Pods of one revision share a template: once is enough, and the report stays small.
            template = (assignment.workload_uid, assignment.revision)
            if template in told_templates:
                status.assignment.template_json = ""
            told_templates.add(template)
        return report

    async def obey(self, assignments: pb.Assignments, epoch: pb.Epoch) -> None:
        facts = self._journal.facts
        before = (facts.fence.store, facts.fence.revision, facts.cluster)
        facts.fence = Fence(
            store=epoch.store, revision=epoch.revision, commit_sequence=assignments.commit_sequence
        )
        facts.cluster = self._welcome.cluster
        facts.boot_id = self._host.boot_id
        if before != (epoch.store, epoch.revision, facts.cluster):
            try:
                # On disk before it is obeyed: after a crash, an older leader must not be believed.
                await self._journal.save()
            except OSError as error:
                # A full disk must not stop the node; the fence holds until the agent itself ends.
                log.error("journal.not_saved", error=str(error))  # noqa: TRY400 - the text says all
        self._pods.obey(assignments)

    def fold(self, message: pb.ManagerMessage) -> None:
        if message.HasField("network"):
            self._tables.fold_network(message.network)
        else:
            self._tables.fold_traffic(message.traffic)

    def applied(self) -> pb.TrafficApplied:
        return self._proxy.applied()

    def heartbeat(self) -> pb.Heartbeat:
        usage, node_used = self._usage.take()
        return pb.Heartbeat(
            sent_ms=round(self._wall_s() * 1000),
            usage=usage,
            services=self._proxy.service_use() if node_used is not None else (),
            witnessed=self._witness.witnessed(),
            node_used=node_used,
        )

    def asked(self, message: pb.ManagerMessage) -> None:
        match message.WhichOneof("kind"):
            case "peers":
                self._witness.set_peers(message.peers.peers)
                self._journal.facts.peers = tuple(peer.node for peer in message.peers.peers)
                self._journal.touch()
            case "witness_request":
                self._witness.ask(message.witness_request)
            case "open_stream":
                self._streams.open(message.open_stream, address=self._manager_address)
            case "close_stream":
                self._streams.close(message.close_stream.stream_id)
            case "network_check":
                self._checker.ask(message.network_check)
            case "renew_certificate":
                if self._renewal is not None:
                    self._renewal.ask()
            case "credentials":
                self._learn_credentials(message.credentials.credentials)
                log.info("credentials.changed", registries=len(self._images.credentials))
            case _:
                pass
