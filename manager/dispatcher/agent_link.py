"""What agents dial, on every manager: the leader serves, the others redirect or relay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Protocol

import grpc.aio
import structlog

from bayplan.transport.port import Transport
from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import agent_link_pb2_grpc
from manager.access.caller import may_pass_on, note_target, on_behalf, require_node
from manager.dispatcher.dispatcher import Dispatcher

log = structlog.get_logger(__name__)

# An agent that asks is kept this long while nobody is known to lead, or who leads is not heard.
LEADER_WAIT_S = 1.5
_POLL_S = 0.02
# Says which manager relays a stream.
VIA = "bayplan-via"

AgentContext = grpc.aio.ServicerContext[wire.AgentMessage, wire.ManagerMessage]
AgentCall = grpc.aio.StreamStreamCall[wire.AgentMessage, wire.ManagerMessage]
FrameContext = grpc.aio.ServicerContext[wire.StreamFrame, wire.StreamFrame]


class Cluster(Protocol):
    """What a manager knows of who leads."""

    @property
    def manager_id(self) -> str: ...

    @property
    def dispatcher(self) -> Dispatcher | None:
        """The dispatcher, while this manager leads and has read the store."""
        ...

    @property
    def leader_address(self) -> str:
        """Of another manager that leads; empty if none is known."""
        ...

    @property
    def is_leader_heard(self) -> bool:
        """Whether the manager at `leader_address` has spoken to this one just now."""
        ...


class AgentLinkServicer(agent_link_pb2_grpc.AgentLinkServicer):
    """Every stream that an agent opens."""

    def __init__(self, cluster: Cluster, transport: Transport) -> None:
        self._cluster = cluster
        self._transport = transport

    async def Connect(
        self, request_iterator: AsyncIterator[wire.AgentMessage], context: AgentContext
    ) -> AsyncIterator[wire.ManagerMessage]:
        """A node's one stream."""
        hello = await _hello(request_iterator)
        if hello is None:
            refusal = wire.Refusal(reason="the first message of an agent must be Hello", final=True)
            yield wire.ManagerMessage(refusal=refusal)
            return
        note_target(f"node {hello.node[:80]}")
        require_node(hello.node)
        await self._wait_for_leader()
        dispatcher = self._cluster.dispatcher
        address = self._cluster.leader_address
        if dispatcher is not None:
            via = _metadata(context, VIA) if may_pass_on() else ""
            async with aclosing(dispatcher.serve(hello, request_iterator, via=via)) as messages:
                async for message in messages:
                    yield message
        elif hello.relay and address:
            async with aclosing(self._relay(address, hello, request_iterator)) as messages:
                async for message in messages:
                    yield message
        else:
            yield wire.ManagerMessage(redirect=wire.Redirect(leader_address=address))

    async def _wait_for_leader(self) -> None:
        """Agents that have just lost their leader ask at once: the next one is known in a moment."""
        until_s = asyncio.get_running_loop().time() + LEADER_WAIT_S
        while asyncio.get_running_loop().time() < until_s:
            if self._cluster.dispatcher is not None or self._cluster.is_leader_heard:
                return
            await asyncio.sleep(_POLL_S)

    async def _relay(
        self, address: str, hello: wire.Hello, incoming: AsyncIterator[wire.AgentMessage]
    ) -> AsyncGenerator[wire.ManagerMessage, None]:
        """Pass everything on: the agent reaches this manager, but not the leader."""
        log.info("agent.relayed", node=hello.node, leader=address)
        channel = self._transport.channel(address)
        try:
            stub = agent_link_pb2_grpc.AgentLinkStub(channel)
            call = stub.Connect(metadata=((VIA, self._cluster.manager_id), *on_behalf()))
            await call.write(wire.AgentMessage(hello=hello))
            sender = asyncio.create_task(_pass_on(incoming, call), name=f"relay-{hello.node}")
            try:
                async for message in call:
                    yield message
            finally:
                sender.cancel()
                call.cancel()
        except grpc.aio.AioRpcError as error:
            # The agent's stream ends without a Goodbye, as the leader's did: it dials anew.
            log.info("relay.ended", node=hello.node, code=error.code().name)
        finally:
            await channel.close()

    async def Attach(
        self, request_iterator: AsyncIterator[wire.StreamFrame], context: FrameContext
    ) -> AsyncIterator[wire.StreamFrame]:
        """Logs or exec, opened because the leader asked for it."""
        first = await anext(aiter(request_iterator), None)
        if first is None:
            return
        dispatcher = self._cluster.dispatcher
        if dispatcher is not None:
            attached = dispatcher.attached(first.stream_id)
            if attached is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, "nobody waits for this stream any more")
            else:
                require_node(attached.node)
                async with aclosing(attached.serve(_after(first, request_iterator))) as frames:
                    async for frame in frames:
                        yield frame
            return
        address = self._cluster.leader_address
        if not address:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no leader is known")
        channel = self._transport.channel(address)
        try:
            stub = agent_link_pb2_grpc.AgentLinkStub(channel)
            # Whole: the leader, too, learns from the first frame which stream it is.
            async for frame in stub.Attach(_whole(first, request_iterator), metadata=on_behalf()):
                yield frame
        finally:
            await channel.close()


async def _pass_on(incoming: AsyncIterator[wire.AgentMessage], call: AgentCall) -> None:
    try:
        async for message in incoming:
            await call.write(message)
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return  # The leader's side has ended: whoever reads from it says so.


async def _hello(incoming: AsyncIterator[wire.AgentMessage]) -> wire.Hello | None:
    first = await anext(aiter(incoming), None)
    return first.hello if first is not None and first.HasField("hello") else None


async def _whole(
    first: wire.StreamFrame, rest: AsyncIterator[wire.StreamFrame]
) -> AsyncIterator[wire.StreamFrame]:
    yield first
    async for frame in rest:
        yield frame


async def _after(
    first: wire.StreamFrame, rest: AsyncIterator[wire.StreamFrame]
) -> AsyncIterator[wire.StreamFrame]:
    """Without a first frame that only names the stream."""
    if first.WhichOneof("kind") is not None:
        yield first
    async for frame in rest:
        yield frame


def _metadata(context: AgentContext, key: str) -> str:
    for found, value in context.invocation_metadata() or ():
        if found == key:
            return str(value)
    return ""
