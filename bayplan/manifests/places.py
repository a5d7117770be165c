"""Where in a file each value of a document stands.

Lines and columns count from 1, columns in characters, as editors show them. A field's place
is its key's, because that is what people look for; an item's is its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from bayplan.resources.problems import Loc

Position = tuple[int, int]


@dataclass(slots=True)
class Place:
    """A value: where it begins, and the places of what it holds."""

    at: Position
    key_at: Position | None = None  # Of the key that leads to it, if it is a mapping's value.
    fields: dict[str, Place] | None = None  # Of a mapping.
    items: list[Place] | None = None  # Of a list.

    def find(self, loc: Loc) -> Position:
        """The place of `loc`, or of the nearest part around it that is there (a field may be missing)."""
        place = self
        position = self.at
        for step in loc:
            inner = place._step(step)
            if inner is None:
                break
            place, position = inner, inner.key_at or inner.at
        return position

    def inside(self, loc: Loc) -> Place:
        """The value at `loc`, which must be there."""
        place = self
        for step in loc:
            inner = place._step(step)
            assert inner is not None, f"no {step!r}"
            place = inner
        return place

    def _step(self, step: str | int) -> Place | None:
        if isinstance(step, str):
            return None if self.fields is None else self.fields.get(step)
        return self.items[step] if self.items is not None and 0 <= step < len(self.items) else None
