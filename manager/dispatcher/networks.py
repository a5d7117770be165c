"""The pods' network as agents are told it: who is in it, with which part of the range.

Every registered node is in it until it is removed, whether it lives or not: pods of a silent node may run on,
and a route that nobody uses harms nobody.
"""

from __future__ import annotations

from collections.abc import Mapping

from bayplan.model.network import NetworkMode
from bayplan.model.nodes import NodeFacts
from bayplan.v1 import agent_link_pb2 as wire
from manager.cluster_state import ClusterState
from manager.dispatcher.session import NodeSession

# Agents are told changes at most this often: two thousand may connect at once.
NETWORK_EVERY_S = 0.5

_MODES: dict[NetworkMode, wire.NetworkMode] = {
    "vxlan": wire.NETWORK_MODE_VXLAN,
    "wireguard": wire.NETWORK_MODE_WIREGUARD,
    "off": wire.NETWORK_MODE_OFF,
}


class Networks:
    """Tells each connected agent which nodes there are: all of them first, then what changes.

    Changes are found against what was told last, and go to all alike: an agent that connected meanwhile hears
    some of them twice.
    """

    def __init__(self, state: ClusterState, sessions: Mapping[str, NodeSession]) -> None:
        self._state = state
        self._sessions = sessions
        self._made: dict[str, tuple[NodeFacts, wire.NetworkPeer]] = {}
        self._told = self._peers()
        self._has_changed, self._due_s = False, 0.0

    def changed(self) -> None:
        """Nodes came, went or are another than before: the next `send` has work."""
        self._has_changed = True

    def welcome(self, session: NodeSession) -> None:
        """Tell one agent everything."""
        network = self._state.network
        told = wire.Network(
            full=True,
            settings=wire.NetworkSettings(
                pod_range=network.pod_range,
                service_range=network.service_range,
                domain=network.domain,
                mode=_MODES[network.mode],
                id=network.id,
                port=network.port,
            ),
            subnet=self._state.nodes[session.node].facts.subnet,
            peers=[peer for name, peer in self._peers().items() if name != session.node],
        )
        session.send(wire.ManagerMessage(network=told))

    def send(self, now_s: float) -> None:
        """What has changed, to everybody but the node that it is about: that was told when it connected."""
        if not self._has_changed or now_s < self._due_s:
            return
        self._has_changed, self._due_s = False, now_s + NETWORK_EVERY_S
        before, self._told = self._told, self._peers()
        changed = {name: peer for name, peer in self._told.items() if before.get(name) != peer}
        gone = sorted(before.keys() - self._told.keys())
        if not changed and not gone:
            return
        to_others = wire.Network(peers=changed.values(), gone=gone)
        for name, session in self._sessions.items():
            told = to_others
            if name in changed:
                told = wire.Network(peers=[each for each in changed.values() if each.node != name], gone=gone)
            if told.peers or told.gone:
                session.send(wire.ManagerMessage(network=told))

    def _peers(self) -> dict[str, wire.NetworkPeer]:
        """Nodes that have a part: one that was registered before there were any gets it when it connects.

        Kept from before where nothing changed: while all nodes connect at once, each is told of all.
        """
        nodes = self._state.nodes
        for gone in self._made.keys() - nodes.keys():
            del self._made[gone]
        for name, entry in nodes.items():
            if name not in self._made or self._made[name][0] is not entry.facts:
                self._made[name] = entry.facts, _peer(name, entry.facts)
        return {name: peer for name, (facts, peer) in sorted(self._made.items()) if facts.subnet}


def _peer(name: str, facts: NodeFacts) -> wire.NetworkPeer:
    return wire.NetworkPeer(
        node=name, address=facts.address, subnet=facts.subnet, wireguard_key=facts.wireguard_key
    )
