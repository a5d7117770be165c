"""What cannot be worked out for one object harms that object alone, and is told once while it lasts."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from manager.events import EventLog

log = structlog.get_logger(__name__)


class Quarantine:
    """By object ("Service/web") and namespace. Lives for one term."""

    def __init__(self, events: EventLog, *, what: str) -> None:
        self._events = events
        self._what = what  # How what fails begins, e.g. "deriving its traffic failed: ".
        self._told: dict[tuple[str, str], str] = {}

    def attempt(self, act: Callable[[], None], obj: str, namespace: str = "") -> bool:
        """Do it; returns whether it was done. What it raises goes no further than here."""
        try:
            act()
        except Exception as error:
            reason = f"{self._what}{type(error).__name__}: {error}"
            if self.tell(reason, obj, namespace):
                log.exception("traffic.quarantined", object=obj, namespace=namespace)
            return False
        self._told.pop((obj, namespace), None)
        return True

    def tell(self, reason: str, obj: str, namespace: str = "") -> bool:
        """Tell people why it is left as it is, if that is news; returns whether it was."""
        if self._told.get((obj, namespace)) == reason:
            return False
        self._told[obj, namespace] = reason
        self._events.add("Quarantined", reason, obj=obj, namespace=namespace)
        return True
