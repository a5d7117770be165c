"""A standby's stream to the leader: its end is the first sign of the leader's death.

When it ends without a Goodbye, no new connection is made within 300 ms, and no other standby
still hears the leader, the leader is deposed: a crash costs well under a second, not a lease.
That is safe because every write is fenced: a leader that was only cut off from us cannot write.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc.aio
import structlog

from bayplan.transport.port import Transport
from bayplan.v1 import manager_link_pb2 as wire
from bayplan.v1 import manager_link_pb2_grpc
from manager.election import Election, LeaderKey

log = structlog.get_logger(__name__)

ALIVE_EVERY_S = 1.0
RECONNECT_WITHIN_S = 0.3
RECONNECT_EVERY_S = 0.05
# Two messages missed, and the leader counts as unheard for the others who ask.
HEARD_WITHIN_S = 2.5
ASK_TIMEOUT_S = 0.3
# After a failed attempt to depose: the lease will end by itself in 3 s.
RETRY_S = 1.0


class Follower:
    """Runs on every manager; idle while this one leads.

    Args:
        others: addresses of the other managers, for asking whether they hear the leader.
    """

    def __init__(
        self,
        election: Election,
        transport: Transport,
        *,
        manager_id: str,
        others: Callable[[], list[str]],
    ) -> None:
        self._election = election
        self._transport = transport
        self._manager_id = manager_id
        self._others = others
        self._heard: tuple[int, float] = (0, 0.0)  # (epoch, loop time)

    def hears(self, epoch: int) -> bool:
        """Whether the leader of this epoch has spoken to this manager just now."""
        heard_epoch, heard_s = self._heard
        return heard_epoch == epoch and asyncio.get_running_loop().time() - heard_s < HEARD_WITHIN_S

    async def is_followed(self, epoch: int) -> bool:
        """Whether another manager still hears this one as the leader of `epoch`, or there is no other."""
        others = self._others()
        return not others or await self._is_heard_by(others, epoch)

    async def run(self) -> None:
        """Follow whoever leads, until cancelled."""
        changes = self._election.leader_changes()
        try:
            leader = await anext(changes)
            while True:
                following = asyncio.ensure_future(self._follow(leader))
                try:
                    leader = await anext(changes)
                finally:
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
                    self._heard = (0, 0.0)
        finally:
            await changes.aclose()

    async def _follow(self, leader: LeaderKey | None) -> None:
        """Listen to one leader until it changes (then cancelled)."""
        if leader is None or leader.id == self._manager_id:
            return
        while True:
            said_goodbye = await self._listen(leader)
            self._heard = (0, 0.0)
            if said_goodbye:
                # It resigns by itself; the election sees its key go.
                await asyncio.sleep(RETRY_S)
                continue
            if await self._reconnected(leader):
                continue
            if await self._is_heard_by_others(leader):
                log.warning("leader.heard_by_others", leader=leader.id)
            elif await self._election.take_over(leader):
                return
            await asyncio.sleep(RETRY_S)

    async def _listen(self, leader: LeaderKey) -> bool:
        """Hold the stream; returns whether it ended with a Goodbye."""
        channel = self._transport.channel(leader.address)
        try:
            stub = manager_link_pb2_grpc.ManagerLinkStub(channel)
            # Written, not given as an iterator: a task of gRPC's would outlive the stream.
            call = stub.Follow()
            await call.write(wire.FollowerMessage(manager=self._manager_id))
            async for message in call:
                kind = message.WhichOneof("kind")
                if kind == "goodbye":
                    return True
                if kind == "alive" and message.epoch.revision == leader.create_revision:
                    self._heard = (leader.create_revision, asyncio.get_running_loop().time())
                if kind == "not_leader":
                    # It has just been elected, or has just lost: the election will tell.
                    await asyncio.sleep(RECONNECT_EVERY_S)
                    return True
        except grpc.aio.AioRpcError as error:
            log.info("leader_stream.ended", leader=leader.id, code=error.code().name)
        finally:
            await channel.close()
        return False

    async def _reconnected(self, leader: LeaderKey) -> bool:
        """Try for 300 ms to hear the leader again."""
        try:
            async with asyncio.timeout(RECONNECT_WITHIN_S):
                while True:
                    if await self._answers(leader):
                        return True
                    await asyncio.sleep(RECONNECT_EVERY_S)
        except TimeoutError:
            return False

    async def _answers(self, leader: LeaderKey) -> bool:
        request = wire.HearLeaderRequest()
        request.epoch.revision = leader.create_revision
        return await self._asked(leader.address, request)

    async def _asked(self, address: str, request: wire.HearLeaderRequest) -> bool:
        channel = self._transport.channel(address)
        try:
            stub = manager_link_pb2_grpc.ManagerLinkStub(channel)
            reply = await stub.HearLeader(request, timeout=ASK_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        finally:
            await channel.close()
        return reply.heard

    async def _is_heard_by_others(self, leader: LeaderKey) -> bool:
        others = [address for address in self._others() if address != leader.address]
        return await self._is_heard_by(others, leader.create_revision)

    async def _is_heard_by(self, others: list[str], epoch: int) -> bool:
        request = wire.HearLeaderRequest()
        request.epoch.revision = epoch
        answers = await asyncio.gather(*(self._asked(address, request) for address in others))
        return any(answers)


class ManagerLinkServicer(manager_link_pb2_grpc.ManagerLinkServicer):
    """What standbys dial.

    Args:
        leading: the epoch this manager leads in, 0 if it does not.
    """

    def __init__(
        self,
        follower: Follower,
        *,
        leading: Callable[[], int],
        leader_address: Callable[[], str],
    ) -> None:
        self._follower = follower
        self._leading = leading
        self._leader_address = leader_address
        self._is_resigning = False

    def resign(self) -> None:
        """Say Goodbye to every standby."""
        self._is_resigning = True

    async def Follow(
        self,
        request_iterator: AsyncIterator[wire.FollowerMessage],
        context: grpc.aio.ServicerContext[wire.FollowerMessage, wire.LeaderMessage],
    ) -> AsyncIterator[wire.LeaderMessage]:
        """Say each second that this manager leads, as long as it does."""
        del request_iterator, context
        epoch = self._leading()
        if not epoch:
            yield wire.LeaderMessage(not_leader=self._leader_address())
            return
        while self._leading() == epoch and not self._is_resigning:
            message = wire.LeaderMessage(alive=True)
            message.epoch.revision = epoch
            yield message
            await asyncio.sleep(ALIVE_EVERY_S)
        message = wire.LeaderMessage()
        message.goodbye.reason = "this manager does not lead any more"
        yield message

    async def HearLeader(
        self,
        request: wire.HearLeaderRequest,
        context: grpc.aio.ServicerContext[wire.HearLeaderRequest, wire.HearLeaderReply],
    ) -> wire.HearLeaderReply:
        """Whether the leader of that epoch is this manager, or is heard by it."""
        del context
        epoch = request.epoch.revision
        return wire.HearLeaderReply(heard=epoch == self._leading() or self._follower.hears(epoch))
