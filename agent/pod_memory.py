"""What the agent remembers of a pod between two looks at the engine.

Docker is the truth for what runs; this is the rest: how far the pod ever came, which
restart it is at, and how its last container ended. Frozen; next_step.py makes the next one
from the last; the journal keeps it across restarts of the agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bayplan.model.states import PodState

COMPLETED = "Completed"
ERROR = "Error"
OOM_KILLED = "OOMKilled"
START_ERROR = "StartError"
GONE = "ContainerGone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How one container ended. Times are seconds since the Unix epoch, 0 if it never ran."""

    attempt: int
    code: int
    reason: str  # One of the words above.
    message: str = ""  # The engine's own words, or why it is thought to be gone.
    started_s: float = 0.0
    finished_s: float = 0.0
    container_id: str = ""
    last_log_lines: str = ""
    last_words: str = ""  # The last line of its stderr, else of its stdout: the two arrive in no sure order.

    @property
    def is_success(self) -> bool:
        return self.reason == COMPLETED

    @property
    def text(self) -> str:
        """For people, e.g. `exit 127: "gunicorn: not found"`."""
        if self.reason == GONE:
            return self.message
        words = self.message or (f'"{self.last_words}"' if self.last_words else "")
        what = f"exit {self.code}"
        if self.reason == OOM_KILLED:
            what += " (out of memory)"
        elif self.code > 128 and self.code - 128 in _SIGNALS:
            what += f" ({_SIGNALS[self.code - 128]})"
        return f"{what}: {words}" if words else what


_SIGNALS = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 6: "SIGABRT", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PodMemory:
    """Of one pod. `not_before_s` and `pull_backoff_s` live in this process only."""

    state: PodState = PodState.ASSIGNED  # How far it ever came: only grows.
    # The newest container that is known to have been made: 0, 1, 2 …, so it counts restarts, too.
    # -1: none yet.
    attempt: int = -1
    is_ended: bool = False  # The end of `attempt` has been counted: never twice.
    backoff_s: float = 0.0  # The last wait before a restart.
    ending: Ending | None = None  # Of the newest container that ended.
    reason: str = ""  # Why it is not running now, one word.
    message: str = ""  # The true text.
    started_s: float = 0.0  # First container's start, Unix epoch.
    image: str = ""  # What to run, as the engine resolved it.
    image_digest: str = ""
    not_before_s: float = 0.0  # No container is made, no image pulled earlier; monotonic.
    pull_backoff_s: float = 0.0

    def to_document(self) -> dict[str, Any]:
        """For the journal."""
        document = asdict(self)
        del document["not_before_s"], document["pull_backoff_s"]
        document["state"] = int(self.state)
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> PodMemory:
        """Raises TypeError, ValueError or KeyError on anything but what `to_document` made."""
        fields = dict(document)
        fields["state"] = PodState(fields["state"])
        if fields.get("ending") is not None:
            fields["ending"] = Ending(**fields["ending"])
        return cls(**fields)
