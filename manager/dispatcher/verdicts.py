"""What follows from nodes' lives: events, planning anew, and what operators swear.

`liveness` judges by evidence; here an operator's oath that a host is dead is added to it, unless
the host was heard since, and every change of a node's state is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from bayplan.model.nodes import NodeState
from manager.cluster_state import ClusterState
from manager.dispatcher.liveness import Liveness
from manager.dispatcher.witnesses import AskWitnesses
from manager.events import EventLog

log = structlog.get_logger(__name__)

_NODE_EVENTS = {
    NodeState.READY: "NodeReady",
    NodeState.SUSPECT: "NodeSuspect",
    NodeState.RESTARTING: "NodeRestarting",
    NodeState.AGENT_LOST: "NodeAgentLost",
    NodeState.DOWN: "NodeDown",
}


class Verdicts:
    """Judges all nodes as time passes.

    Args:
        node_state: what a node is held to be now.
        ask: has witnesses asked after a node.
        mark: marks workloads dirty by uid, "*" for all.
    """

    def __init__(
        self,
        state: ClusterState,
        *,
        liveness: Liveness,
        events: EventLog,
        node_state: Callable[[str], NodeState],
        ask: Callable[[AskWitnesses], None],
        mark: Callable[[Iterable[str]], None],
    ) -> None:
        self._state = state
        self._liveness = liveness
        self._events = events
        self._node_state = node_state
        self._ask = ask
        self._mark = mark
        # Nodes that an operator swore to be dead, and that were heard since under the same boot id.
        self._disproved: dict[str, str] = {}
        self._seen_states: dict[str, NodeState] = {}

    def judge(self, now_s: float) -> None:
        """Look at every node now; tell what has changed."""
        for name, entry in self._state.nodes.items():
            oath = entry.intent.lost_boot_id
            if not oath or oath != entry.facts.boot_id:
                continue
            if self._node_state(name) is NodeState.READY:
                self._disproved[name] = oath
            elif self._disproved.get(name) != oath:
                self._liveness.declared_lost(name, now_s)
        for action in self._liveness.tick(now_s):
            self._ask(action)
        for name, life in self._liveness.nodes.items():
            before = self._seen_states.get(name, NodeState.UNKNOWN)
            if life.state is before or name not in self._state.nodes:
                continue
            self._seen_states[name] = life.state
            log.info("node_state.changed", node=name, was=before, now=life.state, why=life.why)
            reason = _NODE_EVENTS.get(life.state)
            if reason is not None:
                self._events.add(reason, life.why, obj=f"Node/{name}")
            self._mark(["*"])

    def believe_oath(self, name: str) -> None:
        """An operator has sworn, just now, that this host is dead."""
        self._disproved.pop(name, None)
