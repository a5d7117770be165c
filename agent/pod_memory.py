"""What the agent remembers of a pod between two looks at the engine.

Docker is the truth for what runs; this is the rest: how far each of its containers ever came, which
restart it is at, and how it ended last. What the pod is follows from them. Frozen; next_step.py makes
the next one from the last; the journal keeps it across restarts of the agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from agent.probes.judgement import Health
from agent.runtime.port import SANDBOX
from bayplan.model.states import PodState

COMPLETED = "Completed"
ERROR = "Error"
OOM_KILLED = "OOMKilled"
START_ERROR = "StartError"
GONE = "ContainerGone"
UNHEALTHY = "Unhealthy"  # We stopped it: a probe or its postStart hook failed, or its network went away.
REFUSED = "Refused"  # It can never run here.


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
        if self.reason == UNHEALTHY:
            return self.message if self.code in _STOPPED else f"{self.message} (then {what})"
        if self.reason == OOM_KILLED:
            what += " (out of memory)"
        elif self.code > 128 and self.code - 128 in _SIGNALS:
            what += f" ({_SIGNALS[self.code - 128]})"
        return f"{what}: {words}" if words else what


_SIGNALS = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 6: "SIGABRT", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
_STOPPED = (0, 128 + 9, 128 + 15)  # What ends a container that is stopped; any other code is worth a word.


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerMemory:
    """Of one container of a pod, over all its attempts. `not_before_s` and `pull_backoff_s` live in this process only."""

    state: PodState = PodState.ASSIGNED  # How far it ever came: only grows.
    # The newest that is known to have been made: 0, 1, 2 …, so it counts restarts, too.
    # -1: none yet.
    attempt: int = -1
    is_ended: bool = False  # The end of `attempt` has been counted: never twice.
    backoff_s: float = 0.0  # The last wait before a restart.
    ending: Ending | None = None  # Of the newest container that ended.
    reason: str = ""  # Why it is not running now, one word.
    message: str = ""  # The true text.
    started_s: float = 0.0  # The first attempt's start, Unix epoch.
    health: Health | None = None  # Of the newest, if it has run.
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
    def from_document(cls, document: Mapping[str, Any]) -> ContainerMemory:
        """Raises TypeError, ValueError or KeyError on anything but what `to_document` made."""
        fields = dict(document)
        fields["state"] = PodState(fields["state"])
        if fields.get("ending") is not None:
            fields["ending"] = Ending(**fields["ending"])
        if fields.get("health") is not None:
            fields["health"] = Health(**fields["health"])
        return cls(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodMemory:
    """Of one pod: of each of its containers by name, the sandbox's too."""

    containers: Mapping[str, ContainerMemory] = field(default_factory=dict)  # Replaced, never changed.

    def of(self, name: str) -> ContainerMemory:
        return self.containers.get(name, ContainerMemory())

    def but(self, name: str, memory: ContainerMemory) -> PodMemory:
        """With this one changed."""
        return PodMemory(containers={**self.containers, name: memory})

    def resumed(self, *, now_s: float) -> PodMemory:
        """In a new process: how much of each back-off had passed is not known, so all of it is waited for."""
        return PodMemory(
            containers={
                name: replace(each, not_before_s=now_s + each.backoff_s) if each.is_ended else each
                for name, each in self.containers.items()
            }
        )

    @property
    def own(self) -> list[ContainerMemory]:
        """Of those that its template names."""
        return [each for name, each in self.containers.items() if name != SANDBOX]

    @property
    def state(self) -> PodState:
        """How far the pod has come: as far as the container that is furthest behind."""
        states = [each.state for each in self.own]
        if states and all(each.state.is_terminal for each in self.containers.values()):
            # One that failed makes it a failure; one that was told to stop has not come to its own end.
            return next(
                (one for one in (PodState.FAILED, PodState.STOPPED) if one in states), PodState.SUCCEEDED
            )
        # One that has ended for good ran once; the pod goes on with the others.
        return min((min(state, PodState.RUNNING) for state in states), default=PodState.ASSIGNED)

    def to_document(self) -> dict[str, Any]:
        """For the journal."""
        return {"containers": {name: each.to_document() for name, each in self.containers.items()}}

    @classmethod
    def from_document(cls, document: Mapping[str, Any], *, only_container: str) -> PodMemory:
        """Raises TypeError, ValueError, AttributeError or KeyError on anything but what `to_document` made.

        Agents that only knew pods of one container wrote its memory without its name: `only_container`.
        """
        if "containers" not in document:
            return cls(containers={only_container: ContainerMemory.from_document(document)})
        return cls(
            containers={
                name: ContainerMemory.from_document(each) for name, each in document["containers"].items()
            }
        )
