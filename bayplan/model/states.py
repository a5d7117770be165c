"""The states of a pod: they only grow.

Values equal those of the wire's `PodState`, so that a comparison is enough to refuse a
status that would turn time back.
"""

from __future__ import annotations

from enum import IntEnum

# The reason in the status of a pod that runs and does not serve: its probes have not succeeded, or fail.
UNREADY = "Unready"


class PodState(IntEnum):
    """What an agent saw; LOST alone is said by the leader."""

    ASSIGNED = 1
    PULLING = 2
    CREATED = 3
    STARTING = 4
    RUNNING = 5
    SUCCEEDED = 6
    FAILED = 7
    STOPPED = 8
    LOST = 9

    @property
    def is_terminal(self) -> bool:
        """Whether the pod will never run again."""
        return self >= PodState.SUCCEEDED

    def may_become(self, later: PodState) -> bool:
        """Whether an agent may report `later` after this state.

        A pod whose container restarts in place stays RUNNING and turns unready: the
        state says how far the pod has ever come.
        """
        return later == self or (not self.is_terminal and later > self)
