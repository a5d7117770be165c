"""What agents are told of services, and which pods must wait before they may stop.

Follows what changes in the leader's memory: each pass looks at the services that are concerned, and at no
other. A burst of changes is gathered for a moment and told as one; whatever assignments depend on is told
before them. A pod leaves the traffic the moment that its STOP is committed, and hears of it itself only
once the proxies have let it go (`release`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice

import structlog

from bayplan.model.names import PodId
from bayplan.model.nodes import NodeState
from bayplan.model.placements import Placement, Want
from bayplan.model.states import PodState
from bayplan.resources.workloads import Deployment
from bayplan.v1 import agent_link_pb2 as wire
from manager.cluster_state import ClusterState
from manager.dispatcher.ingresses import Ingresses
from manager.dispatcher.port_problems import PortProblems
from manager.dispatcher.quarantine import Quarantine
from manager.dispatcher.release import Departures, ProxyView, Released
from manager.dispatcher.service_pods import ServicePods
from manager.dispatcher.session import NodeSession
from manager.dispatcher.traffic_ledger import Ledger
from manager.dispatcher.traffic_wire import ingress_of, service_of
from manager.events import EventLog
from manager.planning.endpoints import BackendView, EndpointSet, ServiceView
from manager.touched import Changes, Place
from manager.traffic_views import service_view

log = structlog.get_logger(__name__)

# Changes gather this long before they are told: a pod that became ready is served well within half a second.
GATHER_S = 0.025
# So many pods are derived at a stretch: some 10 ms.
STRETCH = 200
# More than a node's proxy can have left out and not finished with; what is kept must have a limit.
DRAINING_MAX = 10_000
_UNREADABLE = (
    "this manager cannot read its document: nodes serve it as they were told before, without pods that stop,"
    " and no new ones join it"
)
# An agent's word for a pod that was told to stop, perhaps by the leader before.
_TERMINATING = "Terminating"
# Proxies that are waited for: in reach, expected back, or not heard of yet by this leader.
_AWAITED = frozenset({NodeState.READY, NodeState.RESTARTING, NodeState.UNKNOWN})


class Traffic:
    """Lives for one term.

    Args:
        node_state: (state, why, held) of a node.
        may_command: returns once the leadership is not suspended.
        sync: tells the agents of these nodes what they do not know yet.
    """

    def __init__(
        self,
        state: ClusterState,
        *,
        epoch: wire.Epoch,
        sessions: Mapping[str, NodeSession],
        node_state: Callable[[str], tuple[NodeState, str, str]],
        events: EventLog,
        may_command: Callable[[], Awaitable[None]],
        sync: Callable[[Iterable[str]], None],
    ) -> None:
        self._state = state
        self._sessions = sessions
        self._node_state = node_state
        self._events = events
        self._may_command = may_command
        self._sync = sync
        self.ledger = Ledger(epoch)
        self.port_problems = PortProblems(events)
        self._ingresses = Ingresses(state, events)
        self._pods = ServicePods(state, node_state)
        self._departures = Departures()
        self._services: dict[str, ServiceView] = {}
        self._quarantine = Quarantine(events, what="deriving its traffic failed: ")
        self._stuck: set[str] = set()  # Services that cannot be worked out: they stay as agents have them.
        self._behind: set[str] = set()  # Nodes whose agents are to be told something after the next pass.
        self._served: set[str] = set()  # Pods that proxies were told of in this term.
        self._has_looked = False  # Everything was derived once.
        self._woken = asyncio.Event()
        self._woken.set()
        for place in state.resources:
            state.touched.document(place)
        for placements in state.placements.values():
            for pod in placements:
                state.touched.pod(pod)
        state.touched.on_first = self._woken.set
        # The one that is under way.
        self._pass: Iterator[int] | None = self._derive_all(state.touched.take())

    # -- what happened -------------------------------------------------------------------------

    def welcome(self, session: NodeSession) -> None:
        """Tell an agent that has just connected everything that is known."""
        # Not before the first look is over: what it has not come to would be taken for gone.
        if self._has_looked:
            session.send_in_turn(partial(self._news, session))

    def applied(self, session: NodeSession, message: wire.TrafficApplied) -> None:
        """An agent says how far its proxy has come."""
        # What is ahead of what it was told is of a leader before us.
        version = message.version if message.version <= session.traffic_version else 0
        session.proxy = ProxyView(applied=version, draining=frozenset(islice(message.draining, DRAINING_MAX)))
        self.port_problems.note(session.node, message.problems)
        if self._departures:
            self._woken.set()

    def look_at_nodes(self) -> None:
        """Nodes may have become another than they were."""
        self._pods.look_at_nodes()
        if self._departures:
            self._woken.set()

    def reported(self, node: str) -> None:
        """A node has told of all that it has: its agent is told what it lacks once that is followed."""
        self._pods.look_at_node(node)
        self.sync_soon([node])

    def forget(self, node: str) -> None:
        """It is no node any more."""
        self._pods.forget_node(node)
        self.port_problems.forget(node)

    def sync_soon(self, nodes: Iterable[str]) -> None:
        """Have agents told what they do not know yet, after what is to be derived before."""
        self._behind.update(nodes)
        self._woken.set()

    # -- what others ask -----------------------------------------------------------------------

    def must_run(self, pod: PodId) -> bool:
        """Whether a pod that is wanted to stop must not be told so yet."""
        return self._departures.is_waiting(str(pod))

    def why_running(self, pod: PodId) -> str:
        """What it waits for, in words; empty if for nothing."""
        return self._departures.why(str(pod))

    def services(self, namespace: str = "", name: str = "") -> list[ServiceView]:
        """Those that match, by name."""
        return [
            view
            for _, view in sorted(self._services.items())
            if (not namespace or view.namespace == namespace) and (not name or view.name == name)
        ]

    def backends(self, view: ServiceView) -> list[BackendView]:
        """The pods that a service's selector finds, by uid, as they were last reported."""
        return sorted(self._pods.of(view), key=lambda each: each.uid)

    def endpoints(self, view: ServiceView) -> EndpointSet:
        """The endpoints of a service, as far as they are known."""
        return self._pods.endpoints(view)

    # -- passes --------------------------------------------------------------------------------

    @property
    def is_behind(self) -> bool:
        """Whether there is more to derive than should be done at a stretch."""
        return self._pass is not None or len(self._state.touched) > STRETCH

    async def run(self) -> None:
        """Follow what changes, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            wait_s = self._departures.next_look_s - loop.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if wait_s == float("inf") else max(wait_s, 0.0)):
                    await self._woken.wait()
            await asyncio.sleep(GATHER_S)
            await self._may_command()
            self._woken.clear()
            await self._settle()
            if self._departures:
                for released in self._departures.judge(self._proxies(), loop.time()):
                    self._tell_released(released)
            if self._behind:
                behind, self._behind = self._behind, set()
                self._sync(sorted(behind))

    async def _settle(self) -> None:
        """Derive what has changed, with pauses: heartbeats are answered meanwhile."""
        done = 0
        while (step := self._step()) is not None:
            done += step
            if done >= STRETCH:
                done = 0
                await asyncio.sleep(0)

    def flush(self) -> None:
        """Derive what has changed, now, and queue it for every agent."""
        while self._step() is not None:
            pass

    def _step(self) -> int | None:
        """Do a part of what there is to derive; returns how much it was, None when nothing is left."""
        if self._pass is None:
            if not self._state.touched:
                return None
            self._pass = self._derive_all(self._state.touched.take())
        step = next(self._pass, None)
        if step is None:
            self._pass = None
            return 0
        return step

    def _derive_all(self, changes: Changes) -> Iterator[int]:
        """Bit by bit; says how much each bit was, in pods."""
        dirty: set[str] = set()
        yield from self._follow_all(changes, dirty)
        derived = 0
        for key in sorted(dirty):
            cost = self._derive(key)
            derived += cost
            yield cost
        for pod in changes.pods if self._stuck else ():
            self._quarantine.attempt(partial(self._leave_stuck, pod), f"Pod/{pod}")
        if any(map(self._ingresses.is_concerned, changes.documents)):
            unread: list[str] = []
            self._quarantine.attempt(lambda: unread.extend(self._ingresses.unread()), "Cluster/ingress")
            for secret in unread:
                self._quarantine.attempt(partial(self._ingresses.read, secret), f"Secret/{secret}")
                yield STRETCH
            self._derive_ingress()
            yield 1
        is_first, self._has_looked = not self._has_looked, True
        if self.ledger.seal() or is_first:
            # Each puts its own copy on the wire, so many at a time.
            for session in list(self._sessions.values()):
                session.send_in_turn(partial(self._news, session))
                yield 1 + derived // 10
        for pod in changes.pods:
            self._quarantine.attempt(partial(self._follow_departure, pod), f"Pod/{pod}")
            yield 0
        if self._behind:
            self._woken.set()

    def _news(self, session: NodeSession) -> list[wire.ManagerMessage]:
        """What a session lacks, when its turn has come."""
        messages = self.ledger.messages(session.traffic_version)
        session.traffic_version = self.ledger.version
        return messages

    # -- following what changed ----------------------------------------------------------------

    def _follow_all(self, changes: Changes, dirty: set[str]) -> Iterator[int]:
        """Adds the services that are concerned to `dirty`."""
        for kind, namespace, _ in changes.documents:
            for pod in self._pods.begin(namespace) if kind == "Service" else ():
                if pod not in changes.pods:
                    self._quarantine.attempt(partial(self._follow_pod, pod, set()), f"Pod/{pod}")
                    yield 1
        for place in changes.documents:
            follow = partial(self._follow_document, place, dirty)
            self._quarantine.attempt(follow, f"{place[0]}/{place[2]}", place[1])
            yield 1
        for pod in changes.pods:
            self._quarantine.attempt(partial(self._follow_pod, pod, dirty), f"Pod/{pod}")
            yield 1

    def _follow_document(self, place: Place, dirty: set[str]) -> None:
        """Adds the services that a document concerns."""
        kind, namespace, name = place
        if kind in ("Service", "Endpoints"):
            dirty.add(f"{namespace}/{name}")
        entry = self._state.resources.get(place)
        if entry is not None and isinstance(entry.resource, Deployment):
            for pod in self._pods.homeless_of(entry.stored.uid):
                self._follow_pod(pod, dirty)

    def _follow_pod(self, pod: PodId, dirty: set[str]) -> None:
        """Adds the services that a pod concerns."""
        was_homeless = self._pods.is_homeless(pod)
        dirty |= self._pods.follow(pod)
        if was_homeless != self._pods.is_homeless(pod):
            # It may be of any service whose set is not known for that very reason.
            dirty.update(self.ledger.unknown())

    def _follow_departure(self, pod: PodId) -> None:
        """Let a pod that is to stop begin to leave; or let it go, when there is nothing to wait for."""
        placement = self._state.placements.get(pod.workload_uid, {}).get(pod)
        uid = str(pod)
        if placement is None:
            self._departures.forget(uid)
            self._served.discard(uid)
            return
        if placement.want is not Want.STOP:
            return
        if self._has_nothing_to_leave(placement):
            if self._departures.is_waiting(uid):
                self._behind.add(placement.node)
            self._departures.release(uid)
            return
        self._departures.leave(
            uid,
            node=placement.node,
            version=self.ledger.version,
            drain_s=self._pods.template(pod.workload_uid, placement.revision).drain_s,
            now_s=asyncio.get_running_loop().time(),
        )
        self._woken.set()

    def _has_nothing_to_leave(self, placement: Placement) -> bool:
        """Whether no request can be lost by stopping it now."""
        uid, services = str(placement.pod), self._pods.services_of(placement.pod)
        # Its service may be gone, or it may have become unready just now: proxies may send it more all the same.
        was_served = uid in self._served or any(
            uid in session.proxy.draining for session in self._sessions.values()
        )
        _, namespace, _ = self._state.workload_name(placement.pod.workload_uid)
        was_served = was_served or any(key.startswith(f"{namespace}/") for key in self._stuck)
        if not services and not was_served:
            return True
        status = self._state.status(placement)
        if status is None:
            entry = self._state.nodes.get(placement.node)
            return entry is not None and entry.was_known  # It never began.
        if not status.state:
            return False
        if PodState(status.state).is_terminal or status.reason == _TERMINATING:
            return True
        return not (
            was_served
            or status.ready
            or any(self._services[key].publish_not_ready for key in services if key in self._services)
        )

    # -- deriving ------------------------------------------------------------------------------

    def _derive(self, key: str) -> int:
        """One service, as it is now; returns how much work it was, in pods.

        One that cannot be derived stays as it was told; others go on.
        """
        namespace, _, name = key.partition("/")
        obj, costs = f"Service/{name}", [5]
        if self._state.is_unreadable(("Service", namespace, name)):
            self._quarantine.tell(_UNREADABLE, obj, namespace)
        elif self._quarantine.attempt(
            lambda: costs.append(self._put_service(namespace, name)), obj, namespace
        ):
            self._stuck.discard(key)
            return sum(costs)
        self._stuck.add(key)
        self.ledger.keep(key)
        return sum(costs)

    def _put_service(self, namespace: str, name: str) -> int:
        key = f"{namespace}/{name}"
        view = service_view(self._state, namespace, name)
        if view is None:
            self._services.pop(key, None)
            self._pods.drop_service(key)
            self.ledger.drop(key)
            return 0
        self._services[key] = view
        self._pods.put_service(view)
        found = self._pods.endpoints(view)
        self.ledger.put(key, service_of(view), found)
        self._served.update(endpoint.id for endpoint in found.endpoints if endpoint.node)
        return len(found.endpoints) + len(found.absent) + len(found.unknown)

    def _leave_stuck(self, pod: PodId) -> None:
        """Take a pod that will not serve again from services that cannot be worked out."""
        if self._pods.is_over(pod):
            _, namespace, _ = self._state.workload_name(pod.workload_uid)
            for key in self._stuck:
                if not namespace or key.startswith(f"{namespace}/"):
                    self.ledger.leave(key, str(pod))

    def _derive_ingress(self) -> None:
        def put() -> None:
            plan, is_whole = self._ingresses.plan(self._services.values(), stuck=self._stuck)
            self.ledger.put_ingress(ingress_of(plan), is_whole=is_whole)

        if not self._quarantine.attempt(put, "Cluster/ingress"):
            self.ledger.keep_ingress()

    # -- pods that leave -----------------------------------------------------------------------

    def _proxies(self) -> dict[str, ProxyView]:
        proxies: dict[str, ProxyView] = {}
        for name in self._state.nodes:
            if self._node_state(name)[0] not in _AWAITED:
                continue
            session = self._sessions.get(name)
            proxies[name] = session.proxy if session is not None else ProxyView()
        return proxies

    def _tell_released(self, released: Released) -> None:
        self._behind.add(released.node)
        pod = PodId.parse(released.uid)
        log.info("pod.released", pod=released.uid, still=list(released.still))
        if not released.still:
            return
        _, namespace, _ = self._state.workload_name(pod.workload_uid)
        self._events.add(
            "PodDrainCut",
            f"its time to drain is over: requests are left on {', '.join(released.still)}",
            obj=f"Pod/{self._state.pod_name(pod)}",
            namespace=namespace,
            workload_uid=pod.workload_uid,
            slot=pod.slot,
        )
