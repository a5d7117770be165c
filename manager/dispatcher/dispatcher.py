"""The leader's side of every agent's stream.

Owns the sessions and brings the parts together: `admission` takes agents in, `reports` folds in
what they say, `verdicts` follows who lives, `networks`, `traffic`, `peers` and `assignments` are what they are told:
only what is committed. Decides nothing about pods: it marks workloads dirty.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from bayplan.model.names import PodId
from bayplan.model.nodes import NodeState
from bayplan.model.placements import Placement, Want
from bayplan.v1 import agent_link_pb2 as wire
from manager.cluster_state import ClusterState
from manager.dispatcher.admission import Admission, NoSubnetError
from manager.dispatcher.assignments import assignment_of
from manager.dispatcher.attached import Attached
from manager.dispatcher.liveness import Liveness
from manager.dispatcher.network_checks import NetworkChecks
from manager.dispatcher.networks import Networks
from manager.dispatcher.peers import Peers
from manager.dispatcher.reports import Reports
from manager.dispatcher.service_use import ServiceUses
from manager.dispatcher.session import NodeSession
from manager.dispatcher.traffic import Traffic
from manager.dispatcher.verdicts import Verdicts
from manager.dispatcher.witnesses import AskWitnesses
from manager.events import EventLog
from manager.history import History
from manager.store.port import Operation

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherSettings:
    """What agents are told of the cluster."""

    manager: str
    heartbeat_s: float = 1.0
    default_registry: str = ""


class Dispatcher:
    """Lives for one term.

    Args:
        write: commits operations as the leader; returns the store's revision.
        may_command: returns once the leadership is not suspended.
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
        may_command: Callable[[], Awaitable[None]],
        mark: Callable[[Iterable[str]], None],
        managers: Callable[[], list[str]],
        history: Callable[[], History],
        past: Callable[[str], None],
        wall_s: Callable[[], float],
    ) -> None:
        self._state = state
        self._epoch = epoch
        self.liveness = liveness
        self._settings = settings
        self._managers = managers
        self._history = history
        self._past = past
        self._wall_s = wall_s
        self.sessions: dict[str, NodeSession] = {}
        self.visitors: dict[str, NodeSession] = {}
        self.is_held = False  # The store is held to be from the past: nobody is told anything.
        self._attached: dict[str, Attached] = {}
        self._registering = asyncio.Lock()
        self._registration: asyncio.Task[None] | None = None  # The last one.
        self._woken = asyncio.Event()
        self._is_closed = False
        self.admission = Admission(
            state,
            epoch=epoch,
            events=events,
            heartbeat_s=settings.heartbeat_s,
            write=write,
            mark=mark,
            history=history,
            wall_s=wall_s,
        )
        self._reports = Reports(state, liveness=liveness, events=events, mark=mark)
        self._peers = Peers(state, self.sessions)
        self._networks = Networks(state, self.sessions)
        self._verdicts = Verdicts(
            state,
            liveness=liveness,
            events=events,
            node_state=lambda name: self.node_state(name)[0],
            ask=self._ask,
            mark=mark,
        )
        self.traffic = Traffic(
            state,
            epoch=epoch,
            sessions=self.sessions,
            node_state=self.node_state,
            events=events,
            may_command=may_command,
            sync=self.sync,
        )
        self.service_uses = ServiceUses()
        self.network_checks = NetworkChecks(self.sessions)

    # -- streams -------------------------------------------------------------------------------

    async def serve(
        self, hello: wire.Hello, incoming: AsyncIterator[wire.AgentMessage], *, via: str
    ) -> AsyncGenerator[wire.ManagerMessage, None]:
        """One agent's stream from Hello to its end."""
        refusal = self.admission.refusal(hello, is_held=self.is_held)
        if refusal is None:
            # Registering waits for a commit; a second Hello of the same node waits here.
            async with self._registering:
                reason = self.admission.past_reason(hello)
                if reason:
                    self._past(reason)
                before = self.sessions.get(hello.node) or self.visitors.get(hello.node)
                refusal = self.admission.duplicate(hello, before)
                if refusal is None and not self.is_held:
                    try:
                        await self._register(hello)
                    except NoSubnetError as error:
                        refusal = wire.Refusal(reason=str(error), final=False)
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

    async def _register(self, hello: wire.Hello) -> None:
        """To its end, though the agent hangs up: what was written must be known here before the next one is."""
        if self._registration is not None:
            await asyncio.wait([self._registration])
        self._registration = asyncio.create_task(
            self.admission.register(hello), name=f"register {hello.node}"
        )
        self._registration.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        await asyncio.shield(self._registration)

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
            credentials=self._state.credentials,
        )
        session.credentials = self._state.credentials
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
        self._networks.welcome(session)
        self.traffic.welcome(session)
        self._wake()
        self._peers.changed()
        self._networks.changed()
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
        self._peers.changed()
        self._networks.changed()
        session = self.sessions.pop(name, None)
        if session is not None:
            session.close("the node was removed from the cluster")
        self.liveness.removed(name)
        self.traffic.forget(name)
        self.service_uses.forget(name)

    def close(self, reason: str) -> None:
        """The term is over: send every agent away, with a Goodbye."""
        self._is_closed = True
        if self._registration is not None:
            self._registration.cancel()
        for session in [*self.sessions.values(), *self.visitors.values()]:
            session.close(reason)
        for attached in list(self._attached.values()):
            attached.fail(reason)

    # -- what agents say -----------------------------------------------------------------------

    def _received(self, session: NodeSession, message: wire.AgentMessage, kind: str | None) -> None:
        now_s = session.last_heard_s
        self.liveness.heartbeat(session.node, now_s)
        match kind:
            case "status":
                if self._reports.apply_status(session.node, message.status, now_s):
                    self.traffic.reported(session.node)
            case "heartbeat":
                beat = message.heartbeat
                self._reports.apply_heartbeat(session.node, beat, now_s)
                if beat.usage or beat.services or beat.HasField("node_used"):
                    self.service_uses.note(session.node, beat.services, now_s)
            case "witness":
                result = message.witness
                self.liveness.witness_result(
                    request=result.request, witness=session.node, alive=result.alive, now_s=now_s
                )
                self._wake()
            case "stream_failed":
                attached = self._attached.get(message.stream_failed.stream_id)
                if attached is not None and attached.node == session.node:
                    attached.fail(message.stream_failed.message)
            case "traffic_applied":
                self.traffic.applied(session, message.traffic_applied)
            case "network_check":
                self.network_checks.answered(session.node, message.network_check)

    # -- what agents are told ------------------------------------------------------------------

    def sync(self, names: Iterable[str]) -> None:
        """Tell the agents of these nodes what is committed and what they do not know yet."""
        if self.is_held:
            return
        # What these pods' programs will ask for is there before they start.
        if self.traffic.is_behind:
            self.traffic.sync_soon(names)
            return
        self.traffic.flush()
        for name in names:
            session = self.sessions.get(name)
            entry = self._state.nodes.get(name)
            if session is None or entry is None or not entry.has_reported:
                continue
            desired = {
                str(placement.pod): self._assignment(placement, entry.told)
                for placement in self._state.by_node[name].values()
            }
            session.tell(desired, entry.told, self._history().sequence)

    def _assignment(self, placement: Placement, told: Mapping[str, Want]) -> wire.Assignment:
        assignment = assignment_of(self._state, placement)
        if placement.want is Want.STOP and self.traffic.must_run(placement.pod):
            # Proxies may send it requests yet: for its agent nothing has changed.
            want = told.get(assignment.uid, Want.RUN)
            assignment.want = int(want)  # type: ignore[assignment]  # values are equal by design
        return assignment

    def why_running(self, pod: PodId) -> str:
        """Why a pod that is wanted to stop was not told so yet; empty if it was."""
        return self.traffic.why_running(pod)

    def is_port_taken(self, service: str, node: str, address: str, port: int) -> bool:
        """Whether a node could not bind a port that it is to publish for a service."""
        return self.traffic.port_problems.is_taken(service, node, address, port)

    def _send_credentials(self) -> None:
        """All of them, to every agent that was told others."""
        credentials = self._state.credentials
        for session in self.sessions.values():
            if session.credentials is not credentials:
                session.credentials = credentials
                told = wire.Credentials(credentials=credentials)
                session.send(wire.ManagerMessage(credentials=told))

    def ask_to_renew(self) -> None:
        """The roots have changed: every agent fetches a new certificate."""
        for session in [*self.sessions.values(), *self.visitors.values()]:
            session.send(wire.ManagerMessage(renew_certificate=wire.RenewCertificate()))

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
        """Judge nodes as time passes, and follow the traffic, until cancelled."""
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._judge(), name="judge")
            parts.create_task(self.traffic.run(), name="traffic")

    async def _judge(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._verdicts.judge(loop.time())
            self.traffic.look_at_nodes()
            self._peers.send(loop.time())
            self._networks.send(loop.time())
            self._send_credentials()
            self._woken.clear()
            wait_s = max(0.01, self.liveness.next_wake_s(loop.time()) - loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait_s, 0.5)):
                    await self._woken.wait()

    def _ask(self, action: AskWitnesses) -> None:
        peer = self._peers.peer(action.node)
        for witness in action.witnesses:
            session = self.sessions.get(witness)
            if session is not None:
                request = wire.WitnessRequest(request=action.request, peer=peer)
                session.send(wire.ManagerMessage(witness_request=request))

    def believe_oath(self, name: str) -> None:
        """An operator has sworn, just now, that this host is dead."""
        self._verdicts.believe_oath(name)

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
