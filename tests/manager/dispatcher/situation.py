"""Nodes, their heartbeats and their witnesses, on a clock that the test moves by hand."""

from __future__ import annotations

from collections.abc import Callable

from bayplan.model.nodes import NodeState
from manager.dispatcher.liveness import Liveness, NodeLife
from manager.dispatcher.witnesses import AskWitnesses

FIVE = ("n1", "n2", "n3", "n4", "n5")
STEP_S = 0.1
ELECTED_S = 1000.0


class Situation:
    """Nodes that beat each second, and witnesses that answer half a second after they are asked."""

    def __init__(self, *names: str, heartbeat_s: float = 1.0, witnesses: bool = True) -> None:
        self.now_s = ELECTED_S
        self.live = Liveness(names, elected_s=self.now_s, heartbeat_s=heartbeat_s)
        self.heartbeat_s = heartbeat_s
        self.names = list(names)
        self.silent: set[str] = set()
        # What a witness says of a node: True, False, or None for no answer.
        self.says: Callable[[str, str], bool | None] = lambda _witness, node: node not in self.silent
        self.asked: list[AskWitnesses] = []
        self.witnesses = witnesses
        self._answers: list[tuple[float, int, str, bool]] = []
        self._beats_s = dict.fromkeys(names, self.now_s)
        for name in names:
            self.live.connected(name, self.now_s)
        self.run(1.0)

    def run(self, duration_s: float, until: Callable[[], bool] | None = None) -> float:
        """Go on for so long, or until something holds. Returns when it did, after the start."""
        start_s = self.now_s
        for _ in range(round(duration_s / STEP_S)):
            if until and until():
                break
            self.now_s = round(self.now_s + STEP_S, 6)
            self._step()
        else:
            assert until is None or until(), "it never happened"
        return round(self.now_s - start_s, 6)

    def _step(self) -> None:
        for name in self.names:
            if name not in self.silent and self.now_s >= self._beats_s[name] + self.heartbeat_s - 1e-6:
                self._beats_s[name] = self.now_s
                self.live.heartbeat(name, self.now_s)
                if self.witnesses:
                    self.live.witnessed(name, [other for other in self.names if other != name], self.now_s)
        for due_s, request, witness, alive in list(self._answers):
            if self.now_s >= due_s - 1e-6:
                self._answers.remove((due_s, request, witness, alive))
                self.live.witness_result(request=request, witness=witness, alive=alive, now_s=self.now_s)
        for question in self.live.tick(self.now_s):
            assert 1 <= len(question.witnesses) <= 3
            assert question.node not in question.witnesses
            self.asked.append(question)
            for witness in question.witnesses:
                answer = self.says(witness, question.node)
                if answer is not None and witness not in self.silent:
                    self._answers.append((self.now_s + 0.5, question.request, witness, answer))
        assert self.now_s < self.live.next_wake_s(self.now_s) <= self.now_s + 0.5

    def kill(self, *names: str) -> None:
        """The hosts are gone, and their kernels ended the streams."""
        self.cut(*names)
        for name in names:
            self.live.stream_ended(name, self.now_s, restarting=False)

    def cut(self, *names: str) -> None:
        """Nothing of these hosts arrives any more, and nobody is told."""
        self.silent.update(names)

    def back(self, *names: str) -> None:
        self.silent.difference_update(names)
        for name in names:
            self._beats_s[name] = self.now_s
            self.live.connected(name, self.now_s)

    def __getitem__(self, name: str) -> NodeLife:
        return self.live.nodes[name]

    def is_in(self, name: str, state: NodeState) -> Callable[[], bool]:
        return lambda: self[name].state is state
