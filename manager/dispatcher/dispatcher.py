"""The leader's side of every agent's stream.

Takes agents in, folds what they report into the cluster state, asks witnesses, and sends
what is committed and not yet told. Decides nothing about pods: it marks workloads dirty.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

import bayplan
from bayplan.model.names import PodId, is_name
from bayplan.model.nodes import Amounts, NodeFacts, NodeState
from bayplan.model.placements import Placement, Want
from bayplan.v1 import agent_link_pb2 as wire
from manager.cluster_state import PODS_PER_NODE, ClusterState
from manager.dispatcher.attached import Attached
from manager.dispatcher.liveness import Liveness
from manager.dispatcher.session import NodeSession
from manager.dispatcher.witnesses import AskWitnesses
from manager.events import EventLog
from manager.history import History
from manager.store import keys, records
from manager.store.port import Operation, Put

log = structlog.get_logger(__name__)

# Nodes that watch each other's witness ports: enough that three can testify when some are gone too.
PEERS_PER_NODE = 5
# Each agent is told its peers at most this often: two thousand may connect at once.
PEERS_EVERY_S = 0.5
_NODE_EVENTS = {
    NodeState.READY: "NodeReady",
    NodeState.SUSPECT: "NodeSuspect",
    NodeState.RESTARTING: "NodeRestarting",
    NodeState.AGENT_LOST: "NodeAgentLost",
    NodeState.DOWN: "NodeDown",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherSettings:
    """What agents are told of the cluster."""

    manager: str
    heartbeat_s: float = 1.0
    default_registry: str = ""
    credentials: tuple[wire.RegistryCredential, ...] = ()


class Dispatcher:
    """Lives for one term.

    Args:
        write: commits operations as the leader; returns the store's revision.
        mark: marks workloads dirty by uid, "*" for all.
        managers: addresses of all managers, for agents to dial when this one is gone.
        history: what was committed, up to now.
        past: called with the reason when an agent remembers more than the store does.
    """

    def __init__(
        self,
        state: ClusterState,
        *,
        epoch: wire.Epoch,
        liveness: Liveness,
        events: EventLog,
        settings: DispatcherSettings,
        write: Callable[[Sequence[Operation]], Awaitable[int]],
        mark: Callable[[Iterable[str]], None],
        managers: Callable[[], list[str]],
        history: Callable[[], History],
        past: Callable[[str], None],
        wall_s: Callable[[], float],
    ) -> None:
        self._state = state
        self._epoch = epoch
        self.liveness = liveness
        self._events = events
        self._settings = settings
        self._write = write
        self._mark = mark
        self._managers = managers
        self._history = history
        self._past = past
        self._wall_s = wall_s
        self.sessions: dict[str, NodeSession] = {}
        self.visitors: dict[str, NodeSession] = {}
        self.is_held = False  # The store is held to be from the past: nobody is told anything.
        # Nodes that an operator swore to be dead, and that were heard since under the same boot id.
        self._disproved: dict[str, str] = {}
        self._attached: dict[str, Attached] = {}
        self._registering = asyncio.Lock()
        self._woken = asyncio.Event()
        self._seen_states: dict[str, NodeState] = {}
        self._requests = 0
        self._peers_changed, self._peers_due_s = False, 0.0
        self._is_closed = False

    # -- streams -------------------------------------------------------------------------------

    async def serve(
        self, hello: wire.Hello, incoming: AsyncIterator[wire.AgentMessage], *, via: str
    ) -> AsyncGenerator[wire.ManagerMessage, None]:
        """One agent's stream from Hello to its end."""
        refusal = self._refusal(hello)
        if refusal is None:
            # Registering waits for a commit; a second Hello of the same node waits here.
            async with self._registering:
                reason = self._past_reason(hello)
                if reason:
                    self._past(reason)
                refusal = self._duplicate(hello)
                if refusal is None and not self.is_held:
                    await self.register(hello)
        if refusal is not None:
            log.warning("agent.refused", node=hello.node, reason=refusal.reason)
            yield wire.ManagerMessage(epoch=self._epoch, refusal=refusal)
            return
        session = self._open(hello, via)
        reader = asyncio.create_task(self._read(session, incoming), name=f"agent-{session.node}")
        try:
            async for message in session.outgoing():
                yield message
        finally:
            # Before anything is awaited: gRPC cancels the handler of a dead peer at its next await.
            self._closed(session, goodbye=None)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def _open(self, hello: wire.Hello, via: str) -> NodeSession:
        now_s = asyncio.get_running_loop().time()
        session = NodeSession(hello.node, hello, self._epoch, via=via, is_visitor=self.is_held)
        session.last_heard_s, session.last_heard_ms = now_s, int(self._wall_s() * 1000)
        welcome = wire.Welcome(
            cluster=self._state.meta.cluster_id,
            manager=self._settings.manager,
            heartbeat_s=self._settings.heartbeat_s,
            default_registry=self._settings.default_registry,
            managers=self._managers(),
            credentials=self._settings.credentials,
        )
        session.send(wire.ManagerMessage(welcome=welcome))
        if self._is_closed:
            session.close("the leader has changed")
            return session
        if session.is_visitor:
            self.visitors[session.node] = session
            return session
        before = self.sessions.get(session.node)
        if before is not None:
            before.close("the agent has connected again")
        self.sessions[session.node] = session
        entry = self._state.nodes[session.node]
        # Until it has reported in full, a pod that is absent from what was known is unknown, not gone.
        entry.has_reported, entry.told = False, {}
        self.liveness.connected(session.node, now_s)
        log.info("agent.connected", node=session.node, via=via, version=hello.version)
        self._wake()
        self._peers_changed = True
        return session

    async def _read(self, session: NodeSession, incoming: AsyncIterator[wire.AgentMessage]) -> None:
        goodbye: wire.Goodbye | None = None
        try:
            async for message in incoming:
                kind = message.WhichOneof("kind")
                session.last_heard_s = asyncio.get_running_loop().time()
                session.last_heard_ms = int(self._wall_s() * 1000)
                if kind == "goodbye":
                    goodbye = message.goodbye
                    break
                if session.is_visitor:
                    if kind == "status" and message.status.full:
                        session.reported = list(message.status.pods)
                elif self.sessions.get(session.node) is session:
                    self._received(session, message, kind)
                if kind == "heartbeat":
                    ack = wire.HeartbeatAck(sequence=message.heartbeat.sequence)
                    session.send(wire.ManagerMessage(heartbeat_ack=ack))
        except Exception:
            # One agent's nonsense ends its own stream and nothing else.
            log.exception("agent_message.failed", node=session.node)
        finally:
            self._closed(session, goodbye=goodbye)
            session.close()

    def _closed(self, session: NodeSession, *, goodbye: wire.Goodbye | None) -> None:
        if self.visitors.get(session.node) is session:
            del self.visitors[session.node]
        if self.sessions.get(session.node) is not session:
            return
        del self.sessions[session.node]
        for attached in [one for one in self._attached.values() if one.node == session.node]:
            attached.fail(f"the stream of node {session.node} was lost")
        now_s = asyncio.get_running_loop().time()
        is_restart = goodbye is not None and goodbye.restarting
        self.liveness.stream_ended(session.node, now_s, restarting=is_restart)
        log.info(
            "agent.disconnected", node=session.node, goodbye=goodbye.reason if goodbye is not None else None
        )
        self._wake()

    def hold(self) -> None:
        """The store is held to be from the past: nobody is told anything from here on.

        Agents that came in before are sent away, and come back as visitors.
        """
        self.is_held = True
        for session in list(self.sessions.values()):
            session.close("the store is from the past")

    def forget(self, name: str) -> None:
        """A node was removed: its agent, should there be one after all, must join anew."""
        self._peers_changed = True
        session = self.sessions.pop(name, None)
        if session is not None:
            session.close("the node was removed from the cluster")
        self.liveness.removed(name)

    def close(self, reason: str) -> None:
        """The term is over: send every agent away, with a Goodbye."""
        self._is_closed = True
        for session in [*self.sessions.values(), *self.visitors.values()]:
            session.close(reason)
        for attached in list(self._attached.values()):
            attached.fail(reason)

    # -- who may come in -----------------------------------------------------------------------

    def _refusal(self, hello: wire.Hello) -> wire.Refusal | None:
        if not is_name(hello.node):
            return wire.Refusal(
                reason=f"{hello.node[:80]!r} is no node name: lower case letters, digits and '-', at most 63",
                final=True,
            )
        skew = version_skew(hello.version, bayplan.__version__)
        if skew:
            return wire.Refusal(reason=skew, final=True)
        is_foreign = hello.cluster not in ("", self._state.meta.cluster_id)
        # An empty store that an agent of another cluster finds may be a wiped one: that is told apart
        # below. With nodes of its own it is simply another cluster.
        if is_foreign and self._state.nodes and not self.is_held:
            return wire.Refusal(
                reason=f"node {hello.node} belongs to cluster {hello.cluster}, this is"
                f" {self._state.meta.cluster_id}; empty its data directory to let it join here",
                final=True,
            )
        return None

    def _duplicate(self, hello: wire.Hello) -> wire.Refusal | None:
        before = self.sessions.get(hello.node) or self.visitors.get(hello.node)
        if before is None or before.hello.session == hello.session or before.is_closed:
            return None
        silence_s = asyncio.get_running_loop().time() - before.last_heard_s
        if silence_s > 2 * self._settings.heartbeat_s:
            return None
        return wire.Refusal(
            reason=f"another agent is connected as node {hello.node} (from {before.hello.address});"
            " give each host its own --node name",
            final=False,
        )

    def _past_reason(self, hello: wire.Hello) -> str:
        """Why the store must be older than what this agent remembers; empty if it need not be."""
        known = hello.highest_epoch
        if not known.store or known.store in self._state.meta.accepted:
            return ""
        if known.store != self._epoch.store:
            return f"node {hello.node} obeyed store {known.store}, this is store {self._epoch.store}"
        lacking = self._history().lacks(known.revision, hello.commit_sequence)
        if lacking:
            return f"node {hello.node} was told of {lacking}"
        return ""

    async def register(self, hello: wire.Hello) -> None:
        """Write down what a node is, if that is news."""
        entry = self._state.nodes.get(hello.node)
        facts = NodeFacts(
            name=hello.node,
            number=entry.facts.number if entry else self._free_number(),
            joined_ms=entry.facts.joined_ms if entry else int(self._wall_s() * 1000),
            capacity=Amounts(
                cpu_millis=hello.capacity.cpu_millis,
                memory_bytes=hello.capacity.memory_bytes,
                pods=hello.capacity.pods or PODS_PER_NODE,
            ),
            labels={
                **hello.labels,
                "kubernetes.io/os": hello.os or "linux",
                "kubernetes.io/arch": hello.arch,
                "kubernetes.io/hostname": hello.node,
            },
            address=hello.address,
            witness_port=hello.witness_port,
            boot_id=hello.boot_id,
            version=hello.version,
            engine=hello.engine,
        )
        if entry is not None and entry.facts == facts:
            return
        key, value = keys.node(facts.name), records.encode_node(facts)
        revision = await self._write([Put(key=key, value=value)])
        self._state.put_node(facts)
        self._state.key_revisions[key] = revision
        self._mark(["*"])
        if entry is None:
            self._events.add("NodeJoined", f"{hello.engine}, {hello.address}", obj=f"Node/{facts.name}")

    def _free_number(self) -> int:
        # Never one that a placement may still name: a node is removed after its placements.
        return 1 + max((entry.facts.number for entry in self._state.nodes.values()), default=0)

    # -- what agents say -----------------------------------------------------------------------

    def _received(self, session: NodeSession, message: wire.AgentMessage, kind: str | None) -> None:
        now_s = session.last_heard_s
        self.liveness.heartbeat(session.node, now_s)
        match kind:
            case "status":
                self._received_status(session, message.status, now_s)
            case "heartbeat":
                self._received_heartbeat(session, message.heartbeat, now_s)
            case "witness":
                result = message.witness
                self.liveness.witness_result(
                    request=result.request, witness=session.node, alive=result.alive, now_s=now_s
                )
                self._wake()
            case "stream_failed":
                attached = self._attached.get(message.stream_failed.stream_id)
                if attached is not None:
                    attached.fail(message.stream_failed.message)

    def _received_status(self, session: NodeSession, report: wire.StatusReport, now_s: float) -> None:
        node, state = session.node, self._state
        entry = state.nodes[node]
        before = dict(entry.statuses)
        if (report.HasField("condition") or report.full) and entry.condition != report.condition:
            entry.condition = report.condition
            self._mark(["*"])
        valid = [status for status in report.pods if _is_pod_uid(status.uid)]
        if report.full:
            if not report.condition.engine_ok:
                # It could not look: what it leaves out may run all the same.
                self._mark(state.apply_statuses(node, valid, now_s))
                return
            dirty = state.apply_full_report(node, valid, now_s)
        else:
            dirty = state.apply_statuses(node, valid, now_s)
        for uid in report.forgotten:
            entry.statuses.pop(uid, None)
        for status in valid:
            self._log_status(node, before.get(status.uid), status)
        self._mark(dirty)
        if report.full:
            self._mark(["*"])
            self.sync([node])

    def _log_status(self, node: str, before: wire.PodStatus | None, status: wire.PodStatus) -> None:
        """Pods' own small events: what a person asks about first."""
        pod = PodId.parse(status.uid)
        if pod not in self._state.placements.get(pod.workload_uid, {}):
            return
        _, namespace, _ = self._state.workload_name(pod.workload_uid)

        def add(reason: str, message: str) -> None:
            self._events.add(
                reason,
                message,
                obj=f"Pod/{self._state.pod_name(pod)}",
                namespace=namespace,
                source=node,
                workload_uid=pod.workload_uid,
                slot=pod.slot,
            )

        placement = self._state.placements[pod.workload_uid][pod]
        if placement.want is Want.STOP:
            return  # That it stops was decided, and said.
        was_ready = before is not None and before.ready
        if status.ready and not was_ready:
            add("PodReady", f"running on {node}")
        elif status.reason and (
            before is None or (before.reason, before.message) != (status.reason, status.message)
        ):
            add("PodFailed", f"{status.reason}: {status.message}" if status.message else status.reason)

    def _received_heartbeat(self, session: NodeSession, beat: wire.Heartbeat, now_s: float) -> None:
        self.liveness.witnessed(session.node, beat.witnessed, now_s)
        if beat.usage or beat.HasField("node_used"):
            entry = self._state.nodes[session.node]
            entry.usage = {usage.uid: usage for usage in beat.usage}
            entry.used = beat.node_used

    # -- what agents are told ------------------------------------------------------------------

    def sync(self, names: Iterable[str]) -> None:
        """Tell the agents of these nodes what is committed and what they do not know yet."""
        if self.is_held:
            return
        for name in names:
            session = self.sessions.get(name)
            entry = self._state.nodes.get(name)
            if session is None or entry is None or not entry.has_reported:
                continue
            desired = {
                str(placement.pod): self._assignment(placement)
                for placement in self._state.by_node[name].values()
            }
            session.tell(desired, entry.told, self._history().sequence)

    def _assignment(self, placement: Placement) -> wire.Assignment:
        pod = placement.pod
        kind, namespace, workload = self._state.workload_name(pod.workload_uid)
        # A pod that was counted lost runs on until it is decided which copy stays.
        want = Want.HANDOVER if placement.want is Want.LOST else placement.want
        return wire.Assignment(
            uid=str(pod),
            name=self._state.pod_name(pod),
            namespace=namespace,
            workload_kind=kind,
            workload=workload,
            workload_uid=pod.workload_uid,
            slot=pod.slot,
            incarnation=pod.incarnation,
            revision=placement.revision,
            want=int(want),  # type: ignore[arg-type]  # values are equal by design
            template_json=self._state.template_text(pod.workload_uid, placement.revision),
        )

    def _send_peers(self) -> None:
        """Each node tries the witness ports of the next few nodes in the ring of names."""
        now_s = asyncio.get_running_loop().time()
        if not self._peers_changed or now_s < self._peers_due_s:
            return
        self._peers_changed, self._peers_due_s = False, now_s + PEERS_EVERY_S
        ring = sorted(name for name, entry in self._state.nodes.items() if entry.facts.witness_port)
        for name, session in self.sessions.items():
            start = ring.index(name) + 1 if name in ring else 0
            others = [peer for peer in ring[start:] + ring[:start] if peer != name][:PEERS_PER_NODE]
            peers = wire.Peers(peers=[self._peer(peer) for peer in others])
            if peers != session.peers:
                session.peers = peers
                session.send(wire.ManagerMessage(peers=peers))

    def _peer(self, name: str) -> wire.Peer:
        facts = self._state.nodes[name].facts
        return wire.Peer(node=name, address=facts.address, witness_port=facts.witness_port)

    # -- who lives -----------------------------------------------------------------------------

    def node_state(self, name: str) -> tuple[NodeState, str, str]:
        """(state, why, held): `held` says why its pods may not be replaced now, if so."""
        if self.is_held and name in self.visitors:
            return NodeState.READY, "connected, and told nothing: the store is from the past", ""
        life = self.liveness.nodes.get(name)
        if life is None:
            return NodeState.UNKNOWN, "not heard of yet", ""
        return life.state, life.why, life.held

    def replacement_budget(self, now_s: float) -> int | None:
        """How many pods of dead nodes may be replaced now; None: any number."""
        return self.liveness.replacement_budget(now_s)

    def replaced(self, pods: int) -> None:
        """So many were."""
        self.liveness.replaced(pods)

    def _wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Judge nodes as time passes, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._judge(loop.time())
            self._send_peers()
            self._woken.clear()
            wait_s = max(0.01, self.liveness.next_wake_s(loop.time()) - loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait_s, 0.5)):
                    await self._woken.wait()

    def _judge(self, now_s: float) -> None:
        for name, entry in self._state.nodes.items():
            oath = entry.intent.lost_boot_id
            if not oath or oath != entry.facts.boot_id:
                continue
            if self.node_state(name)[0] is NodeState.READY:
                self._disproved[name] = oath
            elif self._disproved.get(name) != oath:
                self.liveness.declared_lost(name, now_s)
        for action in self.liveness.tick(now_s):
            self._ask(action)
        for name, life in self.liveness.nodes.items():
            before = self._seen_states.get(name, NodeState.UNKNOWN)
            if life.state is before or name not in self._state.nodes:
                continue
            self._seen_states[name] = life.state
            log.info("node_state.changed", node=name, was=before, now=life.state, why=life.why)
            reason = _NODE_EVENTS.get(life.state)
            if reason is not None:
                self._events.add(reason, life.why, obj=f"Node/{name}")
            self._mark(["*"])

    def _ask(self, action: AskWitnesses) -> None:
        peer = self._peer(action.node)
        for witness in action.witnesses:
            session = self.sessions.get(witness)
            if session is not None:
                request = wire.WitnessRequest(request=action.request, peer=peer)
                session.send(wire.ManagerMessage(witness_request=request))

    def believe_oath(self, name: str) -> None:
        """An operator has sworn, just now, that this host is dead."""
        self._disproved.pop(name, None)

    # -- logs and exec -------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def attach(self, node: str, request: wire.OpenStream) -> AsyncIterator[Attached]:
        """Have `node` open a stream. Raises StreamFailedError, or LookupError if it is not connected."""
        session = self.sessions.get(node)
        if session is None:
            raise LookupError(f"node {node} is not connected")
        request.stream_id = uuid.uuid4().hex
        attached = Attached(
            request.stream_id, lambda asked: session.send(wire.ManagerMessage(open_stream=asked))
        )
        attached.node = node
        self._attached[attached.id] = attached
        try:
            await attached.open(request)
            yield attached
        finally:
            del self._attached[attached.id]
            attached.close()
            close = wire.CloseStream(stream_id=attached.id)
            session.send(wire.ManagerMessage(close_stream=close))

    def attached(self, stream_id: str) -> Attached | None:
        """The stream that an agent dials back for."""
        return self._attached.get(stream_id)


def _is_pod_uid(uid: str) -> bool:
    try:
        PodId.parse(uid)
    except ValueError:
        log.warning("pod_status.ignored", pod=uid[:200])
        return False
    return True


def version_skew(agent: str, manager: str) -> str:
    """Why these versions may not work together; empty if they may: at most one minor version apart."""
    try:
        agent_major, agent_minor = (int(part) for part in agent.split(".")[:2])
    except ValueError:
        return f"{agent[:40]!r} is no version of an agent"
    manager_major, manager_minor = (int(part) for part in manager.split(".")[:2])
    if agent_major == manager_major and abs(agent_minor - manager_minor) <= 1:
        return ""
    return f"agent {agent} and manager {manager} are more than one minor version apart; upgrade the older one"
