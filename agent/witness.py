"""Evidence for the leader whether another node's host still lives.

Every agent listens on its witness port and answers nothing but the connection itself. It tries
the ports of a few peers now and then, so that the leader knows who can testify about whom; and
when the leader asks, it tries five times within half a second. An answer or a refusal is a sign
of life: a dead host cannot refuse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from bayplan.transport.port import Contact, Transport
from bayplan.v1 import agent_link_pb2 as pb

log = structlog.get_logger(__name__)

TRIES = 5
TRIES_WITHIN_S = 0.5
PEERS_EVERY_S = 15.0
PEER_TIMEOUT_S = 2.0
WITNESSED_WITHIN_S = 60.0
PEERS_MAX = 32
# The leader asks about a node once; more at a time is a mistake.
REQUESTS_MAX = 64
LISTEN_RETRY_S = 5.0


class Witness:
    """One per agent.

    Args:
        port: to listen on.
        send: gives a result to the leader.
    """

    def __init__(self, transport: Transport, *, port: int, send: Callable[[pb.AgentMessage], None]) -> None:
        self._transport = transport
        self._port = port
        self._send = send
        self._peers: dict[str, pb.Peer] = {}
        self._answered_s: dict[str, float] = {}  # By node, monotonic.
        self._peers_changed = asyncio.Event()
        self._requests: asyncio.Queue[pb.WitnessRequest] = asyncio.Queue(REQUESTS_MAX)

    def witnessed(self) -> list[str]:
        """Nodes whose witness ports answered within the last minute."""
        now_s = asyncio.get_running_loop().time()
        return sorted(node for node, at_s in self._answered_s.items() if now_s - at_s <= WITNESSED_WITHIN_S)

    def set_peers(self, peers: Iterable[pb.Peer]) -> None:
        """Whom to try from now on."""
        self._peers = {peer.node: peer for peer in list(peers)[:PEERS_MAX]}
        self._answered_s = {node: at_s for node, at_s in self._answered_s.items() if node in self._peers}
        self._peers_changed.set()

    def ask(self, request: pb.WitnessRequest) -> None:
        """The leader wants to know about a node."""
        if not self._requests.full():
            self._requests.put_nowait(request)

    async def run(self) -> None:
        """Listen, try and testify until cancelled."""
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._listen(), name="witness-port")
            parts.create_task(self._try_peers(), name="witness-peers")
            parts.create_task(self._testify(parts), name="witness-requests")

    async def _listen(self) -> None:
        while True:
            try:
                listener = await self._transport.listen_for_contact("0.0.0.0", self._port)  # noqa: S104 - any peer
                break
            except OSError as error:
                # Without it this node has no witnesses, and is judged by silence alone: still a node.
                log.warning("witness_port.not_bound", port=self._port, error=str(error))
                await asyncio.sleep(LISTEN_RETRY_S)
        try:
            await asyncio.Event().wait()
        finally:
            await listener.stop(0.0)

    async def _try_peers(self) -> None:
        while True:
            self._peers_changed.clear()
            async with asyncio.TaskGroup() as tries:
                for peer in self._peers.values():
                    tries.create_task(self._try_peer(peer))
            try:
                async with asyncio.timeout(PEERS_EVERY_S):
                    await self._peers_changed.wait()
            except TimeoutError:
                pass

    async def _try_peer(self, peer: pb.Peer) -> None:
        contact = await self._transport.contact(peer.address, peer.witness_port, timeout_s=PEER_TIMEOUT_S)
        # A refusal says that the host lives, not that its witness port can be reached through a firewall.
        if contact is Contact.ANSWERED and peer.node in self._peers:
            self._answered_s[peer.node] = asyncio.get_running_loop().time()

    async def _testify(self, parts: asyncio.TaskGroup) -> None:
        while True:
            request = await self._requests.get()
            parts.create_task(self._answer(request), name=f"witness {request.peer.node}")

    async def _answer(self, request: pb.WitnessRequest) -> None:
        peer = request.peer
        contact = Contact.SILENT
        pause_s = TRIES_WITHIN_S / TRIES
        for _ in range(TRIES):
            began_s = asyncio.get_running_loop().time()
            contact = await self._transport.contact(peer.address, peer.witness_port, timeout_s=pause_s)
            if contact is not Contact.SILENT:
                break
            spent_s = asyncio.get_running_loop().time() - began_s
            await asyncio.sleep(max(0.0, pause_s - spent_s))
        result = pb.WitnessResult(
            request=request.request,
            node=peer.node,
            alive=contact is not Contact.SILENT,
            detail=f"{peer.address}:{peer.witness_port} {contact.value}",
        )
        log.info("witness.testified", node=peer.node, alive=result.alive, detail=result.detail)
        self._send(pb.AgentMessage(witness=result))
