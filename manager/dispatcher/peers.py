"""Which nodes watch each other's witness ports, so that some can testify when one falls silent."""

from __future__ import annotations

from collections.abc import Mapping

from bayplan.v1 import agent_link_pb2 as wire
from manager.cluster_state import ClusterState
from manager.dispatcher.session import NodeSession

# Nodes that watch each other's witness ports: enough that three can testify when some are gone too.
PEERS_PER_NODE = 5
# Each agent is told its peers at most this often: two thousand may connect at once.
PEERS_EVERY_S = 0.5


class Peers:
    """Tells each connected agent whom to watch."""

    def __init__(self, state: ClusterState, sessions: Mapping[str, NodeSession]) -> None:
        self._state = state
        self._sessions = sessions
        self._has_changed, self._due_s = False, 0.0

    def changed(self) -> None:
        """Nodes came or went: the next `send` has work."""
        self._has_changed = True

    def send(self, now_s: float) -> None:
        """Each node tries the witness ports of the next few nodes in the ring of names."""
        if not self._has_changed or now_s < self._due_s:
            return
        self._has_changed, self._due_s = False, now_s + PEERS_EVERY_S
        ring = sorted(name for name, entry in self._state.nodes.items() if entry.facts.witness_port)
        for name, session in self._sessions.items():
            start = ring.index(name) + 1 if name in ring else 0
            others = [peer for peer in ring[start:] + ring[:start] if peer != name][:PEERS_PER_NODE]
            peers = wire.Peers(peers=[self.peer(peer) for peer in others])
            if peers != session.peers:
                session.peers = peers
                session.send(wire.ManagerMessage(peers=peers))

    def peer(self, name: str) -> wire.Peer:
        """Where to reach a node's witness port."""
        facts = self._state.nodes[name].facts
        return wire.Peer(node=name, address=facts.address, witness_port=facts.witness_port)
