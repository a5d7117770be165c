"""One manager process: it stands in the election, serves the API, and leads when elected."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

import bayplan
from bayplan.identity.names import Kind
from bayplan.metrics_page import serve_metrics
from bayplan.model.network import ClusterNetwork
from bayplan.transport.port import Listener, Transport
from bayplan.v1 import access_pb2, agent_link_pb2, control_pb2, manager_link_pb2
from bayplan.v1 import control_pb2 as api
from bayplan.v1.access_pb2_grpc import add_AccessServicer_to_server
from bayplan.v1.agent_link_pb2_grpc import add_AgentLinkServicer_to_server
from bayplan.v1.control_pb2_grpc import add_ControlServicer_to_server
from bayplan.v1.manager_link_pb2_grpc import add_ManagerLinkServicer_to_server
from manager.access.access import Access
from manager.access.gate import Gate
from manager.access.methods import callers_of
from manager.access.servicer import AccessServicer
from manager.commit import FencedError
from manager.control_api.calls import Calls
from manager.control_api.documents import Documents
from manager.control_api.servicer import ControlServicer
from manager.dispatcher.agent_link import AgentLinkServicer
from manager.dispatcher.dispatcher import Dispatcher, DispatcherSettings
from manager.election import Election, Term
from manager.follower import Follower, ManagerLinkServicer
from manager.founding import NetworkChoice, NetworkSettingsError, learn_network
from manager.leader import Leadership
from manager.members import Members
from manager.metrics import ManagerFigures, ManagerMetrics
from manager.store import records
from manager.store.meta import FormatVersionError, ensure_meta
from manager.store.port import Store, StoreError

log = structlog.get_logger(__name__)

STOP_GRACE_S = 1.0
_RETRY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerSettings:
    """How a manager is run."""

    id: str
    listen_host: str
    listen_port: int
    advertise: str  # host:port at which agents, users and other managers reach it.
    default_registry: str = ""
    network: NetworkChoice = field(default_factory=NetworkChoice)
    metrics: str = ""  # Where /metrics is served, host:port; empty: nowhere.


SERVICES = (
    control_pb2.DESCRIPTOR.services_by_name["Control"],
    access_pb2.DESCRIPTOR.services_by_name["Access"],
    agent_link_pb2.DESCRIPTOR.services_by_name["AgentLink"],
    manager_link_pb2.DESCRIPTOR.services_by_name["ManagerLink"],
)


class Manager:
    """Runs until cancelled; containers do not notice when it ends.

    Args:
        access: who is let in; None where nobody is told apart: on loopback addresses, and in tests.
    """

    def __init__(
        self,
        settings: ManagerSettings,
        *,
        store: Store,
        transport: Transport,
        access: Access | None = None,
        wall_s: Callable[[], float],
        chance: random.Random,
    ) -> None:
        self._settings = settings
        self._store = store
        self._transport = transport
        self._access = access
        self._wall_s = wall_s
        self._chance = chance
        self._meta = records.Meta(format_version=records.FORMAT_VERSION, cluster_id="", incarnation="")
        self._store_id = ""
        self._network: ClusterNetwork | None = None
        self._leadership: Leadership | None = None
        self._election = Election(
            store,
            manager_id=settings.id,
            address=settings.advertise,
            chance=chance,
            cluster_id=access.cluster if access is not None else "",
        )
        self._members = Members(store, manager_id=settings.id, address=settings.advertise, chance=chance)
        self._follower = Follower(
            self._election,
            transport,
            manager_id=settings.id,
            others=lambda: [each for each in self._members.addresses() if each != settings.advertise],
        )
        self._calls = Calls(self, transport)
        documents = Documents(store, wall_s=wall_s, new_uid=lambda: f"{chance.getrandbits(64):016x}")
        self._control = ControlServicer(self, self._calls, documents, store)
        self._agent_link = AgentLinkServicer(self, transport)
        self._metrics = ManagerMetrics(self._figures, methods=callers_of(SERVICES))
        self._known_roots_pem = access.roots.as_pem() if access is not None else b""
        self._gate: Gate | None = None
        self._access_servicer: AccessServicer | None = None
        if access is not None:
            self._gate, self._access_servicer = self._guard(access)
        self._manager_link = ManagerLinkServicer(
            self._follower,
            leading=lambda: self._leadership.term.epoch.revision if self._leadership else 0,
            leader_address=lambda: self.leader_address,
        )

    def _guard(self, access: Access) -> tuple[Gate, AccessServicer]:
        """What stands before every method, and the methods about who may pass."""
        methods = callers_of(SERVICES)
        servicer = AccessServicer(
            self,
            access,
            methods=methods,
            transport=self._transport,
            loop_s=lambda: asyncio.get_running_loop().time(),
        )
        access.registry.changed.append(self._roots_changed)
        return access.gate(methods, called=self._metrics.called), servicer

    def _roots_changed(self) -> None:
        """Agents fetch new certificates when another root signs than before."""
        assert self._access is not None
        roots = self._access.roots.as_pem()
        if roots != self._known_roots_pem:
            self._known_roots_pem = roots
            if self.dispatcher is not None:
                self.dispatcher.ask_to_renew()

    # -- who leads -----------------------------------------------------------------------------

    @property
    def manager_id(self) -> str:
        """As configured."""
        return self._settings.id

    @property
    def cluster_id(self) -> str:
        """Of the store."""
        return self._meta.cluster_id

    @property
    def leadership(self) -> Leadership | None:
        """While this manager leads and has read the store."""
        return self._leadership

    @property
    def dispatcher(self) -> Dispatcher | None:
        """While this manager leads and has read the store."""
        return self._leadership.dispatcher if self._leadership is not None else None

    @property
    def leader_address(self) -> str:
        """Of another manager that leads; empty if none is known."""
        leader = self._election.leader
        return leader.address if leader is not None and leader.id != self._settings.id else ""

    @property
    def is_leader_heard(self) -> bool:
        """Whether the other manager that leads has spoken to this one just now."""
        leader = self._election.leader
        return leader is not None and self._follower.hears(leader.create_revision)

    def mark(self, revision: int) -> api.Mark:
        """For an answer from the store at `revision`."""
        if self._leadership is not None:
            mark = self._leadership.mark()
            mark.revision = max(mark.revision, revision)
            return mark
        leader = self._election.leader
        return api.Mark(
            store=self._store_id,
            revision=revision,
            epoch=leader.create_revision if leader is not None else 0,
            complete=leader is not None,
            notice="" if leader is not None else "no leader right now",
        )

    def managers(self) -> list[api.Manager]:
        """Every living manager as far as this one knows."""
        leader = self._election.leader
        return [
            api.Manager(
                id=manager_id,
                address=entry["address"],
                version=entry["version"],
                leader=leader is not None and leader.id == manager_id,
                state=self._state_of(manager_id),
                alarms=self._alarms_of(manager_id),
            )
            for manager_id, entry in sorted(self._members.all().items())
        ]

    def _alarms_of(self, manager_id: str) -> tuple[str, ...]:
        """The leader's, when this manager is the leader."""
        if self._leadership is None or manager_id != self._settings.id:
            return ()
        return self._leadership.alarms

    def _state_of(self, manager_id: str) -> str:
        leader = self._election.leader
        if leader is None or leader.id != manager_id:
            return "Standby"
        if self._leadership is None:
            return "Leading"
        if self._leadership.term.is_suspended:
            return "Suspended"
        return "Leading" if self._leadership.mark().complete else "Learning"

    def manager_addresses(self) -> list[str]:
        """Of every living manager, this one too."""
        return self._members.addresses()

    def other_managers(self) -> dict[str, str]:
        """Id → address of every other living manager."""
        known = self._members.all()
        return {each: entry["address"] for each, entry in known.items() if each != self._settings.id}

    async def forget_node(self, name: str) -> None:
        """Its certificates are void. Raises StoreError."""
        if self._access is not None:
            with contextlib.suppress(LookupError):  # It was never let in by a certificate.
                await self._access.authority.revoke(Kind.NODE.value, name)

    async def etcd_version(self) -> str:
        """Asked of etcd now. Raises StoreError."""
        return (await self._store.status()).version

    def _figures(self) -> ManagerFigures:
        """For Prometheus."""
        leader, led = self._election.leader, self._leadership
        return ManagerFigures(
            epoch=leader.create_revision if leader is not None else 0,
            store_revision=led.state.revision if led is not None else 0,
            leader=led.figures() if led is not None else None,
        )

    # -- running -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled.

        Raises FormatVersionError, NetworkSettingsError, DuplicateManagerError, OSError (port taken).
        """
        await self._learn_store()
        listener = await self._serve()
        try:
            async with asyncio.TaskGroup() as parts:
                parts.create_task(self._members.run(), name="members")
                parts.create_task(
                    self._election.run(self._lead, is_followed=self._follower.is_followed), name="election"
                )
                parts.create_task(self._follower.run(), name="follower")
                parts.create_task(self._metrics.run(), name="metrics")
                parts.create_task(
                    serve_metrics(self._settings.metrics, self._metrics.page), name="metrics-page"
                )
                if self._access is not None and self._gate is not None:
                    ports = (listener.port, listener.join_port)
                    parts.create_task(
                        self._access.run(
                            lambda: self._leadership is not None,
                            ports,
                            lambda: self.other_managers().values(),
                        ),
                        name="access",
                    )
                    parts.create_task(self._gate.run(), name="gate")
        finally:
            self._manager_link.resign()
            await self._calls.aclose()
            await listener.stop(STOP_GRACE_S)

    async def _learn_store(self) -> None:
        while True:
            try:
                self._meta = await ensure_meta(
                    self._store,
                    lambda: f"{self._chance.getrandbits(64):016x}",
                    cluster_id=self._access.cluster if self._access is not None else "",
                )
                if self._access is not None:
                    await self._access.establish()
                self._network = await learn_network(
                    self._store, self._settings.network, remembered=self._network
                )
                status = await self._store.status()
            except StoreError as error:
                log.warning("store.unavailable", error=str(error))
                await asyncio.sleep(_RETRY_S)
            else:
                self._store_id = f"{self._meta.incarnation}:{status.cluster_id:x}"
                return

    async def _serve(self) -> Listener:
        services = [
            partial(add_ControlServicer_to_server, self._control),
            partial(add_AgentLinkServicer_to_server, self._agent_link),
            partial(add_ManagerLinkServicer_to_server, self._manager_link),
        ]
        if self._access_servicer is not None:
            services.append(partial(add_AccessServicer_to_server, self._access_servicer))
        listener = await self._transport.serve(
            self._settings.listen_host,
            self._settings.listen_port,
            services,
            [service.full_name for service in SERVICES],
            interceptors=[self._gate] if self._gate is not None else [],
        )
        log.info(
            "manager.serving", manager=self._settings.id, port=listener.port, version=bayplan.__version__
        )
        return listener

    async def _lead(self, term: Term) -> None:
        """One leadership: cancelled when it is lost; a fault gives it up and others go first."""
        settings = DispatcherSettings(
            manager=self._settings.id,
            default_registry=self._settings.default_registry,
        )
        try:
            await self._learn_store()
            assert self._network is not None
            leadership = await Leadership.begin(
                self._store,
                term,
                settings=settings,
                network=self._network,
                managers=self._members.addresses,
                wall_s=self._wall_s,
            )
            leadership.committer.committed = self._metrics.committed
            self._leadership = leadership
            await leadership.run()
        except* StoreError as group:
            # Raised while it read the store, or by what must not go on without it.
            log.warning("leadership.interrupted", error=str(group.exceptions[0]))
        except* FencedError as group:
            log.warning("leadership.fenced", error=str(group.exceptions[0]))
        except* (FormatVersionError, NetworkSettingsError, records.DamagedRecordError):
            raise  # An operator must put it right.
        except* Exception:
            log.exception("leadership.failed")
        finally:
            self._leadership = None
