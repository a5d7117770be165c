"""The agent's one stream to the leader: dial, greet, report, obey, and dial again.

One reader and one writer: gRPC bears one of each at a time, and cancelling a read would end the
stream, so nothing here times a read out. That the leader still answers is seen by its
acknowledgements of our heartbeats; without any the stream is dropped and another manager dialled.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import grpc.aio
import structlog

from agent.fence import Fence, may_obey, standing
from agent.race import until_first_ends
from agent.route import Route
from agent.status_board import StatusBoard
from bayplan.transport.errors import words_of
from bayplan.transport.port import Transport
from bayplan.v1 import agent_link_pb2 as pb
from bayplan.v1.agent_link_pb2_grpc import AgentLinkStub

log = structlog.get_logger(__name__)

# From dialling to Welcome, Redirect or Refusal. Connecting alone may take 2 s; a new node is committed first.
GREETING_TIMEOUT_S = 5.0
# Heartbeats without an answer, and the time an answer may be late on a busy machine.
ACKS_MISSED = 3
ACK_MARGIN_S = 0.5
# Fifty pods that start at once make one report instead of a hundred.
REPORT_GATHER_S = 0.02
OUTBOX_MAX = 64
INBOX_MAX = 64
GOODBYE_TIMEOUT_S = 1.0
HEARTBEAT_MIN_S = 0.1

_Call = grpc.aio.StreamStreamCall[pb.AgentMessage, pb.ManagerMessage]


class SessionHandler(Protocol):
    """The rest of the agent, as the session needs it."""

    @property
    def fence(self) -> Fence: ...

    async def hello(self, *, relay: bool) -> pb.Hello: ...

    def welcomed(self, welcome: pb.Welcome, *, address: str) -> None:
        """The session stands."""
        ...

    async def first_look(self) -> None:
        """Returns when a full report is worth sending."""
        ...

    def full_report(self) -> pb.StatusReport:
        """Everything, with what an operator needs to adopt pods that the store does not know."""
        ...

    async def obey(self, assignments: pb.Assignments, epoch: pb.Epoch) -> None:
        """The fence has let them pass."""
        ...

    def fold(self, message: pb.ManagerMessage) -> None:
        """Network or Traffic; the fence has let it pass. Raises ValueError on what makes no sense."""
        ...

    def applied(self) -> pb.TrafficApplied:
        """What the node's proxy has done of it; `applied_changed` is set when that changes."""
        ...

    @property
    def applied_changed(self) -> asyncio.Event: ...

    def heartbeat(self) -> pb.Heartbeat:
        """With usage and witnessed nodes; number and time are filled in here."""
        ...

    def asked(self, message: pb.ManagerMessage) -> None:
        """Peers, WitnessRequest, OpenStream, CloseStream, Credentials, NetworkCheck."""
        ...


class SessionEndedError(Exception):
    """The stream is over: dial again."""


