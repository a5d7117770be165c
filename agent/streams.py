"""Logs, exec and port-forward: byte streams that the agent opens because the leader asked for them.

The agent dials (Attach) and names the stream in its first frame, so nothing needs to reach a
node from outside. gRPC's own flow control bounds what is in flight: the runtime is read only as
fast as the user's terminal takes it. Whichever side ends first, the other side and the engine's
end are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import grpc.aio
import structlog

from agent.engine import Engine
from agent.leftovers import of_slot
from agent.log_ring import LogRing
from agent.outputs import closed_after
from agent.pod_memory import PodMemory
from agent.pod_spec import UNNAMED, PodSpec
from agent.pod_steps import lines_of, name_of
from agent.race import until_first_ends
from agent.runtime.port import SANDBOX, Container, ContainerState, EngineError, ExecSession, Output, Runtime
from bayplan.transport.errors import words_of
from bayplan.transport.port import Transport
from bayplan.v1 import agent_link_pb2 as pb
from bayplan.v1.agent_link_pb2_grpc import AgentLinkStub

log = structlog.get_logger(__name__)

# Followed logs of a busy day; beyond it the next one is refused in words.
STREAMS_MAX = 128
FRAME_MAX = 64 * 1024
CONNECT_TIMEOUT_S = 5.0

_Call = grpc.aio.StreamStreamCall[pb.StreamFrame, pb.StreamFrame]


class StreamRefusedError(Exception):
    """It cannot be opened; the message is for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSources:
    """Where the bytes come from."""

    runtime: Runtime
    engine: Engine
    ring: LogRing
    spec_of: Callable[[str], PodSpec]  # By pod uid; without containers where the pod is not known.
    address: str  # The host's own, of pods on its network.


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
            match request.WhichOneof("kind"):
                case "exec":
                    await self._serve_exec(request, address)
                case "forward_port":
                    await self._serve_forward(request, address)
                case _:
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
            self._container(request.pod_uid, options.container, is_previous=options.previous).id,
            follow=options.follow,
            tail=options.tail,
            since_s=options.since_ms / 1000,
            timestamps=options.timestamps,
        )

    async def _own_log(self, options: pb.LogOptions) -> AsyncIterator[Output]:
        async for line in self._sources.ring.read(tail=options.tail, follow=options.follow):
            yield Output(data=line.encode())

    def _container(self, pod_uid: str, wanted: str, *, is_previous: bool) -> Container:
        everything, made = self._sources.engine.all(), self._sources.engine.of(pod_uid)
        name = pick_container(wanted, self._sources.spec_of(pod_uid), made)
        made = lines_of(PodSpec(containers=()), PodMemory(), made).get(name, ())
        ran = [each for each in made if each.started_s > 0]
        if is_previous:
            # The one before in this pod, else the last one of its slot.
            newest = ran[-1].id if ran else ""
            previous = [each for each in of_slot(everything, pod_uid, name) if each.id != newest]
            if not previous:
                raise StreamRefusedError("there is no previous container")
            return previous[0]
        if made:
            return (ran or made)[-1]
        raise StreamRefusedError("the pod has no container on this node (yet)")

    def _running_container(self, pod_uid: str, wanted: str) -> Container:
        container = self._container(pod_uid, wanted, is_previous=False)
        if container.state is not ContainerState.RUNNING:
            raise StreamRefusedError(f"the container is {container.state.value}, not running")
        return container

    # Port-forward

    def _address(self, pod_uid: str) -> str:
        """Of whichever of its containers has it: which of them listens nobody knows."""
        running = [each for each in self._sources.engine.of(pod_uid) if each.state is ContainerState.RUNNING]
        if running and self._sources.spec_of(pod_uid).host_network:
            return self._sources.address
        for container in running:
            if container.address:
                return container.address
        return self._running_container(pod_uid, "").address

    async def _serve_forward(self, request: pb.OpenStream, address: str) -> None:
        address_of_pod = self._address(request.pod_uid)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(address_of_pod, request.forward_port)
        except OSError as error:  # TimeoutError is one.
            words = error.strerror or "no answer"
            raise StreamRefusedError(f"port {request.forward_port} of the pod: {words}") from error
        try:
            async with self._attached(request.stream_id, address) as call:
                await until_first_ends(_to_pod(call, writer), _from_pod(call, reader))
        finally:
            writer.close()

    # Exec

    async def _serve_exec(self, request: pb.OpenStream, address: str) -> None:
        options = request.exec
        container = self._running_container(request.pod_uid, options.container)
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


def pick_container(wanted: str, spec: PodSpec, containers: Sequence[Container]) -> str:
    """Whose log or shell is meant. Raises StreamRefusedError where the pod has no such container.

    Args:
        wanted: the name that was asked for; empty: the template's choice, else the first.
        spec: of the pod, without containers where it is not known.
        containers: of the pod on the engine.
    """
    names = [template.name for template in spec.containers]
    if not names:
        names = [name for name in dict.fromkeys(map(name_of, containers)) if name != SANDBOX]
    if not wanted:
        wanted = spec.default_container if spec.default_container in names else (names or [UNNAMED])[0]
    elif names and wanted not in names:
        raise StreamRefusedError(f'the pod has no container "{wanted}"; it has {", ".join(names)}')
    return wanted


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
    await _end(call, end)


async def _end(call: _Call, frame: pb.StreamFrame) -> None:
    await call.write(frame)
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


async def _to_pod(call: _Call, writer: asyncio.StreamWriter) -> None:
    while isinstance(frame := await call.read(), pb.StreamFrame):
        match frame.WhichOneof("kind"):
            case "stdin":
                writer.write(frame.stdin)
                with contextlib.suppress(OSError):  # The other direction says that it is over.
                    await writer.drain()
            case "end":
                writer.write_eof()
            case _:
                pass


async def _from_pod(call: _Call, reader: asyncio.StreamReader) -> None:
    try:
        while data := await reader.read(FRAME_MAX):
            await call.write(pb.StreamFrame(stdout=data))
        end = pb.StreamFrame(end=True)
    except OSError as error:
        end = pb.StreamFrame(error=f"the pod cut the connection: {error.strerror}")
    await _end(call, end)
