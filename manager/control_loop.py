"""The control loop: level-triggered, one plan and one commit at a time.

An event only marks a workload dirty; the plan is made from the whole present view of it.
What is planned is committed, only what is committed is folded into memory, and only what
is in memory is told to agents.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

import structlog

from bayplan.model.names import PodId
from bayplan.model.nodes import NodeState
from bayplan.model.placements import Want
from manager.changes_to_records import Batch, batch_of, decisions_of, fold_in
from manager.cluster_state import ClusterState
from manager.commit import Committer, FencedError
from manager.events import EventLog
from manager.planning.allocations import plan_allocations
from manager.planning.changes import AllocationChange, Plan, RemovePlacement, SetWant
from manager.planning.plan import WorkloadPlan, join, plan_workload
from manager.planning.view import ClusterView, NodeView
from manager.store import keys
from manager.store.port import (
    CompactedError,
    DeleteKey,
    Put,
    Store,
    StoreError,
    StoreFullError,
    StoreReplacedError,
    StoreUnavailableError,
)
from manager.store.records import encode_json
from manager.store_to_state import SERVICE_KINDS, apply_watched, repair
from manager.views import service_claims, workload_view

log = structlog.get_logger(__name__)

# How long changes gather before a pass: long enough to batch a burst, too short to be felt.
TICK_S = 0.01
SWEEP_S = 60.0
# Batches of decisions kept in the store.
DECISIONS_MAX = 500
_FULL_STORE_RETRY_S = 5.0
_SERVICE_PREFIXES = tuple(keys.resources_of(kind) for kind in SERVICE_KINDS)
# While replacements are rationed.
_BUDGET_RETRY_S = 0.2


class Nodes(Protocol):
    """What the loop asks of the dispatcher."""

    def node_state(self, name: str) -> tuple[NodeState, str, str]:
        """(state, why, held): `held` says why its pods may not be replaced now, if so."""
        ...

    def replacement_budget(self, now_s: float) -> int | None:
        """How many pods of dead nodes may be replaced now; None: any number."""
        ...

    def replaced(self, pods: int) -> None:
        """So many were."""
        ...

    def sync(self, names: Iterable[str]) -> None:
        """Tell the agents of these nodes what they do not know yet."""
        ...

    def why_running(self, pod: PodId) -> str:
        """Why a pod that is wanted to stop was not told so yet; empty if it was."""
        ...

    def is_port_taken(self, service: str, node: str, address: str, port: int) -> bool:
        """Whether a node could not bind a port that it is to publish for a service ("namespace/name")."""
        ...


class ControlLoop:
    """Runs while this manager leads; the only one that changes placements.

    Args:
        may_command: returns once the leadership is not suspended.
    """

    def __init__(
        self,
        state: ClusterState,
        store: Store,
        committer: Committer,
        *,
        events: EventLog,
        may_command: Callable[[], Awaitable[None]],
        wall_s: Callable[[], float],
    ) -> None:
        self._state = state
        self._store = store
        self._committer = committer
        self._events = events
        self._may_command = may_command
        self._wall_s = wall_s
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._wake_at_s = 0.0
        self._passing = asyncio.Lock()
        self._parts: asyncio.TaskGroup | None = None  # While it runs.
        self._settled_claims = -1  # With these every service has what it can have.
        # Why a slot has no node: by workload, by slot.
        self.unplaced: dict[str, dict[int, str]] = {}
        # Why a workload is not planned: planning it raised.
        self.quarantined: dict[str, str] = {}
        # Why nothing at all is planned, e.g. a store from the past; empty: all is well.
        self.held = ""
        self._changed = asyncio.Event()

    # -- marking -------------------------------------------------------------------------------

    def mark(self, uids: Iterable[str]) -> None:
        """These workloads may need another plan; "*" stands for all of them."""
        self._dirty.update(uids)
        if self._dirty:
            self._wake.set()
            self.tell_watchers()

    @property
    def waiting(self) -> int:
        """How many workloads wait for a plan."""
        return len(self._dirty)

    def tell_watchers(self) -> None:
        """Wake everybody who waits for any change of what is known."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_changed(self) -> None:
        """Return at the next change of what is known. Look first, then wait: nothing is buffered."""
        await self._changed.wait()

    # -- running -------------------------------------------------------------------------------

    async def run(self, nodes: Nodes, *, from_revision: int) -> None:
        """Plan, follow the store from a revision on, and sweep, until cancelled or fenced."""
        self.mark(["*"])
        try:
            async with asyncio.TaskGroup() as parts:
                self._parts = parts
                parts.create_task(self._plan_for_ever(nodes), name="plan")
                parts.create_task(self._follow_store(from_revision), name="follow-store")
                parts.create_task(self._sweep_for_ever(), name="sweep")
        finally:
            self._parts = None

    async def _plan_for_ever(self, nodes: Nodes) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wait_s = self._wake_at_s - loop.time() if self._wake_at_s else SWEEP_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(wait_s, 0.0)):
                    await self._wake.wait()
            await asyncio.sleep(TICK_S)
            await self._may_command()
            self._wake.clear()
            if self._wake_at_s and self._wake_at_s <= loop.time():
                self._wake_at_s = 0.0
                self._dirty.add("*")
            if self.held:
                continue
            try:
                async with self._passing:
                    await self._pass(nodes)
            except StoreFullError as error:
                self._events.add("Alarm", str(error), obj="Cluster/store")
                log.error("commit.refused", error=str(error))  # noqa: TRY400 - a condition, not a bug
                self._wake.set()
                await asyncio.sleep(_FULL_STORE_RETRY_S)

    async def _pass(self, nodes: Nodes) -> None:
        dirty, self._dirty = self._dirty, set()
        if "*" in dirty:
            state = self._state
            dirty = dirty | state.workloads.keys() | state.placements.keys()
            dirty.discard("*")
        try:
            await self._plan_and_commit(dirty, nodes)
        except BaseException:
            # Nothing of it is known to be done: the next pass looks at all of it again.
            self._dirty |= dirty
            raise

    async def _plan_and_commit(self, dirty: set[str], nodes: Nodes) -> None:
        cluster = self._cluster_view(nodes)
        plans = self._plans(dirty, cluster, nodes)
        plan = join(plans, cluster)
        for planned in plans:
            self.unplaced.pop(planned.uid, None)
        is_learning = any(node.state is NodeState.UNKNOWN for node in cluster.nodes.values())
        self._note_unplaced(plan, is_learning=is_learning)
        self._wake_by(plan.wake_at_s)
        changes = (*self._allocations(), *plan.changes)
        if changes:
            batch = batch_of(changes, self._state)
            await self._commit(batch)
            nodes.sync(sorted({placement.node for placement in batch.put} | batch.nodes_freed))
            if batch.is_cut:
                self.mark(dirty)
            if batch.nodes_freed:
                # Room was made: who waits for it is looked at again.
                self.mark(self.unplaced)
            # A committed change may ask for the next one: a removed record for its workload's removal.
            self.mark(uid for uid in dirty if uid in self._state.workloads)
        self.tell_watchers()

    def _allocations(self) -> list[AllocationChange]:
        """What services are to be given, when one of them came, went or changed since that was nothing."""
        state = self._state
        if self._settled_claims == state.claims_version:
            return []
        try:
            planned = plan_allocations(
                state.network,
                service_claims(state),
                state.allocations,
                state.cursor,
                keeps_unknown=any(key.startswith(_SERVICE_PREFIXES) for key in state.broken),
            )
        except Exception as error:
            # What services have stays as it is; workloads go on.
            reason = f"planning services failed: {type(error).__name__}: {error}"
            log.exception("services.quarantined")
            self._events.add("Quarantined", reason, obj="Cluster/services")
            return []
        if not planned:
            self._settled_claims = state.claims_version
        return planned

    def _plans(self, dirty: Iterable[str], cluster: ClusterView, nodes: Nodes) -> list[WorkloadPlan]:
        """Plan each; after a mass failure only so many pods of dead nodes a second are replaced."""
        budget = nodes.replacement_budget(cluster.now_s)
        plans: list[WorkloadPlan] = []
        for uid in sorted(dirty):
            if budget is not None:
                cluster = replace(cluster, losses_max=budget)
                if not budget:
                    self._wake_by(cluster.now_s + _BUDGET_RETRY_S)
            planned = self._planned(uid, cluster)
            if planned is None:
                continue
            plans.append(planned)
            lost = sum(isinstance(each, SetWant) and each.want is Want.LOST for each in planned.changes)
            if lost and budget is not None:
                budget -= lost
                nodes.replaced(lost)
                self._wake_by(cluster.now_s + _BUDGET_RETRY_S)
        return plans

    def _wake_by(self, at_s: float) -> None:
        if at_s and (not self._wake_at_s or at_s < self._wake_at_s):
            self._wake_at_s = at_s

    def _planned(self, uid: str, cluster: ClusterView) -> WorkloadPlan | None:
        try:
            view = workload_view(self._state, uid)
            planned = None if view is None else plan_workload(view, cluster)
        except Exception as error:
            reason = f"planning it failed: {type(error).__name__}: {error}"
            if self.quarantined.get(uid) != reason:
                self.quarantined[uid] = reason
                kind, namespace, name = self._state.workload_name(uid)
                log.exception("workload.quarantined", workload=uid)
                self._events.add(
                    "Quarantined", reason, obj=f"{kind}/{name}", namespace=namespace, workload_uid=uid
                )
            return None
        self.quarantined.pop(uid, None)
        if planned is None:
            self.unplaced.pop(uid, None)
        return planned

    def _note_unplaced(self, plan: Plan, *, is_learning: bool) -> None:
        for pending in plan.unplaced:
            slots = self.unplaced.setdefault(pending.workload_uid, {})
            slots[pending.slot] = pending.reason
        if is_learning:
            return  # Nodes that are not heard of yet may have room: no news before that is known.
        for uid in dict.fromkeys(pending.workload_uid for pending in plan.unplaced):
            kind, namespace, name = self._state.workload_name(uid)
            reasons = sorted(set(self.unplaced[uid].values()))
            self._events.add(
                "Unplaced",
                f"{len(self.unplaced[uid])} pods: {reasons[0]}",
                obj=f"{kind}/{name}",
                namespace=namespace,
                workload_uid=uid,
            )

    async def _commit(self, batch: Batch) -> None:
        state = self._state
        decisions = decisions_of(batch, state, int(self._wall_s() * 1000))
        tick = 1 + (keys.parse_decisions(state.decisions[-1]) or 0) if state.decisions else 1
        key = keys.decisions(tick)
        operations = [*batch.operations, Put(key=key, value=encode_json(decisions))]
        expired = state.decisions[0] if len(state.decisions) >= DECISIONS_MAX else ""
        if expired:
            operations.append(DeleteKey(key=expired))
        revision = await self._committer.commit(operations)
        state.decisions.append(key)
        if expired:
            state.decisions.remove(expired)
        # The names of what goes are known only before it is gone.
        self._events.add_decisions(decisions)
        for change, pod in batch.changes:
            log.info(
                "change.committed",
                change=type(change).__name__,
                pod=str(pod) if pod else None,
                reason=change.reason,
            )
        fold_in(batch, state, revision)
        state.note_decisions(decisions)

    def _cluster_view(self, nodes: Nodes) -> ClusterView:
        views: dict[str, NodeView] = {}
        for name, entry in self._state.nodes.items():
            node_state, why, held = nodes.node_state(name)
            views[name] = NodeView(
                name=name,
                state=node_state,
                why=why,
                drain=entry.intent.drain,
                unschedulable=entry.intent.unschedulable,
                labels=entry.labels,
                taints=entry.intent.taints,
                capacity=entry.facts.capacity,
                refuses=entry.refuses,
                held=held,
            )
        return ClusterView(
            now_s=asyncio.get_running_loop().time(),
            nodes=views,
            reserved=dict(self._state.reserved),
            host_ports={
                node: frozenset(ports)
                for node, ports in self._state.host_ports.items()
                if ports and node in views
            },
        )

    async def remove_placements_of(self, node: str, reason: str) -> None:
        """Drop every record on a node, as many commits as it takes. Call within `exclusively`."""
        while pods := list(self._state.by_node[node]):
            changes = [RemovePlacement(pod=pod, reason=reason) for pod in pods]
            await self._commit(batch_of(changes, self._state))

    async def exclusively(self, act: Callable[[], Awaitable[None]]) -> None:
        """Run `act`, which changes placements on an operator's word, while no pass is under way.

        It goes on when the caller is cancelled, for half of it done is worse than either.
        """
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._parts is None:
            raise StoreUnavailableError("the leader has changed; try again")
        self._parts.create_task(self._act(act, outcome), name="operator's word")
        await outcome

    async def _act(self, act: Callable[[], Awaitable[None]], outcome: asyncio.Future[None]) -> None:
        error: Exception = StoreUnavailableError("the leader has changed; look whether it was done")
        try:
            async with self._passing:
                await act()
        except FencedError as fenced:
            error = fenced
            raise
        except Exception as failure:  # noqa: BLE001 - it is the caller's, and ends no leadership
            error = failure
        else:
            if not outcome.done():
                outcome.set_result(None)
        finally:
            if not outcome.done():
                outcome.set_exception(error)

    # -- following the store -------------------------------------------------------------------

    async def _follow_store(self, from_revision: int) -> None:
        while True:
            try:
                async with aclosing(self._store.watch(keys.ROOT, from_revision=from_revision)) as batches:
                    async for batch in batches:
                        dirty = apply_watched(self._state, batch.changes, batch.revision)
                        from_revision = batch.revision + 1
                        if dirty:
                            self.mark(dirty)
                        else:
                            self.tell_watchers()
            except StoreReplacedError:
                raise  # Another history: this term knows nothing of it.
            except CompactedError:
                listing = await self._store.list(keys.ROOT)
                self.mark(repair(self._state, listing))
                from_revision = listing.revision + 1

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            known = self._state.revision
            try:
                listing = await self._store.list(keys.ROOT)
            except StoreError as error:
                log.warning("sweep.failed", error=str(error))
                continue
            if listing.revision < known:
                raise StoreReplacedError(listing.revision, expected=known)
            async with self._passing:
                self.mark(repair(self._state, listing))
            self.mark(["*"])
