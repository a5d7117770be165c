"""Which nodes live: evidence first, verdict later.

Pure: told what happened and what time it is, it says whom to ask and what to hold of each node.
Only DOWN lets pods be replaced, so everything here serves one end: a dead host is called dead within
1 to 2.5 s, a living one never, whatever is wrong with its agent, its link to us, or with ourselves.

    READY ──stream broke, 2 heartbeats missed──► SUSPECT ──no witness reaches it, 1 s silent──► DOWN
      ▲                                            │  └──nobody can testify, 6 s silent───────► DOWN
      │ (from everywhere, by being heard)          └──a witness reaches it──► AGENT_LOST ─5 min─► DOWN
    RESTARTING (announced; 60 s, then SUSPECT)       UNKNOWN (until 10 s after an election, then SUSPECT)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bayplan.model.nodes import NodeState
from manager.dispatcher.brake import Brake
from manager.dispatcher.witnesses import AskWitnesses, Inquiry, WitnessBook

HEARTBEATS_MISSED = 2
# Later than this a heartbeat counts for the brake: nodes that are cut off together fall silent together, but
# become suspect up to one heartbeat apart.
LATE_S = 0.25
# Since its stream broke; a stream that only falls silent has been so for 2 heartbeats already (decision 0009).
SILENCE_S = 1.0
# Witnesses need 0.5 s for their five tries: asked now, their word is fresh when that second is over.
CONFIRM_S = 0.5
SILENCE_ALONE_S = 6.0  # Nobody can testify.
HEARTBEATS_ALONE = 3  # The same in large clusters, whose heartbeats are rarer.
ASK_AGAIN_S = 1.0  # Nobody answered: perhaps somebody does now.
RESTART_S = 60.0
GRACE_S = 10.0  # A new leader judges nobody whom it has not heard before.
AGENT_LOST_S = 300.0
AGENT_LOST_ASK_S = 5.0  # A host may die after its agent,
AGENT_LOST_NEW_S = 10.0  # mostly soon after: asked each second at first.
# `tick` comes at least this often; when nothing came for longer than PAUSE_S we were stopped ourselves.
TICK_S = 0.5
PAUSE_S = 1.5

_AWAY = (NodeState.SUSPECT, NodeState.RESTARTING, NodeState.UNKNOWN, NodeState.AGENT_LOST)
_ROUNDING_S = 1e-6


@dataclass(slots=True, kw_only=True)
class NodeLife:
    """What is held of one node. Written by `Liveness` alone."""

    name: str
    state: NodeState
    why: str  # In words: "silent for 2.1 s, 3 witnesses cannot reach it".
    since_s: float
    quiet_since_s: float  # When it was last heard, its stream broke, or it could have been heard.
    held: str = ""  # Why its pods may not be replaced although it is DOWN; empty if they may.
    was_heard: bool = True  # By this leader.
    is_declared_lost: bool = False
    is_without_agent: bool = False  # DOWN, but only for its agent was away too long.
    inquiry: Inquiry | None = None


class Liveness:
    """Judges nodes for one leadership. Call `tick` at `next_wake_s`, at least each 0.5 s."""

    def __init__(self, nodes: Iterable[str], *, elected_s: float, heartbeat_s: float) -> None:
        self.heartbeat_s = heartbeat_s
        self.nodes: dict[str, NodeLife] = {
            name: NodeLife(
                name=name,
                state=NodeState.UNKNOWN,
                why="not heard of since this leader was elected",
                since_s=elected_s,
                quiet_since_s=elected_s,
                was_heard=False,
            )
            for name in sorted(nodes)
        }
        self._judged_from_s = elected_s + GRACE_S
        self._book = WitnessBook()
        self._brake = Brake()
        # Cost follows change: ready nodes in the order they were heard, the others apart.
        self._heard: dict[str, None] = {}
        self._away: dict[str, None] = dict.fromkeys(self.nodes)
        self._troubled_s: dict[str, float] = {}  # Suspect or down: silent since when.
        self._alarm_agents = ""
        self._called_s = elected_s
        self._inquired: dict[int, NodeLife] = {}  # By request.
        # Not from 1: an answer meant for the leader before us should not fit a question of ours.
        self._request = int(elected_s * 1_000_000)

    # What happened

    def connected(self, node: str, now_s: float) -> None:
        """An agent has come in; a node that nobody knew is one from now on."""
        self._notice_pause(now_s)
        if node not in self.nodes:
            self.nodes[node] = NodeLife(
                name=node, state=NodeState.UNKNOWN, why="", since_s=now_s, quiet_since_s=now_s
            )
        self._is_alive(self.nodes[node], "connected", now_s)

    def heartbeat(self, node: str, now_s: float) -> None:
        """Any message of a connected agent."""
        self._notice_pause(now_s)
        if node in self.nodes:
            self._is_alive(self.nodes[node], "heard again", now_s)

    def witnessed(self, witness: str, nodes: Iterable[str], now_s: float) -> None:
        """`witness` says that it reached the ports of `nodes` within the last minute."""
        for node in nodes:
            if node in self.nodes:
                self._book.note(witness, node, now_s)

    def stream_ended(self, node: str, now_s: float, *, restarting: bool) -> None:
        """The stream is gone. `restarting`: its agent announced to be back within a minute."""
        self._notice_pause(now_s)
        life = self.nodes.get(node)
        if life is None or life.state not in (NodeState.READY, NodeState.SUSPECT):
            return
        if restarting:
            self._become(life, NodeState.RESTARTING, "its agent restarts", now_s)
        elif life.state is NodeState.READY:
            # It lived until now, however long ago its last heartbeat was; unless the next one was due.
            life.quiet_since_s = min(now_s, life.quiet_since_s + self.heartbeat_s)
            self._become(life, NodeState.SUSPECT, "its stream broke", now_s)

    def witness_result(self, *, request: int, witness: str, alive: bool, now_s: float) -> None:
        """An answer to `AskWitnesses`. `alive`: the host answered or refused."""
        self._notice_pause(now_s)
        life = self._inquired.get(request)
        if life is None or life.inquiry is None or not life.inquiry.knows(witness):
            return
        if not alive:
            life.inquiry.refuse(witness)
            return
        # Agents list only ports that answer, but a refusal is a sign of life as well.
        self._book.note(witness, life.name, now_s)
        life.inquiry.answer()
        if life.state is not NodeState.AGENT_LOST:
            why = f"its host answers {witness}, but its agent is silent: its pods run on"
            self._become(life, NodeState.AGENT_LOST, why, now_s)

    def declared_lost(self, node: str, now_s: float) -> None:
        """An operator swears that the host is dead. Void while its agent is heard. Idempotent."""
        life = self.nodes.get(node)
        if life is None or life.state is NodeState.READY or life.is_declared_lost:
            return
        self._become(life, NodeState.DOWN, "an operator declared it lost", now_s)
        life.is_declared_lost = True
        life.held = ""
        del self._troubled_s[node]

    def removed(self, node: str) -> None:
        """It is no node of the cluster any more."""
        life = self.nodes.pop(node, None)
        if life:
            self._drop_inquiry(life)
        self._heard.pop(node, None)
        self._away.pop(node, None)
        self._troubled_s.pop(node, None)
        self._book.forget(node)

    # What follows

    def tick(self, now_s: float) -> list[AskWitnesses]:
        """Judge. Afterwards `nodes`, `alarms` and `replacement_budget` say what is held now."""
        self._notice_pause(now_s)
        for name in list(self._heard):
            silence_s = now_s - self.nodes[name].quiet_since_s
            if silence_s <= HEARTBEATS_MISSED * self.heartbeat_s + _ROUNDING_S:
                break
            why = f"{HEARTBEATS_MISSED} heartbeats missed"
            self._become(self.nodes[name], NodeState.SUSPECT, why, now_s)
        questions: list[AskWitnesses] = []
        for name in list(self._away):
            self._judge(self.nodes[name], now_s, questions)
        self._replace_one_without_agent(now_s)
        # In the same tick as the verdicts: nobody may see a node DOWN before the brake has.
        self._apply_brake(now_s)
        return questions

    def next_wake_s(self, now_s: float) -> float:
        """When `tick` is due, 0.5 s from now at most."""
        times = [now_s + TICK_S, self._brake.ends_s]
        for name in self._heard:
            missed_s = HEARTBEATS_MISSED * self.heartbeat_s + 2 * _ROUNDING_S
            times.append(self.nodes[name].quiet_since_s + missed_s)
            break
        for name in self._away:
            times.extend(time_s for time_s in self._times(self.nodes[name]) if time_s > now_s)
        return min(times)

    @property
    def alarms(self) -> tuple[str, ...]:
        """What everybody should read."""
        return tuple(text for text in (self._brake.reason, self._alarm_agents) if text)

    def replacement_budget(self, now_s: float) -> int | None:
        """How many lost pods may be replaced now, the most important first; None: any number."""
        return self._brake.budget(now_s)

    def replaced(self, pods: int) -> None:
        """`pods` were replaced out of the last `replacement_budget`."""
        self._brake.spend(pods)

    # Judging one node

    def _judge(self, life: NodeLife, now_s: float, questions: list[AskWitnesses]) -> None:
        match life.state:
            case NodeState.UNKNOWN:
                if now_s >= self._judged_from_s - ASK_AGAIN_S:
                    # A little early, so that the answers are there when the grace ends.
                    self._ask(life, now_s, questions)
                if now_s >= self._judged_from_s:
                    self._become(life, NodeState.SUSPECT, "not heard of since the election", now_s)
                    self._judge_suspect(life, now_s, questions)
            case NodeState.RESTARTING:
                if now_s >= life.since_s + RESTART_S:
                    life.quiet_since_s = now_s
                    why = f"its agent announced a restart and is not back after {RESTART_S:.0f} s"
                    self._become(life, NodeState.SUSPECT, why, now_s)
                    self._judge_suspect(life, now_s, questions)
            case NodeState.SUSPECT | NodeState.AGENT_LOST:
                self._judge_suspect(life, now_s, questions)

    def _judge_suspect(self, life: NodeLife, now_s: float, questions: list[AskWitnesses]) -> None:
        self._ask(life, now_s, questions)
        inquiry = life.inquiry
        assert inquiry
        if not inquiry.is_over:
            return
        silence_s = now_s - life.quiet_since_s
        heard = f"silent for {silence_s:.1f} s" if life.was_heard else life.why
        if inquiry.refused:
            if silence_s >= SILENCE_S - _ROUNDING_S and self._is_fresh(life, inquiry):
                count = len(inquiry.refused)
                witnesses = "1 witness" if count == 1 else f"{count} witnesses"
                if life.state is NodeState.AGENT_LOST:
                    # Its host answered until just now: for the brake it falls silent today.
                    life.quiet_since_s = now_s
                self._become(life, NodeState.DOWN, f"{heard}, {witnesses} cannot reach it", now_s)
        elif life.state is NodeState.SUSPECT and now_s >= self._alone_s(life):
            self._become(life, NodeState.DOWN, f"{heard}, nobody can testify", now_s)

    def _ask(self, life: NodeLife, now_s: float, questions: list[AskWitnesses]) -> None:
        """Begin a round, go on with it, or begin another if it led to nothing."""
        valid = self._book.valid(life.name, now_s, self._is_ready)
        if life.inquiry is None or now_s >= self._next_round_s(life, life.inquiry):
            self._drop_inquiry(life)
            self._request += 1
            life.inquiry = Inquiry(self._request, now_s)
            self._inquired[self._request] = life
        chosen = life.inquiry.choose(valid, now_s)
        if chosen:
            question = AskWitnesses(request=life.inquiry.request, node=life.name, witnesses=chosen)
            questions.append(question)

    def _next_round_s(self, life: NodeLife, inquiry: Inquiry) -> float:
        if not inquiry.is_over:
            return float("inf")
        if life.state is NodeState.AGENT_LOST and self._is_fresh(life, inquiry):
            # A host that is going down may refuse for a moment before it falls silent.
            is_new = inquiry.started_s < life.since_s + AGENT_LOST_NEW_S
            return inquiry.started_s + (ASK_AGAIN_S if is_new else AGENT_LOST_ASK_S)
        if not self._is_fresh(life, inquiry) and (inquiry.refused or life.state is NodeState.AGENT_LOST):
            return life.quiet_since_s + CONFIRM_S
        if not inquiry.refused:
            return inquiry.started_s + ASK_AGAIN_S
        return float("inf")

    def _is_fresh(self, life: NodeLife, inquiry: Inquiry) -> bool:
        """Whether the round began late enough: a host that blinked for half a second is not dead."""
        return inquiry.started_s >= life.quiet_since_s + CONFIRM_S - _ROUNDING_S

    def _alone_s(self, life: NodeLife) -> float:
        """When silence alone is proof enough."""
        alone_s = max(SILENCE_ALONE_S, HEARTBEATS_ALONE * self.heartbeat_s)
        # Thousands of agents may need more than the grace to come back after an election.
        quiet_since_s = life.quiet_since_s if life.was_heard else self._judged_from_s
        return quiet_since_s + alone_s - _ROUNDING_S

    def _times(self, life: NodeLife) -> Iterable[float]:
        """When something about a node that is away may change by itself."""
        if life.inquiry:
            yield life.inquiry.expires_s
            yield self._next_round_s(life, life.inquiry)
        match life.state:
            case NodeState.UNKNOWN:
                yield from (self._judged_from_s - ASK_AGAIN_S, self._judged_from_s)
            case NodeState.RESTARTING:
                yield life.since_s + RESTART_S
            case NodeState.SUSPECT:
                yield from (life.quiet_since_s + SILENCE_S, self._alone_s(life))
            case NodeState.AGENT_LOST:
                yield life.since_s + AGENT_LOST_S

    # All nodes together

    def _replace_one_without_agent(self, now_s: float) -> None:
        """The longest agent-lost node after 5 minutes, if no other one is being replaced for that."""
        waiting = [
            life
            for name in self._away
            if (life := self.nodes[name]).state is NodeState.AGENT_LOST
            and now_s >= life.since_s + AGENT_LOST_S
        ]
        self._alarm_agents = ""
        if not waiting:
            return
        waiting.sort(key=lambda life: (life.since_s, life.name))
        taken = next((life.name for life in self.nodes.values() if life.is_without_agent), None)
        if taken is None:
            first = waiting.pop(0)
            why = f"no agent for {AGENT_LOST_S / 60:.0f} minutes, though its host answers"
            self._become(first, NodeState.DOWN, why, now_s)
            first.is_without_agent = True
            taken = first.name
        if waiting:
            names = ", ".join(life.name for life in waiting)
            self._alarm_agents = (
                f"no agent on {names} for {AGENT_LOST_S / 60:.0f} minutes, though the hosts answer: their pods are "
                f"not replaced while {taken} is away for the same reason. Start the agents, or use bay node lost"
            )

    def _apply_brake(self, now_s: float) -> None:
        was = self._brake.reason
        silent_s = self._troubled_s
        declared = 0
        if silent_s:
            declared = sum(life.is_declared_lost for life in self.nodes.values())
            silent_s = silent_s | self._late_s(now_s)
        lives = [self.nodes[name] for name in silent_s]
        is_verdict = any(life.state is NodeState.DOWN and life.since_s == now_s for life in lives)
        self._brake.judge(silent_s, len(self.nodes) - declared, now_s, is_verdict=is_verdict)
        reason = self._brake.reason
        if reason or was:
            for name in self._troubled_s:
                self.nodes[name].held = reason

    def _late_s(self, now_s: float) -> dict[str, float]:
        """Since when each ready node is silent whose heartbeat is late."""
        late_s: dict[str, float] = {}
        for name in self._heard:
            quiet_since_s = self.nodes[name].quiet_since_s
            if now_s - quiet_since_s <= self.heartbeat_s + LATE_S:
                break
            late_s[name] = quiet_since_s
        return late_s

    def _is_ready(self, node: str) -> bool:
        life = self.nodes.get(node)
        return life is not None and life.state is NodeState.READY

    def _is_alive(self, life: NodeLife, why: str, now_s: float) -> None:
        life.quiet_since_s = now_s
        if life.state is NodeState.READY:
            del self._heard[life.name]
            self._heard[life.name] = None
        else:
            self._become(life, NodeState.READY, why, now_s)

    def _become(self, life: NodeLife, state: NodeState, why: str, now_s: float) -> None:
        life.state, life.why, life.since_s = state, why, now_s
        if state not in (NodeState.SUSPECT, NodeState.AGENT_LOST):
            self._drop_inquiry(life)
        for names in (self._heard, self._away):
            names.pop(life.name, None)
        if state is NodeState.READY:
            self._heard[life.name] = None
            life.was_heard = True
            life.is_declared_lost = life.is_without_agent = False
        elif state in _AWAY:
            self._away[life.name] = None
        if state in (NodeState.SUSPECT, NodeState.DOWN):
            self._troubled_s.setdefault(life.name, life.quiet_since_s)
        else:
            self._troubled_s.pop(life.name, None)
            life.held = ""

    def _drop_inquiry(self, life: NodeLife) -> None:
        if life.inquiry:
            del self._inquired[life.inquiry.request]
            life.inquiry = None

    def _notice_pause(self, now_s: float) -> None:
        """What we did not hear while we were stopped ourselves is no silence of theirs."""
        pause_s = now_s - self._called_s
        self._called_s = now_s
        if pause_s <= PAUSE_S:
            return
        self._judged_from_s += pause_s
        for life in self.nodes.values():
            life.quiet_since_s = min(now_s, life.quiet_since_s + pause_s)
            if life.state in (NodeState.RESTARTING, NodeState.AGENT_LOST):
                life.since_s += pause_s
            if life.inquiry:
                life.inquiry.shift(pause_s)