class _Stream:
    """One call with a reader of its own.

    Cancelling a read or a write would end the call, and it has to stand while the next one is dialled.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._call: _Call = AgentLinkStub(channel).Connect()
        self._incoming: asyncio.Queue[pb.ManagerMessage | SessionEndedError] = asyncio.Queue(INBOX_MAX)
        loop = asyncio.get_running_loop()
        self._reader = loop.create_task(self._read_on())
        self._writing: asyncio.Task[None] | None = None

    async def _read_on(self) -> None:
        while True:
            try:
                message = await self._call.read()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                await self._incoming.put(SessionEndedError(_words(error)))
                return
            if not isinstance(message, pb.ManagerMessage):
                await self._incoming.put(SessionEndedError("the manager ended the stream"))
                return
            await self._incoming.put(message)

    async def read(self) -> pb.ManagerMessage:
        """The next message. Raises SessionEndedError."""
        message = await self._incoming.get()
        if isinstance(message, SessionEndedError):
            raise message
        return message

    async def write(self, message: pb.AgentMessage) -> None:
        """Raises SessionEndedError."""
        self._writing = asyncio.get_running_loop().create_task(self._call.write(message))
        try:
            await asyncio.shield(self._writing)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise SessionEndedError(_words(error)) from error

    async def end(self) -> None:
        """No more will be written. Raises SessionEndedError."""
        try:
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise SessionEndedError(_words(error)) from error

    async def aclose(self) -> None:
        self._call.cancel()
        # The writer too: gRPC never wakes one whose call is cancelled before it was connected.
        tasks = [self._reader] + ([self._writing] if self._writing is not None else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._channel.close()


class Session:
    """One per agent. `run` dials for ever, one manager at a time."""

    def __init__(
        self,
        handler: SessionHandler,
        *,
        board: StatusBoard,
        transport: Transport,
        route: Route,
    ) -> None:
        self._handler = handler
        self._board = board
        self._transport = transport
        self._route = route
        self._outbox: asyncio.Queue[pb.AgentMessage] = asyncio.Queue(OUTBOX_MAX)
        self._is_welcome = False
        self._previous: _Stream | None = None
        self.stopping = asyncio.Event()
        self._sequence = 0
        self._acked_s = 0.0

    @property
    def is_connected(self) -> bool:
        """A leader has said Welcome, and the stream lasts."""
        return self._is_welcome

    @property
    def heartbeat_age_s(self) -> float | None:
        """Since the last heartbeat that was answered; None: there was none."""
        return asyncio.get_running_loop().time() - self._acked_s if self._acked_s else None

    def send(self, message: pb.AgentMessage) -> None:
        """Best effort: dropped while there is no leader, or while it is too slow."""
        if self._is_welcome and not self._outbox.full():
            self._outbox.put_nowait(message)

    def stop(self) -> None:
        """Say Goodbye; `run` returns then."""
        self.stopping.set()

    async def run(self) -> None:
        """Keep a stream until `stop`."""
        try:
            await self._keep_dialling()
        finally:
            await self._close_previous()

    async def _keep_dialling(self) -> None:
        while not self.stopping.is_set():
            dial = self._route.next()
            try:
                async with asyncio.timeout(dial.wait_s):
                    await self.stopping.wait()
                    return
            except TimeoutError:
                pass
            await self._converse(dial.address, relay=dial.relay)

    async def _converse(self, address: str, *, relay: bool) -> None:
        """One stream, from dialling to its end; the route learns what came of it."""
        hello = await self._handler.hello(relay=relay)
        shown = self._transport.identity_version
        stream = _Stream(self._transport.channel(address))
        is_renewed = False
        try:
            if await self._greet(stream, hello, address):
                await self._close_previous()
                is_renewed = await self._talk(stream, shown)
        except SessionEndedError as ended:
            log.warning("session.ended", manager=address, why=str(ended), was_connected=self._is_welcome)
            self._route.lost(address, was_welcome=self._is_welcome)
        finally:
            self._is_welcome = False
            await self._close_previous()
            if is_renewed:
                # It stands until the next one does: the leader sees no gap.
                self._previous = stream
            else:
                await stream.aclose()

    async def _close_previous(self) -> None:
        previous, self._previous = self._previous, None
        if previous is not None:
            await previous.aclose()

    async def _greet(self, stream: _Stream, hello: pb.Hello, address: str) -> bool:
        """Say Hello; whether we are welcome. False: sent elsewhere, or refused. Raises SessionEndedError."""
        try:
            async with asyncio.timeout(GREETING_TIMEOUT_S):
                await stream.write(pb.AgentMessage(hello=hello))
                answer = await stream.read()
        except TimeoutError as error:
            raise SessionEndedError(f"no answer within {GREETING_TIMEOUT_S:.0f} s") from error
        match answer.WhichOneof("kind"):
            case "welcome":
                self._welcomed(answer, address, relay=hello.relay)
                return True
            case "redirect":
                leader = answer.redirect.leader_address
                log.info("session.redirected", manager=address, leader=leader)
                self._route.redirected(leader, was_relay=hello.relay)
            case "refusal":
                refusal = answer.refusal
                log.error("session.refused", manager=address, reason=refusal.reason, final=refusal.final)
                self._route.refused(is_final=refusal.final)
            case kind:
                raise SessionEndedError(f"expected a Welcome, got {kind}")
        return False

    def _welcomed(self, answer: pb.ManagerMessage, address: str, *, relay: bool) -> None:
        welcome = answer.welcome
        while not self._outbox.empty():
            self._outbox.get_nowait()
        self._heartbeat_s = max(welcome.heartbeat_s, HEARTBEAT_MIN_S)
        self._acked_s = asyncio.get_running_loop().time()
        self._is_welcome = True
        self._route.learn(welcome.managers)
        self._route.welcomed()
        epoch = standing(self._handler.fence, store=answer.epoch.store, revision=answer.epoch.revision)
        log.info(
            "session.welcomed", manager=welcome.manager, address=address, relayed=relay, epoch=epoch.value
        )
        self._handler.welcomed(welcome, address=address)

    async def _talk(self, stream: _Stream, shown: int) -> bool:
        """Until the stream ends; whether that is because our certificate is a new one since `shown`.

        Raises SessionEndedError, unless we end it ourselves.
        """
        try:
            await until_first_ends(
                self._transport.identity_newer_than(shown),
                self._read_all(stream),
                self._write_all(stream),
                self._beat(),
                self._report(),
                self._tell_applied(),
                self._say_goodbye(),
            )
        except SessionEndedError:
            if not self.stopping.is_set():
                raise
            return False
        return not self.stopping.is_set()

    async def _read_all(self, stream: _Stream) -> None:
        while True:
            await self._handle(await stream.read())

    async def _handle(self, message: pb.ManagerMessage) -> None:
        match message.WhichOneof("kind"):
            case "heartbeat_ack":
                self._acked_s = asyncio.get_running_loop().time()
            case "assignments":
                self._must_obey(message.epoch)
                await self._handler.obey(message.assignments, message.epoch)
            case "network" | "traffic":
                self._must_obey(message.epoch)
                try:
                    self._handler.fold(message)
                except ValueError as error:
                    raise SessionEndedError(f"the manager's word makes no sense: {error}") from error
            case "redirect":
                raise SessionEndedError("the manager leads no more")
            case "goodbye":
                raise SessionEndedError(f"the manager says goodbye: {message.goodbye.reason}")
            case "refusal":
                raise SessionEndedError(f"refused: {message.refusal.reason}")
            case (
                "peers"
                | "witness_request"
                | "open_stream"
                | "close_stream"
                | "credentials"
                | "renew_certificate"
                | "network_check"
            ):
                self._handler.asked(message)
            case kind:
                # A newer manager may say what this agent does not know yet.
                log.debug("session.not_understood", kind=kind)

    def _must_obey(self, epoch: pb.Epoch) -> None:
        if not may_obey(self._handler.fence, store=epoch.store, revision=epoch.revision):
            raise SessionEndedError(f"epoch {epoch.revision} is refused: a later leader was obeyed")

    async def _write_all(self, stream: _Stream) -> None:
        while True:
            message = await self._outbox.get()
            await stream.write(message)
            if message.WhichOneof("kind") == "goodbye":
                await stream.end()
                # Give it time to leave before the channel is closed.
                await asyncio.sleep(GOODBYE_TIMEOUT_S)
                raise SessionEndedError("we said goodbye")

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        patience_s = ACKS_MISSED * self._heartbeat_s + ACK_MARGIN_S
        while True:
            silence_s = loop.time() - self._acked_s
            if silence_s > patience_s:
                raise SessionEndedError(f"no answer to heartbeats for {silence_s:.1f} s")
            self._sequence += 1
            heartbeat = self._handler.heartbeat()
            heartbeat.sequence = self._sequence
            # A full queue means a slow link: another heartbeat would not make it faster.
            self.send(pb.AgentMessage(heartbeat=heartbeat))
            await asyncio.sleep(self._heartbeat_s)

    async def _report(self) -> None:
        """Everything, then what changes.

        A leader whose epoch is behind ours, and that welcomes us all the same, knows that its store is
        from the past: it gets our report too, and is not obeyed.
        """
        await self._handler.first_look()
        report = self._handler.full_report()
        await self._outbox.put(pb.AgentMessage(status=report))
        is_whole = report.condition.engine_ok
        while True:
            await self._board.is_dirty.wait()
            await asyncio.sleep(REPORT_GATHER_S)
            changes = self._board.take_changes()
            if changes is not None and changes.condition.engine_ok and not is_whole:
                # The engine could not be asked before: only now is it known what does not run.
                changes = self._handler.full_report()
                is_whole = changes.condition.engine_ok
            if changes is not None:
                await self._outbox.put(pb.AgentMessage(status=changes))

    async def _tell_applied(self) -> None:
        """Not by `send`, which may drop it: the leader waits for it before a pod is stopped."""
        while True:
            self._handler.applied_changed.clear()
            await self._outbox.put(pb.AgentMessage(traffic_applied=self._handler.applied()))
            await self._handler.applied_changed.wait()

    async def _say_goodbye(self) -> None:
        await self.stopping.wait()
        goodbye = pb.Goodbye(reason="the agent is stopping; its containers run on", restarting=True)
        await self._outbox.put(pb.AgentMessage(goodbye=goodbye))
        await asyncio.Event().wait()  # The writer ends the conversation once it is said.


def _words(error: Exception) -> str:
    return words_of(error) if isinstance(error, grpc.aio.AioRpcError) else "the stream was closed"
