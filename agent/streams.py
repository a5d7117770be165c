"""Logs and exec: byte streams that the agent opens because the leader asked for them.

The agent dials (Attach) and names the stream in its first frame, so nothing needs to reach a
node from outside. gRPC's own flow control bounds what is in flight: the runtime is read only as
fast as the user's terminal takes it. Whichever side ends first, the other side and the engine's
end are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc.aio
import structlog

from agent.engine import Engine
from agent.leftovers import of_slot
from agent.log_ring import LogRing
from agent.outputs import closed_after
from agent.race import until_first_ends
from agent.runtime.port import Container, ContainerState, EngineError, ExecSession, Output, Runtime
from bayplan.transport.errors import words_of
from bayplan.transport.port import Transport
from bayplan.v1 import agent_link_pb2 as pb
from bayplan.v1.agent_link_pb2_grpc import AgentLinkStub

log = structlog.get_logger(__name__)

# Followed logs of a busy day; beyond it the next one is refused in words.
STREAMS_MAX = 128
FRAME_MAX = 64 * 1024

_Call = grpc.aio.StreamStreamCall[pb.StreamFrame, pb.StreamFrame]


class StreamRefusedError(Exception):
    """It cannot be opened; the message is for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSources:
    """Where the bytes come from."""

    runtime: Runtime
    engine: Engine
    ring: LogRing


class Streams:
    """One per agent. `send` gives a failure to the leader."""

    def __init__(
        self, transport: Transport, sources: StreamSources, *, send: Callable[[pb.AgentMessage], None]
    ) -> None:
        self._transport = transport
        self._sources = sources
        self._send = send
        self._tasks: asyncio.TaskGroup | None = None
        self._open: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Hold the streams until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await asyncio.Event().wait()

    def open(self, request: pb.OpenStream, *, address: str) -> None:
        """Open it; `address`: of the manager that the session goes to."""
        if self._tasks is None or request.stream_id in self._open:
            return
        if len(self._open) >= STREAMS_MAX:
            self._failed(request.stream_id, f"the node has {STREAMS_MAX} streams open already")
            return
        task = self._tasks.create_task(
            self._serve(request, request.address or address), name=f"stream {request.stream_id}"
        )
        self._open[request.stream_id] = task
        task.add_done_callback(lambda _: self._open.pop(request.stream_id, None))

    def close(self, stream_id: str) -> None:
        """The user is gone."""
        task = self._open.get(stream_id)
        if task is not None:
            task.cancel()

    async def _serve(self, request: pb.OpenStream, address: str) -> None:
        try:
            if request.WhichOneof("kind") == "exec":
                await self._serve_exec(request, address)
            else:
                await self._serve_logs(request, address)
        except (StreamRefusedError, EngineError) as error:
            self._failed(request.stream_id, str(error))
        except grpc.aio.AioRpcError as error:
            # The user's manager is gone, and with it whoever would want to know.
            log.info("stream.lost", stream=request.stream_id, why=words_of(error))
        except asyncio.InvalidStateError:
            pass  # Written to after the manager had ended it.
        except Exception:
            log.exception("stream.failed", stream=request.stream_id)
            self._failed(request.stream_id, "the agent failed; its log says why")

    def _failed(self, stream_id: str, message: str) -> None:
        log.info("stream.refused", stream=stream_id, why=message)
        self._send(pb.AgentMessage(stream_failed=pb.StreamFailed(stream_id=stream_id, message=message)))

    @contextlib.asynccontextmanager
    async def _attached(self, stream_id: str, address: str) -> AsyncIterator[_Call]:
        channel = self._transport.channel(address)
        try:
            call: _Call = AgentLinkStub(channel).Attach()
            try:
                await call.write(pb.StreamFrame(stream_id=stream_id))
                yield call
            finally:
                call.cancel()
        finally:
            await channel.close()

    # Logs

    async def _serve_logs(self, request: pb.OpenStream, address: str) -> None:
        # Found before dialling, so that a refusal costs nothing and reaches the user as words.
        outputs = self._log_of(request)
        async with self._attached(request.stream_id, address) as call, closed_after(outputs):
            await until_first_ends(_read_to_end(call), _write_output(call, outputs, last=None))

    def _log_of(self, request: pb.OpenStream) -> AsyncIterator[Output]:
        options = request.logs
        if not request.pod_uid:
            return self._own_log(options)
        return self._sources.runtime.logs(
            self._container(request.pod_uid, is_previous=options.previous).id,
            follow=options.follow,
            tail=options.tail,
            since_s=options.since_ms / 1000,
            timestamps=options.timestamps,
        )

    async def _own_log(self, options: pb.LogOptions) -> AsyncIterator[Output]:
        async for line in self._sources.ring.read(tail=options.tail, follow=options.follow):
            yield Output(data=line.encode())

    def _container(self, pod_uid: str, *, is_previous: bool) -> Container:
        everything = self._sources.engine.all()
        ran = [each for each in self._sources.engine.of(pod_uid) if each.started_s > 0]
        if is_previous:
            # The one before in this pod, else the last one of its slot.
            newest = ran[-1].id if ran else ""
            previous = [each for each in of_slot(everything, pod_uid) if each.id != newest]
            if not previous:
                raise StreamRefusedError("there is no previous container")
            return previous[0]
        if ran:
            return ran[-1]
        made = self._sources.engine.of(pod_uid)
        if made:
            return made[-1]
        raise StreamRefusedError("the pod has no container on this node (yet)")

    # Exec

    async def _serve_exec(self, request: pb.OpenStream, address: str) -> None:
        container = self._container(request.pod_uid, is_previous=False)
        if container.state is not ContainerState.RUNNING:
            raise StreamRefusedError(f"the container is {container.state.value}, not running")
        options = request.exec
        session = await self._sources.runtime.exec(
            container.id,
            tuple(options.command),
            tty=options.tty,
            stdin=options.stdin,
            rows=options.rows,
            columns=options.columns,
        )
        try:
            async with (
                self._attached(request.stream_id, address) as call,
                closed_after(session.output()) as outputs,
            ):
                await until_first_ends(_read_input(call, session), _write_output(call, outputs, last=session))
        finally:
            with contextlib.suppress(EngineError):
                await session.aclose()


async def _write_output(call: _Call, outputs: AsyncIterator[Output], *, last: ExecSession | None) -> None:
    try:
        async for output in outputs:
            for start in range(0, len(output.data), FRAME_MAX):
                data = output.data[start : start + FRAME_MAX]
                frame = pb.StreamFrame(stderr=data) if output.is_stderr else pb.StreamFrame(stdout=data)
                await call.write(frame)
        end = pb.StreamFrame(end=True) if last is None else pb.StreamFrame(exit_code=await last.exit_code())
    except EngineError as error:
        end = pb.StreamFrame(error=str(error))
    await call.write(end)
    await call.done_writing()
    # The manager ends its side when it has read all of ours; until then the call must live.
    await asyncio.Event().wait()


async def _read_to_end(call: _Call) -> None:
    while isinstance(await call.read(), pb.StreamFrame):
        pass


async def _read_input(call: _Call, session: ExecSession) -> None:
    while isinstance(frame := await call.read(), pb.StreamFrame):
        match frame.WhichOneof("kind"):
            case "stdin":
                await session.write(frame.stdin)
            case "resize":
                await session.resize(rows=frame.resize.rows, columns=frame.resize.columns)
            case "end":
                await session.close_stdin()
            case _:
                pass
