"""What has changed in the leader's memory since somebody looked, for what is derived from it bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bayplan.model.names import PodId

Place = tuple[str, str, str]  # Kind, namespace and name.


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Each once, however often it changed."""

    documents: frozenset[Place] = frozenset()
    pods: frozenset[PodId] = frozenset()


@dataclass(slots=True)
class Touched:
    """Gathers until it is taken. Calls `on_first` when there is something after there was nothing."""

    on_first: Callable[[], None] = lambda: None
    _documents: set[Place] = field(default_factory=set)
    _pods: set[PodId] = field(default_factory=set)

    def document(self, place: Place) -> None:
        """A document, or what the leader keeps beside it, is new, changed or gone."""
        is_first = not self
        self._documents.add(place)
        if is_first:
            self.on_first()

    def pod(self, pod: PodId) -> None:
        """A pod is placed, wanted otherwise, reported, or gone."""
        is_first = not self
        self._pods.add(pod)
        if is_first:
            self.on_first()

    def take(self) -> Changes:
        """All of it; from here on anew."""
        changes = Changes(documents=frozenset(self._documents), pods=frozenset(self._pods))
        self._documents.clear()
        self._pods.clear()
        return changes

    def __len__(self) -> int:
        """How many documents and pods there are to look at."""
        return len(self._documents) + len(self._pods)

    def __bool__(self) -> bool:
        return bool(self._documents or self._pods)
