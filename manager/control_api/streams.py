"""Logs, exec and forwarded ports, between a user's call and the agent that has the container."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from manager.control_api.documents import NotFoundError
from manager.control_api.live import nodes, one_pod
from manager.dispatcher.attached import Attached, StreamFailedError
from manager.errors import RefusedError
from manager.leader import Leadership

_PORT_MAX = 65535


def _where(leadership: Leadership, namespace: str, name: str) -> api.Pod:
    pod = one_pod(leadership, namespace, name)
    if not pod.node:
        raise RefusedError(f"pod {pod.name} is pending and has no container yet: {pod.why}")
    return pod


def _unreachable(node: str) -> RefusedError:
    return RefusedError(f"node {node} is not connected: its containers cannot be reached now")


async def logs(leadership: Leadership, request: api.LogsRequest) -> AsyncGenerator[api.LogChunk, None]:
    """Raises NotFoundError, RefusedError, StreamFailedError."""
    asked = wire.OpenStream(logs=request.options)
    if request.node:
        node = nodes(leadership, request.node)[0].name
    elif request.pod:
        pod = _where(leadership, request.namespace, request.pod)
        node, asked.pod_uid = pod.node, pod.uid
    else:
        raise NotFoundError("logs of which pod or node?")
    try:
        async with leadership.dispatcher.attach(node, asked) as attached:
            async for frame in attached.frames():
                match frame.WhichOneof("kind"):
                    case "stdout":
                        yield api.LogChunk(stdout=frame.stdout)
                    case "stderr":
                        yield api.LogChunk(stderr=frame.stderr)
                    case "end":
                        return
    except LookupError:
        raise _unreachable(node) from None


async def exec_in(
    leadership: Leadership, start: api.ExecStart, incoming: AsyncIterator[api.ExecInput]
) -> AsyncGenerator[api.ExecOutput, None]:
    """Raises NotFoundError, RefusedError, StreamFailedError."""
    pod = _where(leadership, start.namespace, start.pod)
    asked = wire.OpenStream(exec=start.options, pod_uid=pod.uid)
    try:
        async with leadership.dispatcher.attach(pod.node, asked) as attached:
            sender = asyncio.create_task(_send_input(attached, incoming), name="exec-input")
            try:
                async for output in _output(attached):
                    yield output
            finally:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)
    except LookupError:
        raise _unreachable(pod.node) from None


async def _output(attached: Attached) -> AsyncIterator[api.ExecOutput]:
    async for frame in attached.frames():
        match frame.WhichOneof("kind"):
            case "stdout":
                yield api.ExecOutput(stdout=frame.stdout)
            case "stderr":
                yield api.ExecOutput(stderr=frame.stderr)
            case "exit_code":
                yield api.ExecOutput(exit_code=frame.exit_code)
                return
    raise StreamFailedError("the command's exit code is not known: the stream ended early")


async def _send_input(attached: Attached, incoming: AsyncIterator[api.ExecInput]) -> None:
    async for message in incoming:
        match message.WhichOneof("kind"):
            case "stdin":
                await attached.send(wire.StreamFrame(stdin=message.stdin))
            case "stdin_end":
                await attached.send(wire.StreamFrame(end=True))
            case "resize":
                await attached.send(wire.StreamFrame(resize=message.resize))


async def forward_port(
    leadership: Leadership, start: api.PortForwardStart, incoming: AsyncIterator[api.PortForwardInput]
) -> AsyncGenerator[api.PortForwardOutput, None]:
    """One TCP connection to a pod. Raises NotFoundError, RefusedError, StreamFailedError."""
    if not 1 <= start.port <= _PORT_MAX:
        raise RefusedError(f"{start.port} is no port: 1 to {_PORT_MAX}")
    pod = _where(leadership, start.namespace, start.pod)
    asked = wire.OpenStream(forward_port=start.port, pod_uid=pod.uid)
    try:
        async with leadership.dispatcher.attach(pod.node, asked) as attached:
            sender = asyncio.create_task(_send_data(attached, incoming), name="forward-input")
            try:
                async for frame in attached.frames():
                    match frame.WhichOneof("kind"):
                        case "stdout":
                            yield api.PortForwardOutput(data=frame.stdout)
                        case "end":
                            return
            finally:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)
    except LookupError:
        raise _unreachable(pod.node) from None


async def _send_data(attached: Attached, incoming: AsyncIterator[api.PortForwardInput]) -> None:
    async for message in incoming:
        match message.WhichOneof("kind"):
            case "data":
                await attached.send(wire.StreamFrame(stdin=message.data))
            case "end":
                await attached.send(wire.StreamFrame(end=True))
