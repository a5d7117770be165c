"""Everything that exists only while this manager leads: it begins by reading the whole store.

All leader-only tasks live in one TaskGroup that ends with the leadership.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

import structlog

from bayplan.model.network import ClusterNetwork
from bayplan.model.states import PodState
from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from manager.cluster_state import ClusterState
from manager.commit import OPERATIONS_MAX, Committer
from manager.control_loop import ControlLoop
from manager.dispatcher.dispatcher import Dispatcher, DispatcherSettings
from manager.dispatcher.liveness import Liveness
from manager.election import Term
from manager.events import EventLog
from manager.housekeeping import Housekeeping
from manager.metrics import LeaderFigures
from manager.past import Adoption, plan_adoption, renewed_meta, unheard_nodes
from manager.pods import deployment_status, pending_of, pod_of
from manager.services import ingress_status, service_status
from manager.store import keys, records
from manager.store.port import DeleteKey, Operation, Put, Store
from manager.store_to_state import load

log = structlog.get_logger(__name__)


class Leadership:
    """One term: memory, control loop, dispatcher. Made by `begin`, runs until cancelled."""

    def __init__(
        self,
        store: Store,
        term: Term,
        state: ClusterState,
        *,
        store_id: str,
        settings: DispatcherSettings,
        managers: Callable[[], list[str]],
        wall_s: Callable[[], float],
    ) -> None:
        self.term = term
        self.state = state
        self.store_id = store_id
        self.epoch = wire.Epoch(store=store_id, revision=term.epoch.revision)
        self.events = EventLog(wall_s, source=settings.manager)
        self._store = store
        self._wall_s = wall_s
        self._resign = asyncio.Event()
        self.is_over = False
        self.committer = Committer(
            store, guard=term.guard, epoch=term.epoch.revision, last=state.commit_value
        )
        self.loop = ControlLoop(
            state,
            store,
            self.committer,
            events=self.events,
            may_command=term.wait_active,
            wall_s=wall_s,
        )
        self.dispatcher = Dispatcher(
            state,
            epoch=self.epoch,
            liveness=Liveness(
                nodes=list(state.nodes),
                elected_s=asyncio.get_running_loop().time(),
                heartbeat_s=settings.heartbeat_s,
            ),
            events=self.events,
            settings=settings,
            write=self._write,
            may_command=term.wait_active,
            mark=self.loop.mark,
            managers=managers,
            history=lambda: self.committer.history,
            past=self._hold,
            wall_s=wall_s,
        )
        self.housekeeping = Housekeeping(store, self.events)

    @classmethod
    async def begin(
        cls,
        store: Store,
        term: Term,
        *,
        settings: DispatcherSettings,
        network: ClusterNetwork,
        managers: Callable[[], list[str]],
        wall_s: Callable[[], float],
    ) -> Leadership:
        """Read the store: what is durable is known from here on. `network` is what a new cluster is founded with."""
        status = await store.status()
        listing = await store.list(keys.ROOT)
        state = ClusterState()
        load(state, listing.items, listing.revision)
        leadership = cls(
            store,
            term,
            state,
            store_id=f"{state.meta.incarnation}:{status.cluster_id:x}",
            settings=settings,
            managers=managers,
            wall_s=wall_s,
        )
        for item in listing.items:
            if item.key.startswith(keys.DECISIONS):
                try:
                    decisions = records.decode_json(item.value)
                    leadership.events.add_decisions(decisions, source="")
                    state.note_decisions(decisions)
                except (records.DamagedRecordError, KeyError, TypeError) as error:
                    log.warning("store_key.ignored", key=item.key, error=str(error))
        # Puts this term into the store's history before any agent hears of it.
        await leadership.committer.commit(_founding(state, network))
        log.info(
            "store.loaded",
            revision=listing.revision,
            documents=len(state.resources),
            nodes=len(state.nodes),
            pods=sum(map(len, state.placements.values())),
        )
        return leadership

    async def run(self) -> None:
        """Lead until cancelled, or until an operator's decision asks for a fresh start."""
        try:
            async with asyncio.TaskGroup() as parts:
                tasks = [
                    parts.create_task(
                        self.loop.run(self.dispatcher, from_revision=self.state.watched_revision + 1),
                        name="loop",
                    ),
                    parts.create_task(self.dispatcher.run(), name="dispatcher"),
                    parts.create_task(self.housekeeping.run(), name="housekeeping"),
                ]
                await self._resign.wait()
                for task in tasks:
                    task.cancel()
        finally:
            self.is_over = True
            self.dispatcher.close("this manager does not lead any more")
            self.loop.tell_watchers()
            self.events.close()

    async def _write(self, operations: Sequence[Operation]) -> int:
        await self.term.wait_active()
        return await self.committer.commit(operations)

    # -- a store from the past -----------------------------------------------------------------

    def _hold(self, reason: str) -> None:
        if self.loop.held:
            return
        self.loop.held = (
            f"the store is older than what agents remember ({reason}): nothing is started or stopped."
            " `bay adopt` keeps what runs; `bay admin accept-restore` makes the store right"
        )
        self.dispatcher.hold()
        self.events.add("Alarm", self.loop.held, obj="Cluster/store")
        log.error("store.from_past", reason=reason)

    async def adopt(self, *, dry_run: bool, without: Sequence[str]) -> Adoption:
        """Write into the store what the agents run.

        A node that was not heard, and is not one of `without`, is waited for: what it runs would be
        unknown to the store, and stopped when it comes. Raises LookupError for that, and when the
        store is not held.
        """
        if not self.loop.held:
            raise LookupError("the store and the agents agree: there is nothing to adopt")
        adoption = Adoption()

        async def act() -> None:
            nonlocal adoption
            visitors = list(self.dispatcher.visitors.values())
            unheard = [name for name in unheard_nodes(self.state, visitors) if name not in without]
            if unheard and not dry_run:
                raise LookupError(
                    f"nodes not heard of yet: {', '.join(unheard)}. Wait for them, or leave behind what they run:"
                    f" it is stopped when they come ({' '.join(f'--without {name}' for name in unheard)})"
                )
            if not dry_run:
                # Those first whose pods have addresses, which nobody else may be given.
                for session in sorted(visitors, key=lambda each: not each.reported):
                    await self.dispatcher.admission.register(session.hello, session.reported or ())
            adoption = plan_adoption(self.state, visitors, now_ms=int(self._wall_s() * 1000), is_dry=dry_run)
            adoption.unheard = unheard
            if not dry_run:
                await self._renew(adoption.operations)

        await self.loop.exclusively(act)
        return adoption

    async def accept_restore(self) -> None:
        """The store is right. Raises LookupError when it is not held."""
        if not self.loop.held:
            raise LookupError("the store and the agents agree: there is nothing to accept")

        async def act() -> None:
            await self._renew([])

        await self.loop.exclusively(act)

    async def _renew(self, operations: list[Operation]) -> None:
        """Write, give the store a new incarnation last, and begin anew as whoever is elected."""
        size = OPERATIONS_MAX - 1
        for start in range(0, len(operations), size):
            await self._write(operations[start : start + size])
        meta = renewed_meta(
            self.state,
            self.dispatcher.visitors.values(),
            store=self.store_id,
            incarnation=uuid.uuid4().hex[:16],
        )
        await self._write([Put(key=keys.META, value=records.encode_meta(meta))])
        self._resign.set()

    # -- nodes ---------------------------------------------------------------------------------

    async def remove_node(self, name: str, check: Callable[[], None]) -> None:
        """Forget a node and every placement on it. `check` raises unless it may be: asked at the last moment."""

        async def act() -> None:
            check()
            await self.loop.remove_placements_of(name, "its node was removed")
            intent = keys.node_intent(name)
            await self._write([DeleteKey(key=keys.node(name)), DeleteKey(key=intent)])
            self.dispatcher.forget(name)
            self.state.drop_node(name)

        await self.loop.exclusively(act)
        self.loop.mark(["*"])

    # -- what users see ------------------------------------------------------------------------

    def notice(self) -> str:
        """Why answers may be incomplete, or an alarm that everybody should read."""
        if self.loop.held:
            return self.loop.held
        unheard = self._unheard()
        if unheard:
            return f"the new leader has not heard of {', '.join(unheard[:5])} yet"
        return "; ".join(self.alarms)

    @property
    def alarms(self) -> tuple[str, ...]:
        """What an operator should act upon."""
        held = (self.loop.held,) if self.loop.held else ()
        return (*held, *self.housekeeping.alarms, *self.dispatcher.liveness.alarms)

    def _unheard(self) -> list[str]:
        states = {name: life.state for name, life in self.dispatcher.liveness.nodes.items()}
        return self.state.unreported_nodes(states)

    def mark(self) -> api.Mark:
        """How recent answers of this moment are."""
        return api.Mark(
            store=self.store_id,
            revision=self.state.revision,
            epoch=self.term.epoch.revision,
            complete=not self.loop.held and not self._unheard(),
            notice=self.notice(),
        )

    def pods_of_workload(self, uid: str) -> list[api.Pod]:
        """Placed and pending pods of a workload, by slot, newest first."""
        placed = [
            pod_of(self.state, self.dispatcher, placement)
            for placement in self.state.placements.get(uid, {}).values()
        ]
        note = self.loop.held or self.loop.quarantined.get(uid, "")
        pending = pending_of(self.state, uid, self.loop.unplaced.get(uid, {}), note)
        return sorted([*placed, *pending], key=lambda pod: (pod.slot, -pod.incarnation))

    def figures(self) -> LeaderFigures:
        """For Prometheus."""
        state, dispatcher = self.state, self.dispatcher
        return LeaderFigures(
            nodes=Counter(dispatcher.node_state(name)[0].value for name in state.nodes),
            pods=_by_name(
                Counter(status.state for entry in state.nodes.values() for status in entry.statuses.values())
            ),
            services=len(state.services),
            agents=len(dispatcher.sessions),
            queues={"workloads_to_plan": self.loop.waiting},
        )

    def status_of(self, place: tuple[str, str, str]) -> dict[str, object]:
        """The status of a document in Kubernetes' shape; empty for those that have none."""
        entry = self.state.resources[place]
        if place[0] == "Service":
            return service_status(self.state, self.dispatcher, entry)
        if place[0] == "Ingress":
            return ingress_status(self.state, self.dispatcher, entry)
        if entry.stored.uid not in self.state.workloads:
            return {}
        return deployment_status(entry, self.pods_of_workload(entry.stored.uid))


def _by_name(pods: Mapping[int, int]) -> dict[str, int]:
    return {PodState(state).name.lower() if state else "unknown": count for state, count in pods.items()}


def _founding(state: ClusterState, network: ClusterNetwork) -> list[Operation]:
    """What the first leader writes: the pods' network, also into a store of the format before."""
    operations: list[Operation] = []
    if not state.is_founded:
        state.network, state.is_founded = network, True
        operations.append(Put(key=keys.NETWORK, value=records.encode_network(network)))
        log.info("network.founded", **asdict(network))
    if state.meta.format_version != records.FORMAT_VERSION:
        state.meta = replace(state.meta, format_version=records.FORMAT_VERSION)
        operations.append(Put(key=keys.META, value=records.encode_meta(state.meta)))
        log.info("store.upgraded", format=records.FORMAT_VERSION)
    return operations
